"""What a hub remembers of its members from round to round: who is still at work, who keeps being lost, what is held.

A member has at most one errand at a time: it is asked again only when it has answered or is lost. That holds for hubs
and sites alike, and makes a late hub no special case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from scheduler.participation import Admission
from tiers.messages import Carry, Dismiss, Refuse, Shortfall, Update

__all__ = ["Attendance", "Errand", "Losses", "Standing"]

MAX_GAP = 8
"""Rounds at most from one probe of a dead member to the next."""


@dataclass(frozen=True, slots=True)
class Errand:
    """A member was asked in a round that closed without it; `dismissed`: its answer can no longer count. `shortfalls`:
    what it was told of its earlier updates.
    """

    round_number: int
    weight: int
    dismissed: bool = False
    shortfalls: tuple[Shortfall, ...] = ()


@dataclass(frozen=True, slots=True)
class Losses:
    """A member was lost in `count` rounds in a row, the last of them `round_number`."""

    count: int
    round_number: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a hub's machine remembers between two of its parent's rounds; with it a new one goes on like the old.

    `held`: late updates whose payloads the hub keeps for its next round. `shortfalls`: by member, of updates that did
    not count whole.
    """

    round_number: int = -1
    errands: Mapping[str, Errand] = field(default_factory=dict)
    losses: Mapping[str, Losses] = field(default_factory=dict)
    held: tuple[Update, ...] = ()
    shortfalls: Mapping[str, tuple[Shortfall, ...]] = field(default_factory=dict)

    @property
    def awaits(self) -> bool:
        """Whether updates of earlier rounds may still come, or are held."""
        return bool(self.errands or self.held)

    def without_errands(self) -> Standing:
        """Give what is left where nobody goes on with what was asked: nothing of it counts."""
        short = dict(self.shortfalls)
        for member, errand in self.errands.items():
            short[member] = _voided(short.get(member, ()), errand.round_number)
        return replace(self, errands={}, shortfalls=short)

    def given_up(self) -> Standing:
        """Give what is left where the rounds that followed are given up: of what was held or asked nothing counts."""
        short = dict(self.without_errands().shortfalls)
        for update in self.held:
            for share in update.shares:
                short[share.member] = _voided((), update.round_number)
        return Standing(self.round_number, shortfalls=short)

    @property
    def matters(self) -> bool:
        """Whether a machine that knows nothing of it would go on otherwise."""
        return bool(self.awaits or self.losses or self.shortfalls)


class Attendance:
    """The same while the machine runs."""

    def __init__(self, standing: Standing) -> None:
        self.errands = dict(standing.errands)
        self.losses = dict(standing.losses)
        self.held = list(standing.held)
        self.shortfalls = dict(standing.shortfalls)

    def standing(self, round_number: int) -> Standing:
        """Give what there is to remember after a round."""
        kept = dict(self.errands), dict(self.losses), tuple(self.held), dict(self.shortfalls)
        return Standing(round_number, *kept)

    def answered(self, member: str, short: Shortfall | None = None) -> None:
        """A member has been heard of: it is free, and alive; what it sent counts whole, or falls short."""
        self.errands.pop(member, None)
        self.losses.pop(member, None)
        self.shortfalls.pop(member, None)
        if short is not None:
            self.shortfalls[member] = (short,)

    def told(self, found: Iterable[Shortfall], members: Iterable[str]) -> None:
        """The hub's own updates did not count whole: no more did what members had sent for the same rounds.

        A member that has not answered since it was told of one has no part in later ones.
        """
        for one in found:
            for member in members:
                own = self.shortfalls.get(member, ())
                if not one.counted:
                    self.shortfalls[member] = _voided(own, one.round_number)
                elif not own:
                    self.shortfalls[member] = (one,)

    def at_work(self, round_number: int, waiting: Mapping[str, int]) -> None:
        """A round closes without these members, by their weights."""
        for member, weight in waiting.items():
            self.errands[member] = Errand(round_number, weight, shortfalls=self.shortfalls.get(member, ()))

    def lose(self, member: str, round_number: int) -> bool:
        """A member is free, without an answer; say whether that is a loss, and not the end of what was dismissed."""
        errand = self.errands.pop(member, None)
        asked_in = round_number if errand is None else errand.round_number
        self.shortfalls[member] = _voided(self.shortfalls.get(member, ()), asked_in)
        if errand is not None and errand.dismissed:
            return False
        before = self.losses.get(member)
        self.losses[member] = Losses(before.count + 1 if before else 1, round_number)
        return True

    def excuse(self, round_number: int, members: Iterable[str]) -> None:
        """Let the end of these members' errands of a round be no loss."""
        for member in members:
            errand = self.errands.get(member)
            if errand is not None and errand.round_number == round_number:
                self.errands[member] = replace(errand, dismissed=True)

    def take_held(self, admit: Callable[[int, int], Admission]) -> tuple[list[Carry], list[Refuse]]:
        """Let go of the held updates, weighed for the round that opens: `admit` is told their weights and rounds."""
        carried: list[Carry] = []
        refused: list[Refuse] = []
        for update in self.held:
            [share], number = update.shares, update.round_number
            admission = admit(share.weight, number)
            self.answered(share.member, Shortfall(number, admission.weight, share.weight))
            if admission.weight:
                carried.append(Carry(update, admission.weight, admission.reason))
            else:
                refused.append(Refuse(update, admission.reason))
        self.held = []
        return carried, refused

    def resting(self, round_number: int, probe_after: int | None) -> dict[str, str]:
        """List the members on the probe list that are not due in a round, each with the reason.

        After `probe_after` losses in a row a member is asked in the second round from there, then in the fourth, then
        in every eighth.
        """
        if probe_after is None:
            return {}
        found = {}
        for member, lost in self.losses.items():
            if lost.count >= probe_after:
                gap = min(MAX_GAP, 2 ** (lost.count - probe_after + 1))
                left = lost.round_number + gap - round_number
                if left > 0:
                    times = f"{lost.count} times in a row" if lost.count > 1 else "once"
                    found[member] = f"lost {times}; asked again in {left} round{'s' * (left > 1)}"
        return found

    def dismiss(self, next_round: int, admit: Callable[[int, int], Admission]) -> list[Dismiss]:
        """Dismiss members that can no longer report in time to count."""
        late: dict[int, dict[str, str]] = {}
        for member, errand in self.errands.items():
            if not errand.dismissed:
                admission = admit(errand.weight, next_round - errand.round_number)
                if not admission.weight:
                    late.setdefault(errand.round_number, {})[member] = admission.reason
                    self.errands[member] = replace(errand, dismissed=True)
        return [Dismiss(number, members) for number, members in late.items()]


def _voided(found: tuple[Shortfall, ...], round_number: int) -> tuple[Shortfall, ...]:
    """Add that nothing counts of what a member sends from a round on, unless that is known."""
    return (*found, Shortfall(round_number, 0, 1)) if not found or found[-1].counted else found
