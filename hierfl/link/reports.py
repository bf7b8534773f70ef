"""What a lane makes of its member's answers, once they are admitted: what the supervisor is told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hierfl.errors import HierflError, PeerUnreached, RuntimeUnavailable, UpdateRefused
from hierfl.learning.alike import Form
from hierfl.learning.state import Layout
from hierfl.link import asks
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.answers import admit_evaluated, admit_trained
from hierfl.link.calls import PlaceCall
from hierfl.link.codec import seconds
from hierfl.link.errands import PLACE, Call, Offer
from hierfl.link.payload import Shape
from hierfl.link.remote import Given, Remote, RemoteState
from hierfl.runtime.hub import grid_of
from hierfl.runtime.jobs import Evaluated, SiteReport, TrainJob

__all__ = ["evaluated", "failed", "placed", "things", "trained"]

_METHODS = {
    "describe": "described",
    "train": "trained",
    "train_keeping": "trained",
    "evaluate": "evaluated",
    "fine_tune": "evaluated",
    PLACE: "placed",
}


def failed(method: str, why: str) -> tuple[str, Any]:
    """Give the answer to a call by which a member would say that it could not do it: its kind, and the message."""
    answer = asks.failed(_METHODS[method], why)
    return _METHODS[method], getattr(answer, _METHODS[method])


def evaluated(
    call: Call, message: wire.Evaluated, path: str, num_sites: int, put: Callable[[Any], Any]
) -> tuple[Evaluated, tuple[Any, ...]]:
    """Give a member's measurement, and what is beside it. Errors: LinkError."""
    tally, duration_s, error = admit_evaluated(message, num_sites)
    errors = {path: error} if error else {}
    sites = {} if error else {path: tally.scalars()}
    beside = (put({path: {}}),) if call.method == "fine_tune" else ()
    form = Form.of(tally)
    forms = {} if error else {path: form}
    clusters = {} if tally.clusters is None else {path: tally.clusters}
    return Evaluated(
        call.arguments[0], {form: tally}, forms, sites, {path: duration_s}, errors, {path: tally.told_apart}, clusters
    ), beside


def trained(
    call: Call, message: wire.Trained, path: str, num_sites: int, model: Layout, *, is_masked: bool
) -> tuple[SiteReport, Offer | None]:
    """Give a report of a member's training, and the update that it has ready, if it has one. Errors: LinkError."""
    job: TrainJob = call.arguments[0]
    layout = model.with_channels(job.objective.channels(model.num_floats))
    shape = Shape(layout.num_floats, layout.num_ints, str(grid_of(job.opening).integer))
    said = admit_trained(message, job.sites[0][1], shape, num_sites, is_masked=is_masked)
    report = SiteReport(
        *(path, said.duration_s, said.num_samples, said.num_steps, said.loss),
        error=said.error or None,
        started_s=call.begun_s,
    )
    if said.digest is None:
        return report, None
    assert call.ask is not None
    return report, Offer(job, said.weight, shape, layout, said.digest, call.ask, is_masked)


def placed(call: Call, message: wire.Placed, path: str) -> tuple[Any, tuple[Given, ...], HierflError | None]:
    """Give what has come of work at a member's place: a header and what lies there, or an error. Errors: LinkError."""
    of_place: PlaceCall = call.arguments[0]
    seconds(message.duration_s, "duration_s")
    try:
        return *of_place.admit(path, message), None
    except (PeerUnreached, RuntimeUnavailable, UpdateRefused) as error:
        return None, (), error


def things(beside: Iterable[Given]) -> Iterator[Remote]:
    """Yield every vector that lies at a member's place, those of states one by one."""
    for one in beside:
        yield from one.parts if isinstance(one, RemoteState) else [one] if one is not None else []
