"""Who may call what, about whom: one table, and what is not in it is denied.

A caller is known by its certificate. What a call is about, it names itself in its metadata, and that counts only as far
as its certificate bears it out.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc

from hierfl.errors import LinkError
from hierfl.link.denied import DenyList
from hierfl.link.identity import HUB, MEMBER, PEER, Identity, uris_in
from hierfl.link.limits import Bucket, Limits
from hierfl.link.patience import Patience

__all__ = ["ALLOWED", "CALLS", "ELSEWHERE", "NODE_KEY", "OTHER", "OWN", "Gatekeeper", "Peer", "peer_of", "whence"]

CONTROL, FETCH, DELIVER, HAND = CALLS = ("Control", "Fetch", "Deliver", "Hand")
"""The calls of a hub's service, and `Hand` of a peer's."""

OWN, OTHER, ELSEWHERE = RESOURCES = ("own", "other", "elsewhere")
"""A call is about the caller's own node, about another that may call here, or about a node that may not."""

ALLOWED = frozenset(
    {(MEMBER, CONTROL, OWN), (MEMBER, FETCH, OWN), (MEMBER, DELIVER, OWN), (PEER, HAND, OWN)},
)
"""The cells of role x call x resource that are allowed."""

TOLD_PER_S, TOLD_AT_ONCE = 0.2, 20.0
"""Of refused calls."""
MOST_TOLD = 300

FIRST_S = 15.0
"""So soon a call has to say what it wants; but for a first chunk, which is large."""

STILL_S: Mapping[str, float] = {CONTROL: 30.0, FETCH: 600.0, DELIVER: 600.0, HAND: 30.0}
"""So long a call may stand still: members and hubs beat every five seconds at least, and who takes a vector hangs up
after fifteen."""

DENIED = "the certificate is denied, or has run out"

NODE_KEY = "hierfl-node-bin"
"""The metadata in which a call says which node it is about."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end: what its certificate says, until when it holds, and its number."""

    identities: tuple[Identity, ...]
    serial: int
    until: datetime

    def is_good(self, denied: DenyList, now: datetime) -> bool:
        """Say whether the certificate still holds."""
        return now < self.until and self.serial not in denied


def whence(context: Any) -> str:
    """Say from which address a call comes."""
    return unquote(str(context.peer()).partition(":")[2]) or "nowhere"


def peer_of(pem: bytes) -> Peer:
    """Read a certificate that the handshake has verified. Errors: LinkError if it names no party."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(pem)
        identities = tuple(Identity.parse(uri) for uri in uris_in(found))
    except (ValueError, x509.ExtensionNotFound) as error:
        raise LinkError(f"the certificate names no party: {error}") from error
    return Peer(identities, found.serial_number, found.not_valid_after_utc)


class Gatekeeper(grpc.ServerInterceptor):  # type: ignore[misc]
    """Stands before every call: the certificate, the table, and the limits of each identity."""

    def __init__(
        self,
        federation: str,
        members: Collection[str],
        denied: DenyList,
        limits: Limits,
        tell: Callable[[str], None] = lambda said: None,
    ) -> None:
        self._transfers = _Transfers()
        self._tell = tell
        self._tells = Bucket(TOLD_PER_S, TOLD_AT_ONCE)
        self.federation = federation
        self.members = frozenset(members)
        self.denied = denied
        self.limits = limits

    def judge(self, peer: Peer, call: str, node: str) -> str | None:
        """Say why a call is denied; None if it is allowed."""
        if not peer.is_good(self.denied, datetime.now(UTC)):
            return DENIED
        for identity in peer.identities:
            if identity.federation == self.federation and (identity.role, call, self._about(identity, node)) in ALLOWED:
                return None
        who = ", ".join(identity.uri for identity in peer.identities) or "nobody"
        return f"{who} may not call {call} about {node!r} here"

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Put the judgement before whatever serves the call."""
        handler = continuation(details)
        call = details.method.rpartition("/")[2]
        if handler is None or call not in CALLS:
            return grpc.stream_stream_rpc_method_handler(self._unknown)
        node = next((value for key, value in details.invocation_metadata if key == NODE_KEY), b"")
        node = node.decode("utf-8", "replace") if isinstance(node, bytes) else str(node)
        if handler.response_streaming:
            make, behaviour = grpc.stream_stream_rpc_method_handler, self._streaming(handler, call, node)
        else:
            make, behaviour = grpc.stream_unary_rpc_method_handler, self._single(handler, call, node)
        return make(behaviour, handler.request_deserializer, handler.response_serializer)

    def _streaming(self, handler: Any, call: str, node: str) -> Callable[..., Iterator[Any]]:
        """Guard a call with many answers. What asks for one thing is a stream, too: gRPC would wait for that before
        anything is judged, in one of few threads.
        """

        def guarded(requests: Iterator[Any], context: Any) -> Iterator[Any]:
            with self._inside(call, node, context) as (peer, patience):
                if handler.request_streaming:
                    says = handler.stream_stream(requests, context, peer, node)
                else:
                    says = handler.unary_stream(next(requests, b""), context, peer, node)
                for said in says:
                    patience.heard()
                    if call != CONTROL:  # which says farewell before it ends
                        self._still(peer, context)
                    yield said

        return guarded

    def _single(self, handler: Any, call: str, node: str) -> Callable[..., Any]:
        def guarded(requests: Iterator[Any], context: Any) -> Any:
            with self._inside(call, node, context) as (peer, patience):

                def heard() -> Iterator[Any]:
                    for said in requests:
                        patience.heard()
                        self._still(peer, context)
                        yield said

                return handler.stream_unary(heard(), context, peer, node)

        return guarded

    @contextlib.contextmanager
    def _inside(self, call: str, node: str, context: Any) -> Iterator[tuple[Peer, Patience]]:
        """Let a caller in, as long as its call does not stand still, and a transfer's session lasts."""
        peer = self._enter(call, node, context)
        first_s = None if call == DELIVER else FIRST_S
        line = node, whence(context)
        try:
            with Patience(STILL_S[call], lambda: self._hang_up(call, context, peer), first_s) as patience:
                if call != CONTROL:
                    self._transfers.begin(line, context)
                yield peer, patience
        finally:
            if call == CONTROL:
                self._transfers.cut(line)
            else:
                self._transfers.end(line, context)
            self.limits.leave(node, call)

    def _enter(self, call: str, node: str, context: Any) -> Peer:
        """Let a caller in, or end the call with the reason."""
        peer = self._caller(context)
        denied = self.judge(peer, call, node)
        if denied is not None:
            self._refuse(context, grpc.StatusCode.PERMISSION_DENIED, denied, peer)
        full = self.limits.enter(node, call)
        if full is not None:
            self._refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, full, peer)
        return peer

    def _caller(self, context: Any) -> Peer:
        """Say who calls, or end the call of nobody."""
        pem = context.auth_context().get("x509_pem_cert", [b""])[0]
        try:
            return peer_of(pem)
        except LinkError as error:
            self._refuse(context, grpc.StatusCode.UNAUTHENTICATED, str(error))

    def _unknown(self, requests: Any, context: Any) -> NoReturn:
        self._refuse(context, grpc.StatusCode.UNIMPLEMENTED, "there is no such call", self._caller(context))

    def _still(self, peer: Peer, context: Any) -> None:
        """End a call whose caller's certificate has ceased to hold meanwhile: a large model takes its time."""
        if not peer.is_good(self.denied, datetime.now(UTC)):
            self._refuse(context, grpc.StatusCode.PERMISSION_DENIED, DENIED, peer)

    def _refuse(self, context: Any, status: grpc.StatusCode, why: str, peer: Peer | None = None) -> NoReturn:
        """End a call, and say so here."""
        self._say(context, peer, f"was refused: {why[:MOST_TOLD]}")
        context.abort(status, why)
        raise AssertionError("abort raises")

    def _hang_up(self, call: str, context: Any, peer: Peer) -> None:
        """End a call that stands still."""
        self._say(context, peer, f"was ended: {call} stood still")
        context.cancel()

    def _say(self, context: Any, peer: Peer | None, what: str) -> None:
        """Say what has become of a call, unless that was said too often."""
        if self._tells.take():
            who = f", with the certificate {peer.serial:x}" if peer is not None else ""
            self._tell(f"a call from {whence(context)}{who} {what}")

    def _about(self, identity: Identity, node: str) -> str:
        if node not in self.members:
            return ELSEWHERE
        return OWN if identity.path == node else OTHER


class _Transfers:
    """What goes over each connection beside its control stream, and ends with that: a machine that has vanished ends
    nothing by itself. Safe among threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)

    def begin(self, line: tuple[str, str], context: Any) -> None:
        """A transfer has begun."""
        with self._lock:
            self._open[line].append(context)

    def end(self, line: tuple[str, str], context: Any) -> None:
        """A transfer is over."""
        with self._lock:
            self._open[line] = [one for one in self._open[line] if one is not context]
            if not self._open[line]:
                del self._open[line]

    def cut(self, line: tuple[str, str]) -> None:
        """End what goes over a connection."""
        with self._lock:
            contexts = list(self._open.get(line, ()))
        for context in contexts:
            context.cancel()


assert HUB not in {role for role, _, _ in ALLOWED}, "hubs call nobody: members dial out"
