"""A member's desk: what its hub asks is done here one after the other, in a thread, and answered once it is done.

Each thing is held against the institution's terms first. What was done before is answered from what is kept; what is
under way is not begun twice.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from hierfl.errors import HierflError, LinkError, PeerUnreached, UpdateRefused
from hierfl.learning.state import ModelState
from hierfl.link import asks
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.branch import Asked, Branch, what_is_said
from hierfl.link.codec import (
    MAX_BYTES,
    MAX_WEIGHT,
    bounded,
    moments_out,
    payload_in,
    payload_out,
    scale_in,
    shortfalls_in,
    statistics_out,
    text,
)
from hierfl.link.masker import Masker
from hierfl.link.payload import Outgoing, Shape
from hierfl.link.place import Workplace
from hierfl.link.spool import Spool
from hierfl.link.store import Store
from hierfl.link.tallies import tally_out
from hierfl.monitor.words import num_bytes

__all__ = ["Abandoned", "Desk"]


class Abandoned(LinkError):
    """The hub does not ask for this any more."""


Fetch = Callable[[Shape, bytes, Path, Spool], None]
"""Brings a model to a place in a spool, whatever happens to the connection meanwhile."""

ANSWERS_HELD = 4
MAX_ANSWER_BYTES = MAX_BYTES - 4096
"""So that it fits into a message with what is said beside."""


class Desk:
    """`open_branch` makes the branch, in the desk's own thread; `say` takes answers; `fetch` brings models.

    `ended`: is called when the desk has failed, with the error in `failed`. `fence`: asked before anything is begun and
    before the hub hears what has come of it; raises Fenced where another process serves the member. `place`: the
    member's, where its hub has no centre. `masker`: where it masks its updates; the hub hears nothing of them then.
    """

    def __init__(
        self,
        open_branch: Callable[[], Branch],
        store: Store,
        say: Callable[[wire.Answer], None],
        fetch: Fetch,
        tell: Callable[[str, str], None],
        ended: Callable[[], None],
        fence: Callable[[], None] = lambda: None,
        place: Workplace | None = None,
        masker: Masker | None = None,
    ) -> None:
        self._store = store
        self._say = say
        self._fetch = fetch
        self._tell = tell
        self._ended = ended
        self._fence = fence
        self._place = place
        self._masker = masker
        self._open_branch = open_branch
        self._branch: Branch | None = None
        self._asks: queue.SimpleQueue[tuple[str, wire.Ask] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting: set[int] = set()
        self._asked_again: set[int] = set()
        self._answers: OrderedDict[int, wire.Answer] = OrderedDict()
        self._last: Outgoing | None = None
        self._brought: Path | None = None
        self.failed: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="desk", daemon=True)
        self._thread.start()

    def asked(self, run: str, ask: wire.Ask) -> None:
        """Take what a hub asks; asked twice, it is done once."""
        with self._lock:
            if ask.id in self._waiting:
                self._asked_again.add(ask.id)
                return
            self._waiting.add(ask.id)
            self._asks.put((run, ask))

    def offered(self, digest: bytes) -> Outgoing | None:
        """Give an update that is ready; None if it is not here."""
        if self._masker is not None:
            return self._masker.offered(digest)
        last = self._last
        return last if last is not None and last.digest == digest else self._store.outgoing(digest)

    def close(self, wait_s: float) -> None:
        """Begin nothing more; wait so long for what is under way."""
        self._asks.put(None)
        self._thread.join(wait_s)

    def _work(self) -> None:
        """Do what was asked, until the end."""
        try:
            self._branch = self._open_branch()
            while (found := self._asks.get()) is not None:
                self._do(*found)
        except BaseException as error:  # whatever it is, the process has to end with it
            self.failed = error
            self._ended()

    def _do(self, run: str, ask: wire.Ask) -> None:
        """Do one thing and answer; what the hub has given up is dropped, unless it has asked for it anew meanwhile."""
        self._fence()
        try:
            answer = self._answer(run, ask)
        except Abandoned as error:
            self._tell("info", str(error))
            with self._lock:
                self._waiting.discard(ask.id)
                asked_again = ask.id in self._asked_again
                self._asked_again.discard(ask.id)
            if asked_again:
                self.asked(run, ask)
            return
        self._fence()  # also of a failure: a successor has taken away what was needed here
        answer.id = ask.id
        with self._lock:
            self._waiting.discard(ask.id)
            self._asked_again.discard(ask.id)
            if not _is_error(answer):  # what failed is tried again where it is asked again
                self._answers[ask.id] = answer
            while len(self._answers) > ANSWERS_HELD:
                self._answers.popitem(last=False)
        self._say(answer)

    def _answer(self, run: str, ask: wire.Ask) -> wire.Answer:
        """Do one thing. Errors: those of the member's own machine, which end it."""
        assert self._branch is not None
        self._branch.enter(ask.epoch)
        started, what = time.perf_counter(), ask.WhichOneof("what")
        if what not in asks.ANSWERS:
            raise LinkError(f"{what} is nothing that a hub asks")
        try:
            self._branch.heed()
        except HierflError as error:
            self._tell("error", str(error))
            return asks.failed(asks.ANSWERS[what], what_is_said(error, self._branch.path))
        known = self._known(ask)
        if known is not None:
            return known
        match what:
            case "prepare":
                return wire.Answer(prepared=wire.Prepared(difference=self._prepare(self._branch, run, ask.prepare)))
            case "describe":
                found = self._branch.describe()
                said = wire.Described(
                    num_train=found.num_train, num_test=found.num_test, num_patients=found.num_patients or 0
                )
                if found.error is not None:
                    self._tell("error", found.error)
                    said.error = what_is_said(HierflError(found.error), self._branch.path)
                elif found.moments is not None:
                    said.moments.CopyFrom(moments_out(found.moments))
                if found.statistics is not None:
                    said.statistics.CopyFrom(statistics_out(found.statistics))
                return wire.Answer(described=self._fitting(said))
            case "train":
                return self._train(self._branch, ask)
            case "evaluate":
                measured = self._evaluate(self._branch, ask.evaluate)
                measured.duration_s = time.perf_counter() - started
                return wire.Answer(evaluated=measured)
            case "place":
                placed = self._at_place(self._branch, ask)
                placed.duration_s = time.perf_counter() - started
                return wire.Answer(placed=placed)
        return self._mask(run, ask)

    def _known(self, ask: wire.Ask) -> wire.Answer | None:
        """Give what was answered before; None if nothing was, or it is not kept."""
        with self._lock:
            answer = self._answers.get(ask.id)
        if answer is None and ask.WhichOneof("what") == "train":
            answer = self._store.answer(ask.id)
            answer = answer if answer is None else self._told(answer)
        return answer

    def _fitting(self, said: wire.Described) -> wire.Described:
        """Say so where what is told of the records is more than a message can hold."""
        way_out = "fewer statistics.columns, max_values or bins take fewer"
        why = self._over("the statistics of its records have", said.ByteSize(), way_out)
        return wire.Described(error=why) if why else said

    def _over(self, what: str, size: int, way_out: str) -> str:
        """Say, here too, that an answer is more than a message can hold; empty where it is not."""
        if size <= MAX_ANSWER_BYTES:
            return ""
        said = f"{what} {size} bytes, and an answer over a link at most {MAX_ANSWER_BYTES}; {way_out}"
        self._tell("error", said)
        return said

    def _evaluate(self, branch: Branch, asked: wire.Evaluate) -> wire.Evaluated:
        """Measure a model, and say in a line why where that fails, or is more than a message can hold."""
        try:
            model = self._model(branch, asked.model, None, asked.holder)
            digest = bytes(asked.model.digest)
            counted = tally_out(branch.tally(asked.round_number, digest, model, tunes=asked.tunes))
        except Abandoned:
            raise
        except HierflError as error:
            self._tell("error", str(error))
            return wire.Evaluated(error=what_is_said(error, branch.path))
        way_out = _smaller(counted)
        why = self._over(f"what was measured at {branch.path} has", counted.ByteSize(), way_out)
        return wire.Evaluated(error=why) if why else wire.Evaluated(tally=counted)

    def _at_place(self, branch: Branch, ask: wire.Ask) -> wire.Placed:
        """Do a part of an exchange, and say in a line why where that fails."""
        if self._place is None:
            return wire.Placed(error=f"{branch.path} is no member of a hub without a centre")
        try:
            return self._place.carry_out(branch.layout, ask)
        except Abandoned:
            raise
        except (HierflError, OSError) as caught:
            error = caught if isinstance(caught, HierflError) else LinkError(f"{caught.filename}: {caught.strerror}")
            self._tell("error", str(error))
            holder = error.holder if isinstance(error, PeerUnreached) else ""
            said = what_is_said(error, branch.path)
            return wire.Placed(error=said, refused=isinstance(error, UpdateRefused), unreached=holder)

    def _prepare(self, branch: Branch, run: str, said: wire.Prepare) -> str:
        """Begin a run; say how the model differs from the hub's, if it does."""
        layout = branch.layout
        if said.layout_digest != layout.digest:
            return (
                f"the task builds a model of {layout.num_floats} parameters here, of {said.num_floats} at the hub, or"
                " tensors of other names; both need the same version of the task and of torch"
            )
        try:
            if self._place is not None:
                self._place.begin(run)
            branch.prepare(run, scale_in(said))
        except HierflError as error:
            self._tell("error", str(error))
            return what_is_said(error, branch.path)
        return ""

    def _train(self, branch: Branch, ask: wire.Ask) -> wire.Answer:
        """Train, and keep the update before anybody hears of it."""
        said, started = ask.train, time.perf_counter()
        total = bounded(said.total_weight, "the weight of a round", 1, MAX_WEIGHT)
        asked = Asked(
            *(said.hub, bounded(said.round_number, "a round"), bounded(said.weight, "a weight", 1, total)),
            *(said.opened_by, bounded(said.opened_round, "a round"), total),
            shortfalls=shortfalls_in(said.shortfalls, branch.path.count("/")),
        )
        answer = wire.Answer(id=ask.id, trained=wire.Trained(loss=math.nan))
        trained = answer.trained
        try:
            if self._masker is not None:
                self._masker.check_weight(asked.weight, branch.describe().num_train)
            weight, part = branch.train(asked, self._model(branch, said.model, asked, said.holder))
        except Abandoned:
            raise
        except HierflError as error:
            self._tell("error", str(error))
            trained.error = what_is_said(error, branch.path)
            trained.duration_s = time.perf_counter() - started
            return answer
        payload = self._store.put(part.floats, part.ints)
        trained.weight, trained.num_samples = weight, branch.describe().num_train
        trained.update.CopyFrom(payload_out(payload.shape, payload.digest))
        trained.duration_s = time.perf_counter() - started
        self._store.keep(answer)
        size = num_bytes(payload.shape.num_bytes)
        self._tell("info", f"round {asked.round_number + 1}: an update of weight {weight} is ready, {size}")
        self._last = payload
        return self._told(answer)

    def _told(self, answer: wire.Answer) -> wire.Answer:
        """Give what the hub is told of an update: where it is masked nothing that tells one from another."""
        if self._masker is None:
            return answer
        said = wire.Answer()
        said.CopyFrom(answer)
        said.trained.ClearField("update")
        return said

    def _mask(self, run: str, ask: wire.Ask) -> wire.Answer:
        """Take part in a masked sum, and say in a line why where that is refused."""
        is_key, error = ask.WhichOneof("what") == "key", "no member of a hub with secure_aggregation"
        try:
            if self._masker is None:
                raise LinkError(error)
            if not is_key:
                return wire.Answer(masked=self._masker.mask(ask.mask))
            keyed = self._masker.key(run, ask)
            if keyed.is_lost:  # it will be asked to train once more
                with self._lock:
                    self._answers.pop(self._masker.train_id(run, ask), None)
            return wire.Answer(keyed=keyed)
        except LinkError as refused:
            self._tell("error", str(refused))
            error = str(refused)
        return wire.Answer(keyed=wire.Keyed(error=error)) if is_key else wire.Answer(masked=wire.Masked(error=error))

    def _model(self, branch: Branch, said: wire.Payload, asked: Asked | None, holder: str) -> ModelState:
        """Bring a model here, from its holder or from the hub. Errors: LinkError for one of another shape."""
        layout = branch.layout
        if asked is not None:
            objective = branch.config.hubs[asked.hub].strategy.objective() if asked.hub in branch.config.hubs else None
            layout = layout.with_channels(objective.channels(layout.num_floats) if objective is not None else {})
        shape = Shape(layout.num_floats, layout.num_ints, str(layout.float_dtype))
        digest = payload_in(said, shape, "a model")
        path = self._store.model(digest)
        if self._place is not None:
            path = self._place.bring(text(holder, "a holder"), shape, digest, path)
        elif holder:
            raise LinkError(f"a model at {text(holder, 'a holder')}, which {branch.path} takes nothing from")
        elif path != self._brought or not path.exists():  # one that this process has brought is not hashed once more
            self._fetch(shape, digest, path, self._store.models)
            self._brought = path
        return ModelState(*self._store.read(path, shape))


def _smaller(counted: wire.Tally) -> str:
    """Say what makes a measurement smaller."""
    table = wire.Tally(confusion=counted.confusion).ByteSize()
    if table > MAX_ANSWER_BYTES:
        return (
            f"its table of {math.isqrt(len(counted.confusion))} true and predicted classes has {table}: fewer classes"
        )
    if any(not curve.bins for curve in counted.curves):
        return "evaluation.auc: histogram takes few"
    return "a smaller evaluation.bins takes fewer, evaluation.auc: none no more than the counts"


def _is_error(answer: wire.Answer) -> bool:
    return bool(answer.prepared.difference) or any(
        getattr(answer, kind).error
        for kind in ("described", "trained", "evaluated", "placed", "keyed", "masked")
        if answer.HasField(kind)
    )
