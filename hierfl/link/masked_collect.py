"""How a lane collects a masked update: it asks its member for what comes next of the sum, until the sum is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hierfl.errors import LinkError
from hierfl.learning.ring import PartialSum
from hierfl.link import asks
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.answers import admit_keyed, admit_masked
from hierfl.link.errands import Call, Member, Offer
from hierfl.link.masked import KEY, TAKE, WAIT, MaskedSums, Over, Step
from hierfl.runtime.driver import Done
from hierfl.runtime.jobs import SiteReport

__all__ = ["MaskedCollect"]


class MaskedCollect:
    """One lane's, under the lane's lock. `member`, `offers`, `ask`, `end`, `lose`: the lane's own; `ask` sends what a
    call asks, once on each session.
    """

    def __init__(
        self,
        sums: MaskedSums,
        path: str,
        run: str,
        member: Member,
        offers: dict[tuple[str, int], Offer],
        ask: Callable[[Call], None],
        end: Callable[..., None],
        lose: Callable[[str], None],
    ) -> None:
        self._sums = sums
        self._path = path
        self._run = run
        self._member = member
        self._offers = offers
        self._ask = ask
        self._end = end
        self._lose = lose

    def called(self, ticket: int, method: str, arguments: tuple[Any, ...], calls: Iterable[Call]) -> Done | None:
        """Hear of a call before it joins others; end it where that is all, or what is trained could not be masked."""
        if method == "leave_out":
            hub, order, why = arguments
            self._sums.leave_out(hub, order, self._path, why)
            return Done(ticket, self._path)
        if method == "collect" and any((one.method, one.arguments) == (method, arguments) for one in calls):
            offer = self._offers.get((arguments[0], arguments[1]))
            if offer is not None:  # what is asked for once more is not wanted as it was
                self._sums.void(offer.job)
        said = self._sums.misfit(arguments[0]) if method.startswith("train") else ""
        if not said:
            return None
        if not self._sums.may_lose(arguments[0].hub):
            return Done(ticket, self._path, error=LinkError(said))
        return Done(ticket, self._path, (SiteReport(self._path, 0.0, 0, 0, None, said),))

    def left(self) -> None:
        """The member is away, and will be asked to train once more."""
        self._sums.left(self._path)

    def go_on(self, call: Call, offer: Offer) -> Over | bool:
        """Ask for what comes next; say whether the masked update itself is to come now, or how the sum is over."""
        session = self._member.session
        if session is not None and offer.instance not in ("", session.instance):
            self._sums.restart(offer.job)  # a process that has begun since knows no key
        step = self._sums.next(offer.job, self._path, offer.weight)
        if isinstance(step, Over):
            return step
        offer.begin(step.attempt)
        if step.what == WAIT:
            return False
        if step.what == TAKE:
            if call.ask is not None:
                call.ask, self._member.sent_to = None, None
            return True
        if call.ask is None or (call.ask.WhichOneof("what"), _attempt(call.ask)) != (step.what, step.attempt):
            call.ask, self._member.sent_to = self._written(step, offer.asked), None
        self._ask(call)
        return False

    def _written(self, step: Step, asked: wire.Ask) -> wire.Ask:
        """Write what is asked next of a member that was `asked` to train."""
        ask = wire.Ask()
        if step.what == KEY:
            ask.key.CopyFrom(wire.AskKey(train=asked.train, attempt=step.attempt, members=step.members))
        else:
            ask.mask.CopyFrom(wire.AskMasked(train=asked.train, attempt=step.attempt, keys=step.keys))
        return asks.with_id(ask, self._run, self._path, asked.epoch)

    def came(self, offer: Offer) -> None:
        """A masked update is whole."""
        assert offer.incoming is not None
        part = PartialSum(*offer.incoming.vectors(), offer.weight)
        offer.instance = ""
        self._sums.came(offer.job, self._path, offer.attempt, part, offer.layout)

    def answered(self, call: Call, answer: wire.Answer) -> None:
        """Take a key, the set that a member keeps to, or word of a masked update. Errors: LinkError."""
        offer = self._offers[call.arguments[0], call.arguments[1]]
        is_key = answer.WhichOneof("what") == "keyed"
        assert call.ask is not None
        if offer.attempt != _attempt(call.ask):
            return  # to an attempt that was dropped meanwhile
        if is_key and answer.keyed.is_lost:
            self._lose("its update is not there any more")  # it has to train again
            return
        if answer.masked.is_lost:
            self._sums.restart(offer.job)
            return
        found = (
            admit_keyed(answer.keyed, self._path, offer.weight) if is_key else admit_masked(answer.masked, offer.shape)
        )
        if isinstance(found, tuple):
            self._sums.noted(offer.job, self._path, offer.attempt, found)
        elif isinstance(found, str):
            self.refused(call, offer, found)
        elif isinstance(found, bytes):
            offer.digest = found
            self._sums.told(offer.job, self._path, offer.attempt)
        elif self._member.session is not None:
            offer.instance = self._member.session.instance
            self._sums.keyed(offer.job, self._path, offer.attempt, found)

    def refused(self, call: Call, offer: Offer, why: str) -> None:
        """A member takes no part: the others go on without it, or the run ends."""
        if self._sums.may_lose(offer.job.hub):
            self._sums.leave_out(offer.job.hub, offer.job.order, self._path, f"takes no part in the masked sum: {why}")
        else:
            self._end(call, None, error=LinkError(f"{self._path} takes no part in the masked sum: {why}"))


def _attempt(ask: wire.Ask) -> bytes:
    """Give the attempt of what is asked."""
    return ask.key.attempt or ask.mask.attempt
