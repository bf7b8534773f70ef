"""What members of a hub without a centre do with vectors, each at its own place: functions of what they are handed.

A member that is a hub has its place in the process that serves it; a site has none of its own, and borrows one. Nothing
is kept there: the run's supervisor knows all results by handles, and hands those of one place on to another. What a
lost process was asked is asked again, and has the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from hierfl import checkpoint, members
from hierfl.checkpoint import Checkpoint
from hierfl.errors import UpdateRefused
from hierfl.fault import EXCHANGE
from hierfl.learning.compression import RESIDUAL, Compression, as_sum, pack
from hierfl.learning.gathered import Gathered
from hierfl.learning.mixing import average, mix
from hierfl.learning.ring import Accumulator, PartialSum, check_part, decode
from hierfl.learning.state import Layout, ModelState
from hierfl.learning.stepping import first_state, reduced, sent_down, stepped
from hierfl.learning.strategy import Reducer, State, Strategy
from hierfl.runtime.hub import grid_of
from hierfl.runtime.jobs import HubSpec
from hierfl.runtime.points import NO_POINTS, Points
from hierfl.runtime.remembered import Keys
from hierfl.runtime.sums import Part, spared_bytes
from tiers.messages import Opening

__all__ = ["PLACE", "Place", "Rule", "Terms", "place_of"]

PLACE = "/at/"
"""How the places of members are called; no node's path begins with a slash."""

Stepped: TypeAlias = tuple[tuple[int, bool, bool], ModelState | PartialSum, ModelState | None, State | None]
"""A header (bytes of what follows; whether there is a last and a second), and beside it the hub's model or its raw sum,
what goes down where that is more than the model, and the strategy's state."""


def place_of(path: str) -> str:
    """Name a member's place."""
    return f"{PLACE}{path}"


@dataclass(frozen=True)
class Rule:
    """What members must know of `hub` to do its arithmetic, as in `HubSpec`; `weight`: of all of them."""

    hub: str
    strategy: Strategy
    layout: Layout
    wire: Layout
    passes_up: bool
    weight: int
    compression: Compression | None

    @classmethod
    def of(cls, spec: HubSpec) -> Rule:
        """Take it of a hub."""
        weight = sum(spec.weights.values())
        return cls(spec.path, spec.strategy, spec.layout, spec.wire, spec.passes_up, weight, spec.compression)

    @property
    def has_channels(self) -> bool:
        """Whether more than the model goes down to the members."""
        return self.wire != self.layout


@dataclass(frozen=True)
class Terms:
    """A hub's rule in one of its rounds; `opening` may be of a hub above."""

    rule: Rule
    opening: Opening
    round_number: int


class Place:
    """The functions; a header comes first, vectors beside it. `points`: hear of the steps of who is asked."""

    def __init__(self) -> None:
        self.points: Points = NO_POINTS

    def reached(self, actor: str, arguments: Sequence[Any]) -> None:
        """A member is about to do what it is asked with these arguments: say its step, if that is of an exchange."""
        for terms in arguments:
            if isinstance(terms, Terms):
                self.points.reached(actor.removeprefix(PLACE), EXCHANGE, terms.round_number)

    def broadcast(self, rule: Rule, model: ModelState, state: State | None) -> Stepped:
        """Give what goes to the members before a hub's first round."""
        own = _state(rule, model, state)
        return _result(rule, model, own, {})

    def reduce(
        self, terms: Terms, names: Sequence[str], model: ModelState | None, state: State | None, *parts: Part
    ) -> Stepped:
        """Add whole updates of the members `names` and take the strategy's step. Errors: UpdateRefused."""
        rule, grid = terms.rule, grid_of(terms.opening)
        if not isinstance(rule.strategy, Reducer):
            total = Accumulator(grid, rule.wire)
            for part in parts:
                total.add_sum(as_sum(part, grid))
            return _stepped(terms, model, state, total.total())
        rows = Gathered(grid, rule.wire)
        for name, part in zip(names, parts, strict=True):
            rows.add(name, as_sum(part, grid))
        assert model is not None
        own = _state(rule, model, state)
        deltas, weights, counted = rows.rows()
        delta = reduced(rule.hub, rule.strategy, deltas, weights, own, rule.layout)
        floats, after = stepped(rule.hub, rule.strategy, model.floats, delta, own, rule.layout)
        return _result(rule, ModelState(floats, model.ints + counted), after, own)

    def cut(self, num: int, terms: Terms, part: Part) -> tuple[Any, ...]:
        """Cut a member's own update in `num` slices, one for each that adds. Errors: UpdateRefused."""
        grid = grid_of(terms.opening)
        whole = as_sum(part, grid)
        check_part(whole, grid, terms.rule.wire, 0)
        floats, ints = _slices(whole.floats, num), _slices(whole.ints, num)
        return (whole.num_bytes, *(PartialSum(floats[k], ints[k], whole.weight) for k in range(num)))

    def add(self, terms: Terms, *slices: PartialSum) -> tuple[int, PartialSum]:
        """Add the same slice of all members' updates. Errors: UpdateRefused."""
        weight = sum(part.weight for part in slices)
        if weight > terms.opening.total_weight:
            raise UpdateRefused(f"weight {weight} of {terms.opening.total_weight} in all")
        floats, ints = slices[0].floats.copy(), slices[0].ints.copy()
        for part in slices[1:]:
            np.add(floats, part.floats, out=floats)
            np.add(ints, part.ints, out=ints)
        total = PartialSum(floats, ints, weight)
        return total.num_bytes, total

    def gather(self, terms: Terms, model: ModelState | None, state: State | None, *slices: PartialSum) -> Stepped:
        """Put the slices of the sum together and take the strategy's step."""
        floats = np.concatenate([part.floats for part in slices])
        ints = np.concatenate([part.ints for part in slices])
        return _stepped(terms, model, state, PartialSum(floats, ints, slices[0].weight))

    def mix(
        self, terms: Terms, own: int, weights: Sequence[Fraction], total: int, models: int, *vectors: Any
    ) -> Stepped:
        """Take a part of each member's model: `vectors` are so many `models`, and in a round's first turn their
        updates.

        The first of `weights` belongs to the first model, and so on; `own` is the place of one's own; `total` the
        weight of all who take part in the round. Errors: UpdateRefused where models are too far apart.
        """
        parts = [as_sum(part, grid_of(terms.opening)) for part in vectors[models:]]
        mixed = mix(grid_of(terms.opening), terms.rule.layout, own, weights, total, vectors[:models], parts)
        return (mixed.num_bytes, False, False), mixed, None, None

    def cut_model(self, num: int, model: ModelState) -> tuple[Any, ...]:
        """Cut one's own model in slices."""
        floats, ints = _slices(model.floats, num), _slices(model.ints, num)
        return (model.num_bytes, *(ModelState(floats[k], ints[k]) for k in range(num)))

    def average(self, clip: float, weights: Sequence[int], *slices: ModelState) -> tuple[float, ModelState]:
        """Average the same slice of all members' models; say how far they are from it: the sum of weighted squares.

        Errors: UpdateRefused where models are too far apart.
        """
        mean = average(clip, weights, slices)
        apart = 0.0
        for model, weight in zip(slices, weights, strict=True):
            change = np.subtract(model.floats, mean.floats, dtype=np.float64)
            apart += weight * float(change @ change)
        return apart, mean

    def join(self, *slices: ModelState) -> Stepped:
        """Put the slices of a model together."""
        floats, ints = (np.concatenate([getattr(part, kind) for part in slices]) for kind in ("floats", "ints"))
        model = ModelState(floats, ints)
        return (model.num_bytes, False, False), model, None, None

    def write_own(self, folder: Path, path: str, model: ModelState) -> None:
        """Write the model that a member keeps where a checkpoint will be. Errors: OutputError."""
        members.write(folder, path, model)

    def read_own(self, file: Path) -> Stepped:
        """Read the model that a member kept. Errors: OutputError."""
        model = members.read(file)
        return (model.num_bytes, False, False), model, None, None

    def commit(
        self, run_dir: Path, content: Checkpoint, keep: int, own: Path | None, keys: Keys, model: ModelState, *kept: Any
    ) -> Path:
        """Write a checkpoint; `content` is it without vectors, `own` the members' folder. Errors: OutputError."""
        return checkpoint.save(run_dir, replace(content, model=model, **keys.joined(kept)), keep, own)

    def write_model(self, path: Path, layout: Layout, model: ModelState) -> None:
        """Write the final model. Errors: OutputError."""
        checkpoint.save_model(path, layout, model)

    def encode(
        self,
        rule: Rule,
        opening: Opening,
        weight: int,
        seed: int,
        model: ModelState,
        start: ModelState,
        state: State | None,
    ) -> tuple[tuple[int, int, bool], Part, State | None]:
        """Encode a hub's change on its parent's grid, like a site's, or compress it.

        Returns (its bytes, those that compression has spared, whether there is a state), the change, and the state with
        what compression has left out. Errors: UpdateRefused if it is over the clip.
        """
        grid = grid_of(opening)
        if rule.compression is not None:
            residual = (state or {}).get(RESIDUAL)
            packed, left_out = pack(
                rule.compression, model, start, residual, rule.layout, weight, opening.clip, seed, at=rule.hub
            )
            after = dict(state or {}) if left_out is None else {**(state or {}), RESIDUAL: left_out}
            return (packed.num_bytes, spared_bytes(packed, grid), bool(after)), packed, after
        own = Accumulator(grid, rule.layout)
        own.add_update(model, start, weight)
        total = own.total()
        return (total.num_bytes, 0, bool(state)), total, state


def _stepped(terms: Terms, model: ModelState | None, state: State | None, total: PartialSum) -> Stepped:
    """Decode a sum and take the strategy's step, as a hub does; where the raw sum is passed up, it is the result."""
    rule = terms.rule
    if rule.passes_up:
        return (total.num_bytes, False, False), total, None, None
    assert model is not None
    own = _state(rule, model, state)
    delta, counted = decode(total, grid_of(terms.opening), consume=True)
    share = min(1.0, total.weight / rule.weight)
    floats, after = stepped(rule.hub, rule.strategy, model.floats, delta, own, rule.layout, share)
    return _result(rule, ModelState(floats, model.ints + counted), after, own)


def _state(rule: Rule, model: ModelState, state: State | None) -> State:
    """Give the strategy's state, the first one where there is none yet."""
    return first_state(rule.hub, rule.strategy, model.floats) if state is None else state


def _result(rule: Rule, model: ModelState, after: State, before: State) -> Stepped:
    """Give what a step came to; what compression has left out stays beside the strategy's own state."""
    own = {**after, RESIDUAL: before[RESIDUAL]} if RESIDUAL in before else after
    return (model.num_bytes, bool(own), rule.has_channels), model, _sent(rule, model, own), own


def _sent(rule: Rule, model: ModelState, state: State) -> ModelState | None:
    """Give what goes down to the members if that is more than the model: the channels of the hub's own rule, too."""
    if not rule.has_channels:
        return None
    return ModelState(sent_down(rule.hub, rule.strategy, model.floats, state, rule.wire.num_floats), model.ints)


def _slices(vector: Any, num: int) -> list[Any]:
    """Cut a vector in `num` slices that differ by an element at most."""
    bounds = [vector.size * k // num for k in range(num + 1)]
    return [vector[start:stop] for start, stop in pairwise(bounds)]
