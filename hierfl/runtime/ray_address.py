"""Whether a Ray answers at an address: asked before Ray is, which waits for a minute and may then end the process.

A Ray is known by its GCS (global control service), which knows the question `CheckAlive`; a dashboard, a raylet or a
web server does not.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from ray._private.services import get_node_ip_address, get_ray_address_from_environment

from hierfl.errors import RuntimeUnavailable

__all__ = ["check", "is_on_loopback", "locate", "unreachable", "within"]

CONNECT_S = 8.0
"""Seconds that an address may take to answer."""

QUESTION = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""The gRPC method that is asked, with an empty request; a refusal for the want of a token is an answer too."""

LOOPBACK = ("", "localhost", "127.0.0.1", "::1")
"""The hosts that Ray replaces by this machine's own address."""

T = TypeVar("T")


def locate(address: str) -> str:
    """Give the host:port that `runtime.address` means; `auto` as Ray reads it.

    That is RAY_ADDRESS, else the GCS that runs on this machine, else the address of the last `ray start`.
    Errors: RuntimeUnavailable where there is none of them, or one that is not host:port.
    """
    found = address
    if address == "auto":
        try:
            found = get_ray_address_from_environment(address, None)
        except ConnectionError as error:
            raise unreachable(address, "none runs here, and RAY_ADDRESS is not set") from error
    if found.startswith("ray://"):
        raise RuntimeUnavailable(
            f"runtime.address {found!r} is a Ray Client address; send the run to the cluster instead:"
            " hierfl submit CONFIG --address http://HOST:8265"
        )
    if not found.rpartition(":")[2].isdigit():
        raise unreachable(address, f"{found!r} is not host:port")
    return found


def check(address: str, found: str, limit_s: float = CONNECT_S) -> None:
    """Ask whether a Ray answers at `found`, host:port, within `limit_s` seconds; `address` is what the user said.

    Errors: RuntimeUnavailable.
    """
    host, _, port = found.rpartition(":")
    host = host or "127.0.0.1"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=limit_s).close()
    except TimeoutError:
        raise unreachable(address, f"no answer within {limit_s:g} s", found) from None
    except (OSError, OverflowError) as error:
        raise unreachable(address, str(error), found) from error
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):  # its handshake is Ray's to make
        _ask(address, f"{host}:{port}", limit_s)


def is_on_loopback(found: str, limit_s: float = CONNECT_S) -> bool:
    """Say whether what listens at `found`, host:port, is this machine's alone: a Ray that a run has started."""
    host, _, port = found.rpartition(":")
    if host.strip("[]") not in LOOPBACK:
        return False
    own: str = get_node_ip_address()  # type: ignore[no-untyped-call]
    try:
        socket.create_connection((own.strip("[]"), int(port)), timeout=limit_s).close()
    except OSError:
        return True
    return False


def within(limit_s: float, work: Callable[[], T]) -> T:
    """Do `work` in a thread and give what it gives, or raise what it raises; a thread that is late is left behind.

    Errors: TimeoutError after `limit_s` seconds.
    """
    given: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            given.append(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="hierfl-connect", daemon=True)
    thread.start()
    thread.join(limit_s)
    if raised:
        raise raised[0]
    if not given:
        raise TimeoutError
    return given[0]


def unreachable(address: str, reason: str, found: str = "") -> RuntimeUnavailable:
    """Make the error that says that Ray cannot be reached, and the ways out; `found`: what the address led to."""
    here = f", which is {found} here" if address == "auto" and found else ""
    return RuntimeUnavailable(
        f"no Ray at runtime.address {address!r}{here}: {reason}; start one with `ray start --head`, or set"
        " runtime.address: null to start one for this run, or runtime.kind: local to do without"
    )


def _ask(address: str, target: str, limit_s: float) -> None:
    """Ask the question. Errors: RuntimeUnavailable."""
    import grpc

    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(QUESTION)(b"", timeout=limit_s)
        except grpc.RpcError as error:
            code = error.code()
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise unreachable(address, f"no answer within {limit_s:g} s", target) from None
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED):
                said = "what answers there is not Ray (6379 is its usual port; 8265 is the dashboard's)"
                raise unreachable(address, said, target) from None
