"""Sums that workers hold: whose training is in which, and which are to be handed up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from scheduler import JobKey

__all__ = ["Holdings"]

Holding = tuple[str, str]
"""(worker, group): where a sum lies, and for what."""


class Holdings:
    """Sites by sum, from when they are sent to the worker until their update is handed up, and the sums to ask for."""

    def __init__(self) -> None:
        self._held: dict[Holding, list[str]] = {}
        self._due: set[Holding] = set()

    @property
    def due(self) -> list[Holding]:
        """List the sums that are to be asked for once no site of their group waits."""
        return list(self._due)

    def send(self, worker: str, group: str, sites: Iterable[str]) -> None:
        """Sites have been sent to a worker."""
        self._held.setdefault((worker, group), []).extend(sites)

    def mark(self, worker: str, group: str) -> None:
        """A worker's sum is to be asked for later."""
        self._due.add((worker, group))

    def ask(self, worker: str, group: str) -> None:
        """A worker is asked for its sum now."""
        self._due.discard((worker, group))

    def drop(self, worker: str, group: str, sites: Collection[str]) -> None:
        """These sites are in a worker's sum no more: handed up, or failed."""
        key = (worker, group)
        if key in self._held:
            self._held[key] = [site for site in self._held[key] if site not in sites]

    def groups_at(self, worker: str) -> list[str]:
        """List the groups of which a worker has been sent sites."""
        return [group for name, group in self._held if name == worker]

    def holds(self, worker: str, group: str) -> bool:
        """Say whether a worker's sum has, or will have, anything of a group."""
        return bool(self._held.get((worker, group)))

    def workers_of(self, group: str) -> list[str]:
        """List the workers that have been sent sites of a group."""
        return [worker for worker, name in self._held if name == group]

    def lose(self, worker: str) -> set[JobKey]:
        """A worker is gone; return the work that it held."""
        lost = {(group, site) for (name, group), sites in self._held.items() if name == worker for site in sites}
        self._forget(lambda key: key[0] == worker)
        return lost

    def finish(self, group: str) -> None:
        """A group's work is all accounted for."""
        self._forget(lambda key: key[1] == group)

    def _forget(self, over: Callable[[Holding], bool]) -> None:
        self._held = {key: sites for key, sites in self._held.items() if not over(key)}
        self._due = {key for key in self._due if not over(key)}
