"""One open round of a hub: whom it waits for, who is in its sum, and the figures that policies see."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from scheduler.participation import Limits, RoundView
from tiers.messages import Close, Share

__all__ = ["Collecting", "overclaims"]


class Collecting:
    """The book of one round; every entry costs the same however many members there are.

    `hub`: its name; `cohort`: the members that quorums count, with their weights; `lost`: those of them that could not
    be asked and are not at work either; `late`: members at work for an earlier round whose updates would count in this
    one. `stages`: those of the plan that have not begun.
    """

    def __init__(
        self,
        hub: str,
        number: int,
        cohort: Mapping[str, int],
        *,
        lost: Iterable[str],
        late: Iterable[str],
        skipped: Mapping[str, str],
    ) -> None:
        self.hub = hub
        self.number = number
        self.cohort = cohort
        self.lost = {name for name in lost if name in cohort}
        self.late = set(late)
        self.missing = dict(skipped)
        self.stages: deque[tuple[str, ...]] = deque()
        self.waiting: dict[str, int] = {}
        self.reported: dict[str, int] = {}
        self.carried: dict[str, tuple[int, str]] = {}
        self.left: dict[str, str] = {}
        self.elapsed_s = 0.0
        self.limits = Limits()
        self.weight = 0
        self.num_in = 0
        self._cohort_weight = sum(cohort.values())
        self._weight_in = 0

    @property
    def num_alive(self) -> int:
        """Count the members of the cohort that are in, or may still come."""
        return len(self.cohort) - len(self.lost)

    @property
    def over(self) -> bool:
        """Whether nobody can come any more who would count."""
        return not self.waiting and not self.late

    @property
    def upcoming(self) -> tuple[str, ...]:
        """List the members of the stages that have not begun, in order."""
        return tuple(name for stage in self.stages for name in stage)

    def plan(self, members: Mapping[str, int]) -> None:
        """Wait for these members' updates of this round."""
        self.waiting.update(members)
        for name in members:
            self.missing.pop(name, None)

    def unplan(self, members: Iterable[str]) -> None:
        """Do not ask these members after all."""
        for name in members:
            del self.waiting[name]
            if name not in self.carried:
                self.missing[name] = "not asked: late updates were enough to close the round"

    def report(self, share: Share) -> None:
        """Enter a member's update of this round."""
        del self.waiting[share.member]
        self.reported[share.member] = share.weight
        self.weight += share.weight
        earlier = self.carried.get(share.member)
        self.num_in += earlier is None
        self._weight_in += share.weight - (earlier[0] if earlier else 0)

    def carry(self, member: str, weight: int, reason: str) -> None:
        """Enter a member's update of an earlier round, with what it counts; one of this round may only follow."""
        assert member not in self.carried and member not in self.reported
        self.missing.pop(member, None)
        self.carried[member] = (weight, reason)
        self.weight += weight
        self.num_in += 1
        self._weight_in += weight

    def lose(self, member: str, reason: str) -> None:
        """Strike a member off; it is missing unless an update of an earlier round is in the sum."""
        self.waiting.pop(member, None)
        self.late.discard(member)
        if member not in self.carried:
            self.missing[member] = reason
            if member in self.cohort:
                self.lost.add(member)

    def leave(self, member: str, reason: str) -> None:
        """Strike a member off whose update had come: it does not exchange with the others."""
        weight = self.reported.pop(member)
        assert member not in self.carried
        self.left[member] = reason
        self.weight -= weight
        self.num_in -= 1
        self._weight_in -= weight
        self.lose(member, reason)

    def refuse(self, share: Share) -> str:
        """Say why one share may not count; empty if it may."""
        known = self.waiting.get(share.member)
        if known is None:
            return self._stranger(share.member)
        return "" if 0 < share.weight <= known else overclaims(share, known, "the round")

    def _stranger(self, name: str) -> str:
        """Say why a member is not waited for."""
        if name in self.reported:
            return f"{name} has already reported in round {self.number}"
        if name in self.missing:
            return f"{name} was given up in round {self.number}: {self.missing[name]}"
        if name in self.carried:
            return f"{name} was not asked in round {self.number}, which has an earlier update of it"
        if name in self.upcoming:
            return f"it is not yet {name}'s turn in round {self.number}"
        return f"{name} is not a member of {self.hub} in round {self.number}"

    def view(self) -> RoundView:
        """Give the figures."""
        return RoundView(
            num_members=len(self.cohort),
            total_weight=self._cohort_weight,
            num_waiting=len(self.waiting),
            num_late=len(self.late),
            num_lost=len(self.lost),
            num_in=self.num_in,
            weight_in=self._weight_in,
            num_updates=len(self.reported) + len(self.carried),
            elapsed_s=self.elapsed_s,
            limits=self.limits,
        )

    def closed(self, reason: str) -> Close:
        """Give the record of the round as it ends now."""
        for name in self.waiting:
            if name not in self.carried:
                self.missing[name] = "late: still at work when the round closed"
        carried = {name: why for name, (_, why) in self.carried.items()}
        return Close(self.number, tuple(self.reported), dict(self.missing), self.weight, reason, carried)


def overclaims(share: Share, known: int, opened: str) -> str:
    """Say that a share's weight is not what was opened with for its member."""
    return f"{share.member} claims weight {share.weight}; {opened} opened with {known} for it"
