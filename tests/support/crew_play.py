"""A crew on a driver that does nothing by itself, under a clock that a test sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hierfl.config.schema import SiteSettings, Training
from hierfl.learning.local import Objective
from hierfl.runtime.crew import Crew
from hierfl.runtime.driver import Done, Seat
from hierfl.runtime.estimates import Estimates
from hierfl.runtime.jobs import Order, SiteReport
from hierfl.runtime.results import Group
from scheduler import Device
from scheduler.policies.fifo import Fifo
from tiers.messages import Opening


class Silent:
    """Keeps the calls that are made."""

    kind = "silent"

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, tuple[Any, ...]]] = []
        self.restarted: list[str] = []

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        self.calls.append((actor, method, arguments))
        return len(self.calls) - 1

    def aside(self, worker: str, method: str, *arguments: Any) -> int:
        return self.call(worker, f"aside {method}", *arguments)

    def take_back(self, worker: str, tickets: Sequence[int]) -> int:
        return self.call(worker, "take_back", tickets)

    def restart(self, actor: str, silent: bool = False) -> tuple[str, ...]:
        self.restarted.append(actor)
        return (actor,)


class Play:
    """One crew under a clock that a test sets; all calls but those that train are answered at once."""

    def __init__(
        self,
        limits: Mapping[str, float | None],
        devices: Iterable[Device] = (Device("worker-0"),),
        declared: Iterable[Device] = (),
        estimates: Estimates | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.now_s = 0.0
        self.driver = Silent()
        marks = {path: frozenset({label}) for path, label in (labels or {}).items()}
        self.sites = {
            path: SiteSettings(Training(), path, timeout_s=limit, labels=marks.get(path, frozenset()))
            for path, limit in limits.items()
        }
        seats = [Seat(device.name, device) for device in devices]
        self.crew = Crew(
            *(self.driver, seats, Fifo()),  # type: ignore[arg-type]
            preaggregate=True,
            sites=self.sites,
            estimates=estimates,
            declared=declared,
            now=lambda: self.now_s,
        )
        self.answered = -1
        self.ended: set[int] = set()
        self.rounds = 0

    def answer(self) -> None:
        """Answer the calls that are not yet, up to the first that trains."""
        while self.answered + 1 < len(self.driver.calls):
            worker, method, _ = self.driver.calls[self.answered + 1]
            if method == "train":
                return
            self.answered += 1
            list(self.crew.handle(Done(self.answered, worker)))

    def ask(self, *sites: str, one_by_one: bool = False) -> str:
        units = dict.fromkeys(sites, 1)
        order = Order("world", self.rounds, (), Opening("world", self.rounds, 32, 8.0, 3, "float32"), Objective())
        name = f"train:world:{self.rounds}"
        self.crew.ask(Group(name, "train", "world", self.rounds, units, units, order, one_by_one=one_by_one))
        self.rounds += 1
        self.crew.pump()
        return name

    def at_work(self) -> list[str]:
        """List the sites that were asked to train and have not answered, by call."""
        calls = enumerate(self.driver.calls)
        asked = [(ticket, arguments[0].sites) for ticket, (_, method, arguments) in calls if method == "train"]
        return [site for ticket, sites in asked if ticket not in self.ended for site, _ in sites]

    def end(self, *sites: str) -> None:
        """Let the calls that train any of these sites end, after 2 ms for each."""
        for ticket, (worker, method, arguments) in enumerate(list(self.driver.calls)):
            names = [site for site, _ in arguments[0].sites] if method == "train" else []
            if ticket not in self.ended and not set(names).isdisjoint(sites):
                self.ended.add(ticket)
                reports = tuple(SiteReport(site, 0.002, 1, 1, 0.0) for site in names)
                list(self.crew.handle(Done(ticket, worker, reports)))
        self.crew.pump()

    def overdue(self, now_s: float) -> list[Any]:
        self.now_s = now_s
        return list(self.crew.overdue())
