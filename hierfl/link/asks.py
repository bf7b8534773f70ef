"""What a hub asks of a member, as messages; equal questions of one run have equal ids."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any

from hierfl.learning.state import Layout
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.calls import COMMIT, PlaceCall
from hierfl.link.codec import payload_out, shortfalls_out
from hierfl.link.errands import PLACE, Call
from hierfl.link.payload import Outgoing, Shape
from hierfl.link.remote import Remote
from hierfl.runtime.jobs import TrainJob

__all__ = [
    "ANSWERS",
    "MOST_WORDS",
    "describe",
    "evaluate",
    "failed",
    "of_call",
    "prepare",
    "train",
    "with_id",
    "written",
]

ANSWERS = {
    "prepare": "prepared",
    "describe": "described",
    "train": "trained",
    "evaluate": "evaluated",
    "place": "placed",
    "key": "keyed",
    "mask": "masked",
}
"""What answers each thing that is asked."""

MOST_WORDS = 500
MOST_DROPPED = 1000
"""Names in one message."""


def failed(kind: str, why: str) -> wire.Answer:
    """Answer that there is nothing to answer with, and why; by the kind of the answer."""
    answer = wire.Answer()
    if kind == "prepared":
        answer.prepared.difference = why[:MOST_WORDS]
    else:
        getattr(answer, kind).error = why[:MOST_WORDS]
    return answer


def with_id(ask: wire.Ask, run: str, path: str, epoch: int) -> wire.Ask:
    """Put the epoch of the tree, and the id, on a question of a run to a member."""
    ask.epoch = epoch
    said = f"{run}\n{path}\n".encode() + ask.SerializeToString(deterministic=True)
    ask.id = int.from_bytes(sha256(said).digest()[:8], "little") or 1
    return ask


def written(
    call: Call, run: str, path: str, payload: Callable[[Any], Outgoing], alive: Iterable[str], dropped: deque[str]
) -> wire.Ask:
    """Write what a member is asked by a call; as `of_call`.

    `dropped`: names of what lies at its place and nobody refers to any more; they are said once, and taken out.
    """
    ask = with_id(of_call(call, payload, alive), run, path, call.epoch)
    if call.method == PLACE:
        ask.drop.extend(dropped.popleft() for _ in range(min(len(dropped), MOST_DROPPED)))
    return ask


def of_call(call: Call, payload: Callable[[Any], Outgoing], alive: Iterable[str]) -> wire.Ask:
    """Ask for what a call wants, its preparation aside; a model that lies here is offered by the call.

    `payload`: gives a model's. `alive`: names of what lies at the member's place and is still referred to.
    """
    if call.method == "describe":
        return describe()
    if call.method == PLACE:
        of_place: PlaceCall = call.arguments[0]
        ask, call.offers = wire.Ask(place=of_place.message), of_place.offers.kept
        if of_place.method == COMMIT:
            ask.place.commit.alive.extend(sorted(alive))
        return ask
    if call.method in ("evaluate", "fine_tune"):
        model, round_number = call.arguments[2:4]
        return evaluate(*_lies(call, model, payload), round_number, tunes=call.method == "fine_tune")
    job, model = call.arguments[:2]
    return train(job, *_lies(call, model, payload))


def _lies(call: Call, model: Any, payload: Callable[[Any], Outgoing]) -> tuple[Shape, bytes, str]:
    """Say of a model what it is and who has it; what lies here is offered."""
    if isinstance(model, Remote):
        return model.shape, model.digest, model.holder
    own = payload(model)
    call.offers[own.digest] = own
    return own.shape, own.digest, ""


def prepare(layout: Layout, scale: Any) -> wire.Ask:
    """Ask for the model to be built; `scale`: the features' mean and deviation, or None."""
    mean, std = scale if scale is not None else ((), ())
    said = wire.Prepare(layout_digest=layout.digest, num_floats=layout.num_floats, num_ints=layout.num_ints)
    said.mean.extend(float(value) for value in mean)
    said.std.extend(float(value) for value in std)
    return wire.Ask(prepare=said)


def describe() -> wire.Ask:
    """Ask what there is."""
    ask = wire.Ask()
    ask.describe.SetInParent()
    return ask


def train(job: TrainJob, shape: Shape, digest: bytes, holder: str) -> wire.Ask:
    """Ask for an update of a round, from the model of this digest, which `holder` has."""
    settling = job.settling(job.sites[0][0])
    return wire.Ask(
        train=wire.Train(
            hub=job.hub,
            round_number=job.round_number,
            weight=job.sites[0][1],
            opened_by=job.opening.hub,
            opened_round=job.opening.round_number,
            total_weight=job.opening.total_weight,
            model=payload_out(shape, digest),
            holder=holder,
            shortfalls=shortfalls_out(settling.shortfalls) if settling is not None else (),
        )
    )


def evaluate(shape: Shape, digest: bytes, holder: str, round_number: int, *, tunes: bool) -> wire.Ask:
    """Ask for a measurement of a model after a round; `tunes`: after sites have made it their own."""
    model = payload_out(shape, digest)
    return wire.Ask(evaluate=wire.Evaluate(round_number=round_number, model=model, tunes=tunes, holder=holder))
