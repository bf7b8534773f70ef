"""A member's way to its hub: it dials, keeps one control stream open, and dials again after every cut.

Whatever was under way goes on: what the hub asked is asked again, a model goes on coming from where it was, an update
goes on from where the hub has it. Where several processes may serve the hub, the member tries one address after the
other and stays with the process that leads.
"""

from __future__ import annotations

import contextlib
import queue
import random
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from hierfl.errors import Fenced, LinkError
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.chunks import MAX_MESSAGE_BYTES, decode
from hierfl.link.codec import MAX_BYTES, folder_name_in, parse, text
from hierfl.link.desk import Abandoned
from hierfl.link.door import SERVICE, TRANSPORT
from hierfl.link.identity import server_name
from hierfl.link.kit import Kit
from hierfl.link.leaders import Leaders, Outranked, followed
from hierfl.link.patience import Patience
from hierfl.link.payload import Incoming, Outgoing, Shape
from hierfl.link.permits import NODE_KEY
from hierfl.link.service import SUCCEEDED, VERSIONS
from hierfl.link.session import NONCE_BYTES, Stamps
from hierfl.link.sound import wrong_with
from hierfl.link.spool import Spool
from hierfl.link.times import Times
from hierfl.link.words import in_words

__all__ = ["Dialer"]

_REFUSALS = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
)


_PUT_OFF = (grpc.StatusCode.ABORTED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""What a hub says of an update that it does not take now: it is not asked again and again without a pause."""


class Dialer:
    """Keeps a member in touch with its hub. `asked` takes what the hub asks, `offered` gives an update by digest.

    `addresses`: where the hub's processes are reached; `leaders`: which of them led last.
    """

    def __init__(
        self,
        kit: Kit,
        hub: str,
        addresses: Sequence[str],
        hello: wire.Hello,
        deadline_s: float,
        compression: str,
        tell: Callable[[str, str], None],
        leaders: Leaders | None = None,
    ) -> None:
        self._kit = kit
        self._hub = hub
        self._addresses = tuple(addresses)
        self._at = 0
        self._leaders = leaders or Leaders()
        self._hello = hello
        self._times = Times(deadline_s)
        self._compression = grpc.Compression.Gzip if compression == "gzip" else None
        self._tell = tell
        self._chance = random.Random(secrets.randbits(64))
        self._leaving = threading.Event()
        self._farewell = ""
        self._is_put_off = False
        self._up = threading.Condition()
        self._channel: Any = None
        self._outgoing: queue.SimpleQueue[wire.MemberSays] | None = None
        self._call: Any = None
        self._delivery: Any = None
        self._patience = Patience(self._times.silence_s, lambda: None)
        self.run = ""
        self.has_joined = False
        self.asked: Callable[[str, wire.Ask], None] = lambda run, ask: None
        self.offered: Callable[[bytes], Outgoing | None] = lambda digest: None

    @property
    def is_up(self) -> bool:
        """Whether the hub is reached now."""
        return self._outgoing is not None

    @property
    def address(self) -> str:
        """The address that is dialled now."""
        return self._addresses[self._at]

    def say(self, answer: wire.Answer) -> None:
        """Answer, if the hub is reached now; else it will ask again."""
        outgoing = self._outgoing
        if outgoing is not None:
            outgoing.put(wire.MemberSays(answer=answer))

    def leave(self, reason: str) -> None:
        """Say farewell and dial no more."""
        self._farewell = reason
        self._leaving.set()
        with self._up:
            outgoing, call, delivery = self._outgoing, self._call, self._delivery
            self._up.notify_all()
        if outgoing is not None:
            if delivery is not None:
                delivery.cancel()  # it may fill the connection, and keep the farewell from going
            self._say_farewell(outgoing)
        elif call is not None:
            call.cancel()  # a hub that has said nothing yet is not waited for

    def serve(self) -> str:
        """Stay in touch until the hub says that it is over, or the member leaves; give the hub's last words.

        Errors: LinkError where the hub refuses the member before it has ever joined; Fenced where another process has
        joined as this member since.
        """
        attempt = 0
        while not self._leaving.is_set():
            self.has_joined = False
            try:
                final = self._session()
                if final is not None:
                    return final
            except grpc.RpcError as error:
                self._failed(error)
            except Outranked as error:
                self._tell("warning", f"{error}; it is not followed")
            except LinkError as error:
                self._tell("warning", f"the hub broke the rules: {error}")
            attempt = 0 if self.has_joined and not self._is_put_off else attempt + 1
            turn, tried = divmod(attempt, len(self._addresses))
            if not self.has_joined:  # else it may be back at once where it was
                self._at = (self._at + 1) % len(self._addresses)
            if not tried:
                self._leaving.wait(self._times.back_off_s(turn, self._chance))
        return ""

    def fetch(self, shape: Shape, digest: bytes, path: Path, spool: Spool | None = None) -> None:
        """Bring a model to a place, over as many connections as it takes. `spool`: the place's, if it is of one.

        Errors: Abandoned if the hub does not give it any more, or the member leaves.
        """
        with contextlib.closing(Incoming(path, shape, digest, spool=spool)) as incoming:
            attempt = 0
            while not incoming.is_whole:
                before = incoming.received
                self._fetch(incoming)
                attempt = 0 if incoming.received > before else attempt + 1
                if not incoming.is_whole and self._leaving.wait(self._times.back_off_s(attempt, self._chance)):
                    raise Abandoned("the member is leaving")

    def _fetch(self, incoming: Incoming) -> None:
        """Bring what comes of a model over one connection. Errors: as of `fetch`."""
        channel = self._wait_until_up()
        try:
            fetch = channel.unary_stream(f"/{SERVICE}/Fetch", request_serializer=wire.FetchRequest.SerializeToString)
            asked = wire.FetchRequest(digest=incoming.digest, offset=incoming.received)
            for message in fetch(asked, metadata=self._metadata()):
                incoming.take(decode(message))
                self._patience.heard()
        except (grpc.RpcError, ValueError) as error:  # the latter of a connection that was cut just before
            if isinstance(error, grpc.RpcError) and error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                raise Abandoned("the hub does not ask for this any more") from error
            self._tell("info", f"a model stopped coming at byte {incoming.received}: {in_words(error)}")
        except LinkError as error:
            self._tell("warning", f"a model came damaged: {error}")

    def _session(self) -> str | None:
        """Dial once and serve the control stream to its end; give the hub's last words if they are final."""
        try:
            key, certificate, authority = self._kit.credentials()
        except LinkError as error:  # it may be in the midst of being renewed
            self._tell("warning", f"{self._hub} is not dialled: {error}")
            return None
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        most = max(MAX_BYTES, MAX_MESSAGE_BYTES)
        options = [
            ("grpc.ssl_target_name_override", server_name(self._kit.federation, self._hub)),
            *TRANSPORT,
            ("grpc.max_receive_message_length", most),
            ("grpc.max_send_message_length", most),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        stamps = Stamps()
        outgoing: queue.SimpleQueue[wire.MemberSays] = queue.SimpleQueue()
        self._hello.run, self._hello.leader = self._leaders.last
        outgoing.put(wire.MemberSays(hello=self._hello))
        with grpc.secure_channel(self.address, credentials, options, self._compression) as channel:
            control = channel.stream_stream(f"/{SERVICE}/Control", request_serializer=wire.MemberSays.SerializeToString)
            call = self._call = control(self._says(outgoing, stamps), metadata=self._metadata())
            self._patience = Patience(self._times.silence_s, call.cancel, self._first_s())
            try:
                with self._patience:
                    for content in call:
                        self._patience.heard()
                        said: wire.HubSays = parse(wire.HubSays, content)
                        final = self._heard(said, stamps, channel, outgoing)
                        if final is not None:
                            return final or None
                return None
            finally:
                self._outgoing = None
                with self._up:
                    self._channel = None
                outgoing.put(wire.MemberSays(bye=wire.Bye()))
                call.cancel()

    def _says(self, outgoing: queue.SimpleQueue[wire.MemberSays], stamps: Stamps) -> Iterator[wire.MemberSays]:
        """Give what is to be sent, and a beat where there is nothing."""
        while True:
            try:
                said = outgoing.get(timeout=self._times.beat_s)
            except queue.Empty:
                if not self.is_up:
                    continue
                said = wire.MemberSays(beat=wire.Beat())
            yield stamps.mark(said)
            if said.WhichOneof("what") == "bye":
                return

    def _say_farewell(self, outgoing: queue.SimpleQueue[wire.MemberSays]) -> None:
        """Say that the member leaves; a hub that does not hear it is not waited for."""
        outgoing.put(wire.MemberSays(bye=wire.Bye(reason=self._farewell)))
        self._patience.at_most(self._times.farewell_s)

    def _first_s(self) -> float:
        """Give how long to wait for a hub's first word; less, where there is another way."""
        return self._times.beat_s if len(self._addresses) > 1 else self._times.silence_s

    def _heard(
        self, said: wire.HubSays, stamps: Stamps, channel: Any, outgoing: queue.SimpleQueue[wire.MemberSays]
    ) -> str | None:
        """Take one message; None goes on, "" ends the session, anything else is final. Errors: LinkError."""
        if not stamps.nonce:
            self._welcomed(said, stamps, channel, outgoing)
            return None
        stamps.check(said)
        match said.WhichOneof("what"):
            case "ask":
                self.asked(self.run, said.ask)
            case "take":
                threading.Thread(target=self._deliver, args=(channel, said.take), name="deliver", daemon=True).start()
            case "bye":
                reason = text(said.bye.reason, "a reason")
                self._tell("info", f"the hub ends the session: {reason}")
                return (reason or "the hub has finished") if said.bye.final else ""
        return None

    def _welcomed(
        self, said: wire.HubSays, stamps: Stamps, channel: Any, outgoing: queue.SimpleQueue[wire.MemberSays]
    ) -> None:
        """Begin a session. Errors: LinkError if that is no welcome."""
        welcome = said.welcome
        if said.WhichOneof("what") != "welcome" or len(welcome.nonce) != NONCE_BYTES or said.sequence != 1:
            raise LinkError("the hub's first message is no welcome")
        if welcome.version not in VERSIONS:
            raise LinkError(f"the hub speaks version {welcome.version} of the protocol")
        stamps.nonce = welcome.nonce
        stamps.skip()
        run = folder_name_in(welcome.run, "a run's name")  # what is kept of it lies under that
        line = text(welcome.line, "the line of a run's processes")
        self._leaders.follow(followed(run, line), welcome.leader, self.address)
        self.run, self.has_joined = run, True
        number = f" led by number {welcome.leader}" if welcome.leader else ""
        self._tell("info", f"has joined {self._hub} at {self.address}, run {run}{number}")
        with self._up:
            self._channel, self._outgoing = channel, outgoing
            self._up.notify_all()
        if self._leaving.is_set():  # it was asked to just now
            self._say_farewell(outgoing)

    def _deliver(self, channel: Any, take: wire.Take) -> None:
        """Send an update from where the hub has it; after a cut the hub asks again."""
        payload = self.offered(take.digest)
        if payload is None:
            self._tell("error", "the hub wants an update that is not here")
            return
        try:
            deliver = channel.stream_unary(f"/{SERVICE}/Deliver")
            self._delivery = deliver.future(payload.chunks(take.transfer, take.offset), metadata=self._metadata())
            self._delivery.result()
            self._is_put_off = False
        except grpc.FutureCancelledError:
            return  # the member leaves
        except (grpc.RpcError, LinkError, ValueError) as error:
            self._is_put_off = isinstance(error, grpc.RpcError) and error.code() in _PUT_OFF
            self._tell("info", f"an update stopped going: {in_words(error)}")
            call = self._call
            if call is not None and self.is_up:
                call.cancel()  # a new session goes on from where the hub has it

    def _wait_until_up(self) -> Any:
        """Give the channel once there is one. Errors: Abandoned once the member leaves."""
        with self._up:
            while self._channel is None:
                if self._leaving.is_set():
                    raise Abandoned("the member is leaving")
                self._up.wait(1.0)
            return self._channel

    def _failed(self, error: Any) -> None:
        """Tell of a connection that failed. Errors: LinkError where the hub refuses this member as it is; Fenced."""
        said = in_words(error)
        if error.code() == SUCCEEDED:
            raise Fenced(f"{self._hub} at {self.address} refuses: {said}; this process ends")
        if error.code() in _REFUSALS and not self.has_joined and not self.run:
            raise LinkError(f"{self._hub} at {self.address} refuses: {said}") from error
        self._is_put_off = self._is_put_off or (self.has_joined and error.code() in _PUT_OFF)
        said = wrong_with(self._kit, datetime.now(UTC)) or said  # a hub that does not believe it just hangs up
        self._tell("warning", f"{self._hub} at {self.address} is not reached: {said}")

    def _metadata(self) -> tuple[tuple[str, bytes], ...]:
        return ((NODE_KEY, self._kit.path.encode()),)
