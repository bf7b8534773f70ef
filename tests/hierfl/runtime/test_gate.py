"""Runs that share devices through leases: decisions as of one dispatcher, no device idle while anybody has work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.monitor.records import Leased, Record
from hierfl.runtime.gate import OpenGate, SharedGate, gate_of
from scheduler import Assign, Beside, Device, Dispatcher, Granted, Job, LeaseDecision, Leases, Recall, Want
from scheduler.policies.chain_first import ChainFirst
from scheduler.shares import MIN_SHARE


class Post:
    """A link to leases in this process; what is reported takes effect when the house settles."""

    def __init__(self, run: str, house: House) -> None:
        self.run = run
        self.house = house
        self.letters: list[LeaseDecision] = []
        self.num_reports = 0

    def news(self) -> Sequence[LeaseDecision]:
        letters, self.letters = self.letters, []
        return letters

    def report(self, wants: Mapping[str, Want], num_jobs: int, released: Mapping[str, int], beside: Beside) -> None:
        self.num_reports += 1
        self.house.leases.want(self.run, wants, num_jobs)
        for device, number in released.items():
            self.house.leases.release(self.run, device, number, self.house.now_s)


class House:
    """Devices, leases, runs and a clock: each job takes what it is predicted to take."""

    def __init__(self, devices: Sequence[str], runs: str, slice_s: float, min_share: float = MIN_SHARE) -> None:
        self.now_s = 0.0
        self.leases = Leases(min_share, slice_s=slice_s)
        self.posts = {run: Post(run, self) for run in runs}
        self.told: list[tuple[str, str, str]] = []
        self.gates = {run: SharedGate(self.posts[run], self.tell(run), self.now) for run in runs}
        self.dispatchers = {run: Dispatcher(ChainFirst()) for run in runs}
        self.running: dict[str, tuple[float, str, list[Assign]]] = {}
        self.history: list[tuple[float, str, str, str]] = []
        for device in devices:
            self.leases.offer(device)
        for run in runs:
            self.leases.register(run, "chain_first")
            for device in devices:
                self.dispatchers[run].join(Device(device))

    def now(self) -> float:
        return self.now_s

    def tell(self, run: str) -> object:
        return lambda device, change, reason: self.told.append((run, device, change))

    def settle(self) -> None:
        """Let everybody decide until nobody has news, as within an instant."""
        for _ in range(50):
            for run, gate in self.gates.items():
                for decision in gate.decide(self.dispatchers[run], self.now_s):
                    self.start(run, decision)
            for told in self.leases.decide(self.now_s):
                self.posts[told.run].letters.append(told)
            if not any(post.letters for post in self.posts.values()):
                return
        raise AssertionError(f"it goes to and fro for ever: {self.told[-9:]}")

    def start(self, run: str, decision: Assign) -> None:
        device = decision.device
        assert self.leases.holder(device) == run, "only the holder uses a device"
        self.history += [(self.now_s, run, device, job.name) for job in decision.jobs]
        queue = self.running.get(device)
        if queue is None:
            self.running[device] = (self.now_s + seconds(decision), run, [decision])
        else:
            assert queue[1] == run, "what ran there has ended"
            queue[2].append(decision)

    def step(self) -> bool:
        """Go on to the next end of a chunk; say whether there was one."""
        if not self.running:
            return False
        device = min(self.running, key=lambda name: (self.running[name][0], name))
        end_s, run, (ended, *others) = self.running.pop(device)
        self.now_s = end_s
        self.dispatchers[run].done(device, ended.jobs)
        if others:
            self.running[device] = (end_s + seconds(others[0]), run, others)
        self.settle()
        return True

    def idle_with_work(self) -> list[str]:
        """List the devices that stand idle although some run has work that waits."""
        waiting = any(dispatcher.num_waiting for dispatcher in self.dispatchers.values())
        return [device for device in self.leases.devices if waiting and device not in self.running]


def seconds(decision: Assign) -> float:
    return sum(job.estimate_s or 0.0 for job in decision.jobs)


def jobs(run: str, lengths: Sequence[float], chain_s: float = 0.0) -> list[Job]:
    return [Job(f"{run}-g", f"{run}{i}", 1, s, i, run=run, chain_s=chain_s) for i, s in enumerate(lengths)]


def one_dispatcher(work: Mapping[str, Sequence[Job]], devices: Sequence[str]) -> list[tuple[float, str, str, str]]:
    """What a single dispatcher that knows everybody's jobs does, with the same clock, where no share is guaranteed."""
    ledger, history, running, now_s = Dispatcher(ChainFirst(), depth=1, min_share=0.0), [], {}, 0.0
    for device in devices:
        ledger.join(Device(device))
    ledger.ask(job for asked in work.values() for job in asked)
    while True:
        for decision in ledger.decide(now_s):
            (job,) = decision.jobs
            history.append((now_s, job.run, decision.device, job.name))
            running[decision.device] = (now_s + (job.estimate_s or 0.0), decision.jobs)
        if not running:
            return history
        device = min(running, key=lambda name: (running[name][0], name))
        now_s, ended = running.pop(device)
        ledger.done(device, ended)


lengths = st.lists(st.integers(30, 900).map(lambda hundredths: hundredths / 100), min_size=1, max_size=12)


@settings(max_examples=100)
@given(a=lengths, b=lengths, chain_s=st.floats(0.0, 60.0))
def test_on_one_device_leases_decide_as_one_dispatcher_with_all_the_jobs(
    a: list[float], b: list[float], chain_s: float
) -> None:
    work = {"a": jobs("a", a, chain_s), "b": jobs("b", [s + 0.001 for s in b])}
    house = House(["x"], "ab", slice_s=0.0, min_share=0.0)
    for run, asked in work.items():
        house.dispatchers[run].ask(asked)
    house.settle()
    while house.step():
        pass
    assert [entry[1:] for entry in house.history] == [entry[1:] for entry in one_dispatcher(work, ["x"])]


@settings(max_examples=100)
@given(
    work=st.lists(
        st.tuples(st.lists(st.sampled_from([0.002, 0.03, 0.15, 0.4, 3.0]), max_size=12)), min_size=1, max_size=3
    ),
    num_devices=st.integers(1, 3),
    slice_s=st.sampled_from([0.0, 0.25]),
)
def test_all_work_is_done_and_no_device_idles_while_anybody_has_some(
    work: list[tuple[list[float]]], num_devices: int, slice_s: float
) -> None:
    runs = "abc"[: len(work)]
    house = House([f"d{i}" for i in range(num_devices)], runs, slice_s)
    for run, (asked,) in zip(runs, work, strict=True):
        house.dispatchers[run].ask(jobs(run, asked))
    house.settle()
    while True:
        assert house.idle_with_work() == []
        if not house.step():
            break
    assert sorted(name for *_, name in house.history) == sorted(
        f"{run}{i}" for run, (asked,) in zip(runs, work, strict=True) for i in range(len(asked))
    )
    assert sum(house.gates["a"].held_s().values()) <= house.now_s * num_devices + 1e-6


def test_a_run_alone_says_what_it_wants_once() -> None:
    house = House(["x", "y"], "a", slice_s=0.25)
    house.dispatchers["a"].ask(jobs("a", [0.4] * 50))
    house.settle()
    said = house.posts["a"].num_reports
    while house.step():
        pass
    assert len(house.history) == 50
    assert house.posts["a"].num_reports == said <= 2, "no word per chunk"


def test_a_run_that_waits_at_a_barrier_gives_way_at_once_and_tiny_jobs_go_to_and_fro_by_slices() -> None:
    """300 jobs of 10 ms each: alternating slices of 0.25 s, not of a chunk."""
    house = House(["x"], "ab", slice_s=0.25)
    house.dispatchers["a"].ask(jobs("a", [0.01] * 300))
    house.settle()
    house.dispatchers["b"].ask(jobs("b", [0.01] * 300))
    house.settle()
    while house.step():
        pass
    changes = sum(house.history[i][1] != house.history[i + 1][1] for i in range(599))
    assert house.now_s == pytest.approx(6.0)
    assert 2 <= changes <= 6.0 / 0.25
    house.dispatchers["a"].ask(jobs("a", [1.0]))
    house.settle()
    assert house.running["x"][1] == "a"


class Held:
    """A link with one lease, to which a test adds."""

    run = "a"

    def __init__(self) -> None:
        self.letters: list[LeaseDecision] = [Granted("a", "x", 7, "no other run wants it")]
        self.released: list[Mapping[str, int]] = []

    def news(self) -> Sequence[LeaseDecision]:
        letters, self.letters = self.letters, []
        return letters

    def report(self, wants: Mapping[str, Want], num_jobs: int, released: Mapping[str, int], beside: Beside) -> None:
        self.released += [released] if released else []


def test_what_is_recalled_ends_its_chunks_and_is_given_back() -> None:
    now, told = [0.0], []
    link, dispatcher = Held(), Dispatcher(ChainFirst())
    gate = SharedGate(link, lambda *said: told.append(said), lambda: now[0])
    dispatcher.join(Device("x"))
    dispatcher.ask(jobs("a", [9.0, 9.0, 9.0]))
    (first,) = gate.decide(dispatcher, 0.0)
    now[0] = 3.0
    link.letters = [Recall("a", "x", 6, 0.0, "an older lease"), Recall("a", "x", 7, 0.25, "b wants it")]
    assert gate.decide(dispatcher, 3.0) == [] and link.released == []
    now[0] = 9.0
    dispatcher.done("x", first.jobs)
    assert gate.decide(dispatcher, 9.0) == [] and link.released == [{"x": 7}]
    assert gate.held_s() == {"x": 9.0}
    assert [change for _, change, _ in told] == ["granted", "recalled", "released"]
    assert dispatcher.num_waiting == 2


def test_a_lease_that_is_recalled_as_soon_as_granted_is_good_for_one_chunk() -> None:
    link, dispatcher = Held(), Dispatcher(ChainFirst())
    gate = SharedGate(link, lambda *said: None, lambda: 0.0)
    dispatcher.join(Device("x"))
    dispatcher.ask(jobs("a", [9.0, 9.0]))
    link.letters.append(Recall("a", "x", 7, 0.0, "b wants it"))
    assert len(gate.decide(dispatcher, 0.0)) == 1
    assert gate.decide(dispatcher, 0.0) == [] and link.released == []


def test_a_lease_without_a_worker_or_without_work_is_given_back_when_others_want_it() -> None:
    link, dispatcher = Held(), Dispatcher(ChainFirst())
    gate = SharedGate(link, lambda *said: None, lambda: 0.0)
    assert gate.decide(dispatcher, 0.0) == [] and link.released == []
    link.letters.append(Recall("a", "x", 0, 9.0, "b wants it"))
    assert gate.decide(dispatcher, 0.0) == [] and link.released == [{"x": 7}]


def test_an_open_gate_is_the_dispatcher_itself() -> None:
    dispatcher = Dispatcher(ChainFirst())
    dispatcher.join(Device("x"))
    dispatcher.ask(jobs("a", [1.0]))
    assert [decision.device for decision in OpenGate().decide(dispatcher, 0.0)] == ["x"]


def test_every_change_of_a_lease_is_told_as_a_record() -> None:
    told: list[Record] = []
    link, dispatcher = Held(), Dispatcher(ChainFirst())
    gate_of(link, told.append, started_s=0.0).decide(dispatcher, 0.0)
    (record,) = told
    assert isinstance(record, Leased) and record.time_s > 0.0
    assert (record.device, record.run, record.change) == ("x", "a", "granted")
    assert isinstance(gate_of(None, told.append, 0.0), OpenGate)
