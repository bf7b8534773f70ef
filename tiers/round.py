"""The rounds of one hub as a machine: an event in, commands out, no clock and no I/O.

A round opens with its compute plan, collects each member's update once, closes for a stated reason, and the next one
opens until all that the parent asked for are done. The same machine serves every tier.

    IDLE --Begin--> COLLECTING --all reported or lost--> (Close) --more rounds--> COLLECTING
                                                                 `--none left----> IDLE (Finish)
    COLLECTING --a member lost and not keep_going, or below the quorum--> FAILED (GiveUp)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum

from tiers.federation import Hub
from tiers.messages import (
    Add,
    Arrived,
    Begin,
    Close,
    Command,
    Event,
    Finish,
    GiveUp,
    Lost,
    Open,
    Refuse,
    Share,
    TrainMember,
    Update,
)

__all__ = ["HubRounds", "Phase"]


class Phase(Enum):
    """Where a hub's machine stands."""

    IDLE = "idle"
    COLLECTING = "collecting"
    FAILED = "failed"


class HubRounds:
    """The state machine of one hub.

    `weights`: each member's public integer weight; a member of weight 0 has nothing to train on and is skipped by
    name. `absent`: members that could not even be loaded, each for a reason; the quorum counts them as lost. Members
    without a weight are an error (KeyError).
    """

    def __init__(self, hub: Hub, weights: Mapping[str, int], absent: Mapping[str, str] | None = None) -> None:
        self.hub = hub
        self.absent = dict(absent or {})
        self.weights = {member.name: weights[member.name] for member in hub.members}
        self.phase = Phase.IDLE
        self.round_number = -1
        self._last_round = -1
        self._waiting: dict[str, int] = {}
        self._reported: dict[str, int] = {}
        self._missing: dict[str, str] = {}

    def handle(self, event: Event) -> list[Command]:
        """Take an event; return what to do now, in order."""
        match event:
            case Begin():
                assert self.phase is not Phase.COLLECTING, f"{self.hub.name} begun while {self._story()}"
                self._last_round = event.round_number + event.rounds - 1
                return self._open(event.round_number)
            case Arrived():
                return self._arrived(event.update)
            case Lost():
                return self._lost(event)

    def _open(self, round_number: int) -> list[Command]:
        """Open a round: every member with a weight takes part, as the topology plans it."""
        self.round_number = round_number
        self.phase = Phase.COLLECTING
        skipped = {
            name: self.absent.get(name, "no training samples") for name, weight in self.weights.items() if weight == 0
        }
        members = [name for name in self.weights if name not in skipped]
        trained = self.hub.topology.plan(members, round_number).trained
        self._waiting = {name: self.weights[name] for name in trained}
        self._reported, self._missing = {}, dict(skipped)
        if not self._waiting:
            return self._give_up(f"no member of {self.hub.name} has training samples")
        if len(self._waiting) < self._needed():
            said = "; ".join(f"{name}: {reason}" for name, reason in self.absent.items())
            return self._give_up(f"below the quorum of {self._needed()} of {self._num_asked()} members: {said}")
        opened: list[Command] = [Open(round_number, sum(self._waiting.values()), skipped)]
        return opened + [TrainMember(round_number, name, weight) for name, weight in self._waiting.items()]

    def _arrived(self, update: Update) -> list[Command]:
        """Count an update once, if it is of this round and of members that are waited for."""
        refusal = self._refusal(update)
        if refusal:
            return [Refuse(update, refusal)]
        for share in update.shares:
            del self._waiting[share.member]
            self._reported[share.member] = share.weight
        return [Add(update), *self._close_if_done()]

    def _refusal(self, update: Update) -> str:
        """Say why an update may not count; empty if it may."""
        if self.phase is not Phase.COLLECTING or update.round_number != self.round_number:
            return f"it is of round {update.round_number}; {self._story()}"
        members = [share.member for share in update.shares]
        if len(set(members)) < len(members) or not members:
            return "it names a member twice, or none"
        return next((reason for reason in map(self._refuse_share, update.shares) if reason), "")

    def _refuse_share(self, share: Share) -> str:
        """Say why one share may not count."""
        if share.member in self._reported:
            return f"{share.member} has already reported in round {self.round_number}"
        if share.member in self._missing:
            return f"{share.member} was given up in round {self.round_number}: {self._missing[share.member]}"
        if share.member not in self._waiting:
            return f"{share.member} is not a member of {self.hub.name} in round {self.round_number}"
        known = self._waiting[share.member]
        if not 0 < share.weight <= known:
            return f"{share.member} claims weight {share.weight}; the round opened with {known} for it"
        return ""

    def _lost(self, event: Lost) -> list[Command]:
        """Take members out of the wait set; the hub's own rule says whether the round goes on."""
        gone = {name: reason for name, reason in event.members.items() if name in self._waiting}
        if self.phase is not Phase.COLLECTING or event.round_number != self.round_number or not gone:
            return []
        for name in gone:
            del self._waiting[name]
        self._missing.update(gone)
        if not self.hub.keep_going:
            name, reason = next(iter(gone.items()))
            return self._give_up(f"{name}: {reason}")
        if len(self._reported) + len(self._waiting) < self._needed():
            said = "; ".join(f"{name}: {reason}" for name, reason in gone.items())
            return self._give_up(f"below the quorum of {self._needed()} of {self._num_asked()} members: {said}")
        return self._close_if_done()

    def _close_if_done(self) -> list[Command]:
        """Close once nobody is waited for; open the next round if the parent asked for more."""
        if self._waiting:
            return []
        weight = sum(self._reported.values())
        num = len(self._reported)
        reason = "all reported" if num == self._num_asked() else f"{num} of {self._num_asked()} reported, the rest lost"
        closed = Close(self.round_number, tuple(self._reported), dict(self._missing), weight, reason)
        if self.round_number < self._last_round:
            return [closed, *self._open(self.round_number + 1)]
        self.phase = Phase.IDLE
        return [closed, Finish(self.round_number)]

    def _give_up(self, reason: str) -> list[Command]:
        """End the round without a result."""
        self.phase = Phase.FAILED
        return [GiveUp(self.round_number, reason)]

    def _num_asked(self) -> int:
        """Count the members that have something to train on, the absent ones with them."""
        return sum(1 for name, weight in self.weights.items() if weight or name in self.absent)

    def _needed(self) -> int:
        """Count the members that must report for the round to close."""
        return max(1, math.ceil(self.hub.quorum * self._num_asked() - 1e-9))

    def _story(self) -> str:
        """Tell where the hub stands, for messages."""
        waiting = f", waiting for {', '.join(list(self._waiting)[:3])}" if self._waiting else ""
        return f"the hub is {self.phase.value} in round {self.round_number}{waiting}"
