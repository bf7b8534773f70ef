"""A hub's gRPC service: it brings messages and chunks to the members' lanes, and theirs to the members.

Members dial in over mutual TLS; who they are stands in their certificates (`permits`). A control stream lives as long
as the member is there; it ends when the member has been silent for too long, breaks the rules, or its certificate is
denied or has run out.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc

from hierfl import __version__
from hierfl.errors import LinkError
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.chunks import decode
from hierfl.link.codec import parse, text
from hierfl.link.door import Door, Tell
from hierfl.link.kit import Kit
from hierfl.link.lane import Lane
from hierfl.link.leaders import followed
from hierfl.link.limits import Bucket
from hierfl.link.log import Sparing
from hierfl.link.permits import Peer, whence
from hierfl.link.session import NONCE_BYTES, Session, Stamps
from hierfl.link.times import Times

__all__ = ["SUCCEEDED", "VERSIONS", "Agreed", "Service", "first_words", "take"]

VERSIONS = (11,)
"""Of the protocol. Since 2 it says which process leads the run, since 3 which one speaks for a member, since 4 it asks
for work at places; 6 hashes payloads in another way, since 7 it asks for masked updates, since 8 it says whose a masked
sum is, since 9 what did not count whole, since 10 what was counted of each label, since 11 how predictions are spread
over patients. No two speak to each other."""

SUCCEEDED = grpc.StatusCode.ABORTED
"""What a member's process is answered that another one has succeeded."""

MESSAGES_PER_S, MESSAGES_AT_ONCE = 100.0, 400.0


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both sides must agree on before anything else is said.

    `leader`: the number of this hub's process among those that may serve it; `line`: in which these count.
    """

    federation: str
    config_digest: str
    task_digest: str
    run: str
    epoch: int = 0
    leader: int = 0
    line: str = ""

    def misfit(self, hello: wire.Hello, node: str) -> str:
        """Say why a member cannot take part as it is; empty if it can. Both digests depend on hierfl's version, too."""
        same = f"the same version of hierfl ({__version__} here)"
        if hello.node != node or hello.federation != self.federation:
            return f"{hello.node!r} of {hello.federation!r} is not {node!r} of {self.federation!r}"
        if not set(hello.versions) & set(VERSIONS):
            spoken = f"it speaks versions {list(hello.versions)[:8]} of the protocol; this hub {list(VERSIONS)}"
            return f"{spoken}; both need {same}"
        if hello.config_digest != self.config_digest:
            return (
                f"its configuration is another one than this hub's; both need the same YAML and overrides, and {same}"
            )
        if hello.task_digest != self.task_digest:
            return f"the code of its task is another one than this hub's; both need the same code, and {same}"
        return ""

    def is_outranked(self, hello: wire.Hello) -> bool:
        """Whether a member knows of another process that leads this run since."""
        return hello.run == followed(self.run, self.line) and hello.leader > self.leader


def first_words(content: bytes, agreed: Agreed, node: str) -> wire.Hello:
    """Take a member's first words; they are empty where its stream ended before. Errors: LinkError."""
    said: wire.MemberSays = parse(wire.MemberSays, content)
    if said.WhichOneof("what") != "hello" or said.sequence != 1:
        raise LinkError("the first message of a stream is Hello")
    hello = said.hello
    for value in (hello.federation, hello.node, hello.instance, hello.approval, hello.run, hello.line):
        text(value, "a field of Hello")
    misfit = agreed.misfit(hello, node)
    if misfit:
        raise LinkError(misfit)
    return hello


def take(content: bytes, stamps: Stamps, lane: Lane) -> str | None:
    """Take what a member says within a session; give its last words, if these are. Errors: LinkError."""
    said: wire.MemberSays = parse(wire.MemberSays, content)
    stamps.check(said)
    lane.heard()
    match said.WhichOneof("what"):
        case "answer":
            lane.answered(said.answer)
        case "beat":
            pass
        case "bye":
            return text(said.bye.reason, "a reason") or "it has left"
        case other:
            raise LinkError(f"{other} is nothing that a member says here")
    return None


class Service:
    """Serves the members of one hub until it is closed. `lanes`: by member's path."""

    def __init__(
        self, kit: Kit, listen: str, agreed: Agreed, lanes: Mapping[str, Lane], tell: Tell, compression: str = "none"
    ) -> None:
        self.agreed = agreed
        self.lanes = lanes
        self._tell = Sparing(tell)
        self._closing = threading.Event()
        self._final = ""
        self._door = Door(kit, listen, agreed.federation, lanes, self._handlers(), compression, tell)
        self.port = self._door.port
        self._door.open()

    def close(self, reason: str, *, final: bool) -> None:
        """Say farewell to all members, and end. `final`: nothing will be asked of them any more."""
        self._final = reason if final else ""
        self._closing.set()
        for lane in self.lanes.values():
            if lane.session is not None:
                lane.session.end(reason)
        self._door.close()

    def _handlers(self) -> dict[str, Any]:
        """Give the service's calls; chunks go through as bytes."""
        return {
            "Control": grpc.stream_stream_rpc_method_handler(
                self._control, response_serializer=wire.HubSays.SerializeToString
            ),
            "Fetch": grpc.unary_stream_rpc_method_handler(self._fetch),
            "Deliver": grpc.stream_unary_rpc_method_handler(
                self._deliver, response_serializer=wire.Receipt.SerializeToString
            ),
        }

    def _control(self, requests: Iterator[bytes], context: Any, peer: Peer, node: str) -> Iterator[wire.HubSays]:
        """Serve a member's control stream."""
        lane = self.lanes[node]
        times = Times(lane.deadline_s)
        try:
            hello = first_words(next(requests, b""), self.agreed, node)
        except LinkError as error:
            self._tell("warning", node, f"was refused: {error}")
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        if self.agreed.is_outranked(hello):
            said = f"knows of number {hello.leader}, which leads the run since; this is number {self.agreed.leader}"
            way = "Where none does, as after an old copy of its folder was put back, each new start takes the next one"
            self._tell("warning", node, f"{said}. {way}")
            context.abort(grpc.StatusCode.UNAVAILABLE, f"number {self.agreed.leader} does not lead any more")
        stamps = Stamps(secrets.token_bytes(NONCE_BYTES))
        says: queue.SimpleQueue[wire.HubSays] = queue.SimpleQueue()

        def end(reason: str) -> None:
            says.put(wire.HubSays(bye=wire.Bye(reason=reason, final=bool(self._final or lane.parting))))

        session = Session(hello.instance, says.put, end, hello.number, hello.line)
        succeeded = lane.succeeded(session)
        if succeeded:
            self._tell("warning", node, f"was refused: {succeeded}")
            context.abort(SUCCEEDED, succeeded)
        context.add_callback(lambda: end("the connection is cut"))
        welcome = wire.Welcome(
            version=max(set(hello.versions) & set(VERSIONS)),
            run=self.agreed.run,
            nonce=stamps.nonce,
            deadline_s=lane.deadline_s,
            epoch=self.agreed.epoch,
            leader=self.agreed.leader,
            line=self.agreed.line,
        )
        yield stamps.mark(wire.HubSays(welcome=welcome))
        reader = threading.Thread(target=self._listen, args=(requests, stamps, lane, session), daemon=True)
        has_approved = f"it has approved the plan {hello.approval or '(none)'}"
        self._tell("info", node, f"has joined from {whence(context)}; {has_approved}")
        try:
            self._enter(lane, session, context)
            reader.start()
            if self._closing.is_set() or lane.parting:
                end(lane.parting or "the hub is closing")
            while True:
                try:
                    said = says.get(timeout=times.beat_s)
                except queue.Empty:
                    said = wire.HubSays(beat=wire.Beat())
                reason = self._over(lane, peer, times)
                if reason:
                    said = wire.HubSays(bye=wire.Bye(reason=reason))
                is_over = said.WhichOneof("what") == "bye"
                if is_over:  # told before it is said: who hears it hangs up, and nothing more is done here
                    self._tell("info" if not reason else "warning", node, f"is gone: {said.bye.reason}")
                yield stamps.mark(said)
                if is_over:
                    return
        finally:
            lane.left(session)

    def _enter(self, lane: Lane, session: Session, context: Any) -> None:
        """Let a member speak in a session from now on; the stream is cut where that cannot be written."""
        try:
            lane.joined(session)
        except OSError as error:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, self._cannot_write(lane.path, error))

    def _over(self, lane: Lane, peer: Peer, times: Times) -> str:
        """Say why a stream must end now; empty if it may go on."""
        if not peer.is_good(self._door.denied, datetime.now(UTC)):
            return "its certificate is denied, or has run out"
        if lane.silent_s() > times.silence_s:
            return f"nothing was heard of it for {times.silence_s:g} s"
        return ""

    def _listen(self, requests: Iterator[bytes], stamps: Stamps, lane: Lane, session: Session) -> None:
        """Take what a member says; what breaks the rules ends the session."""
        bucket = Bucket(MESSAGES_PER_S, MESSAGES_AT_ONCE)
        stamps.skip()
        try:
            for content in requests:
                if lane.session is not session:
                    return  # another process, or another connection, speaks for the member since
                if not bucket.take():
                    raise LinkError(f"more than {MESSAGES_PER_S:g} messages per second")
                farewell = take(content, stamps, lane)
                if farewell is not None:
                    session.end(farewell)
                    return
        except LinkError as error:
            self._tell("warning", lane.path, f"broke the rules: {error}")
            lane.strayed(session)
            session.end(f"this was refused: {error}")
        except grpc.RpcError:
            session.end("the connection is cut")
        except OSError as error:
            session.end(self._cannot_write(lane.path, error))
        except Exception as error:  # ours: the member's session must not stay half alive
            self._tell("error", lane.path, f"its session failed: {error!r}")
            session.end("the hub failed")

    def _fetch(self, request: bytes, context: Any, peer: Peer, node: str) -> Iterator[bytes]:
        """Send a model, from an offset on."""
        try:
            asked = parse(wire.FetchRequest, request)
            yield from self.lanes[node].payload(asked.digest).chunks(0, asked.offset)
        except LinkError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))

    def _deliver(self, requests: Iterator[bytes], context: Any, peer: Peer, node: str) -> wire.Receipt:
        """Take an update, from where this hub wants it."""
        digest, is_whole = b"", False
        try:
            for message in requests:
                digest, is_whole = self.lanes[node].receive(decode(message))
                if is_whole:
                    break
        except LinkError as error:
            self._tell("warning", node, f"a chunk was refused: {error}")
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except OSError as error:
            context.abort(grpc.StatusCode.ABORTED, self._cannot_write(node, error))
        if not is_whole:
            context.abort(grpc.StatusCode.ABORTED, "the stream ended before the update")
        return wire.Receipt(digest=digest)

    def _cannot_write(self, node: str, error: OSError) -> str:
        """Tell that a member's update has no place on the disk here; say so to the member."""
        self._tell("error", node, f"its update cannot be written here, and is asked for again: {error.strerror}")
        return f"the hub cannot take it now: {error.strerror}"
