"""How a lane collects an update that its member has ready: it comes in chunks, in the member's turn, and is handed up.

Where the hub has no centre, it stays with the member: what is collected is word of where it lies.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from threading import RLock
from typing import Any

from hierfl.errors import LinkError
from hierfl.learning.ring import PartialSum
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.chunks import Chunk
from hierfl.link.errands import Call, Member, Offer
from hierfl.link.masked import Over
from hierfl.link.masked_collect import MaskedCollect
from hierfl.link.remote import Remote
from hierfl.link.spool import Spool
from hierfl.link.turns import Turns
from hierfl.runtime.jobs import LeftOut

__all__ = ["Collect"]


class Collect:
    """One lane's, under the lane's `lock`. `member`, `offers`, `end`, `go_on`, `strayed`: the lane's own; `put`: stores
    what is handed up; `masked`: where the member masks its updates; `stays`: they stay with it.
    """

    def __init__(
        self,
        path: str,
        num_sites: int,
        member: Member,
        offers: dict[tuple[str, int], Offer],
        end: Callable[..., None],
        go_on: Callable[[], None],
        strayed: Callable[[bool], None],
        lock: RLock,
        spool: Spool,
        turns: Turns,
        put: Callable[[Any], Any],
        masked: MaskedCollect | None,
        *,
        stays: bool,
    ) -> None:
        self._path = path
        self._num_sites = num_sites
        self._member = member
        self._offers = offers
        self._end = end
        self._go_on = go_on
        self._strayed = strayed
        self._lock = lock
        self._spool = spool
        self._turns = turns
        self._put = put
        self._masked = masked
        self._stays = stays

    def go_on(self, call: Call) -> bool:
        """Let an update come; say whether the call is over."""
        key = (call.arguments[0], call.arguments[1])
        offer = self._offers.get(key)
        if offer is None:
            self._end(call, None, (None,))
            return True
        if self._stays:
            del self._offers[key]
            limit = offer.limit(self._num_sites)
            held = Remote(self._path, "", offer.shape, offer.digest, offer.weight, limit)
            self._end(call, offer.header(self._path, held.num_bytes), (held,))
            return True
        call.begun_s = call.begun_s or time.time()
        step = True if self._masked is None else self._masked.go_on(call, offer)
        if isinstance(step, Over):
            self._drop(call)
            self._end(call, step.header, (None if step.part is None else self._put(step.part),), step.error)
            return True
        if not step:
            return False
        incoming = offer.comes(self._spool, self._path, self._num_sites)
        if incoming.is_whole and self._masked is not None:
            self._masked.came(offer)
            return self.go_on(call)
        if incoming.is_whole:
            del self._offers[key]
            self._hand_up(call, offer)
            return True
        session, asked = self._member.session, self._member.sent_to
        if session is not None and asked is not session and self._turns.ask(self._path, self._have_turn):
            self._member.sent_to = session
            offer.transfer = secrets.randbits(63) + 1
            take = wire.Take(transfer=offer.transfer, offset=incoming.received, digest=offer.digest)
            session.say(wire.HubSays(take=take))
        return False

    def receive(self, chunk: Chunk, heard: Callable[[], None]) -> tuple[bytes, bool]:
        """Take a chunk of an update; give the update's digest, and whether it is whole. Errors: LinkError."""
        offers = list(self._offers.values())  # others add to them, and take from them, meanwhile
        offer = next((offer for offer in offers if offer.transfer == chunk.transfer != 0), None)
        incoming = None if offer is None else offer.incoming
        if offer is None or incoming is None:
            raise LinkError("a chunk of no transfer that is open")
        try:
            incoming.take(chunk)
        except LinkError:
            offer.refused_at = max(offer.refused_at, chunk.offset)
            self._strayed(True)
            raise
        heard()
        if 0 <= offer.refused_at < chunk.offset:  # it has come further than what was refused
            self._strayed(False)
        self._turns.moved(self._path, chunk.data.nbytes)
        if incoming.is_whole:
            self._turns.leave(self._path)
            with self._lock:
                offer.transfer = 0
                self._go_on()
        return incoming.digest, incoming.is_whole

    def fail(self, call: Call, why: str) -> None:
        """There will be no update: the member gives none."""
        if self._masked is not None:
            self._masked.refused(call, self._offers[call.arguments[0], call.arguments[1]], why)
            return
        self._drop(call)
        self._end(call, LeftOut({self._path: why}), (None,))

    def _drop(self, call: Call) -> None:
        """Let go of an update, and of its turn."""
        self._offers.pop((call.arguments[0], call.arguments[1])).drop()
        self._turns.leave(self._path)

    def _have_turn(self) -> None:
        """Let an update come, unless nobody waits for it any more."""
        with self._lock:
            self._go_on()
            is_coming = any(offer.transfer for offer in self._offers.values())
            if not is_coming:
                self._turns.give_back(self._path)
        if not is_coming:
            self._turns.look()

    def _hand_up(self, call: Call, offer: Offer) -> None:
        """Give an update that is whole to the supervisor; its file goes once nobody reads it."""
        assert offer.incoming is not None
        part = PartialSum(*offer.incoming.vectors(), offer.weight)
        offer.incoming.discard()
        self._end(call, offer.header(self._path, part.num_bytes), (self._put(part),))
        if self._member.session is not None:
            self._member.session.say(wire.HubSays(receipt=wire.Receipt(digest=offer.digest)))
