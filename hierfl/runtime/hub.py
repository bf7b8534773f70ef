"""A hub's aggregator: it carries out what the hub's machine commands, on vectors, and decides nothing itself.

State goes in with `begin` and comes out when the hub is finished; between rounds an aggregator holds nothing, so a
lost one is replaced by replaying the events since its last `begin`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import UpdateRefused
from hierfl.learning.ring import Accumulator, Grid, PartialSum, decode
from hierfl.learning.state import ModelState
from hierfl.learning.strategy import State
from hierfl.runtime.jobs import HubSpec, Order, Outcome
from tiers.federation import parent
from tiers.messages import (
    Add,
    Arrived,
    Begin,
    Close,
    Event,
    Finish,
    GiveUp,
    Lost,
    Open,
    Opening,
    Refuse,
    Share,
    TrainMember,
    Update,
)
from tiers.round import HubRounds

__all__ = ["Aggregator", "Beside", "grid_of"]

Beside: TypeAlias = tuple[Outcome, ModelState | None, ModelState | PartialSum | None, State | None]
"""A header and what travels beside it: a model to train from, the hub's result, its strategy's next state."""


def grid_of(opening: Opening) -> Grid:
    """Give the grid that an opening record fixes."""
    return Grid(opening.width, opening.clip, opening.total_weight, opening.dtype)


class Aggregator:
    """One hub's sums and steps. `spec` fixes who its members are; see `Outcome` for what comes out."""

    def __init__(self, spec: HubSpec) -> None:
        self.spec = spec
        self._machine = HubRounds(spec.hub, spec.weights, spec.absent)
        self._parent: Opening | None = None
        self._parent_round = 0
        self._weight = 0
        self._start: ModelState | None = None
        self._model: ModelState | None = None
        self._state: State = {}
        self._opening: Opening | None = None
        self._sum: Accumulator | None = None
        self._closed: PartialSum | None = None
        self._spare: NDArray[Any] | None = None

    def begin(self, event: Begin, order: Order | None, model: ModelState | None, state: State | None) -> Beside:
        """Begin rounds from a model. `order`: what the parent asked of this hub and its siblings; None at the root.

        A hub that passes its sum up needs no model; `state` None makes the strategy's first state.
        """
        if order is not None:
            self._parent, self._parent_round = order.opening, order.round_number
            self._weight = dict(order.members)[self.spec.hub.name]
        self._start = self._model = model
        if state is None and model is not None:
            state = self.spec.strategy.init(model.floats)
        self._state = state or {}
        return self._carry_out(event, None)

    def arrive(self, update: Update, part: PartialSum) -> Beside:
        """Take an update with its partial sum."""
        return self._carry_out(Arrived(update), part)

    def lose(self, event: Lost) -> Beside:
        """Take word that members will send nothing."""
        return self._carry_out(event, None)

    def _carry_out(self, event: Event, part: PartialSum | None) -> Beside:
        """Carry out the machine's commands in order and gather what leaves the hub."""
        commands = self._machine.handle(event)
        asked: list[TrainMember] = []
        closed: list[Close] = []
        refused: list[Refuse] = []
        result: ModelState | PartialSum | None = None
        finished: Update | None = None
        failed: str | None = None
        stepped = False
        for command in commands:
            match command:
                case Open():
                    self._open(command)
                    asked = []
                case TrainMember():
                    asked.append(command)
                case Add():
                    refusal = self._add(command, part)
                    if refusal is not None:
                        return self._refuse_payload(refusal)
                case Refuse():
                    refused.append(command)
                case Close():
                    self._close()
                    stepped = not self.spec.passes_up
                    closed.append(command)
                case Finish():
                    try:
                        finished, result = self._finish(command)
                    except UpdateRefused as error:
                        failed = str(error)
                case GiveUp():
                    failed = command.reason
        orders = self._orders(asked)
        has_model = bool(orders) and stepped
        outcome = Outcome(
            orders=orders,
            closed=tuple(closed),
            refused=tuple(refused),
            finished=finished,
            failed=failed,
            has_model=has_model,
            has_state=finished is not None and bool(self._state),
        )
        beside = (outcome, self._model if has_model else None, result, self._state if outcome.has_state else None)
        if finished is not None:
            self._start = self._model = None
            self._state = {}
        return beside

    def _open(self, command: Open) -> None:
        """Open a round: its own grid, or the parent's where the raw sum is passed up."""
        if self.spec.passes_up:
            assert self._parent is not None
            self._opening = self._parent
        else:
            self._opening = Opening(
                self.spec.path,
                command.round_number,
                self.spec.width,
                self.spec.clip,
                command.total_weight,
                str(self.spec.layout.float_dtype),
            )
        memory, self._spare = self._spare, None
        self._sum = Accumulator(grid_of(self._opening), self.spec.layout, memory)

    def _add(self, command: Add, part: PartialSum | None) -> str | None:
        """Add the payload of an accepted update; say why if it cannot be."""
        assert self._sum is not None and part is not None
        if part.weight != sum(share.weight for share in command.update.shares):
            return f"its header says weight {sum(s.weight for s in command.update.shares)}, its sum {part.weight}"
        try:
            self._sum.add_sum(part)
        except UpdateRefused as error:
            return str(error)
        return None

    def _refuse_payload(self, reason: str) -> Beside:
        """End the round: a header was right and its payload is not, a fault of the transport or our own."""
        return Outcome(failed=f"an update's payload is not what its header says: {reason}"), None, None, None

    def _close(self) -> None:
        """Complete the sum; unless it is passed up, decode it and take the strategy's step."""
        assert self._sum is not None and self._opening is not None
        total = self._sum.total()
        self._sum = None
        if self.spec.passes_up:
            self._closed = total
            return
        assert self._model is not None
        delta, counted = decode(total, grid_of(self._opening), consume=True)
        floats, self._state = self.spec.strategy.step(self._model.floats, delta, self._state)
        self._model = ModelState(floats, self._model.ints + counted)
        if not any(np.may_share_memory(total.floats, kept) for kept in (floats, *self._state.values())):
            self._spare = total.floats

    def _finish(self, command: Finish) -> tuple[Update, ModelState | PartialSum]:
        """Give the hub's result: a new model at the root, its sum or its own change below."""
        if self.spec.is_root:
            assert self._model is not None
            return Update("", command.round_number, (), self._model.num_bytes), self._model
        assert self._parent is not None
        result = self._closed if self.spec.passes_up else self._own_change()
        assert result is not None
        self._closed = None
        share = Share(self.spec.hub.name, result.weight)
        return Update(parent(self.spec.path) or "", self._parent_round, (share,), result.num_bytes), result

    def _own_change(self) -> PartialSum:
        """Encode this hub's change since `begin` on its parent's grid, like a site's.

        Errors: UpdateRefused if the change is over the parent's clip.
        """
        assert self._parent is not None and self._model is not None and self._start is not None
        own = Accumulator(grid_of(self._parent), self.spec.layout)
        own.add_update(self._model, self._start, self._weight)
        return own.total()

    def _orders(self, asked: list[TrainMember]) -> tuple[Order, ...]:
        """Bundle what is asked of members into one order."""
        if not asked:
            return ()
        assert self._opening is not None
        members = tuple((command.member, command.weight) for command in asked)
        objective = self.spec.strategy.objective()
        return (Order(self.spec.path, asked[0].round_number, members, self._opening, objective),)
