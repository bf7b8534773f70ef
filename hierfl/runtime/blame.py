"""Whose fault a death is: a worker that dies again and again, a site under which workers die, training that is lost."""

from __future__ import annotations

from collections.abc import Iterable

from hierfl.errors import RuntimeUnavailable
from scheduler import JobKey

__all__ = ["MAX_ATTEMPTS", "Blame"]

MAX_ATTEMPTS = 3
"""How often a site's work is begun before its worker's death is held against it."""

MAX_RESTARTS = 5
"""How often one worker is replaced without having done anything in between, and how often a site's finished training
may be lost with a worker that had not handed it up."""


class Blame:
    """Counts, per open group of work, what went wrong under whom."""

    def __init__(self) -> None:
        self._attempts: dict[JobKey, int] = {}
        self._final: dict[JobKey, str] = {}
        self._wasted: dict[JobKey, int] = {}
        self._restarts: dict[str, int] = {}
        self._unbuilt = 0

    def answered(self, worker: str) -> None:
        """A worker did something: what it died of before was not its own fault."""
        self._restarts.pop(worker, None)

    def died(self, worker: str, reason: str) -> None:
        """A worker has died. Errors: RuntimeUnavailable if it has done nothing since it last did, too often."""
        self._restarts[worker] = self._restarts.get(worker, 0) + 1
        if self._restarts[worker] > MAX_RESTARTS:
            raise RuntimeUnavailable(f"{worker} died {MAX_RESTARTS + 1} times in a row: {reason}")

    def built(self) -> None:
        """The model could be built: what workers died of before was not that."""
        self._unbuilt = 0

    def died_building(self, worker: str, reason: str) -> None:
        """A worker has died while it built the model. Errors: RuntimeUnavailable if one after the other does.

        Those that come after it say that they are up before they are asked to build: that is no sign of life here.
        """
        self._unbuilt += 1
        if self._unbuilt > MAX_RESTARTS:
            raise RuntimeUnavailable(
                f"workers died {self._unbuilt} times in a row while they built the model, {worker} last: {reason}"
            )

    def wasted(self, worker: str, trained: Iterable[JobKey], reason: str) -> None:
        """Training was lost with a worker. Errors: RuntimeUnavailable if it is lost again and again."""
        for key in trained:
            self._wasted[key] = self._wasted.get(key, 0) + 1
            if self._wasted[key] > MAX_RESTARTS:
                raise RuntimeUnavailable(
                    f"{worker} died with the training of {key[1]}, lost so {self._wasted[key]} times: {reason}"
                )

    def failed(self, key: JobKey) -> int:
        """An attempt at a site's work has failed, and may be the site's fault; return how many have."""
        self._attempts[key] = self._attempts.get(key, 0) + 1
        return self._attempts[key]

    def condemn(self, key: JobKey, reason: str) -> None:
        """A site's work is at fault for certain."""
        self._attempts[key] = MAX_ATTEMPTS
        self._final[key] = reason

    def suspects(self, key: JobKey) -> bool:
        """Say whether an attempt at this work has failed before: it should share a call with no other."""
        return key in self._attempts

    def in_group(self, group: str) -> bool:
        """Say whether any attempt at a group's work has failed."""
        return any(name == group for name, _ in self._attempts)

    def verdict(self, key: JobKey, reason: str) -> str | None:
        """Say why a site's work is given up; None if it may be tried once more."""
        if self._attempts.get(key, 0) < MAX_ATTEMPTS:
            return None
        return self._final.get(key) or f"its worker died {MAX_ATTEMPTS} times while it trained: {reason}"

    def forget(self, group: str) -> None:
        """A group's work is all accounted for."""
        self._attempts = {key: count for key, count in self._attempts.items() if key[0] != group}
        self._final = {key: reason for key, reason in self._final.items() if key[0] != group}
        self._wasted = {key: count for key, count in self._wasted.items() if key[0] != group}
