"""What a member's place may be asked: a closed message for each method, held against the federation and the model's
layout before any vector is brought.

A thing of another shape, a weight that the round does not have, work for a hub that is not the member's own: each is a
`LinkError`, and nothing is fetched for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from hierfl.config.schema import RunConfig
from hierfl.errors import LinkError
from hierfl.learning.ring import Grid
from hierfl.learning.state import Layout
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.answers import limit_of
from hierfl.link.calls import COMMIT, WRITE, model_shape, slice_shapes, state_size, sum_shape
from hierfl.link.codec import MAX_WEIGHT, bounded, integer_in, text
from hierfl.link.payload import Shape
from hierfl.link.remote import Given, Remote, thing_in
from hierfl.link.served import num_rounds, num_sites
from hierfl.runtime.hub import grid_of
from hierfl.runtime.places import Rule, Terms
from hierfl.runtime.specs import hub_layouts, passes_up
from tiers.federation import is_within, parent
from tiers.messages import Opening

__all__ = ["Asked", "admitted"]

MOST_COMMITS = 2**20
MOST_RATIO_BYTES = 4096
"""Of a weight's numerator, or denominator: those of many neighbours come together there."""


@dataclass(frozen=True)
class Asked:
    """A call that was admitted: the method, what comes first among its arguments, and the things that follow.

    `limits`: the largest magnitude that the numbers of each may have, where they are integers. `layout`: of the hub's
    model.
    """

    method: str
    first: tuple[Any, ...]
    things: tuple[Given, ...]
    limits: tuple[int | None, ...]
    layout: Layout


def admitted(config: RunConfig, path: str, layout: Layout, said: wire.Place) -> Asked:
    """Read a call to the place of a member. `config`: of the whole federation; `layout`: of its model.

    Errors: LinkError.
    """
    hub, method = said.hub, said.WhichOneof("what")
    node = config.federation.hubs.get(hub)
    if hub != parent(path) or node is None or node.topology.has_centre:
        raise LinkError(f"work at {path} for {text(hub, 'a hub')!r}, which is no hub of its without a centre")
    if method not in _METHODS:
        raise LinkError(f"{method} is nothing that is done at a place")
    call = _Call(config, layout, said)
    first, shapes = _METHODS[method](call)
    if len(said.things) != len(shapes):
        raise LinkError(f"{method} takes {len(shapes)} things, and is handed {len(said.things)}")
    things = tuple(
        thing_in(thing, shape, f"thing {number + 1} for {method}")
        for number, (thing, shape) in enumerate(zip(said.things, shapes, strict=True))
    )
    none = {number for number, one in enumerate(things) if one is None and isinstance(shapes[number], Shape)}
    if none != ({0} if method in ("gather", "reduce") and call.rule.passes_up else set()):
        raise LinkError(f"{method} is handed nothing where it needs something, or the other way round")
    return Asked(method, first, things, call.limits(method, things), call.rule.layout)


class _Call:
    """A message, and what follows from it and from the configuration."""

    def __init__(self, config: RunConfig, layout: Layout, said: wire.Place) -> None:
        self.said = said
        self.config = config
        hub = said.hub
        self.num_members = len(config.federation.hubs[hub].members)
        own, below = hub_layouts(config, hub, layout)
        sums = passes_up(config, hub)
        compression = None if sums or parent(hub) is None else config.hubs[hub].compression
        weight = bounded(said.weight, "the weight of a hub's members", 0, MAX_WEIGHT)
        self.rule = Rule(hub, config.hubs[hub].strategy, own, below, sums, weight, compression)
        self.model = model_shape(own)
        self.state = state_size(own, below)

    @cached_property
    def opening(self) -> Opening:
        """The round's opening, by the hub or by one above it. Errors: LinkError if none is named, or another's."""
        said = self.said
        if said.opened_by not in self.config.federation.hubs or not is_within(said.hub, said.opened_by):
            raise LinkError(f"a round of {text(said.opened_by, 'a hub')!r}, which is not above {said.hub}")
        number = bounded(said.opened_round, "a round", 0, num_rounds(self.config, said.opened_by) - 1)
        total = bounded(said.total_weight, "the weight of a round", 1, MAX_WEIGHT)
        arithmetic, dtype = self.config.arithmetic, str(self.rule.layout.float_dtype)
        return Opening(said.opened_by, number, arithmetic.width, arithmetic.clip, total, dtype)

    @property
    def grid(self) -> Grid:
        """The round's grid. Errors: LinkError."""
        return grid_of(self.opening)

    @property
    def terms(self) -> Terms:
        """The hub's rule in the round. Errors: LinkError."""
        return Terms(self.rule, self.opening, self.opening.round_number)

    @property
    def update(self) -> Shape:
        """The shape of an update in the round. Errors: LinkError."""
        return sum_shape(self.rule.wire, self.grid)

    def members(self, num: int, what: str) -> int:
        """Errors: LinkError for more than the hub has members."""
        return bounded(num, f"the number of {what}", 1, self.num_members)

    def slice(self, whole: Shape, said: wire.Payload, nums: Iterable[int]) -> Shape:
        """Give the shape of a slice, of so many or so many. Errors: LinkError for one that is none."""
        for num in nums:
            for shape in slice_shapes(whole, num):
                if (shape.num_floats, shape.num_ints) == (said.num_floats, said.num_ints):
                    return shape
        raise LinkError(f"{said.num_floats} and {said.num_ints} numbers are no slice of {whole.num_floats}")

    def limits(self, method: str, things: Sequence[Given]) -> tuple[int | None, ...]:
        """Give the largest magnitude of the numbers of each sum.

        Errors: LinkError for sums that weigh more than the round, or slices of one that are not.
        """
        sums = [one for one in things if isinstance(one, Remote) and one.weight]
        if not sums:
            return (None,) * len(things)
        weights = [one.weight for one in sums]
        if method == "gather" and len(set(weights)) != 1:
            raise LinkError("slices of one sum have one weight")
        weight = weights[0] if method == "gather" else sum(weights)
        bounded(weight, "the weight of sums", 1, self.opening.total_weight)
        most, grid = num_sites(self.config, self.said.hub), self.grid
        return tuple(
            limit_of(grid, one.weight, most) if isinstance(one, Remote) and one.weight else None for one in things
        )


_Read = tuple[tuple[Any, ...], list[Shape | int]]


def _broadcast(call: _Call) -> _Read:
    return (call.rule,), [call.model, call.state]


def _reduce(call: _Call) -> _Read:
    names, known = (
        tuple(call.said.reduce.names),
        {one.name for one in call.config.federation.hubs[call.said.hub].members},
    )
    if not names or len(set(names)) != len(names) or not known.issuperset(names):
        raise LinkError(f"updates of {len(names)} members, not all of {call.said.hub} or some of them twice")
    return (call.terms, names), [call.model, call.state, *[call.update] * len(names)]


def _cut(call: _Call) -> _Read:
    return (call.members(call.said.cut.num, "slices"), call.terms), [call.update]


def _add(call: _Call) -> _Read:
    num = call.members(len(call.said.things), "slices")
    first = call.said.things[0].sum.payload
    return (call.terms,), [call.slice(call.update, first, range(num, call.num_members + 1))] * num


def _gather(call: _Call) -> _Read:
    num = call.members(len(call.said.things) - 2, "slices")
    return (call.terms,), [call.model, call.state, *slice_shapes(call.update, num)]


def _mix(call: _Call) -> _Read:
    said = call.said.mix
    num = call.members(said.models, "models")
    turn = len(call.said.things) - num
    weights = tuple(_ratio(one) for one in said.weights)
    if turn not in (0, num) or len(weights) != num or sum(weights) > 1:
        raise LinkError(
            f"{num} models with {len(weights)} weights, {turn} updates, and weights of {float(sum(weights)):g}"
        )
    own = bounded(said.own, "the place of one's own model", 0, num - 1)
    total = bounded(said.total, "the weight of who takes part", 1, call.opening.total_weight)
    return (call.terms, own, weights, total, num), [*[call.model] * num, *[call.update] * turn]


def _cut_model(call: _Call) -> _Read:
    return (call.members(call.said.cut_model.num, "slices"),), [call.model]


def _average(call: _Call) -> _Read:
    num = call.members(len(call.said.things), "slices")
    weights = tuple(bounded(one, "a weight", 1, MAX_WEIGHT) for one in call.said.average.weights)
    if len(weights) != num or sum(weights) > MAX_WEIGHT:
        raise LinkError(f"{num} slices with {len(weights)} weights, of {sum(weights)} in all")
    first = call.said.things[0].model.payload
    shape = call.slice(call.model, first, range(1, num + 1))
    return (call.config.arithmetic.clip, weights), [shape] * num


def _join(call: _Call) -> _Read:
    num = call.members(len(call.said.things), "slices")
    return (), [*slice_shapes(call.model, num)]


def _ratio(message: wire.Ratio) -> Fraction:
    """Read a fraction. Errors: LinkError."""
    above, below = (integer_in(one, "a weight", MOST_RATIO_BYTES) for one in (message.numerator, message.denominator))
    if not 0 <= above <= below or below < 1:
        raise LinkError("a weight that is no fraction from 0 to 1")
    return Fraction(above, below)


def _encode(call: _Call) -> _Read:
    weight = bounded(call.said.encode.weight, "the weight of a hub", 1, call.opening.total_weight)
    return (call.rule, call.opening, weight, call.said.encode.seed), [call.model, call.model, call.state]


def _commit(call: _Call) -> _Read:
    said = call.said.commit
    most = call.config.federation.root.rounds
    first = bounded(said.rounds_done, "rounds done", 1, most), bounded(said.keep, "keep", 1, MOST_COMMITS)
    num = bounded(len(call.said.things) - said.has_own, "the things of a commit", 1, 1 + len(call.config.hubs))
    alive = tuple(text(name, "a name") for name in said.alive)
    return (*first, said.has_own, alive), [call.model, *[call.state] * (num - 1), *[call.model] * said.has_own]


def _write(call: _Call) -> _Read:
    return (), [call.model]


_METHODS: dict[str, Callable[[_Call], _Read]] = {
    "broadcast": _broadcast,
    "reduce": _reduce,
    "cut": _cut,
    "add": _add,
    "gather": _gather,
    "encode": _encode,
    "mix": _mix,
    "cut_model": _cut_model,
    "average": _average,
    "join": _join,
    COMMIT: _commit,
    WRITE: _write,
}
