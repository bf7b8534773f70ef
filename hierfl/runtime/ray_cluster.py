"""Joining a Ray, or starting one, and counting what fits on it: whatever can be wrong there is said in seconds.

Ray itself waits: for an address where nothing answers, and in silence for devices that no node has.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, NoReturn

import ray

from hierfl.config.schema import DeviceGroup, Runtime
from hierfl.errors import RuntimeUnavailable
from hierfl.runtime import ray_processes
from hierfl.runtime.ray_address import check, is_on_loopback, locate, unreachable, within
from hierfl.runtime.ray_start import init, on_loopback, reason, start
from hierfl.stops import Stopped, heard

__all__ = [
    "SETTLE_S",
    "check_devices",
    "connect",
    "disconnect",
    "embedded",
    "more_slots",
    "needs",
    "num_slots",
    "num_that_fit",
    "num_workers",
    "refuse_taken",
    "with_gpus",
]

JOIN_S = 14.0
"""Seconds that joining a Ray may take in all; with the imports before it, a mistake is told within 20 s."""

OURS = re.compile("RAY_.*|PYTHONBREAKPOINT")
"""Variables that hierfl and Ray set for a Ray; a caller's own, later one is not to have them."""

SETTLE_S = 3.0
"""Seconds for which what another run held may still count as taken."""


def connect(runtime: Runtime, limit_s: float = JOIN_S) -> bool:
    """Join the running Ray, or start one; return whether this call did it, so that the caller ends it.

    Errors: RuntimeUnavailable; where a Ray is to be joined, within `limit_s` seconds.
    """
    if ray.is_initialized():
        return False
    _FOUND.update(_variables())
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # a lost call's other results repeat its error
    os.environ.setdefault("RAY_free_objects_period_milliseconds", "0")  # else vectors outlive their round by a second
    address = runtime.address
    if address is not None:
        try:
            _join(address, limit_s)
        except BaseException:
            _put_back()
            raise
        return True
    try:
        start(runtime)
    except BaseException as error:
        ray_processes.end()
        _put_back()
        if heard().heard is not None:  # Ray makes errors of its own of a stop
            raise Stopped from error
        if not isinstance(error, Exception):
            raise
        raise RuntimeUnavailable(f"Ray could not be started: {reason(error)}; try runtime.kind=local") from error
    return True


def disconnect() -> None:
    """Leave the Ray that `connect` has joined, or end the one that it has started, with all of its processes."""
    ray_processes.end()
    ray.shutdown()
    _put_back()


@contextmanager
def embedded(runtime: Runtime) -> Iterator[str]:
    """Start a Ray, give the address at which other processes join it, and end it. Errors: RuntimeUnavailable."""
    connect(runtime)
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        disconnect()


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


def refuse_taken(runtime: Runtime) -> NoReturn:
    """Errors: RuntimeUnavailable: others have all that a worker needs."""
    free, have = ray.available_resources(), ray.cluster_resources()  # type: ignore[no-untyped-call]
    groups: list[DeviceGroup | None] = [*runtime.devices] or [None]
    names = dict.fromkeys(name for group in groups for name in _positive(needs(runtime, group)))
    left = ", ".join(f"{free.get(name, 0.0):g} of {have.get(name, 0.0):g} {name}" for name in names)
    raise RuntimeUnavailable(
        f"the Ray cluster has no room for a worker now: {left} are free; begin again when what has the others is over"
        " (ray status), or ask for less (runtime.cpus_per_worker)"
    )


def more_slots(runtime: Runtime) -> int:
    """Count the workers for which there is room now beside those that are running."""
    available: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    need = _positive(needs(runtime, None))
    return min(_slots(available, need), sum(_slots(node, need) for node in _nodes())) if need else 0


_FOUND: dict[str, str] = {}


def _variables() -> dict[str, str]:
    """Give the environment's variables of Ray."""
    return {name: value for name, value in os.environ.items() if OURS.fullmatch(name)}


def _put_back() -> None:
    """Leave the environment as it was before the Ray of a run."""
    for name in _variables():
        del os.environ[name]
    os.environ.update(_FOUND)
    _FOUND.clear()


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


def _join(address: str, limit_s: float) -> None:
    """Join the Ray at an address. Errors: RuntimeUnavailable, within `limit_s` seconds."""
    heard: list[str] = []

    def work() -> bool:
        found = locate(address)
        check(address, found)
        heard.append(found)
        logging.getLogger("ray").setLevel(logging.ERROR)  # it warns of not being in the main thread
        with on_loopback() if is_on_loopback(found) else nullcontext():
            init(found)
        return True

    try:
        within(limit_s, work)
    except RuntimeUnavailable:
        raise
    except TimeoutError:
        late = (
            f"it answers, but takes no driver within {limit_s:g} s (is its raylet on this machine alive, and has this"
            " user the cluster's token?)"
        )
        raise unreachable(address, late if heard else f"no answer within {limit_s:g} s", *heard) from None
    except Exception as error:
        raise _of_other_versions(address, str(error)) or unreachable(address, reason(error)) from error


def _of_other_versions(address: str, said: str) -> RuntimeUnavailable | None:
    """Name the versions where Ray says that the cluster's are others; None where it says anything else."""
    versions = re.findall(r"Ray: (\S+)\s+Python: (\S+)", said)
    if not said.startswith("Version mismatch") or len(versions) != 2:
        return None
    theirs, ours = (f"Ray {ray_version} and Python {python}" for ray_version, python in versions)
    return RuntimeUnavailable(
        f"the cluster at runtime.address {address!r} has {theirs}, this process {ours}: both must be the same; install"
        f" ray=={versions[0][0]} with Python {versions[0][1]} here, or send the run there: hierfl submit CONFIG"
        " --address http://HOST:8265"
    )
