"""A hub without a centre: its members exchange among themselves, and what serves it convenes them, by headers alone.

It is told and answers like an aggregator, but no model, update or sum is ever given to it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hierfl.held import held
from hierfl.runtime.hub import Aggregator, Beside
from hierfl.runtime.jobs import HubSpec, Memory, Order, Outcome
from hierfl.runtime.orders import ordered
from tiers.federation import parent
from tiers.messages import (
    Add,
    Arrived,
    Begin,
    Close,
    Command,
    Dismiss,
    Event,
    Exchange,
    Finish,
    GiveUp,
    Left,
    Lost,
    Mixed,
    Open,
    Opening,
    Refuse,
    SetTimer,
    Share,
    TimeUp,
    TrainMember,
    Update,
)
from tiers.round import HubRounds, Phase

__all__ = ["Convener", "serve"]


def serve(spec: HubSpec) -> Any:
    """Make what serves a hub: an aggregator, a convener, or one of these that lies on purpose."""
    made = Aggregator(spec) if spec.hub.topology.has_centre else Convener(spec)
    return spec.points.over(spec.path, made)


class Convener:
    """One hub's rounds; see `Outcome` for what comes out."""

    def __init__(self, spec: HubSpec) -> None:
        self.spec = spec
        self._machine = HubRounds(held(spec.hub, spec.path), spec.weights, spec.absent, path=spec.path, seed=spec.seed)
        self._order: Order | None = None
        self._opening: Opening | None = None
        self._openings: dict[int, Opening] = {}
        self._closed_weight = 0

    def recall(self, memory: Memory) -> Beside:
        """Go on as the one did that gave this memory."""
        spec, standing = self.spec, memory.standing
        self._machine = HubRounds(
            held(spec.hub, spec.path), spec.weights, spec.absent, path=spec.path, seed=spec.seed, standing=standing
        )
        self._openings = dict(memory.openings)
        return Outcome(memory=self._memory()), None, None, None

    def begin(self, event: Begin, order: Order | None, model: None = None, state: None = None) -> Beside:
        """Begin rounds. `order`: what the parent asked of this hub and its siblings; None at the root."""
        self._order = order
        return self._carry_out(event)

    def arrive(self, update: Update, part: None = None) -> Beside:
        """Take an update's header."""
        return self._carry_out(Arrived(update))

    def lose(self, event: Lost) -> Beside:
        """Take word that members will send nothing."""
        return self._carry_out(event)

    def elapse(self, event: TimeUp) -> Beside:
        """Take word that time has passed."""
        return self._carry_out(event)

    def mixed(self, event: Mixed) -> Beside:
        """Take word that the members have exchanged."""
        return self._carry_out(event)

    def leave(self, event: Left) -> Beside:
        """Take word that members cannot do their part in the exchange."""
        return self._carry_out(event)

    def _carry_out(self, event: Event) -> Beside:
        """Gather what the machine's commands say to others."""
        outcome, asked = Outcome(), list[TrainMember]()
        for command in self.spec.points.along(self.spec.path, self._machine.handle(event)):
            if isinstance(command, TrainMember):
                asked.append(command)
            else:
                outcome = self._obey(command, outcome)
        memory = self._memory() if self._machine.phase is Phase.IDLE else None
        orders = (ordered(self.spec, asked, self._opening),) if asked else ()
        return replace(outcome, orders=orders, memory=memory), None, None, None

    def _obey(self, command: Command, outcome: Outcome) -> Outcome:
        """Enter one command into what comes out."""
        match command:
            case Open():
                self._opening = self._openings[command.round_number] = self._open(command)
            case Refuse():
                return replace(outcome, refused=(*outcome.refused, command))
            case SetTimer():
                return replace(outcome, timers=(*outcome.timers, command))
            case Dismiss():
                return replace(outcome, dismissed=(*outcome.dismissed, command))
            case Close():
                return replace(outcome, closed=(*outcome.closed, command))
            case Exchange():
                self._closed_weight = sum(command.weights.values())
                return replace(outcome, exchange=command, opening=self._opening)
            case Finish():
                return replace(outcome, finished=self._finished(command))
            case GiveUp():
                return replace(outcome, failed=command.reason)
            case _:
                assert isinstance(command, Add), f"{self.spec.path} counts nothing late and has no stages: no {command}"
        return outcome

    def _open(self, command: Open) -> Opening:
        """Open a round: its own grid, or the parent's where the raw sum is passed up."""
        if self.spec.passes_up:
            assert self._order is not None
            return self._order.opening
        width, clip, dtype = self.spec.width, self.spec.clip, str(self.spec.layout.float_dtype)
        return Opening(self.spec.path, command.round_number, width, clip, command.total_weight, dtype)

    def _finished(self, command: Finish) -> Update:
        """Give the header of the hub's own update; whoever publishes its model knows the bytes."""
        if self._order is None:
            return Update("", command.round_number, ())
        own = dict(self._order.members)[self.spec.hub.name]
        share = Share(self.spec.hub.name, self._closed_weight if self.spec.passes_up else own)
        return Update(parent(self.spec.path) or "", self._order.round_number, (share,))

    def _memory(self) -> Memory | None:
        """Give what there is to remember while no round is open; drop the openings that nobody needs any more."""
        standing = self._machine.standing
        rounds = {errand.round_number for errand in standing.errands.values()}
        self._openings = {number: opening for number, opening in self._openings.items() if number in rounds}
        return Memory(standing, dict(self._openings)) if standing.matters else None
