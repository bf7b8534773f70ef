"""What a participation policy is: whom a hub asks, when its round closes, and what a late update is worth.

A policy sees names, integer weights and seconds, never updates. The hub's machine (`tiers.round`) asks it, and does
what every policy has in common: a member is asked again only when it has answered or is lost, a lost one leaves the
wait set at once, and one that was lost `probe_after` times in a row is asked only now and then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

__all__ = [
    "Admission",
    "Candidates",
    "Choice",
    "Ending",
    "Limits",
    "Participation",
    "RoundView",
    "needed",
    "reported_so_far",
]


@dataclass(frozen=True, slots=True)
class Candidates:
    """A hub's members before a round opens, by name with their integer weights.

    `free` may be asked; `unable` should take part and cannot: not loaded (weight 0), still at work for an earlier
    round, or lost too often. `hub` is its path and `seed` the run's: a draw follows from (seed, hub, round).
    """

    hub: str
    round_number: int
    seed: int
    free: Mapping[str, int]
    unable: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """Whom to ask, at least one, out of `free`; whom the policy leaves out and why: quorums do not count those."""

    asked: tuple[str, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds after the opening at which the policy wants to be asked again; infinity where it does not.

    From `close_s` on the round may close early, at `give_up_s` it may end without a result.
    """

    close_s: float = math.inf
    give_up_s: float = math.inf


@dataclass(frozen=True, slots=True)
class RoundView:
    """An open round in figures.

    `num_members` and `total_weight`: those that quorums count; `num_waiting`: asked in this round and not heard of yet;
    `num_late`: still at work for an earlier round, and may count in this one; `num_lost`: lost, of `num_members`;
    `num_in` and `weight_in`: members in the sum and their weight, each member once, late ones with the weight that they
    have now; `num_updates`: updates in the sum; `elapsed_s`: the last of the `limits` that has passed.
    """

    num_members: int
    total_weight: int
    num_waiting: int
    num_late: int
    num_lost: int
    num_in: int
    weight_in: int
    num_updates: int
    elapsed_s: float = 0.0
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Ending:
    """Decision: the round closes now, or gives up, for a reason."""

    reason: str
    gives_up: bool = False


@dataclass(frozen=True, slots=True)
class Admission:
    """Decision: the weight with which a late update counts, 0 if it is refused, and the reason."""

    weight: int
    reason: str


@runtime_checkable
class Participation(Protocol):
    """One kind is one file in `scheduler/participations/`: a frozen dataclass whose fields are the YAML's keys.

    `may_close_early`: rounds may close while members are at work, so that late updates come; `rolling`: a member that
    comes late is asked again within the open round.
    """

    may_close_early: ClassVar[bool]
    rolling: ClassVar[bool]

    @property
    def probe_after(self) -> int | None:
        """Losses in a row after which a member is asked only now and then; None: it is asked in every round."""

    def choose(self, candidates: Candidates) -> Choice:
        """Choose whom to ask. Pure: the same seed, hub, round and members give the same choice."""

    def limits(self, forecast_s: Sequence[float]) -> Limits:
        """Say when time matters in a round, from its members' predicted durations in seconds where there are any."""

    def decide(self, view: RoundView) -> Ending | None:
        """Say whether the round ends now; None while it is worth waiting.

        Asked after every event; while members are waited for, only if rounds may close early or a limit has passed.
        """

    def admit(self, weight: int, staleness: int) -> Admission:
        """Weigh an update that comes `staleness` rounds late, at least 1; never more than its full `weight`."""


def needed(share: float, number: int) -> int:
    """Count how many of `number` are at least a `share` of them, a fraction of 1; never none."""
    return max(1, math.ceil(share * number * (1.0 - 1e-12)))


def reported_so_far(view: RoundView) -> str:
    """Say who is in, where nobody is waited for."""
    if view.num_in >= view.num_members:
        return "all reported"
    busy = view.num_members - view.num_in - view.num_lost
    rest = f"{view.num_lost} lost, {busy} still at an earlier round" if busy > 0 else "the rest lost"
    return f"{view.num_in} of {view.num_members} reported, {rest}"
