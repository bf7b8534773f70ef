"""The door at which members dial in: a gRPC server with mutual TLS, in front of it the table of who may call what."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from hierfl.errors import LinkError
from hierfl.link.chunks import MAX_MESSAGE_BYTES
from hierfl.link.codec import MAX_BYTES
from hierfl.link.denied import DenyList
from hierfl.link.kit import Kit
from hierfl.link.limits import AT_ONCE, Limits
from hierfl.link.permits import Gatekeeper

__all__ = ["SERVICE", "TRANSPORT", "Door", "try_to_listen"]

SERVICE = "hierfl.link.v1.Link"

SPARE_THREADS = 8
"""Beside one for each call that may be open: for those that are judged just now."""

STREAMS = 16
"""On one connection; a member has five, who takes vectors eight."""

Tell = Callable[[str, str, str], None]
"""Takes a level, a node, and what is to be said of it."""

TRANSPORT = (
    ("grpc.http2.max_frame_size", 1 << 20),
    ("grpc.http2.lookahead_bytes", 4 << 20),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)
"""For long streams of chunks: fewer frames, and more of them on the way. Who has heard nothing for a while asks whether
the other side is there: a machine that has vanished does not say so.
"""

_ASKED = (("grpc.http2.min_ping_interval_without_data_ms", 10_000), ("grpc.keepalive_permit_without_calls", 1))
"""So often a server may be asked that; with gRPC's own five minutes it would hang up."""

_ENCODINGS = {"none": 0b001, "gzip": 0b101}
"""What a hub unpacks, as bits of gRPC's list: identity, deflate, gzip."""


def try_to_listen(listen: str) -> None:
    """Errors: LinkError where nobody can listen at an address, or somebody does already, at one of its interfaces."""
    host, _, port = listen.rpartition(":")
    failed, has_one = None, False
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    one.bind(place)
                    one.listen()
                    has_one = True
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:
                        raise
                    failed = error
        if failed is not None and not has_one:
            raise failed
    except OSError as error:
        raise LinkError(f"cannot listen at {listen}: {error.strerror}; --listen takes another address") from error


class Door:
    """Lets the `members` of a federation call `handlers` until it is closed. Errors: LinkError if it cannot listen.

    `tell`: of whom it does not let in.
    """

    def __init__(
        self,
        kit: Kit,
        listen: str,
        federation: str,
        members: Collection[str],
        handlers: Mapping[str, Any],
        compression: str = "none",
        tell: Tell = lambda level, node, said: None,
    ) -> None:
        self.denied = DenyList(kit.denied)
        gatekeeper = Gatekeeper(
            federation, members, self.denied, Limits(), lambda said: tell("warning", kit.path, said)
        )
        num_threads = SPARE_THREADS + sum(AT_ONCE[call] for call in handlers) * len(members)
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="link")
        self._server = grpc.server(
            self._threads,
            interceptors=(gatekeeper,),
            options=[
                ("grpc.max_receive_message_length", max(MAX_BYTES, MAX_MESSAGE_BYTES)),
                ("grpc.max_send_message_length", max(MAX_BYTES, MAX_MESSAGE_BYTES)),
                *(*TRANSPORT, *_ASKED),
                ("grpc.max_concurrent_streams", STREAMS),
                ("grpc.so_reuseport", 0),
                ("grpc.compression_enabled_algorithms_bitset", _ENCODINGS[compression]),
                ("grpc.max_metadata_size", 16384),
            ],
            maximum_concurrent_rpcs=2 * num_threads,
            compression=grpc.Compression.Gzip if compression == "gzip" else None,
        )
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        self.port = self._bind(kit, listen)

    def open(self) -> None:
        """Let members in from now on."""
        self._server.start()

    def close(self, grace_s: float = 2.0) -> None:
        """Let nobody in any more; calls that are open have so long to end."""
        self._server.stop(grace=grace_s).wait(grace_s + 3.0)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _bind(self, kit: Kit, listen: str) -> int:
        """Listen with the kit's certificate, and with a renewed one from the next handshake on. Errors: LinkError."""
        held = kit.credentials()

        def configuration() -> Any:
            key, certificate, authority = held
            return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

        def renewed() -> Any:
            nonlocal held
            with contextlib.suppress(LinkError):  # a kit that is being written holds what it held
                found = kit.credentials()
                if found != held:
                    held = found
                    return configuration()
            return None

        credentials = grpc.dynamic_ssl_server_credentials(configuration(), renewed, True)
        try:
            port = int(self._server.add_secure_port(listen, credentials))
        except RuntimeError as error:
            raise LinkError(f"cannot listen at {listen}: {error}; --listen takes another address") from error
        if not port:
            raise LinkError(f"cannot listen at {listen}; --listen takes another address")
        return port
