"""Devices that runs share: by what was measured, within the memory, one job of each, and nobody preempted."""

from __future__ import annotations

from random import Random

import pytest

from scheduler.guests import Beside, Model, Rate
from scheduler.leases import Granted, LeaseDecision, Leases, Recall, Want
from scheduler.views import Device

CARD = Device("x", "card", memory_bytes=100, places=2)


def want(run: str, memory_bytes: int = 40, rate: float = 1.0) -> dict[str, Want]:
    return {"x": Want((1.0,), 5.0, Model(f"net-{run}", memory_bytes, rate))}


class Play:
    """Runs a and b that want one card; times are whole seconds, one more with each decision."""

    def __init__(self, device: Device = CARD, known: int = 3, **wants: dict[str, Want]) -> None:
        self.leases, self.now_s = Leases(), 0.0
        self.leases.offer("x")
        self.leases.guests.describe(device)
        self.number: dict[str, int] = {}
        self.wants = {"a": want("a"), "b": want("b")} | wants
        for run in self.wants:
            self.leases.register(run)
        for run in self.wants:
            self.enter(run)
            for _ in range(known):
                self.observe(run, 1.0)
            self.leave(run)
            self.leases.want(run, {}, 0)

    def decide(self) -> list[LeaseDecision]:
        self.now_s += 1.0
        found = self.leases.decide(self.now_s)
        self.number.update((each.run, each.number) for each in found if isinstance(each, Granted))
        return found

    def enter(self, run: str) -> list[LeaseDecision]:
        self.leases.want(run, self.wants[run], 1)
        return self.decide()

    def leave(self, run: str) -> list[LeaseDecision]:
        self.leases.release(run, "x", self.number[run], self.now_s)
        return self.decide()

    def observe(self, run: str, rate: float) -> None:
        self.now_s += 1.0
        self.leases.guests.observe(run, Rate("x", rate, 0.5, self.wants[run]["x"].model), self.now_s)

    def share(self) -> list[LeaseDecision]:
        """Let a be host and b its guest."""
        self.enter("a")
        [asked] = self.enter("b")
        assert isinstance(asked, Recall) and (asked.run, asked.keep, asked.after_s) == ("a", 1, 0.0)
        assert self.decide() == [], "not before a uses one place only, and it is told once"
        self.leases.beside("a", Beside({"x": asked.number}), self.now_s)
        return self.decide()


def test_a_run_is_a_guest_once_rates_are_known_and_the_host_has_made_room() -> None:
    play = Play()
    [granted] = play.share()
    assert isinstance(granted, Granted) and (granted.run, granted.places) == ("b", 1)
    assert granted.reason == "it shares the device with a"
    assert play.leases.holder("x") == "a" and list(play.leases.guests.of("x")) == ["b"]


def test_before_rates_are_known_runs_take_turns() -> None:
    play = Play(known=2)
    play.enter("a")
    [recall] = play.enter("b")
    assert isinstance(recall, Recall) and recall.keep == 0


@pytest.mark.parametrize(
    ("device", "own"),
    [
        (Device("x", "card", memory_bytes=79, places=2), want("b")),
        (CARD, want("b", memory_bytes=0)),
        (Device("x", "card", memory_bytes=100), want("b")),
        (CARD, want("b", rate=1.9)),
    ],
    ids=["too much memory", "unknown memory", "one place", "it gains as much by itself"],
)
def test_who_does_not_fit_or_gain_takes_turns(device: Device, own: dict[str, Want]) -> None:
    play = Play(device, b=own)
    play.enter("a")
    [recall] = play.enter("b")
    assert isinstance(recall, Recall) and recall.keep == 0


def test_a_company_that_does_not_pay_is_parted_and_the_host_has_all_of_it_again() -> None:
    play = Play()
    play.share()
    play.observe("a", 0.5), play.observe("b", 0.5)
    [part] = play.decide()
    assert isinstance(part, Recall) and (part.run, part.reason) == ("b", "it gains nothing beside a")
    assert play.decide() == [], "it is told once"
    play.leases.want("b", {}, 0)
    [whole] = play.leave("b")
    assert isinstance(whole, Granted) and (whole.run, whole.places) == ("a", None)
    [recall] = play.enter("b")
    assert isinstance(recall, Recall) and recall.keep == 0, "they take turns from now on"


def test_a_company_that_pays_stays_and_comes_again_at_once() -> None:
    play = Play()
    play.share()
    play.observe("a", 0.9), play.observe("b", 0.9)
    assert play.decide() == []
    play.leases.want("b", {}, 0)
    play.leave("b")
    [asked] = play.enter("b")
    assert isinstance(asked, Recall) and asked.keep == 1


def test_after_an_error_of_memory_they_take_turns() -> None:
    play = Play()
    play.share()
    play.leases.beside("a", Beside(short=("x",)), play.now_s)
    play.leases.want("a", play.wants["a"], 1)
    found = play.leave("a")
    assert [(each.run, type(each)) for each in found] == [("b", Granted), ("b", Granted), ("b", Recall)]
    assert [each.places for each in found if isinstance(each, Granted)] == [1, None]
    assert isinstance(found[-1], Recall) and found[-1].keep == 0


def test_a_guest_whose_host_leaves_is_host() -> None:
    play = Play()
    play.share()
    play.leases.leave("a", play.now_s)
    found = play.decide()
    assert play.leases.holder("x") == "b" and not play.leases.guests.of("x")
    assert [each.places for each in found if isinstance(each, Granted)] == [1, None]


def test_a_job_of_a_company_that_changed_tells_nothing() -> None:
    play = Play()
    play.share()
    play.leases.guests.observe("a", Rate("x", 0.1, 1e3, play.wants["a"]["x"].model), play.now_s)
    assert play.decide() == [], "it began long before b came"


def test_never_more_runs_than_places_and_guests_only_beside_a_host_that_made_room() -> None:
    shared = 0
    for seed in range(30):
        random, now_s = Random(seed), 0.0
        leases = Leases(min_share=random.choice([0.0, 0.5]))
        places = random.choice([2, 3])
        for name in "xy":
            leases.offer(name)
            leases.guests.describe(Device(name, "card", memory_bytes=100, places=places))
        held: dict[tuple[str, str], tuple[int, int | None]] = {}
        asked: dict[tuple[str, str], int] = {}
        for run in "abc":
            leases.register(run)
        for _ in range(400):
            now_s += random.choice([0.0, 0.01, 0.3])
            run, device = random.choice("abc"), random.choice("xy")
            match random.randrange(4):
                case 0:
                    names = random.sample("xy", random.randint(0, 2))
                    model = Model(run, random.choice([20, 30, 60]))
                    leases.want(run, {name: Want((1.0,), 1.0, model) for name in names}, len(names))
                case 1 if (run, device) in held:
                    leases.release(run, device, held.pop((run, device))[0], now_s)
                case 2 if (run, device) in held:
                    rate = random.choice([0.9, 1.0]) if len([k for k in held if k[1] == device]) == 1 else 0.8
                    leases.guests.observe(run, Rate(device, rate, 0.0, Model(run, 20)), now_s)
                case 3 if (run, device) in asked:
                    leases.beside(run, Beside({device: asked.pop((run, device))}), now_s)
                    if (run, device) in held:
                        held[run, device] = (held[run, device][0], 1)
            for each in leases.decide(now_s):
                key = (each.run, each.device)
                if isinstance(each, Granted):
                    held[key] = (each.number, each.places)
                elif each.keep:
                    asked[key] = each.number
            for name in "xy":
                inside = {run: held[run, name][1] for run in "abc" if (run, name) in held}
                host, guests = leases.holder(name), leases.guests.of(name)
                assert set(inside) == ({host} if host else set()) | set(guests)
                assert sum(each or places for each in inside.values()) <= places, "one job of each"
                shared += bool(guests)
    assert shared > 100, "nothing was tested"
