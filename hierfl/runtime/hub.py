"""A hub's aggregator: it carries out what the hub's machine commands, on vectors, and decides nothing itself.

State goes in with `begin` and comes out when the hub is finished. What an aggregator remembers between its parent's
rounds comes out with every answer that leaves it idle, and goes in with `recall`: a lost one is replaced by that and by
replaying the events since.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import UpdateRefused
from hierfl.held import held
from hierfl.learning.compression import RESIDUAL, Packed, as_sum, pack
from hierfl.learning.gathered import Gathered
from hierfl.learning.ring import Accumulator, Grid, PartialSum, decode
from hierfl.learning.seeds import derive
from hierfl.learning.state import ModelState
from hierfl.learning.stepping import first_state, reduced, sent_down, stepped
from hierfl.learning.strategy import Reducer, State
from hierfl.runtime.checksums import check, checksum
from hierfl.runtime.jobs import HubSpec, Memory, Order, Outcome
from hierfl.runtime.orders import ordered
from hierfl.runtime.sums import Part, spared_bytes
from tiers.federation import parent
from tiers.messages import (
    Add,
    Advance,
    Arrived,
    Begin,
    Carry,
    Close,
    Command,
    Dismiss,
    Event,
    Finish,
    GiveUp,
    Hold,
    Lost,
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

__all__ = ["Aggregator", "Beside", "grid_of"]

Beside: TypeAlias = tuple[Outcome, ModelState | None, ModelState | Part | None, State | None]
"""A header and what travels beside it: a model to train from, the hub's result, its strategy's next state."""


def grid_of(opening: Opening) -> Grid:
    """Give the grid that an opening record fixes."""
    return _grid(opening.width, opening.clip, opening.total_weight, opening.dtype)


@lru_cache(maxsize=64)
def _grid(*agreed: Any) -> Grid:
    """Make a grid once for all rounds that have it."""
    return Grid(*agreed)


@dataclass
class _Wants:
    """What comes out of one event, as it is gathered."""

    asked: list[TrainMember] = field(default_factory=list)
    closed: list[Close] = field(default_factory=list)
    refused: list[Refuse] = field(default_factory=list)
    dismissed: list[Dismiss] = field(default_factory=list)
    timers: list[SetTimer] = field(default_factory=list)
    has_stepped: bool = False
    finished: Update | None = None
    result: ModelState | Part | None = None
    failed: str | None = None


class Aggregator:
    """One hub's sums and steps. `spec` fixes who its members are; see `Outcome` for what comes out."""

    def __init__(self, spec: HubSpec) -> None:
        self.spec = spec
        self._machine = HubRounds(held(spec.hub, spec.path), spec.weights, spec.absent, path=spec.path, seed=spec.seed)
        self._order: Order | None = None
        self._weight = 0
        self._start: ModelState | None = None
        self._model: ModelState | None = None
        self._state: State = {}
        self._opening: Opening | None = None
        self._openings: dict[int, Opening] = {}
        self._held: dict[tuple[int, str], Part] = {}
        self._residual: NDArray[Any] | None = None
        self._sum: Accumulator | None = None
        self._rows: Gathered | None = None
        self._closed: PartialSum | None = None
        self._spare: NDArray[Any] | None = None
        self._dtype = str(spec.layout.float_dtype)
        self._has_channels = spec.wire != spec.layout
        self._reduces = isinstance(spec.strategy, Reducer)

    def recall(self, memory: Memory, *payloads: Part) -> Beside:
        """Go on as the aggregator did that gave this memory; `payloads` are those of the updates that it holds."""
        spec, standing = self.spec, memory.standing
        self._machine = HubRounds(
            held(spec.hub, spec.path), spec.weights, spec.absent, path=spec.path, seed=spec.seed, standing=standing
        )
        self._openings = dict(memory.openings)
        self._held = {_key(update): part for update, part in zip(standing.held, payloads, strict=True)}
        return Outcome(memory=self._memory()), None, None, None

    def begin(self, event: Begin, order: Order | None, model: ModelState | None, state: State | None) -> Beside:
        """Begin rounds from a model. `order`: what the parent asked of this hub and its siblings; None at the root.

        A hub that passes its sum up needs no model; `state` None makes the strategy's first state.
        """
        self._order = order
        if order is not None:
            self._weight = dict(order.members)[self.spec.hub.name]
        self._start = self._model = model
        if state is None and model is not None:
            state = first_state(self.spec.path, self.spec.strategy, model.floats)
        self._state = {name: value for name, value in (state or {}).items() if name != RESIDUAL}
        self._residual = (state or {}).get(RESIDUAL)
        return self._carry_out(event, None)

    def arrive(self, update: Update, part: Part) -> Beside:
        """Take an update with its partial sum, or with one member's compressed change. Errors: UpdateDamaged."""
        check(update, part)
        return self._carry_out(Arrived(update), part)

    def lose(self, event: Lost) -> Beside:
        """Take word that members will send nothing."""
        return self._carry_out(event, None)

    def elapse(self, event: TimeUp) -> Beside:
        """Take word that time has passed."""
        return self._carry_out(event, None)

    def _carry_out(self, event: Event, part: Part | None) -> Beside:
        """Carry out the machine's commands in order and gather what leaves the hub."""
        wants = _Wants()
        for command in self.spec.points.along(self.spec.path, self._machine.handle(event)):
            refusal = self._obey(command, part, wants)
            if refusal is not None:
                return Outcome(failed=refusal), None, None, None
        is_idle = self._machine.phase is Phase.IDLE
        if not is_idle:
            self._held.clear()  # a round takes what was held as it opens, and refuses the rest
        has_model = not self.spec.passes_up and wants.finished is None and wants.failed is None
        has_model = has_model and bool(wants.has_stepped or wants.closed or (self._has_channels and wants.asked))
        if wants.finished is not None and self._residual is not None:
            self._state = {**self._state, RESIDUAL: self._residual}
        outcome = Outcome(
            orders=self._ordered(wants.asked) if wants.asked else (),
            closed=tuple(wants.closed),
            refused=tuple(wants.refused),
            dismissed=tuple(wants.dismissed),
            timers=tuple(wants.timers),
            finished=wants.finished,
            failed=wants.failed,
            has_model=has_model,
            has_state=wants.finished is not None and bool(self._state),
            memory=self._memory() if is_idle else None,
        )
        state = self._state if outcome.has_state else None
        beside = (outcome, self._sent() if has_model else None, wants.result, state)
        if wants.finished is not None:
            self._start = self._model = self._residual = None
            self._state = {}
        return beside

    def _ordered(self, asked: list[TrainMember]) -> tuple[Order, ...]:
        return (ordered(self.spec, asked, self._opening, self._order, self._machine.upcoming),)

    def _sent(self) -> ModelState:
        """Give what goes down to the members: the model, and the channels of this hub's own rule."""
        assert self._model is not None
        if not self._has_channels:
            return self._model
        spec = self.spec
        floats = sent_down(spec.path, spec.strategy, self._model.floats, self._state, spec.wire.num_floats)
        return ModelState(floats, self._model.ints)

    def _obey(self, command: Command, part: Part | None, wants: _Wants) -> str | None:
        """Carry out one command; say why, if the round cannot go on."""
        match command:
            case Open():
                self._open(command)
                wants.asked.clear()
            case Advance():
                self._advance(command, wants)
            case TrainMember():
                wants.asked.append(command)
            case SetTimer():
                wants.timers.append(command)
            case Add():
                return self._add(command, part)
            case Hold():
                assert part is not None
                self._held[_key(command.update)] = part
            case Carry():
                return self._carry(command, part)
            case Refuse():
                wants.refused.append(command)
            case Close():
                wants.closed.append(command)
                return self._close()
            case Dismiss():
                wants.dismissed.append(command)
            case Finish():
                try:
                    wants.finished, wants.result = self._finish(command)
                except UpdateRefused as error:
                    wants.failed = str(error)
            case GiveUp():
                wants.failed = command.reason
        return None

    def _open(self, command: Open | Advance) -> None:
        """Open a round or a stage of it: its own grid, or the parent's where the raw sum is passed up."""
        if self.spec.passes_up:
            assert self._order is not None
            self._opening = self._order.opening
        else:
            self._opening = Opening(
                self.spec.path,
                command.round_number,
                self.spec.width,
                self.spec.clip,
                command.total_weight,
                self._dtype,
            )
            self._openings[command.round_number] = self._opening
        grid = grid_of(self._opening)
        if self._reduces:
            self._rows = Gathered(grid, self.spec.wire)
            return
        memory, self._spare = self._spare, None
        self._sum = Accumulator(grid, self.spec.wire, memory)

    def _add(self, command: Add, part: Part | None) -> str | None:
        """Add the payload of an accepted update; say why if it cannot be."""
        assert part is not None
        try:
            _check_weight(command.update, part)
            self._take(command.update, part)
        except UpdateRefused as error:
            return f"an update's payload is not what its header says: {error}"
        return None

    def _take(self, update: Update, part: Part) -> None:
        """Add a payload to the round's sum, or keep it by itself. Errors: UpdateRefused."""
        if self._rows is None:
            assert self._sum is not None
            if isinstance(part, Packed):
                part.add_to(self._sum)
            else:
                self._sum.add_sum(part)
        elif len(update.shares) == 1:
            self._rows.add(update.shares[0].member, as_sum(part, self._rows.grid))
        else:
            raise UpdateRefused("it is one sum of several members; this hub's strategy looks at each by itself")

    def _carry(self, command: Carry, part: Part | None) -> str | None:
        """Add a late update, just come or held: decoded on its own round's grid, quantised anew on this one's."""
        assert self._opening is not None
        update = command.update
        late = self._held.pop(_key(update), part)
        assert late is not None, f"{self.spec.path} holds no update {update}"
        grid, clip = grid_of(self._openings[update.round_number]), self.spec.clip
        try:
            _check_weight(update, late)
            mean, ints = decode(as_sum(late, grid), grid)
            np.clip(mean, -clip, clip, out=mean)  # it was within, and the grid's rounding may have moved it out
            nothing = ModelState(np.zeros_like(mean), np.zeros_like(ints))
            anew = self._sum if self._sum is not None else Accumulator(grid_of(self._opening), self.spec.wire)
            anew.add_update(ModelState(mean, ints), nothing, command.weight)
            if self._rows is not None:
                self._rows.add(update.shares[0].member, anew.total())
        except UpdateRefused as error:
            return f"a late update cannot be added: {error}"
        return None

    def _memory(self) -> Memory | None:
        """Give what there is to remember while no round is open; drop the openings that nobody needs any more."""
        standing = self._machine.standing
        rounds = {errand.round_number for errand in standing.errands.values()}
        rounds |= {update.round_number for update in standing.held}
        self._openings = {number: opening for number, opening in self._openings.items() if number in rounds}
        return Memory(standing, dict(self._openings)) if standing.matters else None

    def _close(self) -> str | None:
        """Complete the sum; unless it is passed up, take the strategy's step. Say why, if that fails."""
        if self._rows is not None:
            return self._reduce(self._rows)
        assert self._sum is not None
        if self.spec.passes_up:
            self._mid_aggregate()
            self._closed = self._sum.total()
            self._sum = None
        else:
            self._step()
        return None

    def _mid_aggregate(self) -> None:
        self.spec.points.reached(self.spec.path, "mid_aggregate")

    def _advance(self, command: Advance, wants: _Wants) -> None:
        """Let the model take on what the stage left, and begin the next one's sum."""
        assert self._sum is not None and not self.spec.passes_up, f"{self.spec.path}: one stage is all that it can do"
        wants.has_stepped = self._step()
        self._open(command)

    def _step(self) -> bool:
        """Decode the sum and take the strategy's step, unless nothing is in it; say whether the model has moved."""
        assert self._sum is not None and self._model is not None
        total, self._sum = self._sum, None
        if not total.weight:
            return False
        delta, counted = total.mean()
        self._mid_aggregate()
        share = total.weight / sum(self.spec.weights.values())
        strategy, path = self.spec.strategy, self.spec.path
        floats, self._state = stepped(path, strategy, self._model.floats, delta, self._state, self.spec.layout, share)
        self._model = ModelState(floats, self._model.ints + counted)
        if not any(np.may_share_memory(total.memory, kept) for kept in (floats, *self._state.values())):
            self._spare = total.memory
        return True

    def _reduce(self, rows: Gathered) -> str | None:
        """Let the strategy make one change of all members', and take its step; say why, if it cannot."""
        strategy = self.spec.strategy
        assert isinstance(strategy, Reducer) and self._model is not None
        self._rows = None
        deltas, weights, counted = rows.rows()
        try:
            delta = reduced(self.spec.path, strategy, deltas, weights, self._state, self.spec.layout)
        except UpdateRefused as error:
            return str(error)
        self._mid_aggregate()
        floats, self._state = stepped(
            self.spec.path, strategy, self._model.floats, delta, self._state, self.spec.layout
        )
        self._model = ModelState(floats, self._model.ints + counted)
        return None

    def _finish(self, command: Finish) -> tuple[Update, ModelState | Part]:
        """Give the hub's result: a new model at the root, its sum or its own change below."""
        if self.spec.is_root:
            assert self._model is not None
            return Update("", command.round_number, (), self._model.num_bytes), self._model
        assert self._order is not None
        result = self._closed if self.spec.passes_up else self._own_change()
        assert result is not None
        self._closed = None
        share, spared = Share(self.spec.hub.name, result.weight), spared_bytes(result, grid_of(self._order.opening))
        above = parent(self.spec.path) or ""
        return Update(above, self._order.round_number, (share,), result.num_bytes, spared, checksum(result)), result

    def _own_change(self) -> Part:
        """Encode this hub's change since `begin` on its parent's grid, or compress it, like a site's.

        Errors: UpdateRefused if the change is over the parent's clip.
        """
        assert self._order is not None and self._model is not None and self._start is not None
        if self.spec.compression is not None:
            seed = derive(self.spec.seed, "compress", self._order.round_number, self.spec.hub.name)
            packed, self._residual = pack(
                *(self.spec.compression, self._model, self._start, self._residual, self.spec.layout, self._weight),
                *(self._order.opening.clip, seed),
                at=self.spec.path,
            )
            return packed
        own = Accumulator(grid_of(self._order.opening), self.spec.layout)
        own.add_update(self._model, self._start, self._weight)
        return own.total()


def _key(update: Update) -> tuple[int, str]:
    """Tell a held update from others: by its round and its member."""
    return update.round_number, update.shares[0].member


def _check_weight(update: Update, part: Part) -> None:
    """Errors: UpdateRefused if a payload has another weight than its header."""
    claimed = sum(share.weight for share in update.shares)
    if part.weight != claimed:
        raise UpdateRefused(f"its header says weight {claimed}, its sum {part.weight}")
