"""Joining a Ray, or starting one, and counting what fits on it: whatever can be wrong there is said in seconds.

Ray itself waits: for an address where nothing answers, and in silence for devices that no node has.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray

from hierfl.config.schema import DeviceGroup, Runtime
from hierfl.errors import RuntimeUnavailable

__all__ = [
    "SETTLE_S",
    "check_devices",
    "connect",
    "embedded",
    "more_slots",
    "needs",
    "num_slots",
    "num_that_fit",
    "num_workers",
    "with_gpus",
]

CONNECT_S = 8.0
"""Seconds that an address may take to answer."""

SETTLE_S = 3.0
"""Seconds for which what another run held may still count as taken."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""How an HTTP/2 client begins (RFC 9113, section 3.4): the preface and an empty SETTINGS frame."""

SETTINGS = 4
"""The type of the frame with which an HTTP/2 server begins; it stands in the frame's fourth byte."""


def connect(runtime: Runtime) -> bool:
    """Join the running Ray, or start one; return whether this call did it, so that the caller ends it.

    Errors: RuntimeUnavailable, within 20 s.
    """
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # a lost call's other results repeat its error
    address = runtime.address
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if address is None:
        common |= {"address": "local", "include_dashboard": False}
        common |= {"num_cpus": runtime.num_cpus, "num_gpus": runtime.num_gpus}
    else:
        _check_reachable(address)
        common |= {"address": address}
    try:
        with warnings.catch_warnings(), _signals_kept():
            warnings.simplefilter("ignore")
            ray.init(**common)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RuntimeUnavailable(_unreachable(address, reason)) from error
    return True


@contextmanager
def embedded(runtime: Runtime) -> Iterator[str]:
    """Start a Ray, give the address at which other processes join it, and end it. Errors: RuntimeUnavailable."""
    connect(runtime)
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def with_gpus(runtime: Runtime) -> Runtime:
    """Settle how much of a GPU a worker takes: a whole one where the cluster has any, unless the user has said."""
    if runtime.gpus_per_worker is not None:
        return runtime
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return replace(runtime, gpus_per_worker=1.0 if have.get("GPU", 0.0) >= 1.0 else 0.0)


def num_workers(runtime: Runtime) -> int:
    """Count the workers: as many as are asked for, else one for each slot that is free.

    Errors: RuntimeUnavailable if the cluster has not the slots for them.
    """
    wanted = num_slots(runtime)
    if runtime.num_workers or runtime.address is None:
        return wanted
    return max(1, _free(wanted, _positive(needs(runtime, None))))


def num_slots(runtime: Runtime) -> int:
    """Count the workers that are asked for, else the slots for workers, taken or not.

    Errors: RuntimeUnavailable if the cluster has not the slots for them.
    """
    need = _positive(needs(runtime, None))
    nodes = _nodes()
    slots = sum(_slots(node, need) for node in nodes)
    wanted = runtime.num_workers or max(1, slots)
    if slots < wanted:
        raise RuntimeUnavailable(_too_few(wanted, slots, need, nodes))
    return wanted


def num_that_fit(bundles: Sequence[Mapping[str, float]]) -> int:
    """Count how many of these, from the first on, what is free in the cluster would suffice for, nodes aside."""
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    for number, bundle in enumerate(bundles):
        if any(free.get(name, 0.0) + 1e-9 < amount for name, amount in bundle.items()):
            return number
        free = {name: amount - bundle.get(name, 0.0) for name, amount in free.items()}
    return len(bundles)


def needs(runtime: Runtime, group: DeviceGroup | None) -> dict[str, float]:
    """Give what one worker takes of Ray's resources, CPU and GPU among them; workers of one device share its GPUs."""
    cpus, gpus = runtime.cpus_per_worker, runtime.gpus_per_worker or 0.0
    if group is None:
        return {"CPU": cpus, "GPU": gpus, **runtime.resources_per_worker}
    return {
        "CPU": cpus if group.cpus is None else group.cpus,
        "GPU": (gpus if group.gpus is None else group.gpus) / group.places,
        **runtime.resources_per_worker,
        **group.resources,
    }


def check_devices(runtime: Runtime) -> None:
    """Make sure that the cluster has room for `runtime.devices`. Errors: RuntimeUnavailable naming what is missing.

    Groups are looked at one by one: what several of them want of one node is not added up.
    """
    nodes = _nodes()
    for group in runtime.devices:
        need = _positive(needs(runtime, group))
        wanted, slots = group.count * group.places, sum(_slots(node, need) for node in nodes)
        if slots < wanted:
            fewer = f"declare fewer devices, or fewer cpus for each (cpus: {need.get('CPU', 0) / 4:g})"
            said = _too_few(wanted, slots, need, nodes).replace("lower runtime.num_workers", fewer)
            raise RuntimeUnavailable(f"runtime.devices, group {group.name!r}: {said}")


def more_slots(runtime: Runtime) -> int:
    """Count the workers for which there is room now beside those that are running."""
    available: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    need = _positive(needs(runtime, None))
    return min(_slots(available, need), sum(_slots(node, need) for node in _nodes())) if need else 0


def _nodes() -> list[Mapping[str, float]]:
    """List the resources of the nodes that are there."""
    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in known if node["Alive"]]


def _positive(need: Mapping[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in need.items() if amount > 0}


def _slots(has: Mapping[str, float], need: Mapping[str, float]) -> int:
    """Count the workers that fit on what one node has."""
    return min((int(has.get(name, 0.0) / amount + 1e-9) for name, amount in need.items()), default=1)


def _free(wanted: int, need: Mapping[str, float]) -> int:
    """Count the slots that other runs leave free; what a run that has just ended held is given back in a moment."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        available: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        free = _slots(available, need)
        if free >= wanted or time.monotonic() > deadline:
            return min(free, wanted)
        time.sleep(0.1)


def _too_few(wanted: int, slots: int, need: Mapping[str, float], nodes: list[Mapping[str, float]]) -> str:
    """Say what is missing, and the ways out."""
    total = {name: sum(node.get(name, 0.0) for node in nodes) for name in need}
    short = [name for name, amount in need.items() if int(total[name] / amount + 1e-9) < wanted]
    outs = ["lower runtime.num_workers"] if wanted > 1 else []
    outs += ["lower runtime.gpus_per_worker"] if "GPU" in short else []
    outs += [f"raise runtime.num_{name.lower()}s" for name in short if name in ("CPU", "GPU")]
    outs += ["give a node the resources of runtime.resources_per_worker"] if set(short) - {"CPU", "GPU"} else []
    workers = "1 worker needs" if wanted == 1 else f"{wanted} workers need"
    lacking = ", ".join(f"{wanted * need[name]:g} {name}" for name in short)
    have = ", ".join(f"{total[name]:g} {name}" for name in short)
    said = f"{workers} {lacking}, the Ray cluster has {have}"
    if not short:
        each = ", ".join(f"{amount:g} {name}" for name, amount in need.items())
        said = f"{workers} {each} each on one node, the Ray cluster has room for {slots}"
    return f"{said}; {' or '.join(outs) or 'add nodes'}"


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep what the program does on SIGTERM: ray.init puts an exit of its own in its place."""
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(kept) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)


def _check_reachable(address: str) -> None:
    """Knock at host:port, so that a wrong address is said in seconds. Errors: RuntimeUnavailable."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    if address.startswith("ray://"):
        raise RuntimeUnavailable(
            f"runtime.address {address!r} is a Ray Client address; send the run to the cluster instead:"
            " hierfl submit CONFIG --address http://HOST:8265"
        )
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        answer = _knock(host.strip("[]") or "127.0.0.1", int(port))
    except TimeoutError:
        raise RuntimeUnavailable(_unreachable(address, f"no answer within {CONNECT_S:g} s")) from None
    except (OSError, OverflowError) as error:
        raise RuntimeUnavailable(_unreachable(address, str(error))) from error
    if answer[3:4] != bytes([SETTINGS]):
        raise RuntimeUnavailable(
            _unreachable(address, "what answers there is not Ray (6379 is its usual port; 8265 is the dashboard's)")
        )


def _knock(host: str, port: int) -> bytes:
    """Begin HTTP/2, which Ray speaks, and return the head of the answer's first frame. Errors: OSError."""
    with socket.create_connection((host, port), timeout=CONNECT_S) as line:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return bytes([0, 0, 0, SETTINGS])  # it waits for a handshake that is Ray's to make
        line.sendall(PREFACE)
        answer = b""
        while len(answer) < 9 and (more := line.recv(9 - len(answer))):
            answer += more
        return answer


def _unreachable(address: str | None, reason: str) -> str:
    """Say that Ray cannot be reached, and the ways out."""
    if address is None:
        return f"Ray could not be started: {reason}; try runtime.kind=local"
    return (
        f"no Ray at runtime.address {address!r}: {reason}; start one with `ray start --head`, or set"
        " runtime.address: null to start one for this run, or runtime.kind: local to do without"
    )
