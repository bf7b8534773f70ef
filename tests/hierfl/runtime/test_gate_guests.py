"""A run on devices that it shares: one place, told when it is one; rates; no place without work; too little memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hierfl.runtime.gate import SharedGate
from scheduler import Beside, Device, Dispatcher, Granted, Job, LeaseDecision, Model, Rate, Recall, Want
from scheduler.guests import ALONE
from scheduler.policies.fifo import Fifo

UNET = Model("unet", 40)


class Link:
    """Keeps what is told."""

    run, cluster = "a", "here"

    def __init__(self, *letters: LeaseDecision) -> None:
        self.letters = list(letters)
        self.wants: Mapping[str, Want] = {}
        self.released: list[Mapping[str, int]] = []
        self.beside: list[Beside] = []

    def news(self) -> Sequence[LeaseDecision]:
        letters, self.letters = self.letters, []
        return letters

    def report(self, wants: Mapping[str, Want], num_jobs: int, released: Mapping[str, int], beside: Beside) -> None:
        self.wants = wants
        self.released += [released] if released else []
        self.beside += [beside] if beside != ALONE else []


class Play:
    """One card of two places, and jobs of 9 s."""

    def __init__(self, *letters: LeaseDecision, num_jobs: int = 4) -> None:
        self.now_s = 0.0
        self.told: list[tuple[str, str, str]] = []
        self.link = Link(*letters)
        self.gate = SharedGate(self.link, lambda *said: self.told.append(said), lambda: self.now_s, lambda _: UNET)
        self.dispatcher = Dispatcher(Fifo())
        self.dispatcher.join(Device("x", places=2))
        self.dispatcher.ask([Job("g", str(number), 1, 9.0, number) for number in range(num_jobs)])

    def decide(self, now_s: float) -> list[str]:
        """Give the names of the jobs that begin."""
        self.now_s = now_s
        return [decision.jobs[0].name for decision in self.gate.decide(self.dispatcher, now_s)]

    def end(self) -> None:
        self.dispatcher.done("x", self.dispatcher.running("x")[0])


WHOLE = Granted("a", "x", 7, "no other run wants it")
PLACE = Granted("a", "x", 7, "it shares the device with b", places=1)
NARROW = Recall("a", "x", 7, 0.0, "b may share it", keep=1)


def test_a_host_tells_once_it_uses_one_place_only_and_keeps_its_lease() -> None:
    play = Play(WHOLE)
    assert play.decide(0.0) == ["0", "1"] and play.gate.others("x") == 0
    play.link.letters.append(NARROW)
    assert play.decide(1.0) == [] and not play.link.beside, "two jobs run yet"
    play.end()
    assert play.decide(9.0) == [] and play.link.beside == [Beside({"x": 7})]
    assert play.gate.others("x") == 1
    play.end()
    assert play.decide(10.0) == ["2"], "one at a time from now on"
    play.link.letters.append(Granted("a", "x", 7, "it is alone there again"))
    assert play.decide(11.0) == ["3"] and play.gate.others("x") == 0
    assert play.link.released == [] and len(play.link.beside) == 1
    assert [change for _, change, _ in play.told] == ["granted", "narrowed", "changed"]


def test_a_guest_uses_one_place_and_leaves_soon_after_its_last_job() -> None:
    play = Play(PLACE, num_jobs=1)
    assert play.decide(0.0) == ["0"] and play.gate.others("x") == 1
    assert play.decide(9.0) == []
    play.end()
    assert play.decide(9.05) == [] and play.link.released == [], "there may be more to do"
    assert play.decide(9.2) == [] and play.link.released == [{"x": 7}]


def test_rates_are_told_with_the_time_since_the_job_began() -> None:
    play = Play(PLACE)
    play.decide(0.0)
    play.now_s = 8.0
    play.gate.rated("x", 0.75, 7.5)
    play.gate.rated("nobody's", 0.75, 7.5)
    play.decide(8.5)
    assert play.link.beside == [Beside(rates=(Rate("x", 0.75, 8.0, UNET),))]
    play.decide(9.5)
    assert len(play.link.beside) == 1, "each is told once"


def test_after_an_error_of_memory_the_place_is_left_and_the_device_wanted_anew() -> None:
    play = Play(PLACE)
    assert play.decide(0.0) == ["0"]
    play.gate.short("x")
    play.end()
    assert play.decide(1.0) == [] and play.link.released == [{"x": 7}]
    assert play.link.beside == [Beside(short=("x",))]
    assert play.link.wants["x"].model == UNET
    play.link.letters.append(Granted("a", "x", 9, "its work goes first of 2 runs'"))
    assert play.decide(3.0) == ["1", "2"], "with the device to itself"
