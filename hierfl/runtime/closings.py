"""What is said of a hub's round as it closes: who is in it, who is late, who is missing and why, seconds and bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from hierfl.monitor.records import RoundClosed
from hierfl.monitor.words import few
from hierfl.runtime.scribe import Scribe
from tiers.messages import Close
from tiers.standing import Standing

__all__ = ["NAMED", "Closings", "shortened"]

NAMED = 20
"""Members that are missing for one reason are named up to so many, and counted beyond."""


class Closings:
    """Keeps, for each hub, when its round was opened, what has come up since, and who was asked and not heard of."""

    def __init__(self, scribe: Scribe) -> None:
        self._scribe = scribe
        self._opened_s: dict[str, float] = {}
        self._bytes_up: dict[str, int] = {}
        self._spared: dict[str, int] = {}
        self._asked: dict[str, dict[str, int]] = {}

    def opened(self, hub: str) -> None:
        """A hub's rounds begin."""
        self._opened_s[hub] = self._scribe.now()

    def asked(self, hub: str, round_number: int, members: Iterable[str]) -> None:
        """Members were asked for their updates of a round."""
        self._asked.setdefault(hub, {}).update(dict.fromkeys(members, round_number))

    def lost(self, hub: str, round_number: int, members: Iterable[str]) -> None:
        """Members will send nothing for the round in which they were asked."""
        asked = self._asked.get(hub, {})
        for name in members:
            if asked.get(name) == round_number:
                del asked[name]

    def stopped(self, hub: str) -> None:
        """Nothing that was asked for is waited for any more."""
        self._asked.pop(hub, None)

    def count_bytes(self, hub: str, num_bytes: int, spared: int = 0) -> None:
        """Count what has come up to a hub, and what compression spared, for the round that it closes next."""
        self._bytes_up[hub] = self._bytes_up.get(hub, 0) + num_bytes
        self._spared[hub] = self._spared.get(hub, 0) + spared

    def ended(self, hub: str, standing: Standing, why: str) -> None:
        """Rounds are over, for a reason: say whose work is dropped, and whose update will not count."""
        late = [f"{name} (since round {errand.round_number + 1})" for name, errand in standing.errands.items()]
        if late:
            self._scribe.notice("info", hub, f"{why} while these are still at work: {few(late)}")
        held = [update.shares[0].member for update in standing.held]
        if held and why == "the run ends":
            said = "came too late for the last round; a resumed run would count them"
            self._scribe.notice("info", hub, f"updates of {few(held)} {said}")

    def closed(self, hub: str, closed: Close) -> None:
        """Say how a round closed; the next one opens."""
        asked = self._asked.setdefault(hub, {})
        self.lost(hub, closed.round_number, closed.members)
        for name in closed.carried:
            if asked.get(name, closed.round_number) < closed.round_number:
                del asked[name]
        late = {name: asked[name] + 1 for name in closed.missing if name in asked}
        said = {name: f"late: at work since round {since}" for name, since in late.items()}
        missing, others = shortened({**closed.missing, **said})
        now, number = self._scribe.now(), closed.round_number + 1
        self._scribe.emit(
            RoundClosed(
                *(now, hub, number, closed.reason, closed.members, missing, now - self._opened_s[hub]),
                *(self._bytes_up.pop(hub, 0), closed.carried, tuple(late), others, self._spared.pop(hub, 0)),
            )
        )
        self._scribe.changed((f"{hub}/{name}" for name, since in late.items() if since == number), "late", number)
        self._opened_s[hub] = now


def shortened(missing: Mapping[str, str]) -> tuple[dict[str, str], dict[str, int]]:
    """Part the missing members in those to name, each with its reason, and reasons that more than `NAMED` share."""
    numbers = Counter(missing.values())
    named = {name: reason for name, reason in missing.items() if numbers[reason] <= NAMED}
    return named, {reason: number for reason, number in numbers.items() if number > NAMED}
