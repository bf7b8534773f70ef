"""The hub's side of one member: to the run's supervisor a worker like any other, to the member who asks it.

Calls are carried out one at a time, in order. What a member was asked is asked again on every new session until it has
answered, under the same id, so that a member that has done it answers at once. Nothing here knows gRPC: `Session.say`
takes what is to be sent, `done` what has become of a call.

Calls to the member's place, where the hub has no centre, go the same way as all others, in their turn. A member that
breaks the rules in the place of an answer has its deadline from then on, however often it joins anew; an answer that
may not be is the end of what was asked, for asked again it would be the same.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from hierfl.errors import HierflError, LinkError
from hierfl.learning.state import Layout
from hierfl.link import asks, reports
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.answers import admit_described
from hierfl.link.chunks import Chunk
from hierfl.link.codec import text
from hierfl.link.collect import Collect
from hierfl.link.errands import EVER, PARTED, PLACE, Call, Member, Offer
from hierfl.link.masked import MaskedSums
from hierfl.link.masked_collect import MaskedCollect
from hierfl.link.payload import Outgoing
from hierfl.link.session import Session
from hierfl.link.shelf import Shelf
from hierfl.link.spool import Spool
from hierfl.link.turns import Turns
from hierfl.runtime.driver import Done
from hierfl.runtime.jobs import TrainJob

__all__ = ["Lane"]


class Lane:
    """See the file's head. `run`: the run's name, which is a part of every id; `num_sites`: at and below the member;
    `stays`: its updates stay with it; `turns`: of the hub's members; `epochs`: of the tree, in which it is a member;
    `masked`: where it masks its updates.
    """

    def __init__(
        self,
        path: str,
        run: str,
        deadline_s: float,
        num_sites: int,
        spool: Spool,
        shelf: Shelf,
        done: Callable[[Done], None],
        put: Callable[[Any], Any],
        now: Callable[[], float] = time.monotonic,
        stays: bool = False,
        turns: Turns | None = None,
        epochs: range = EVER,
        masked: MaskedSums | None = None,
    ) -> None:
        self.path = path
        self.run = run
        self.deadline_s = deadline_s
        self._num_sites = num_sites
        self.spool = spool
        self._shelf = shelf
        self._done = done
        self._put = put
        self._now = now
        self._turns = turns or Turns()
        self._epochs = epochs
        self._epoch = 0
        self.parting = ""
        self._dropped: deque[str] = deque()
        self._alive: set[str] = set()
        self._lock = threading.RLock()
        self._calls: deque[Call] = deque()
        self._offers: dict[tuple[str, int], Offer] = {}
        self._member = Member()
        self._layout: Layout | None = None
        self._scale: Any = None
        self._preparing: wire.Ask | None = None
        own = path, run, self._member, self._offers, self._ask, self._end, self._lose
        self._masked = None if masked is None else MaskedCollect(masked, *own)
        whose = path, num_sites, self._member, self._offers, self._end, self._go_on, self._stray
        self._collect = Collect(*whose, self._lock, spool, self._turns, put, self._masked, stays=stays)

    # --- the supervisor's side

    def call(self, ticket: int, method: str, arguments: tuple[Any, ...]) -> None:
        """Take a call."""
        with self._lock:
            done = None if self._masked is None else self._masked.called(ticket, method, arguments, self._calls)
            if done is not None:
                self._done(done)
                return
            if not self._calls:
                self._member.heard_s = self._now()
            self._calls.append(Call(ticket, method, arguments, self._epoch))
            try:
                self._go_on()
            except OSError as error:  # of the disk, which the member's next session tells
                if self._member.session is not None:
                    self._member.session.end(f"the hub cannot take it now: {error.strerror}")

    def enter(self, epoch: int) -> None:
        """The tree has another epoch: who is no member any more is asked nothing, and told so now or once it comes."""
        with self._lock:
            self._epoch, self.parting = epoch, PARTED if epoch >= self._epochs.stop else ""
            if not self.parting:
                return
            for call in self._calls:  # nobody waits for them
                self._done(Done(call.ticket, self.path))
            self._calls.clear()
            if self._member.session is not None:
                self._member.session.end(self.parting)
        self._turns.leave(self.path)

    def drop(self, name: str) -> None:
        """Nobody refers any more to what lies at the member's place by this name; the next call there says so."""
        self._alive.discard(name)
        self._dropped.append(name)

    def reset(self) -> None:
        """Give up what was asked of the member as a worker: nobody waits for it any more."""
        with self._lock:
            self._calls = deque(call for call in self._calls if call.method == PLACE)
            for offer in self._offers.values():
                offer.drop()
            self._offers.clear()
            if self._masked is not None:
                self._masked.left()
            self._member.sent_to = None
            self._member.heard_s = self._now()
        self._turns.leave(self.path)

    def look(self) -> None:
        """End what a member was asked that has been silent for longer than its deadline; ask what it was not asked."""
        self._turns.look()
        with self._lock:
            with contextlib.suppress(OSError):  # of the disk, which the member's own session tells
                self._go_on()
            call = self._calls[0] if self._calls else None
            if call is None or call.method == "prepare" or not self._member.has_joined:
                return
            if self._now() - self._member.heard_s > self.deadline_s:
                self._lose(f"not heard of for {self.deadline_s:g} s (link.deadline_s)", away=True)
            elif call.strayed_s is not None and self._now() - call.strayed_s > self.deadline_s:
                self._fail(
                    call, f"broke the rules, and has not answered since for {self.deadline_s:g} s (link.deadline_s)"
                )

    def strayed(self, session: Session) -> None:
        """A member has broken the rules in a session, where that was not by an answer."""
        if not session.is_refused:
            self._stray(True)

    def _stray(self, has_strayed: bool) -> None:
        """Note since when what was asked waits for a member that has broken the rules, or that it goes on."""
        with self._lock:
            for call in list(self._calls)[:1]:
                if not has_strayed or call.strayed_s is None:
                    call.strayed_s = self._now() if has_strayed else None

    def _fail(self, call: Call, why: str) -> None:
        """End what a member was asked, as if it had said why it cannot do that."""
        if call.method != "collect":
            kind, message = reports.failed(call.method, why)
            getattr(self, f"_{kind}")(call, message)
        else:
            self._collect.fail(call, why)
        self._go_on()

    def _lose(self, reason: str, *, away: bool = False) -> None:
        """End what a member was asked: it will not answer that."""
        worker = [call for call in self._calls if call.method != PLACE][:1]  # whoever asked asks for all anew
        lost = [call for call in self._calls if call.method == PLACE or call in worker]
        self._calls.clear()
        if self._masked is not None:
            self._masked.left()
        for call in lost:
            self._done(Done(call.ticket, self.path, crashed=reason, away=away))

    # --- the member's side

    @property
    def session(self) -> Session | None:
        """Give the session that is open."""
        return self._member.session

    @property
    def is_member(self) -> bool:
        """Whether the tree has the member as it is now."""
        return self._epoch in self._epochs

    def succeeded(self, session: Session) -> str:
        """Say who has succeeded a process that would join; where nobody has, it is empty, and earlier ones may not join
        any more.
        """
        with self._lock:
            return self._member.succeeded(session, self.path)

    def joined(self, session: Session) -> None:
        """A member is there: it is asked what is open."""
        with self._lock:
            before, self._member.session = self._member.session, session
            self._member.has_joined, self._member.heard_s, self._member.sent_to = True, self._now(), None
            self._preparing = None
            if before is not None:
                is_same = before.instance == session.instance
                before.end("the member has connected anew" if is_same else "another process serves the member now")
            self._go_on()

    def left(self, session: Session) -> None:
        """A session is over."""
        with self._lock:
            if self._member.session is not session:
                return
            self._member.session = None
            for offer in self._offers.values():
                offer.transfer = 0  # what still comes on the old connection does not count
            self._turns.forget(self.path)  # the next session, which comes as soon as the lock is free, asks anew
        self._turns.look()

    def silent_s(self) -> float:
        """Give the seconds since something came from the member."""
        return self._now() - self._member.heard_s

    def heard(self) -> None:
        """Something has come from the member."""
        self._member.heard_s = self._now()

    def answered(self, answer: wire.Answer) -> None:
        """Take an answer. Errors: LinkError if it is none to what was asked, or may not be; then there is none."""
        with self._lock:
            call = self._calls[0] if self._calls else None
            ask = self._preparing if self._preparing is not None else call.ask if call is not None else None
            if ask is None or answer.id != ask.id:
                return  # to something that was given up, or answered before
            try:
                self._admit(call, ask, answer)
            except LinkError as error:
                if self._member.session is not None:
                    self._member.session.is_refused = True
                kind = asks.ANSWERS[ask.WhichOneof("what") or ""]
                self._admit(call, ask, asks.failed(kind, f"its answer was refused: {error}"))
                raise
            finally:
                self._go_on()

    def _admit(self, call: Call | None, ask: wire.Ask, answer: wire.Answer) -> None:
        """Take an answer to what was asked, for a call. Errors: LinkError."""
        kind, asked = answer.WhichOneof("what"), ask.WhichOneof("what") or ""
        if kind != asks.ANSWERS[asked]:
            raise LinkError(f"{kind} in answer to {asked}")
        if kind == "prepared":
            self._prepared(text(answer.prepared.difference, "a difference"))
            return
        assert call is not None
        if kind in ("keyed", "masked"):
            assert self._masked is not None
            self._masked.answered(call, answer)
        else:
            getattr(self, f"_{kind}")(call, getattr(answer, kind))

    def payload(self, digest: bytes) -> Outgoing:
        """Give the model that the member was asked to take. Errors: LinkError for another."""
        with self._lock:
            found = self._calls[0].offers.get(digest) if self._calls else None
            if found is None:
                raise LinkError("that is no model that was sent for now")
            return found

    def receive(self, chunk: Chunk) -> tuple[bytes, bool]:
        """Take a chunk of an update; give the update's digest, and whether it is whole. Errors: LinkError."""
        return self._collect.receive(chunk, self.heard)

    # --- what comes next

    def _go_on(self) -> None:
        """Carry out calls until one has to wait."""
        while self._calls:
            call = self._calls[0]
            if call.method == "prepare" and (call.arguments[0] is None or call.epoch not in self._epochs):
                if self._member.session is None:
                    return
                self._layout, self._scale = call.arguments
                self._end(call, None)
            elif call.method == "collect":
                if not self._collect.go_on(call):
                    return
            else:
                self._ask(call)
                return

    def _ask(self, call: Call) -> None:
        """Ask the member, once on each session; a process that is new is prepared first."""
        member = self._member
        if call.method == "prepare":
            self._layout, self._scale = call.arguments
            if call.ask is None:
                member.prepared_by, call.ask = "", wire.Ask()
        if member.session is None:
            return
        is_new = member.prepared_by != member.session.instance and call.method != "describe"
        if self._layout is not None and is_new:
            if self._preparing is None:
                ask = asks.prepare(self._layout, self._scale)
                self._preparing = asks.with_id(ask, self.run, self.path, call.epoch)
                member.session.say(wire.HubSays(ask=self._preparing))
            return
        if call.ask is None:
            named = self._alive.copy(), self._dropped
            call.ask, call.begun_s = asks.written(call, self.run, self.path, self._shelf.payload, *named), time.time()
        if member.sent_to is not member.session:
            member.sent_to = member.session
            member.session.say(wire.HubSays(ask=call.ask))

    def _prepared(self, difference: str) -> None:
        """The member has built its model, and says whether it is the federation's."""
        assert self._member.session is not None
        self._member.prepared_by, self._preparing = self._member.session.instance, None
        call = self._calls[0] if self._calls else None
        if call is not None and call.method == "prepare":
            self._end(call, difference or None)
        elif difference:
            self._member.session.end(f"it cannot take part in the run any more: {difference}")

    def _described(self, call: Call, message: wire.Described) -> None:
        self._end(call, (admit_described(message, self.path, self._num_sites),))

    def _evaluated(self, call: Call, message: wire.Evaluated) -> None:
        self._end(call, *reports.evaluated(call, message, self.path, self._num_sites, self._put))

    def _placed(self, call: Call, message: wire.Placed) -> None:
        """Work at the member's place is done, or could not be."""
        value, beside, error = reports.placed(call, message, self.path)
        for held in reports.things(beside):
            self._alive.add(held.name)
            weakref.finalize(held, self.drop, held.name)
        self._end(call, value, beside, error)

    def _trained(self, call: Call, message: wire.Trained) -> None:
        """A member has an update ready, or none."""
        assert self._layout is not None
        own = self.path, self._num_sites, self._layout
        report, offer = reports.trained(call, message, *own, is_masked=self._masked is not None)
        job: TrainJob = call.arguments[0]
        if offer is not None:
            before = self._offers.get((job.hub, job.round_number))
            if before is not None:
                before.drop()
            self._offers[job.hub, job.round_number] = offer
        beside = (self._put({self.path: {}}),) if call.method == "train_keeping" else ()
        self._end(call, (report,), beside)

    def _end(self, call: Call, value: Any, beside: tuple[Any, ...] = (), error: HierflError | None = None) -> None:
        """A call is over."""
        self._calls.popleft()
        self._member.sent_to = None
        begun_s = call.begun_s or time.time()
        self._done(Done(call.ticket, self.path, value, beside, error, started_s=begun_s, ended_s=time.time()))
