"""The devices that a plan is for: declared, counted by the configuration, or what this machine or the cluster has."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import count, takewhile

from hierfl.config import from_mapping
from hierfl.config.schema import RunConfig, Runtime
from hierfl.errors import ConfigError
from hierfl.runtime.estimates import Estimates
from hierfl.runtime.seats import PROCESS, declared_devices, seats
from scheduler.colocation import GAIN
from scheduler.views import Device

__all__ = ["devices", "rates", "seated", "settle", "shared"]

MAX_THREADS = 4
"""Threads that a local run takes by itself (`hierfl.runtime.local`)."""


def settle(config: RunConfig, num_devices: int | None) -> tuple[RunConfig, str]:
    """Fix the number of devices in a configuration; say in words where it comes from.

    Errors: ConfigError if a number is given and devices are declared too; RuntimeUnavailable if a cluster cannot be
    asked.
    """
    runtime = config.runtime
    if runtime.devices:
        if num_devices is not None:
            first = runtime.devices[0].name
            raise ConfigError(
                f"--devices {num_devices} and runtime.devices both say what there is; change the groups instead:"
                f" runtime.devices.{first}.count={num_devices}"
            )
        return config, "runtime.devices"
    if num_devices is not None:
        return _with_workers(config, num_devices), "--devices"
    if runtime.num_workers is not None:
        return config, "runtime.num_workers"
    if runtime.kind == "ray" and runtime.address is not None:
        from hierfl.runtime.ray_slots import count_slots

        return _with_workers(config, count_slots(runtime)), f"the Ray cluster at {runtime.address}"
    return _with_workers(config, _of_this_machine(runtime)), "this machine; --devices N plans for others"


def devices(runtime: Runtime) -> tuple[Device, ...]:
    """List the devices of a runtime whose number is fixed; a thread, which shares a process, counts as one."""
    if runtime.devices:
        return declared_devices(runtime)
    assert runtime.num_workers is not None
    return tuple(_plain(f"worker-{number}", runtime) for number in range(runtime.num_workers))


def seated(runtime: Runtime, workers: Iterable[str]) -> dict[str, Device]:
    """Give the device of each worker that a run has had; threads share one, unless devices are declared."""
    there, declared = tuple(workers), {seat.worker: seat.device for seat in seats(runtime)}
    if runtime.kind == "local" and not runtime.devices:
        return dict.fromkeys(there, Device(PROCESS, PROCESS, places=max(1, len(there))))
    return {worker: declared.get(worker) or _plain(worker, runtime) for worker in there}


def shared(found: Iterable[Device], estimates: Estimates | None) -> tuple[Device, ...]:
    """Leave devices as many places as were measured to gain; one where nothing was measured."""
    return tuple(replace(device, places=min(device.places, len(_curve(device.kind, estimates)))) for device in found)


def rates(found: Iterable[Device], estimates: Estimates | None) -> tuple[float, ...]:
    """Give the total rate of 1, 2, ... jobs at once on a device, that of the kind that gains least."""
    curves = [_curve(device.kind, estimates)[: device.places] for device in found]
    most = max(map(len, curves))
    return tuple(min(curve[k] for curve in curves if len(curve) > k) for k in range(most))


def _curve(kind: str, estimates: Estimates | None) -> tuple[float, ...]:
    """Give the measured total rates of 1, 2, ... jobs, as far as one more job gains."""
    measured: Mapping[int, float] = {} if estimates is None else estimates.colocation.curve(estimates.model, kind)
    known = {1: 1.0} | {num: min(total, float(num)) for num, total in measured.items() if num > 1}
    gains = takewhile(lambda num: num in known and (num == 1 or known[num] >= GAIN * known[num - 1]), count(1))
    return tuple(known[num] for num in gains)


def _plain(name: str, runtime: Runtime) -> Device:
    return Device(name, PROCESS) if runtime.kind == "local" else Device(name)


def _with_workers(config: RunConfig, number: int) -> RunConfig:
    return from_mapping(config.resolved, [f"runtime.num_workers={number}"])


def _of_this_machine(runtime: Runtime) -> int:
    """Count as the runtime would: threads, or workers that fit on the machine's logical CPUs and GPUs."""
    cores = os.cpu_count() or 1
    if runtime.kind == "local":
        return min(MAX_THREADS, cores)
    slots = [float(cores if runtime.num_cpus is None else runtime.num_cpus) / max(runtime.cpus_per_worker, 1e-9)]
    each = runtime.gpus_per_worker if runtime.gpus_per_worker is not None else float(bool(runtime.num_gpus))
    if each and runtime.num_gpus is not None:
        slots.append(runtime.num_gpus / each)
    return max(1, int(min(slots) + 1e-9))
