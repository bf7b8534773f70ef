"""Workers and devices as the configuration declares them."""

from __future__ import annotations

from hierfl.config.schema import DeviceGroup, Runtime
from hierfl.runtime.driver import Seat
from scheduler import Device

__all__ = ["GIB", "PROCESS", "declared_devices", "group_of", "seats"]

GIB = 2**30

PROCESS = "process"
"""The kind of device that the threads of one process share."""


def seats(runtime: Runtime) -> tuple[Seat, ...]:
    """Give a worker for each place of each device of `runtime.devices`, in order."""
    named = [(group, f"{group.name}-{number}") for group in runtime.devices for number in range(group.count)]
    return tuple(seat for group, name in named for seat in _on(group, name))


def declared_devices(runtime: Runtime) -> tuple[Device, ...]:
    """List the devices of `runtime.devices`; none where none is declared."""
    return tuple({seat.device.name: seat.device for seat in seats(runtime)}.values())


def group_of(runtime: Runtime, device: str) -> DeviceGroup | None:
    """Give the group that declares a device; None where none is declared."""
    return next((group for group in runtime.devices if group.name == device.rpartition("-")[0]), None)


def _on(group: DeviceGroup, name: str) -> tuple[Seat, ...]:
    """Seat the workers of one device; a device that has one goes by its name."""
    memory = None if group.memory_gib is None else int(group.memory_gib * GIB)
    device = Device(name, group.kind, frozenset(group.labels), memory, group.places)
    if group.places == 1:
        return (Seat(name, device),)
    return tuple(Seat(f"{name}.{place}", device) for place in range(group.places))
