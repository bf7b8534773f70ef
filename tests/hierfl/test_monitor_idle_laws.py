"""Whatever a run does, its bounds hold: the schedule that was is one of those that are bounded. Wrong guesses too."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierfl.monitor.idle import IdleTime
from hierfl.monitor.records import Assigned, Phase, Record, RoundClosed, SiteTrained
from scheduler import Device
from scheduler.idle import Idle
from tiers.federation import Federation, Hub, Site

NATION = frozenset({"ch"})
TREE = Federation(
    Hub(
        "world",
        (Hub("ch", tuple(Site(f"c{i}") for i in range(4)), rounds=2), Hub("us", (Site("u0"), Site("u1"))), Site("own")),
    )
)
LABELS = {f"world/ch/c{i}": NATION for i in range(4)}
CARD = Device("card", "card", NATION, 100, places=2)
WORKERS = {"card.0": CARD, "card.1": CARD, "cpu": Device("cpu", "cpu", NATION, 80), "abroad": Device("abroad", "cpu")}


@dataclass
class Play:
    """Random rounds on the workers, one job after another on each; a job of a late site ends when it ends."""

    rng: random.Random
    workers: dict[str, Device]

    def __post_init__(self) -> None:
        self.free = dict.fromkeys(self.workers, 0.0)
        self.records: list[tuple[float, int, Record]] = []

    def train(self, site: str, number: int, asked_s: float) -> float:
        able = [w for w, device in self.workers.items() if LABELS.get(site, frozenset()) <= device.labels]
        worker = self.rng.choice(able)
        start = max(asked_s, self.free[worker]) + self.rng.choice([0.0, 0.1])
        load, spent = self.rng.choice([0.0, 0.3]), self.rng.uniform(0.5, 4.0)
        end = self.free[worker] = start + load + spent
        hub = site.rpartition("/")[0]
        self.say(asked_s, Assigned(asked_s, worker, self.workers[worker].name, "train", hub, [site], 1, "", 40))
        self.say(end, Phase(end, worker, "train", start, end, [site], 1))
        self.say(end, SiteTrained(end, site, number, worker, end - start, 1, 1, 0.1, load, start))
        return end

    def say(self, time_s: float, record: Record) -> None:
        self.records.append((time_s, len(self.records), record))

    def close(
        self, hub: str, number: int, members: list[str], late: list[str], opened_s: float, ends_s: float
    ) -> float:
        time_s = ends_s + self.rng.choice([0.0, 0.05])
        missing = dict.fromkeys(late, "late")
        self.say(time_s, RoundClosed(time_s, hub, number, "", members, missing, time_s - opened_s, 0, late=late))
        return time_s

    def round(self, number: int, opened_s: float) -> float:
        """One round of the world: two of ch, one of us; its own site may be late."""
        ends, at_s = [], opened_s
        for own in (2 * number - 1, 2 * number):
            done_s = max(self.train(f"world/ch/c{i}", own, at_s) for i in range(4))
            at_s = self.close("world/ch", own, [f"c{i}" for i in range(4)], [], at_s, done_s)
        ends.append(at_s)
        done_s = max(self.train(f"world/us/u{i}", number, opened_s) for i in range(2))
        ends.append(self.close("world/us", number, ["u0", "u1"], [], opened_s, done_s))
        late = self.rng.random() < 0.5
        done_s = self.train("world/own", number, opened_s)
        if not late:
            ends.append(done_s)
        members = ["ch", "us"] if late and done_s > max(ends) else ["ch", "us", "own"]
        return self.close(
            "world", number, members, [] if "own" in members else ["own"], opened_s, max(ends[:3] if late else ends)
        )


def played(seed: int, workers: dict[str, Device], idle: IdleTime) -> list[Idle]:
    """Play three rounds; return the figures after each."""
    play, time_s, found = Play(random.Random(seed), workers), 0.0, []
    for number in (1, 2, 3):
        time_s = play.round(number, time_s)
    for _, _, record in sorted(play.records, key=lambda said: said[:2]):
        idle.on(record)
        if isinstance(record, RoundClosed) and record.node == "world":
            found.append(idle.last())
    return found


@given(st.integers(0, 10_000), st.floats(0.2, 5.0), st.floats(0.3, 2.0))
def test_no_bound_is_above_the_time_whatever_is_believed_of_speed_and_company(
    seed: int, speed: float, rate: float
) -> None:
    idle = IdleTime(
        TREE,
        WORKERS,
        LABELS,
        lambda kind: speed if kind == "card" else 1.0,
        lambda device: (1.0, rate)[: device.places],
    )
    every = [*played(seed, WORKERS, idle), idle.total(), *idle.hubs().values()]
    assert all(found.efficiency <= 1.0 + 1e-9 for found in every)
    assert all(0.0 <= found.idle <= 1.0 and 0.0 <= found.floor <= 1.0 for found in every)
    assert all(share <= 1.0 + 1e-9 for found in every for share in found.busy.values())


@given(st.integers(0, 10_000), st.floats(0.2, 5.0))
def test_without_company_goodput_is_what_was_busy_and_no_floor_is_above_what_was_idle(seed: int, speed: float) -> None:
    """Late work counts where it was done, and only there."""
    workers = {name: device for name, device in WORKERS.items() if device.places == 1}
    idle = IdleTime(TREE, workers, LABELS, lambda kind: speed if kind == "card" else 1.0)
    for found in [*played(seed, workers, idle), idle.total()]:
        assert found.goodput == pytest.approx(1.0 - found.idle)
        assert found.floor <= found.idle + 1e-9
    devices = idle.devices()
    assert all(found.goodput == pytest.approx(1.0 - found.idle) for found in devices.values())
    assert set(devices) == {"cpu", "abroad"}
