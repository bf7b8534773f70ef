"""Which devices a run may use now: all of its own, or those that are leased to it where several runs share them.

The run's dispatcher decides what its devices do. A device that is not the run's now is paused: it counts as there, so
that who may run where does not change, and what it was given ends. A lease that others want is kept for its slice, at
least for one chunk, and given back when nothing of the run is left on the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hierfl.monitor.records import Leased, Record
from scheduler import Assign, Dispatcher, Granted, LeaseDecision, Want

__all__ = ["Gate", "Link", "OpenGate", "SharedGate", "Tell", "gate_of"]

REPORT_S = 0.05
"""How often a run says anew what it would do with devices that it has not, where only the order has changed."""

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

    def report(self, wants: Mapping[str, Want], num_jobs: int, released: Mapping[str, int]) -> None:
        """Say what the run wants, as in `Leases.want`, and which leases, by device, it gives back."""


class Gate(Protocol):
    """Lets a run's dispatcher use devices."""

    def decide(self, dispatcher: Dispatcher, now_s: float) -> list[Assign]:
        """Let the dispatcher fill the devices that are the run's."""

    def held_s(self) -> Mapping[str, float] | None:
        """Give how long the run has had each device so far, in seconds; None: always."""


class OpenGate:
    """All devices are the run's."""

    def decide(self, dispatcher: Dispatcher, now_s: float) -> list[Assign]:
        """Decide."""
        return dispatcher.decide(now_s)

    def held_s(self) -> None:
        """Nothing to count."""


@dataclass(slots=True)
class _Held:
    """A device that is the run's: since when, until when where others want it, and whether it was given work."""

    number: int
    since_s: float
    until_s: float | None = None
    is_used: bool = False


class SharedGate:
    """Devices are the run's while it holds their leases. `now`: seconds, never back; `tell` hears of every change."""

    def __init__(self, link: Link, tell: Tell, now: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._tell = tell
        self._now = now
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
        decisions = dispatcher.decide(now_s)
        for decision in decisions:
            self._held[decision.device].is_used = True
        self._report(dispatcher, self._give_back(dispatcher))
        return decisions

    def held_s(self) -> Mapping[str, float]:
        """Give how long the run has had each device that it ever had, in seconds."""
        now_s = self._now()
        open_s = {device: now_s - held.since_s for device, held in self._held.items()}
        devices = self._spent_s | open_s
        return {device: self._spent_s.get(device, 0.0) + open_s.get(device, 0.0) for device in devices}

    def _hear(self, decision: LeaseDecision) -> None:
        """Take a decision on a lease."""
        held = self._held.get(decision.device)
        if isinstance(decision, Granted):
            since_s, is_used = (self._now(), False) if held is None else (held.since_s, held.is_used)
            self._held[decision.device] = _Held(decision.number, since_s, is_used=is_used)
            self._tell(decision.device, "granted", decision.reason)
        elif held is not None and decision.number in (0, held.number):
            held.until_s = self._now() + decision.after_s
            self._tell(decision.device, "recalled", decision.reason)

    def _may(self, device: str) -> bool:
        """Say whether a device may be given work."""
        held = self._held.get(device)
        return held is not None and (held.until_s is None or not held.is_used or self._now() < held.until_s)

    def _give_back(self, dispatcher: Dispatcher) -> dict[str, int]:
        """Let go of devices that others want and that have nothing of the run's; return their leases' numbers."""
        released = {}
        for device, held in list(self._held.items()):
            if held.until_s is not None and not dispatcher.running(device):
                del self._held[device]
                self._spent_s[device] = self._spent_s.get(device, 0.0) + self._now() - held.since_s
                released[device] = held.number
                is_over = held.is_used and self._now() >= held.until_s
                self._tell(device, "released", "its time is over" if is_over else "there is no work for it now")
        return released

    def _report(self, dispatcher: Dispatcher, released: Mapping[str, int]) -> None:
        """Say what the run wants, where that has changed; of the mere order, not too often."""
        missing = [device for device in dispatcher.devices if device not in self._held]
        wants = dict(dispatcher.firsts(missing)) if missing else {}
        num_jobs = min(dispatcher.num_waiting, len(wants)) if wants else 0
        changed = bool(released) or num_jobs != self._num_jobs or wants.keys() != self._wants.keys()
        if changed or (wants != self._wants and self._now() - self._said_s >= REPORT_S):
            self._link.report(wants, num_jobs, released)
            self._wants, self._num_jobs, self._said_s = wants, num_jobs, self._now()


def gate_of(link: Link | None, emit: Callable[[Record], None], started_s: float) -> Gate:
    """Make the gate of a run that began at `started_s`, seconds since the epoch; `emit` hears of every lease."""
    if link is None:
        return OpenGate()
    run = link.run
    return SharedGate(link, lambda *said: emit(Leased(time.time() - started_s, said[0], run, said[1], said[2])))
