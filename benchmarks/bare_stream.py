"""The limit beside the links' rate: streams of gRPC alone over mutual TLS, messages as large, that nobody looks at.

The server is this process, as the hub is; the client another one, as a member is.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from hierfl.link.chunks import CHUNK_BYTES
from hierfl.link.door import TRANSPORT
from hierfl.link.identity import server_name
from hierfl.link.kit import Kit

__all__ = ["client", "rates"]

SERVICE = "hierfl.benchmark.Bare"
NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def rates(hub: Kit, member: Kit, megabytes: int, rounds: int) -> dict[str, float]:
    """Give the median MB/s "up" and "down" of so many transfers."""
    server = grpc.server(ThreadPoolExecutor(4), options=[*TRANSPORT, *NO_LIMIT])
    calls = {"Up": grpc.stream_unary_rpc_method_handler(_up), "Down": grpc.unary_stream_rpc_method_handler(_down)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, calls)])
    key, certificate, authority = hub.credentials()
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)], authority, True))
    server.start()
    try:
        told = [sys.executable, "-m", "benchmarks", "links", "bare", str(member.folder), str(port)]
        said = subprocess.check_output([*told, str(megabytes), str(rounds)], text=True)
    finally:
        server.stop(None)
    found: dict[str, float] = json.loads(said)
    return found


def client(kit: Kit, port: int, megabytes: int, rounds: int) -> None:
    """Do the transfers and tell the rates as JSON."""
    key, certificate, authority = kit.credentials()
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    name = ("grpc.ssl_target_name_override", server_name(kit.federation, "world"))
    with grpc.secure_channel(f"localhost:{port}", credentials, [*TRANSPORT, *NO_LIMIT, name]) as channel:
        up, down = channel.stream_unary(f"/{SERVICE}/Up"), channel.unary_stream(f"/{SERVICE}/Down")
        ways: dict[str, Callable[[], Any]] = {
            "up": lambda: up(_messages(megabytes)),
            "down": lambda: sum(map(len, down(str(megabytes).encode()))),
        }
        found = {}
        for way, go in ways.items():
            seconds = []
            for _ in range(rounds + 1):
                began = time.perf_counter()
                go()
                seconds.append(time.perf_counter() - began)
            found[way] = megabytes / statistics.median(seconds[1:])
    print(json.dumps(found))


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
