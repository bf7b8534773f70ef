"""Jobs that share a device and run out of its memory, on a driver that does nothing by itself."""

from __future__ import annotations

from typing import Any

import pytest

from hierfl.config.schema import SiteSettings, Training
from hierfl.learning.local import Objective
from hierfl.runtime.crew import Crew
from hierfl.runtime.driver import Done, Seat
from hierfl.runtime.estimates import Estimates
from hierfl.runtime.gate import OpenGate
from hierfl.runtime.jobs import Order, SiteReport
from hierfl.runtime.results import Group, Said, SitesLost, Trained
from scheduler import Device, Job
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo
from tiers.messages import Opening

SITES = ("world/a", "world/b", "world/c")


class Silent:
    """Keeps the calls that are made."""

    kind = "silent"

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, tuple[Any, ...]]] = []

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        self.calls.append((actor, method, arguments))
        return len(self.calls) - 1

    def restart(self, actor: str, silent: bool = False) -> tuple[str, ...]:
        return (actor,)

    def aside(self, worker: str, method: str, *arguments: Any) -> int:
        return self.call(worker, method, *arguments)


class Play:
    """One card with two places, and a model that is known to gain by company there."""

    def __init__(self, num_up: int = 2, gate: OpenGate | None = None) -> None:
        estimates = Estimates("model")
        for site in SITES:
            estimates.durations.observe("train", site, 1, 5.0, "card", "model")
        for _ in range(3):
            estimates.colocation.observe("model", [], 1.0, "card")
        card = Device("card-0", "card", places=2)
        self.driver = Silent()
        seats = [Seat("card-0.0", card), Seat("card-0.1", card)]
        self.crew = Crew(self.driver, seats, Fifo(), preaggregate=True, estimates=estimates, gate=gate)  # type: ignore[arg-type]
        for ticket, (worker, _, _) in enumerate(list(self.driver.calls[:num_up])):
            list(self.crew.handle(Done(ticket, worker)))
        order = Order("world", 0, (), Opening("world", 0, 32, 8.0, 3, "float32"), Objective())
        units = dict.fromkeys(SITES, 1)
        self.crew.ask(Group("train:world:0", "train", "world", 0, units, units, order))
        self.said = self.crew.pump()

    def training(self) -> dict[str, tuple[int, str]]:
        """List the sites that were ever sent, with the newest call's ticket and worker."""
        return {
            site: (ticket, worker)
            for ticket, (worker, method, arguments) in enumerate(self.driver.calls)
            if method == "train"
            for site, _ in arguments[0].sites
        }

    def end(self, site: str, *, short: bool) -> list[Any]:
        ticket, worker = self.training()[site]
        error = "OutOfMemoryError: there is too little" if short else None
        report = SiteReport(site, 5.0, 1, 1, 0.0, error, out_of_memory=short)
        results = list(self.crew.handle(Done(ticket, worker, (report,))))
        return [*results, *self.crew.pump()]


def test_who_fails_beside_another_is_tried_again_and_the_pair_is_not() -> None:
    play = Play()
    assert set(play.training()) == {"world/a", "world/b"}, "company is tried once the rate alone is known"
    first = play.training()["world/b"]
    results = play.end("world/b", short=True)
    assert not [result for result in results if isinstance(result, SitesLost)]
    [warning] = [result for result in results if isinstance(result, Said)]
    assert "world/b ran out of memory beside 1 others" in warning.message
    assert play.training()["world/b"] == first and "world/c" not in play.training(), "nobody joins a now"
    play.end("world/a", short=False)
    running = [site for site in ("world/b", "world/c") if play.training().get(site, first) != first]
    assert len(running) == 1
    assert [r for r in play.end(running[0], short=False) if isinstance(r, Trained)]


def test_who_begins_together_is_company_from_the_beginning() -> None:
    """a and b are sent at once and take 5 s each, as alone: what a took while b was there tells that both together do
    the work of two.
    """
    play = Play()
    assert play.crew.estimates.colocation.total(("model", "model"), "card") is None
    play.end("world/a", short=False)
    assert play.crew.estimates.colocation.total(("model", "model"), "card") == pytest.approx(2.0)


def test_who_fails_alone_is_lost_by_name() -> None:
    play = Play()
    play.end("world/b", short=True)
    play.end("world/a", short=False)
    last = max(play.training(), key=lambda site: play.training()[site][0])
    [lost] = [result for result in play.end(last, short=True) if isinstance(result, SitesLost)]
    assert list(lost.sites) == [last] and "too little" in lost.sites[last]


def test_what_waits_is_predicted_for_a_device_that_may_take_it() -> None:
    """A site that must stay on the slow device is predicted as it runs there, though a fast one was seen first."""
    estimates = Estimates("model")
    for kind, seconds in (("fast", 1.0), ("slow", 9.0)):
        for site in SITES:
            estimates.durations.observe("train", site, 1, seconds, kind, "model")
    here = frozenset({"ch"})
    devices = [Device("fast-0", "fast"), Device("fast-1", "fast"), Device("slow-0", "slow", here)]
    settings = SiteSettings(Training(batch_size=1), "a", labels=here)
    seats = [Seat(device.name, device) for device in devices]
    crew = Crew(
        Silent(),  # type: ignore[arg-type]
        *(seats, Fifo()),
        preaggregate=True,
        sites={"world/a": settings},
        estimates=estimates,
    )
    order = Order("world", 0, (), Opening("world", 0, 32, 8.0, 3, "float32"), Objective())
    crew.ask(Group("train:world:0", "train", "world", 0, {"world/a": 1, "world/b": 1}, {}, order))
    jobs = [
        Job("train:world:0", site, 1, None, 0, labels=labels)
        for site, labels in (("world/a", here), ("world/b", frozenset()))
    ]
    assert [crew._foresight.predict(job, None) for job in jobs] == [
        pytest.approx(9.0, rel=0.1),
        pytest.approx(1.0, rel=0.1),
    ]


def test_a_place_counts_from_when_its_worker_is_up_until_it_is_lost() -> None:
    """Each site takes seconds and gains by company; nothing long waits behind another at one worker."""
    play = Play(num_up=1)
    assert set(play.training()) == {"world/a"}, "the second worker is still starting"
    list(play.crew.handle(Done(1, "card-0.1")))
    play.crew.pump()
    assert {site: worker for site, (_, worker) in play.training().items()} == {
        "world/a": "card-0.0",
        "world/b": "card-0.1",
    }
    ticket, _ = play.training()["world/b"]
    list(play.crew.handle(Done(ticket, "card-0.1", crashed="killed")))
    play.crew.pump()
    assert [worker for worker, method, _ in play.driver.calls if method == "train"] == ["card-0.0", "card-0.1"]


def test_who_fails_beside_another_run_is_tried_again_and_its_own_company_is_not_blamed() -> None:
    play = Play(gate=Shared())
    assert set(play.training()) == {"world/a", "world/b"}
    results = play.end("world/a", short=True)
    assert play.crew.gate.told == ["card-0"]  # type: ignore[attr-defined]
    assert not any(isinstance(result, SitesLost) for result in results)
    assert any(isinstance(result, Said) and "will be tried again" in result.message for result in results)


class Shared(OpenGate):
    """Another run is on every device."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def others(self, device: str) -> int:
        return 1

    def short(self, device: str) -> None:
        self.told.append(device)


@pytest.mark.parametrize("policy", [ChainFirst(), Fifo()])
def test_a_small_batch_keeps_no_better_company_out(policy: ChainFirst | Fifo) -> None:
    """Beside one large batch and two small ones a third one gains little and shuts a second large one out."""
    needs = {"world/large": 70, "world/small0": 8, "world/small1": 8, "world/small2": 8, "world/half": 80}
    estimates = Estimates("model")
    for site, size in needs.items():
        estimates.durations.observe("train", site, 1, 5.0, "card", "model")
        estimates.memory.observe("model", size, 100 * size / 1.1, 0, "card")
    for others, rate in enumerate((1.0, 1.5, 1.8, 2.0)):
        for _ in range(3):
            estimates.colocation.observe("model", ["model"] * others, rate / (others + 1), "card")
    card = Device("card-0", "card", memory_bytes=16_000, places=4)
    seats = [Seat(f"card-0.{place}", card) for place in range(4)]
    sites = {site: SiteSettings(Training(batch_size=size), site) for site, size in needs.items()}
    crew = Crew(Silent(), seats, policy, preaggregate=True, sites=sites, estimates=estimates)  # type: ignore[arg-type]
    for ticket, seat in enumerate(seats):
        list(crew.handle(Done(ticket, seat.worker)))
    for hub, chain_s in ((("large", "small0", "small1"), 300.0), (("half",), 200.0), (("small2",), 100.0)):
        order = Order(hub[0], 0, (), Opening(hub[0], 0, 32, 8.0, 3, "float32"), Objective())
        units = {f"world/{site}": 1 for site in hub}
        crew.ask(Group(f"train:{hub[0]}:0", "train", hub[0], 0, units, units, order, chain_s=chain_s))
        crew.pump()
    calls = crew.driver.calls  # type: ignore[attr-defined]
    sent = {site for _, method, arguments in calls if method == "train" for site, _ in arguments[0].sites}
    first = {"world/large", "world/small0", "world/small1"}
    assert sent == (first if isinstance(policy, ChainFirst) else {*first, "world/small2"})
