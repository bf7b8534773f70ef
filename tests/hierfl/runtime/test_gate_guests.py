"""A run on devices that it shares: one place, told when it is one; rates; no place without work; too little memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hierfl.runtime.gate import SharedGate
from scheduler import Beside, Device, Dispatcher, Granted, Job, LeaseDecision, Leases, Model, Rate, Recall, Want
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
    play.end()
    assert play.decide(9.0) == [] and play.link.released == [], "there may be more to do"
    play.dispatcher.ask([Job("g", "more", 1, 9.0, 9)])
    assert play.decide(9.05) == ["more"]
    play.end()
    assert play.decide(18.0) == [] and play.link.released == []
    assert play.decide(18.2) == [] and play.link.released == [{"x": 7}]


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


class Post(Link):
    """A link to leases in this process, at a virtual time."""

    def __init__(self, run: str, leases: Leases, now: Callable[[], float]) -> None:
        super().__init__()
        self.run, self.leases, self.now = run, leases, now

    def report(self, wants: Mapping[str, Want], num_jobs: int, released: Mapping[str, int], beside: Beside) -> None:
        self.leases.want(self.run, wants, num_jobs)
        self.leases.beside(self.run, beside, self.now())
        for device, number in released.items():
            self.leases.release(self.run, device, number, self.now())


class Card:
    """One card of two places in simulated time; with two jobs at work its total rate is `together`.

    Two runs with jobs of a second each, which do not gain by company of their own.
    """

    def __init__(self, together: float, num_jobs: int = 40) -> None:
        self.now_s, self.together = 0.0, together
        self.leases = Leases()
        self.leases.offer("x")
        card = Device("x", "card", memory_bytes=100, places=2)
        self.leases.guests.describe(card)
        self.told: list[str] = []
        self.posts = {run: Post(run, self.leases, lambda: self.now_s) for run in "ab"}
        self.gates = {
            run: SharedGate(post, lambda *said: self.told.append(said[1]), lambda: self.now_s, lambda _: UNET)
            for run, post in self.posts.items()
        }
        self.dispatchers = {run: Dispatcher(Fifo(), gain=lambda *_: False) for run in "ab"}
        self.running: dict[str, tuple[tuple[Job, ...], float, float, int]] = {}
        for run, dispatcher in self.dispatchers.items():
            self.leases.register(run)
            dispatcher.join(card)
            dispatcher.ask([Job(run, str(number), 1, 1.0, number) for number in range(num_jobs)])

    def play(self) -> float:
        """Play to the end; give the makespan in seconds. Company is steady if it is the same from begin to end."""
        for _ in range(10_000):
            self.now_s = round(self.now_s + 0.01, 2)
            for decision in self.leases.decide(self.now_s):
                self.posts[decision.run].letters.append(decision)
            self.step(0.01)
            if not self.running and not any(dispatcher.num_waiting for dispatcher in self.dispatchers.values()):
                return self.now_s
        raise AssertionError("it does not end")

    def step(self, passed_s: float) -> None:
        """Let work go on, end what is done, tell its rate, and begin more."""
        assert len(self.running) <= 2
        rate = self.together / 2 if len(self.running) == 2 else 1.0
        for run, (jobs, left_s, since_s, others) in list(self.running.items()):
            self.running[run] = (jobs, left_s - rate * passed_s, since_s, others)
            if left_s - rate * passed_s <= 1e-9:
                del self.running[run]
                self.dispatchers[run].done("x", jobs)
                if others == self.gates[run].others("x"):
                    self.gates[run].rated("x", 1.0 / (self.now_s - since_s), self.now_s - since_s)
        for run, gate in self.gates.items():
            for decision in gate.decide(self.dispatchers[run], self.now_s):
                assert run not in self.running, "one job of each"
                self.running[run] = (decision.jobs, 1.0, self.now_s, gate.others("x"))


def test_two_runs_that_gain_side_by_side_end_sooner_than_in_turns() -> None:
    """80 s of work; at a total rate of 1.6 it takes 50 s once the rates alone are known."""
    assert 50.0 < Card(together=1.6).play() < 60.0


def test_two_runs_that_gain_nothing_take_turns_but_for_a_few_trials() -> None:
    card = Card(together=0.8)
    assert card.play() < 1.08 * 80.0
    assert 0 < card.told.count("narrowed") <= 8, "tried, and put off longer each time"
