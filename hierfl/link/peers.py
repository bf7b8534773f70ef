"""Members of a hub without a centre, from one to the other: each hands out what lies at its place, and takes the rest.

Who needs a vector dials who has it, over mutual TLS, and takes it from any chunk on, over as many connections as it
takes. Who may dial whom stands in the certificates and in the tree: a peer of the same hub, and nobody else.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from hierfl.errors import LinkError, PeerUnreached
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.chunks import MAX_MESSAGE_BYTES, decode
from hierfl.link.codec import parse
from hierfl.link.door import SERVICE, TRANSPORT, Door, Tell
from hierfl.link.identity import PEER, server_name
from hierfl.link.kit import Kit
from hierfl.link.patience import Patience
from hierfl.link.payload import Incoming, Outgoing, Shape
from hierfl.link.permits import HAND, NODE_KEY, Peer
from hierfl.link.sound import wrong_with
from hierfl.link.times import Times
from hierfl.link.words import SILENCE, in_words

__all__ = ["Neighbours", "PeerDoor"]

_FINAL = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
)
"""Answers that another attempt would not change."""

MOST_DAMAGED = 3
"""How often the same chunk may come damaged, or with numbers that no sum may hold."""

_GONE = (grpc.StatusCode.NOT_FOUND,)
"""Those of a member that has lost what it had."""


class PeerDoor:
    """Hands out what lies here to `callers`, until it is closed. `offered`: gives a vector by its digest, or None.

    Errors: LinkError if it cannot listen.
    """

    def __init__(
        self,
        kit: Kit,
        listen: str,
        callers: Collection[str],
        offered: Callable[[bytes], Outgoing | None],
        tell: Tell = lambda level, node, said: None,
    ) -> None:
        self._offered = offered
        handlers = {HAND: grpc.unary_stream_rpc_method_handler(self._hand)}
        self._door = Door(kit, listen, kit.federation, callers, handlers, tell=tell)
        self.port = self._door.port
        self._door.open()

    def close(self) -> None:
        """Hand out nothing more."""
        self._door.close(0.5)

    def _hand(self, request: bytes, context: Any, peer: Peer, node: str) -> Iterator[bytes]:
        try:
            asked = parse(wire.FetchRequest, request)
            payload = self._offered(asked.digest)
            if payload is not None:
                yield from payload.chunks(0, asked.offset)
        except LinkError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        if payload is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "it is not here, or not any more")


class Neighbours:
    """Takes vectors from where they lie; safe among threads. `addresses`: of those that may be asked, by path.

    One that cannot be reached, or says nothing, is tried again until `deadline_s` have passed without a byte of it.
    """

    def __init__(
        self, kit: Kit, addresses: Mapping[str, str], deadline_s: float, tell: Callable[[str, str], None]
    ) -> None:
        self._kit = kit
        self._addresses = addresses
        self._deadline_s = deadline_s
        self._times = Times(deadline_s)
        self._tell = tell
        self._chance = random.Random(secrets.randbits(64))
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        self._channels: dict[str, Any] = {}

    def take(self, holder: str, shape: Shape, digest: bytes, path: Path, limit: int | None = None) -> None:
        """Bring a vector to a place. `limit`: as of `Incoming`.

        Errors: PeerUnreached where the holder is not reached, or does not have it any more; LinkError where it may not
        be had there.
        """
        if holder not in self._addresses:
            raise LinkError(f"{holder or 'the hub'} is none of those that {self._kit.path} takes vectors from")
        incoming = Incoming(path, shape, digest, limit)
        try:
            self._take(holder, incoming)
        finally:
            incoming.close()

    def close(self) -> None:
        """Take nothing more."""
        self._leaving.set()
        with self._lock:
            channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            channel.close()

    def _take(self, holder: str, incoming: Incoming) -> None:
        heard_s, attempt, damaged = time.monotonic(), 0, 0
        known = ""
        while not incoming.is_whole:
            before, said, channel = incoming.received, "it says nothing", self._channel(holder)
            try:
                self._stream(channel, incoming)
            except (grpc.RpcError, ValueError) as error:  # the latter of a connection that another thread has given up
                said = wrong_with(self._kit, datetime.now(UTC)) or in_words(error)
                known = said = known if said == SILENCE and known else said  # an attempt cut short says less
                self._forget(holder, channel)
                if isinstance(error, grpc.RpcError) and error.code() in _FINAL:
                    why = f"{holder} at {self._addresses[holder]} refuses {self._kit.path}: {said}"
                    raise (PeerUnreached(holder, why) if error.code() in _GONE else LinkError(why)) from error
            except LinkError as error:
                said = f"what comes is damaged: {error}"
                self._tell("warning", f"{holder}: {said}")
                damaged += 1
            if incoming.received > before:
                heard_s, attempt, damaged = time.monotonic(), 0, 0
                continue
            if damaged >= MOST_DAMAGED:
                raise PeerUnreached(holder, f"{self._kit.path} cannot take a vector of {holder}: {said}")
            where = f"{holder} at {self._addresses[holder]} (link.peers)"
            if time.monotonic() - heard_s > self._deadline_s:
                why = f"{self._kit.path} has not reached {where} for {self._deadline_s:g} s (link.deadline_s): {said}"
                raise PeerUnreached(holder, why)
            if not attempt:
                self._tell("warning", f"{where} is not reached, and is tried again: {said}")
            if self._leaving.wait(self._times.back_off_s(attempt, self._chance)):
                raise LinkError(f"{self._kit.path} is leaving")
            attempt += 1

    def _stream(self, channel: Any, incoming: Incoming) -> None:
        """Take what comes on one call, which is given up once nothing comes.

        Errors: grpc.RpcError; ValueError of a channel that is closed; LinkError.
        """
        hand = channel.unary_stream(f"/{SERVICE}/{HAND}", request_serializer=wire.FetchRequest.SerializeToString)
        asked = wire.FetchRequest(digest=incoming.digest, offset=incoming.received)
        call = hand(asked, metadata=((NODE_KEY, self._kit.path.encode()),))
        with Patience(self._times.silence_s, call.cancel) as patience:
            for message in call:
                incoming.take(decode(message))
                patience.heard()

    def _channel(self, holder: str) -> Any:
        """Give the way to a holder, by the kit as it is when it is opened."""
        with self._lock:
            if holder not in self._channels:
                key, certificate, authority = self._kit.credentials()
                credentials = grpc.ssl_channel_credentials(authority, key, certificate)
                options = [
                    ("grpc.ssl_target_name_override", server_name(self._kit.federation, holder, PEER)),
                    *TRANSPORT,
                    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                    ("grpc.enable_retries", 0),
                    ("grpc.use_local_subchannel_pool", 1),
                ]
                self._channels[holder] = grpc.secure_channel(self._addresses[holder], credentials, options)
            return self._channels[holder]

    def _forget(self, holder: str, channel: Any) -> None:
        """Open another connection the next time, unless some thread has done so already."""
        with self._lock:
            if self._channels.get(holder) is channel:
                del self._channels[holder]
        channel.close()
