"""A deadline with a quorum: a round closes without its stragglers (Bonawitz et al. 2019, "Towards Federated Learning at
Scale", section 2.2: a round ends at its time-out if enough have reported), and what comes late is not thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from scheduler.participation import Admission, Candidates, Choice, Ending, Limits, RoundView, needed, reported_so_far
from scheduler.participations._after import After
from scheduler.participations._fields import above, at_least, fraction, one_of
from scheduler.participations._lateness import DISCOUNTS, admit_within, never

__all__ = ["Deadline"]


@dataclass(frozen=True, slots=True)
class Deadline:
    """Close when all have reported, or from the deadline on as soon as both quorums hold."""

    may_close_early: ClassVar[bool] = True
    rolling: ClassVar[bool] = False

    after_s: float | None = None
    """The deadline, in seconds after the round's opening; null: see `after`."""
    after: After = field(default_factory=After)
    """Where there is no `after_s`: this times the 90th percentile of the members' predicted durations. There is no
    deadline in rounds before anything can be predicted."""
    quorum: float = 0.8
    """Fraction of the hub's members that must be in the sum to close while others are at work that would count."""
    weight: float = 0.8
    """Fraction of the hub's weight that must be in the sum to close while others are at work that would count."""
    late: str = "carry"
    """carry: a late update counts in the round in which it comes; refuse: it does not count."""
    staleness: int = 2
    """How many rounds late an update may be to be carried."""
    discount: str = "sqrt"
    """What a carried update counts, s rounds late: sqrt: 1 / sqrt(1 + s) of its weight; linear: 1 / (1 + s); none."""
    give_up_s: float | None = None
    """When to give the round up if the quorums still do not hold, in seconds after its opening; null: never."""
    probe_after: int | None = 3
    """Losses in a row after which a member is asked only every second, fourth, eighth round; null: in every round."""

    def __post_init__(self) -> None:
        above("after_s", self.after_s, 0.0)
        fraction("quorum", self.quorum)
        fraction("weight", self.weight)
        one_of("late", self.late, ("carry", "refuse"))
        at_least("staleness", self.staleness, 1)
        one_of("discount", self.discount, DISCOUNTS)
        above("give_up_s", self.give_up_s, self.after_s or 0.0)
        at_least("probe_after", self.probe_after, 1)

    def choose(self, candidates: Candidates) -> Choice:
        """Ask everybody."""
        return Choice(tuple(candidates.free))

    def limits(self, forecast_s: Sequence[float]) -> Limits:
        """Fix the deadline; giving up comes no earlier."""
        close_s = self.after.seconds(forecast_s) if self.after_s is None else self.after_s
        if self.give_up_s is None:
            return Limits(close_s)
        if math.isinf(close_s):
            return Limits(self.give_up_s, self.give_up_s)
        return Limits(close_s, max(close_s, self.give_up_s))

    def decide(self, view: RoundView) -> Ending | None:
        """Close with everybody, or with enough after the deadline.

        While somebody can still come, too few are never enough.
        """
        members, weight = needed(self.quorum, view.num_members), needed(self.weight, view.total_weight)
        enough = view.num_in >= members and view.weight_in >= weight
        if not view.num_waiting and (enough or not view.num_late):
            return Ending(reported_so_far(view))
        if view.elapsed_s < (view.limits.close_s if enough else view.limits.give_up_s):
            return None
        share = 100 * view.weight_in / max(1, view.total_weight)
        said = f"{view.num_in} of {view.num_members} members and {share:.0f}% of the weight are in"
        if enough:
            return Ending(f"{said} at the deadline of {view.limits.close_s:g} s")
        why = f"{members} and {100 * self.weight:.0f}% are needed"
        return Ending(f"{said} after {view.elapsed_s:g} s, {why}", gives_up=True)

    def admit(self, weight: int, staleness: int) -> Admission:
        """Carry what is late within the bound, or nothing."""
        return (
            admit_within(weight, staleness, self.staleness, self.discount) if self.late == "carry" else never(staleness)
        )
