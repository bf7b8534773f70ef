"""What the coordinator of a hub without a centre asks of a member's place, written as closed messages, and what it
takes for an answer: headers, digests and lengths, each held against what was asked. No vector is read here.

There is one message for each method of `hierfl.runtime.places.Place`.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

from hierfl.errors import HierflError, LinkError, PeerUnreached, RuntimeUnavailable, UpdateRefused
from hierfl.learning.compression import as_sum
from hierfl.learning.ring import Grid
from hierfl.learning.state import Layout, ModelState
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.answers import limit_of
from hierfl.link.codec import integer_out, text
from hierfl.link.payload import Outgoing, Shape
from hierfl.link.remote import Given, Offers, Remote, is_remote, thing_in
from hierfl.runtime.hub import grid_of
from hierfl.runtime.places import Rule, Terms
from tiers.messages import Opening

__all__ = ["COMMIT", "FIRST_VECTORS", "WRITE", "PlaceCall", "model_shape", "slice_shapes", "state_size", "sum_shape"]


Admit: TypeAlias = Callable[[str, wire.Placed], tuple[Any, tuple[Given, ...]]]
"""Reads an answer of who holds it now."""


COMMIT, WRITE = "commit", "write_model"
"""Methods that a member does in its own way."""

FIRST_VECTORS: Mapping[str, int] = {
    **dict.fromkeys(("broadcast", "add", "gather", "cut_model"), 1),
    **dict.fromkeys(("reduce", "cut", "average", "write_own", "write_model"), 2),
    "join": 0,
    "encode": 4,
    "mix": 5,
    "commit": 5,
}
"""From which of its arguments on a method is handed vectors."""


def model_shape(layout: Layout) -> Shape:
    """Give the shape of a model under a layout."""
    return Shape(layout.num_floats, layout.num_ints, str(layout.float_dtype))


def sum_shape(layout: Layout, grid: Grid) -> Shape:
    """Give the shape of a sum of updates under a layout, on a grid."""
    return Shape(layout.num_floats, layout.num_ints, str(grid.integer))


def slice_shapes(whole: Shape, num: int) -> list[Shape]:
    """Give the shapes of so many slices, as `Place.cut` cuts them."""
    floats, ints = ([size * k // num for k in range(num + 1)] for size in (whole.num_floats, whole.num_ints))
    return [Shape(f[1] - f[0], i[1] - i[0], whole.dtype) for f, i in zip(pairwise(floats), pairwise(ints), strict=True)]


def state_size(own: Layout, below: Layout) -> int:
    """Give how many numbers a vector of a strategy's state may have at most."""
    return max(own.num_floats, below.num_floats, 4096)


@dataclass(frozen=True)
class PlaceCall:
    """One call of a method at a member's place: `message` asks for it; `offers` has what of it lies in this process."""

    method: str
    message: wire.Place
    offers: Offers
    expected: Admit
    grid: Grid | None
    num_sites: int

    @classmethod
    def of(
        cls, hub: str, method: str, arguments: Sequence[Any], payload: Callable[[ModelState], Outgoing], num_sites: int
    ) -> PlaceCall:
        """Write a call. `arguments`: as the method takes them, vectors as they are or as what lies elsewhere.

        `num_sites`: below the hub.
        """
        message, offers = wire.Place(hub=hub, turn=secrets.randbits(64)), Offers(payload)
        expected = _METHODS[method](message, arguments, offers)
        for one in arguments[:2]:
            if isinstance(one, Rule | Terms):
                message.weight = (one.rule if isinstance(one, Terms) else one).weight
            opening = one.opening if isinstance(one, Terms) else one
            if isinstance(opening, Opening):
                message.opened_by, message.opened_round = opening.hub, opening.round_number
                message.total_weight = opening.total_weight
                return cls(method, message, offers, expected, grid_of(opening), num_sites)
        return cls(method, message, offers, expected, None, num_sites)

    def admit(self, holder: str, said: wire.Placed) -> tuple[Any, tuple[Given, ...]]:
        """Take an answer as the method itself would give it: a header, and what lies at the holder's place.

        Errors: UpdateRefused, RuntimeUnavailable, PeerUnreached if that is what it says; LinkError if it may not be.
        """
        error = text(said.error, "an error")
        if error:
            raise _failed(holder, error, said)
        value, things = self.expected(holder, said)
        return value, tuple(self._limited(one) for one in things)

    def _limited(self, given: Given) -> Given:
        """Say how large the numbers of a sum may be."""
        if not isinstance(given, Remote) or not given.weight:
            return given
        assert self.grid is not None, "sums are of a round"
        return replace(given, limit=limit_of(self.grid, given.weight, self.num_sites))


def _failed(holder: str, error: str, said: wire.Placed) -> HierflError:
    if said.unreached:
        return PeerUnreached(text(said.unreached, "a member"), error)
    return UpdateRefused(error) if said.refused else RuntimeUnavailable(f"{holder} could not do its part: {error}")


def _things(said: wire.Placed, expected: Sequence[Shape | int], holder: str, what: str) -> list[Given]:
    """Read the things of an answer, of which there must be so many. Errors: LinkError."""
    if len(said.things) != len(expected):
        raise LinkError(f"{what} gives {len(expected)} things, and {len(said.things)} have come")
    return [
        thing_in(thing, shape, f"thing {number + 1} of {what}", holder)
        for number, (thing, shape) in enumerate(zip(said.things, expected, strict=True))
    ]


def _stepped(rule: Rule, grid: Grid | None, weight: int, what: str) -> Admit:
    """Take what a step came to; see `Stepped`."""

    def admit(holder: str, said: wire.Placed) -> tuple[Any, tuple[Given, ...]]:
        own = model_shape(rule.layout) if grid is None else sum_shape(rule.wire, grid)
        shapes = (own, model_shape(rule.wire), state_size(rule.layout, rule.wire))
        model, sent, state = _things(said, shapes, holder, what)
        if not isinstance(model, Remote) or model.weight != (weight if grid is not None else 0):
            raise LinkError(f"{what} gives no model, or a sum of another weight")
        if (sent is not None) != (grid is None and rule.has_channels):
            raise LinkError(f"{what} gives more to send down than the model, or less")
        return (model.num_bytes, state is not None, sent is not None), (model, sent, state)

    return admit


def _broadcast(message: wire.Place, arguments: Sequence[Any], offers: Offers) -> Admit:
    rule, model, state = arguments
    message.broadcast.SetInParent()
    message.things.extend([offers.thing(model), offers.thing(state)])
    return _stepped(rule, None, 0, "broadcast")


def _reduce(message: wire.Place, arguments: Sequence[Any], offers: Offers) -> Admit:
    terms, names, model, state, *parts = arguments
    rule, grid = terms.rule, grid_of(terms.opening)
    whole = [part if is_remote(part) else as_sum(part, grid) for part in parts]
    message.reduce.names.extend(names)
    message.things.extend(map(offers.thing, (model, state, *whole)))
    return _stepped(rule, grid if rule.passes_up else None, sum(part.weight for part in whole), "reduce")


def _cut(message: wire.Place, arguments: Sequence[Any], offers: Offers) -> Admit:
    num, terms, part = arguments
    grid = grid_of(terms.opening)
    whole = part if is_remote(part) else as_sum(part, grid)
    message.cut.num = num
    message.things.append(offers.thing(whole))
    shapes = slice_shapes(sum_shape(terms.rule.wire, grid), num)

    def admit(holder: str, said: wire.Placed) -> tuple[Any, tuple[Given, ...]]:
        slices = _things(said, shapes, holder, "cut")
        if not all(isinstance(one, Remote) and one.weight == whole.weight for one in slices):
            raise LinkError("cut gives slices of another weight than the update that was cut")
        return sum(shape.num_bytes for shape in shapes), tuple(slices)

    return admit


def _add(message: wire.Place, arguments: Sequence[Any], offers: Offers) -> Admit:
    slices = arguments[1:]
    message.add.SetInParent()
    message.things.extend(map(offers.thing, slices))
    weight = sum(part.weight for part in slices)
    first = slices[0]
    own = (
        first.shape if isinstance(first, Remote) else Shape(first.floats.size, first.ints.size, str(first.floats.dtype))
    )

    def admit(holder: str, said: wire.Placed) -> tuple[Any, tuple[Given, ...]]:
        [total] = _things(said, [own], holder, "add")
        if not isinstance(total, Remote) or total.weight != weight:
            raise LinkError(f"add gives no sum of weight {weight}")
        return own.num_bytes, (total,)

    return admit


def _gather(message: wire.Place, arguments: Sequence[Any], offers: Offers) -> Admit:
    terms, model, state, *slices = arguments
    message.gather.SetInParent()
    message.things.extend(map(offers.thing, (model, state, *slices)))
    rule: Rule = terms.rule
    return _stepped(rule, grid_of(terms.opening) if rule.passes_up else None, slices[0].weight, "gather")


def _mix(message: wire.Place, arguments: Sequence[Any], offers: Offers) -> Admit:
    terms, own, weights, total, models, *vectors = arguments
    grid = grid_of(terms.opening)
    given = [*vectors[:models], *(part if is_remote(part) else as_sum(part, grid) for part in vectors[models:])]
    message.mix.own, message.mix.total, message.mix.models = own, total, models
    message.mix.weights.extend(
        wire.Ratio(numerator=integer_out(one.numerator), denominator=integer_out(one.denominator)) for one in weights
    )
    message.things.extend(map(offers.thing, given))
    return _whole_model(model_shape(terms.rule.layout), "mix")


def _cut_model(message: wire.Place, arguments: Sequence[Any], offers: Offers) -> Admit:
    num, model = arguments
    message.cut_model.num = num
    message.things.append(offers.thing(model))
    shapes = slice_shapes(_shape(model), num)

    def admit(holder: str, said: wire.Placed) -> tuple[Any, tuple[Given, ...]]:
        return sum(shape.num_bytes for shape in shapes), tuple(_models(said, shapes, holder, "cut_model"))

    return admit


def _average(message: wire.Place, arguments: Sequence[Any], offers: Offers) -> Admit:
    _, weights, *slices = arguments
    message.average.weights.extend(weights)
    message.things.extend(map(offers.thing, slices))
    own = _shape(slices[0])

    def admit(holder: str, said: wire.Placed) -> tuple[Any, tuple[Given, ...]]:
        if len(said.numbers) != 1 or not (math.isfinite(said.numbers[0]) and said.numbers[0] >= 0):
            raise LinkError("average gives no finite distance")
        return said.numbers[0], tuple(_models(said, [own], holder, "average"))

    return admit


def _join(message: wire.Place, arguments: Sequence[Any], offers: Offers) -> Admit:
    message.join.SetInParent()
    message.things.extend(map(offers.thing, arguments))
    parts = [_shape(one) for one in arguments]
    sizes = sum(part.num_floats for part in parts), sum(part.num_ints for part in parts)
    return _whole_model(Shape(*sizes, parts[0].dtype), "join")


def _whole_model(shape: Shape, what: str) -> Admit:
    """Take a model with nothing beside."""

    def admit(holder: str, said: wire.Placed) -> tuple[Any, tuple[Given, ...]]:
        if len(said.things) != 3 or any(one.WhichOneof("what") for one in said.things[1:]):
            raise LinkError(f"{what} gives more than a model, or less")
        [model] = _models(wire.Placed(things=said.things[:1]), [shape], holder, what)
        return (shape.num_bytes, False, False), (model, None, None)

    return admit


def _models(said: wire.Placed, shapes: Sequence[Shape], holder: str, what: str) -> list[Given]:
    """Read models, or slices of them. Errors: LinkError."""
    found = _things(said, shapes, holder, what)
    if not all(isinstance(one, Remote) and not one.weight for one in found):
        raise LinkError(f"{what} gives something that is no model")
    return found


def _shape(given: Remote | ModelState) -> Shape:
    """Give the shape of a model, or of a slice of it."""
    return (
        given.shape if isinstance(given, Remote) else Shape(given.floats.size, given.ints.size, str(given.floats.dtype))
    )


def _encode(message: wire.Place, arguments: Sequence[Any], offers: Offers) -> Admit:
    rule, opening, weight, seed, *given = arguments
    message.encode.weight, message.encode.seed = weight, seed
    message.things.extend(map(offers.thing, given))

    def admit(holder: str, said: wire.Placed) -> tuple[Any, tuple[Given, ...]]:
        shapes = (sum_shape(rule.layout, grid_of(opening)), state_size(rule.layout, rule.wire))
        part, state = _things(said, shapes, holder, "encode")
        if not isinstance(part, Remote) or part.weight != weight:
            raise LinkError(f"encode gives no change of weight {weight}")
        return (part.num_bytes, 0, state is not None), (part, state)

    return admit


def _commit(message: wire.Place, arguments: Sequence[Any], offers: Offers) -> Admit:
    """Arguments: rounds done, commits to keep, whether the member's own model stands last, the hub's model, states."""
    rounds_done, keep, has_own, *given = arguments
    message.commit.rounds_done, message.commit.keep, message.commit.has_own = rounds_done, keep, has_own
    message.things.extend(map(offers.thing, given))
    return _written


def _write_model(message: wire.Place, arguments: Sequence[Any], offers: Offers) -> Admit:
    """Argument: the model."""
    message.write_model.SetInParent()
    message.things.append(offers.thing(arguments[0]))
    return _written


def _written(holder: str, said: wire.Placed) -> tuple[Any, tuple[Given, ...]]:
    """Take the digest of the model that was written."""
    digest = said.model_digest
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise LinkError("the digest of a model is 64 hexadecimal digits")
    return digest, ()


_METHODS: dict[str, Callable[[wire.Place, Sequence[Any], Offers], Admit]] = {
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
    WRITE: _write_model,
}
