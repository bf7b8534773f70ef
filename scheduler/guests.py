"""Guests on leased devices: whether several runs' jobs should share a device, by what was measured there.

The run that holds a device's lease is the host, and others may be its guests, one job of each at a time, where the
device has the places, the memory of all fits (of a run the largest job that it knows of), and the company of their
models pays: its total rate (`scheduler.colocation`) beats a tenth more than what any of them reaches there by itself,
by several jobs side by side too. What a company gives is learned from the rates that runs report of their jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from scheduler.colocation import GAIN, Colocation
from scheduler.views import Device

__all__ = ["ALONE", "ANY", "Beside", "Guest", "Guests", "Model", "Rate"]


@dataclass(frozen=True, slots=True)
class Model:
    """What a run would train on a device: a name, the most memory that a job takes (0: unknown), and the total rate
    that its own jobs reach there side by side, by that of one alone.
    """

    name: str = ""
    memory_bytes: int = 0
    rate: float = 1.0


ANY = Model()
"""A run that says nothing of what it trains, and has no company."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A run's job on a device had this rate (as of `Colocation.observe`); it began `age_s` seconds ago, and has ended.

    `model`: as the run knows it by now.
    """

    device: str
    rate: float
    age_s: float
    model: Model


@dataclass(frozen=True, slots=True)
class Beside:
    """What a run tells of devices that it shares: `narrowed`, by the leases' numbers, where it uses one place only now,
    `rates` of its jobs, and where it was `short` of memory.
    """

    narrowed: Mapping[str, int] = field(default_factory=dict)
    rates: tuple[Rate, ...] = ()
    short: tuple[str, ...] = ()


ALONE = Beside()
"""Nothing to tell."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A run that uses one place of a device beside its host."""

    run: str
    number: int
    model: Model


@dataclass(eq=False, slots=True)
class _House:
    """A device: its host's run and model while it is leased, its guests, and since when they are the same.

    `is_asked`: the host was told to use one place only; `is_open`: it does.
    """

    device: Device
    host: str = ""
    model: Model = field(default_factory=Model)
    guests: dict[str, Guest] = field(default_factory=dict)
    since_s: float = 0.0
    is_asked: bool = False
    is_open: bool = False


class Guests:
    """Who is where, and what their companies gave. Devices that nobody has described take no guests."""

    def __init__(self) -> None:
        self.colocation = Colocation()
        self._houses: dict[str, _House] = {}

    def describe(self, device: Device) -> None:
        """Say of what sort a device is."""
        self._houses.setdefault(device.name, _House(device)).device = device

    def differs(self, device: Device) -> Device | None:
        """Give what a device was said to be where that is of another sort for those who share it, None otherwise."""
        house = self._houses.get(device.name)
        if house is None or max(house.device.places, device.places) == 1:
            return None
        same = (house.device.places, house.device.memory_bytes) == (device.places, device.memory_bytes)
        return None if same else house.device

    def withdraw(self, device: str) -> None:
        """A device is gone, with all that are there."""
        self._houses.pop(device, None)

    def host(self, device: str, run: str, model: Model, now_s: float, *, is_open: bool = False) -> None:
        """A device has a host from now on; the guests that it has stay."""
        house = self._houses.get(device)
        if house is not None:
            house.host, house.model, house.since_s = run, model, now_s
            house.is_asked = house.is_open = is_open

    def leave(self, device: str, now_s: float) -> tuple[Guest, ...]:
        """A device's host has left it; give its guests, the first to come first."""
        house = self._houses.get(device)
        if house is None:
            return ()
        house.host, house.model, house.since_s = "", Model(), now_s
        house.is_asked = house.is_open = False
        return tuple(house.guests.values())

    def of(self, device: str) -> Mapping[str, Guest]:
        """Give a device's guests by run."""
        house = self._houses.get(device)
        return {} if house is None else house.guests

    def enter(self, device: str, guest: Guest, now_s: float) -> None:
        """A run uses a place of a device from now on."""
        house = self._houses[device]
        self.colocation.started(self._names(house), _name(guest.run, guest.model), house.device.kind)
        house.guests[guest.run] = guest
        house.since_s = now_s

    def exit(self, device: str, run: str, now_s: float) -> bool:
        """A guest has gone; False if it was none."""
        house = self._houses.get(device)
        if house is None or house.guests.pop(run, None) is None:
            return False
        house.since_s = now_s
        return True

    def has_room(self, device: str) -> bool:
        """Say whether a device has a place for one more run."""
        house = self._houses.get(device)
        return house is not None and bool(house.host) and len(house.guests) + 1 < house.device.places

    def may_enter(self, device: str, run: str, model: Model) -> bool:
        """Say whether a run should be a guest of a device's host, whether that makes room already or not."""
        house = self._houses.get(device)
        if house is None or not house.host or not model.name or not house.model.name:
            return False
        inside = [house.model, *(guest.model for guest in house.guests.values())]
        capacity = house.device.memory_bytes
        if capacity is not None and not all(each.memory_bytes for each in inside):
            return False
        free = None if capacity is None else capacity - sum(each.memory_bytes for each in inside)
        names, kind = self._names(house), house.device.kind
        candidate = _name(run, model)
        if not self.colocation.gain(names, candidate, kind, house.device.places, model.memory_bytes, free):
            return False
        total = self.colocation.total((*names, candidate), kind)
        most = max(each.rate for each in (*inside, model))
        return most == 1.0 or (len(names) + 1 if total is None else total) >= GAIN * most

    def must_part(self, device: str) -> Guest | None:
        """Give the guest that came last to a company that was measured and does not pay."""
        house = self._houses.get(device)
        if house is None or not house.guests or not house.host:
            return None
        pays = self.colocation.pays(self._names(house), house.device.kind)
        return list(house.guests.values())[-1] if pays is False else None

    def ask(self, device: str) -> bool:
        """A host is to use one place only; False if it was told so before."""
        house = self._houses[device]
        was_asked, house.is_asked = house.is_asked, True
        return not was_asked

    def open(self, device: str, run: str) -> None:
        """A host uses one place only."""
        house = self._houses.get(device)
        if house is not None and house.host == run and house.is_asked:
            house.is_open = True

    def is_open(self, device: str) -> bool:
        """Say whether guests may come to a device now."""
        return self._houses[device].is_open

    def close(self, device: str, now_s: float) -> bool:
        """A host may use its whole device again; False if it could all the time."""
        house = self._houses.get(device)
        if house is None or house.guests or not house.is_asked:
            return False
        house.is_asked = house.is_open = False
        house.since_s = now_s
        return True

    def observe(self, run: str, said: Rate, now_s: float) -> None:
        """Learn the rate of a run's job, if its company was one and the same, and what the run's model is by now."""
        house = self._houses.get(said.device)
        if house is None:
            return
        if house.host == run:
            house.model = said.model
        elif run in house.guests:
            house.guests[run] = replace(house.guests[run], model=said.model)
        models = self._models(house)
        if run in models and models[run].name and now_s - said.age_s >= house.since_s:
            others = [_name(other, model) for other, model in models.items() if other != run]
            self.colocation.observe(_name(run, models[run]), others, said.rate, house.device.kind)

    def out_of_memory(self, device: str) -> None:
        """Learn that those who are on a device did not fit together."""
        house = self._houses.get(device)
        if house is not None and house.guests:
            self.colocation.out_of_memory(self._names(house), house.device.kind)

    def _models(self, house: _House) -> dict[str, Model]:
        host = {house.host: house.model} if house.host else {}
        return host | {run: guest.model for run, guest in house.guests.items()}

    def _names(self, house: _House) -> Sequence[str]:
        return [_name(run, model) for run, model in self._models(house).items()]


def _name(run: str, model: Model) -> str:
    """Name a run's model: runs of the same model may differ in their batches."""
    return f"{run}: {model.name}"
