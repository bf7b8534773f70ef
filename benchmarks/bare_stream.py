"""The limit beside the links' rate: streams of gRPC alone over mutual TLS, messages as large, that nobody looks at.

The server is this process, as the hub is; the client another one, as a member is.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import grpc

from hierfl.link.chunks import CHUNK_BYTES
from hierfl.link.door import TRANSPORT
from hierfl.link.identity import server_name
from hierfl.link.kit import Kit

__all__ = ["Bare", "client"]

SERVICE = "hierfl.benchmark.Bare"
NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Bare:
    """A server and a client that move so many megabytes "up" or "down" each time they are told to."""

    def __init__(self, hub: Kit, member: Kit, megabytes: int) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4), options=[*TRANSPORT, *NO_LIMIT])
        calls = {"Up": grpc.stream_unary_rpc_method_handler(_up), "Down": grpc.unary_stream_rpc_method_handler(_down)}
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, calls)])
        key, certificate, authority = hub.credentials()
        credentials = grpc.ssl_server_credentials([(key, certificate)], authority, True)
        port = self._server.add_secure_port("localhost:0", credentials)
        self._server.start()
        told = [sys.executable, "-m", "benchmarks", "links", "bare", str(member.folder), str(port), str(megabytes)]
        self.process = subprocess.Popen(told, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def move(self, way: str) -> float:
        """Move the megabytes once; give the seconds that it took the client."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(way, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def __enter__(self) -> Bare:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()
        self._server.stop(None)


def client(kit: Kit, port: int, megabytes: int) -> None:
    """Do a transfer for each line that comes, "up" or "down", and tell its seconds."""
    key, certificate, authority = kit.credentials()
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    name = ("grpc.ssl_target_name_override", server_name(kit.federation, "world"))
    with grpc.secure_channel(f"localhost:{port}", credentials, [*TRANSPORT, *NO_LIMIT, name]) as channel:
        up, down = channel.stream_unary(f"/{SERVICE}/Up"), channel.unary_stream(f"/{SERVICE}/Down")
        ways: dict[str, Callable[[], Any]] = {
            "up": lambda: up(_messages(megabytes)),
            "down": lambda: sum(map(len, down(str(megabytes).encode()))),
        }
        for line in sys.stdin:
            began = time.perf_counter()
            ways[line.strip()]()
            print(time.perf_counter() - began, flush=True)


def _messages(megabytes: int) -> Iterator[bytes]:
    content, left = bytes(CHUNK_BYTES), megabytes * 1_000_000
    while left > 0:
        yield content[:left]
        left -= CHUNK_BYTES


def _up(requests: Iterator[bytes], context: Any) -> bytes:
    for _ in requests:
        pass
    return b""


def _down(request: bytes, context: Any) -> Iterator[bytes]:
    yield from _messages(int(request))
