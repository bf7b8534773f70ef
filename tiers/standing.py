"""What a hub remembers of its members from round to round: who is still at work, who keeps being lost, what is held.

A member has at most one errand at a time: it is asked again only when it has answered or is lost. That holds for hubs
and sites alike, and makes a late hub no special case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from scheduler.participation import Admission
from tiers.messages import Carry, Dismiss, Refuse, Update

__all__ = ["Attendance", "Errand", "Losses", "Standing"]

MAX_GAP = 8
"""Rounds at most from one probe of a dead member to the next."""


@dataclass(frozen=True, slots=True)
class Errand:
    """A member was asked in a round that closed without it; `dismissed`: its answer can no longer count."""

    round_number: int
    weight: int
    dismissed: bool = False


@dataclass(frozen=True, slots=True)
class Losses:
    """A member was lost in `count` rounds in a row, the last of them `round_number`."""

    count: int
    round_number: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a hub's machine remembers between two of its parent's rounds; with it a new one goes on like the old.

    `held`: late updates whose payloads the hub keeps for its next round.
    """

    round_number: int = -1
    errands: Mapping[str, Errand] = field(default_factory=dict)
    losses: Mapping[str, Losses] = field(default_factory=dict)
    held: tuple[Update, ...] = ()

    @property
    def awaits(self) -> bool:
        """Whether updates of earlier rounds may still come, or are held."""
        return bool(self.errands or self.held)


class Attendance:
    """The same while the machine runs."""

    def __init__(self, standing: Standing) -> None:
        self.errands = dict(standing.errands)
        self.losses = dict(standing.losses)
        self.held = list(standing.held)

    def standing(self, round_number: int) -> Standing:
        """Give what there is to remember after a round."""
        return Standing(round_number, dict(self.errands), dict(self.losses), tuple(self.held))

    def answered(self, member: str) -> None:
        """A member has been heard of: it is free, and alive."""
        self.errands.pop(member, None)
        self.losses.pop(member, None)

    def lose(self, member: str, round_number: int) -> bool:
        """A member is free, without an answer; say whether that is a loss, and not the end of what was dismissed."""
        errand = self.errands.pop(member, None)
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
                self.errands[member] = Errand(round_number, errand.weight, dismissed=True)

    def take_held(self, admit: Callable[[int, int], Admission]) -> tuple[list[Carry], list[Refuse]]:
        """Let go of the held updates, weighed for the round that opens: `admit` is told their weights and rounds."""
        carried: list[Carry] = []
        refused: list[Refuse] = []
        for update in self.held:
            admission = admit(update.shares[0].weight, update.round_number)
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
                    self.errands[member] = Errand(errand.round_number, errand.weight, dismissed=True)
        return [Dismiss(number, members) for number, members in late.items()]
