"""Which devices a run may use now: all of its own, or those that are leased to it where several runs share them.

The run's dispatcher decides what its devices do. A device that is not the run's now is paused: it counts as there, so
that who may run where does not change, and what it was given ends. A lease that others want is kept for its slice, at
least for one chunk, and given back when nothing of the run is left on the device. On a device that runs share each uses
one place, tells how fast its jobs are there, and leaves as soon as it has none, so that who holds a place works.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from hierfl.monitor.records import Leased, Record
from scheduler import Assign, Beside, Device, Dispatcher, Granted, LeaseDecision, Model, Rate, Want

__all__ = ["Gate", "Link", "OpenGate", "SharedGate", "Tell", "gate_of"]

REPORT_S = 0.05
"""How often a run says anew what it would do with devices that it has not, where only the order has changed."""

LINGER_S = 0.1
"""How long a run keeps a place beside others while it has no job for it: its next one may be about to come."""

Tell = Callable[[str, str, str], None]
"""Takes a device, what became of its lease (granted, recalled, released), and why."""


class Link(Protocol):
    """The way to what leases devices to runs; `run`: what this one is called there; `cluster`: whose devices."""

    @property
    def run(self) -> str:
        """Name the run, as leases and their reasons do."""

    @property
    def cluster(self) -> str:
        """Name the cluster; runs of one cluster share its devices."""

    def news(self) -> Sequence[LeaseDecision]:
        """Give what was decided for this run since the last time; never waits."""

    def report(self, wants: Mapping[str, Want], num_jobs: int, released: Mapping[str, int], beside: Beside) -> None:
        """Say what the run wants, as in `Leases.want`, which leases, by device, it gives back, and what it shares."""


class Gate(Protocol):
    """Lets a run's dispatcher use devices."""

    def decide(self, dispatcher: Dispatcher, now_s: float) -> list[Assign]:
        """Let the dispatcher fill the devices that are the run's."""

    def held_s(self) -> Mapping[str, float] | None:
        """Give how long the run has had each device so far, in seconds; None: always."""

    def others(self, device: str) -> int:
        """Count the other runs that may be at work on a device now."""

    def rated(self, device: str, rate: float, seconds: float) -> None:
        """A job that no other of the run was beside has ended, with a rate as of `Colocation.observe`."""

    def short(self, device: str) -> None:
        """A job was out of memory beside another run's."""


class OpenGate:
    """All devices are the run's."""

    def decide(self, dispatcher: Dispatcher, now_s: float) -> list[Assign]:
        """Decide."""
        return dispatcher.decide(now_s)

    def held_s(self) -> None:
        """Nothing to count."""

    def others(self, device: str) -> int:
        """No other run is there."""
        return 0

    def rated(self, device: str, rate: float, seconds: float) -> None:
        """Nobody wants to know."""

    def short(self, device: str) -> None:
        """It was beside nobody."""


@dataclass(slots=True)
class _Held:
    """A device that is the run's: since when, until when where others want it, and whether it was given work.

    `places`: how many jobs may run there, None for all; `is_narrowing`: the lessor waits for that; `is_short`: memory
    did not suffice beside the other runs there; `idle_s`: since when nothing of the run was seen there.
    """

    number: int
    since_s: float
    until_s: float | None = None
    is_used: bool = False
    places: int | None = None
    is_narrowing: bool = False
    is_short: bool = False
    idle_s: float | None = None


class SharedGate:
    """Devices are the run's while it holds their leases. `now`: seconds, never back; `tell` hears of every change.

    `model`: what the run trains, as it is known by now on a device.
    """

    def __init__(
        self,
        link: Link,
        tell: Tell,
        now: Callable[[], float] = time.monotonic,
        model: Callable[[Device], Model] = lambda device: Model(),
    ) -> None:
        self._link = link
        self._tell = tell
        self._now = now
        self._model = model
        self._rates: list[tuple[str, float, float]] = []
        self._short: list[str] = []
        self._held: dict[str, _Held] = {}
        self._spent_s: dict[str, float] = {}
        self._wants: dict[str, Want] = {}
        self._num_jobs = 0
        self._said_s = 0.0

    def decide(self, dispatcher: Dispatcher, now_s: float) -> list[Assign]:
        """Hear of leases, decide, give back what is to be given back, and say what else is wanted."""
        for news in self._link.news():
            self._hear(news)
        for device in dispatcher.devices:
            dispatcher.pause(device, not self._may(device))
            dispatcher.limit(device, self._held[device].places if device in self._held else None, "lease")
        decisions = dispatcher.decide(now_s)
        for decision in decisions:
            self._held[decision.device].is_used = True
        released = self._give_back(dispatcher)
        self._report(dispatcher, released, self._narrowed(dispatcher))
        return decisions

    def held_s(self) -> Mapping[str, float]:
        """Give how long the run has had each device that it ever had, in seconds."""
        now_s = self._now()
        open_s = {device: now_s - held.since_s for device, held in self._held.items()}
        devices = self._spent_s | open_s
        return {device: self._spent_s.get(device, 0.0) + open_s.get(device, 0.0) for device in devices}

    def others(self, device: str) -> int:
        """Count one where the run has a place, not the device."""
        return int(device in self._held and self._held[device].places is not None)

    def rated(self, device: str, rate: float, seconds: float) -> None:
        """Keep it for the next report."""
        if device in self._held:
            self._rates.append((device, rate, self._now() - seconds))

    def short(self, device: str) -> None:
        """Tell it, and use the device no more until it is the run's alone."""
        if device in self._held:
            self._held[device].is_short = True
            self._short.append(device)

    def _hear(self, decision: LeaseDecision) -> None:
        """Take a decision on a lease."""
        held = self._held.get(decision.device)
        if isinstance(decision, Granted):
            if held is not None and held.number == decision.number:
                held.places, held.is_narrowing, held.until_s = decision.places, False, None
            else:
                since_s, is_used = (self._now(), False) if held is None else (held.since_s, held.is_used)
                made = _Held(decision.number, since_s, is_used=is_used, places=decision.places)
                self._held[decision.device] = made
            self._tell(decision.device, "granted" if held is None else "changed", decision.reason)
        elif held is not None and decision.keep and decision.number == held.number:
            held.places, held.is_narrowing = decision.keep, True
            self._tell(decision.device, "narrowed", decision.reason)
        elif held is not None and decision.number in (0, held.number):
            held.until_s = self._now() + decision.after_s
            self._tell(decision.device, "recalled", decision.reason)

    def _may(self, device: str) -> bool:
        """Say whether a device may be given work."""
        held = self._held.get(device)
        return (
            held is not None
            and not held.is_short
            and (held.until_s is None or not held.is_used or self._now() < held.until_s)
        )

    def _give_back(self, dispatcher: Dispatcher) -> dict[str, int]:
        """Let go of devices that others want and that have nothing of the run's; return their leases' numbers."""
        released = {}
        for device, held in list(self._held.items()):
            if dispatcher.running(device):
                held.idle_s = None
            elif held.until_s is not None or self._is_unused(held):
                del self._held[device]
                self._spent_s[device] = self._spent_s.get(device, 0.0) + self._now() - held.since_s
                released[device] = held.number
                is_over = held.until_s is not None and held.is_used and self._now() >= held.until_s
                said = "its time is over" if is_over else "there is no work for it now"
                self._tell(device, "released", "memory did not suffice beside others" if held.is_short else said)
        return released

    def _is_unused(self, held: _Held) -> bool:
        """Say whether a place beside other runs has had no work for a while, or must have none."""
        if held.idle_s is None:
            held.idle_s = self._now()
        return held.places is not None and (held.is_short or self._now() - held.idle_s >= LINGER_S)

    def _narrowed(self, dispatcher: Dispatcher) -> dict[str, int]:
        """List the devices where the run was told to use one place only and does by now; by lease."""
        found = {}
        for device, held in self._held.items():
            if held.is_narrowing and len(dispatcher.running(device)) <= 1:
                held.is_narrowing = False
                found[device] = held.number
        return found

    def _report(self, dispatcher: Dispatcher, released: Mapping[str, int], narrowed: Mapping[str, int]) -> None:
        """Say what the run wants, where that has changed; of the mere order, and of rates, not too often."""
        missing = [device for device in dispatcher.devices if device not in self._held]
        wants = dict(dispatcher.firsts(missing)) if missing else {}
        for device, want in wants.items():
            wants[device] = replace(want, model=self._model(dispatcher.device(device)))
        num_jobs = min(dispatcher.num_waiting, len(wants)) if wants else 0
        changed = bool(released) or num_jobs != self._num_jobs or wants.keys() != self._wants.keys()
        changed = changed or bool(narrowed) or bool(self._short)
        if changed or ((self._rates or wants != self._wants) and self._now() - self._said_s >= REPORT_S):
            self._link.report(wants, num_jobs, released, self._beside(dispatcher, narrowed))
            self._wants, self._num_jobs, self._said_s = wants, num_jobs, self._now()

    def _beside(self, dispatcher: Dispatcher, narrowed: Mapping[str, int]) -> Beside:
        """Give what is to be told of shared devices, once."""
        devices = {device: dispatcher.device(device) for device, _, _ in self._rates if device in dispatcher.devices}
        rates = (
            Rate(device, rate, self._now() - began_s, self._model(devices[device]))
            for device, rate, began_s in self._rates
            if device in devices
        )
        told = Beside(narrowed, tuple(rates), tuple(self._short))
        self._rates, self._short = [], []
        return told


def gate_of(
    link: Link | None,
    emit: Callable[[Record], None],
    started_s: float,
    model: Callable[[Device], Model] = lambda device: Model(),
) -> Gate:
    """Make the gate of a run that began at `started_s`, seconds since the epoch; `emit` hears of every lease."""
    if link is None:
        return OpenGate()
    run = link.run
    tell: Tell = lambda *said: emit(Leased(time.time() - started_s, said[0], run, said[1], said[2]))  # noqa: E731
    return SharedGate(link, tell, model=model)
