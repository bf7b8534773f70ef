"""The dispatcher's ledger under long drawn histories: every job is in one place, no device idles while work waits."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from hierfl.kinds import load, names
from scheduler import Dispatcher, Job
from scheduler.dispatch import CHUNK_MAX_S

DEVICES = ("x", "y", "z")
GROUPS = ("g", "h", "i")
ESTIMATES = (None, 0.0, 0.0005, 0.003, 0.02, 0.3)
STEPS = 150


class Ledger:
    """Devices come, work and go; the runner asks again for what a lost device had. A ledger of our own beside it."""

    def __init__(self, random: Random, policy: str) -> None:
        self.random = random
        self.policy = load("policy", policy)()
        self.depth = random.choice([1, 2, 2, 3])
        self.dispatcher = Dispatcher(self.policy, self.depth)
        self.waiting: dict[tuple[str, str], Job] = {}
        self.running: dict[str, list[tuple[Job, ...]]] = {}
        self.asked = 0
        self.ended = 0
        self.story: list[str] = []
        self.seen: Counter[str] = Counter()

    def step(self) -> None:
        """One event, then what must always hold."""
        rules = [self.join, self.leave, self.ask, self.ask, self.decide, self.decide, self.done, self.done]
        rule = self.random.choice([*rules, self.done, self.done_of_nothing, self.withdraw])
        self.story.append(rule.__name__)
        rule()
        self.check()

    def join(self) -> None:
        device = self.random.choice(DEVICES)
        self.dispatcher.join(device)
        self.running.setdefault(device, [])

    def leave(self) -> None:
        if self.random.random() < 0.5:
            return
        device = self.random.choice(DEVICES)
        chunks = self.running.pop(device, [])
        returned = self.dispatcher.leave(device)
        assert list(returned) == [job for chunk in chunks for job in chunk]
        self.seen["left with several chunks"] += len(chunks) > 1
        if self.random.random() < 0.8:
            self.dispatcher.ask(returned)
            self.waiting.update((job.key, job) for job in returned)
        else:
            self.ended += len(returned)

    def ask(self) -> None:
        group = self.random.choice(GROUPS)
        jobs = [
            Job(group, f"s{self.asked + i}", self.random.randrange(9), self.random.choice(ESTIMATES), i)
            for i in range(self.random.randint(1, 8))
        ]
        self.asked += len(jobs)
        self.dispatcher.ask(jobs)
        self.waiting.update((job.key, job) for job in jobs)

    def decide(self) -> None:
        for decision in self.dispatcher.decide():
            chunk, chunks = decision.jobs, self.running[decision.device]
            first = chunk[0]
            assert len({job.group for job in chunk}) == 1
            assert all(job.key in self.waiting for job in chunk), "only what waits, and once"
            assert self.policy.priority(first) == min(map(self.policy.priority, self.waiting.values()))
            assert len(chunks) == min(map(len, self.running.values())), "the emptiest device first"
            if len(chunk) > 1:
                self.seen["shared a call"] += 1
                assert all(job.estimate_s is not None for job in chunk)
                assert sum(job.estimate_s or 0.0 for job in chunk) <= CHUNK_MAX_S + 1e-9
            of_group = [job for job in self.waiting.values() if job.group == first.group]
            assert len(chunk) <= -(-len(of_group) // len(self.running)), "no more than its share"
            chunks.append(chunk)
            for job in chunk:
                del self.waiting[job.key]
        if self.waiting:
            assert all(len(chunks) == self.depth for chunks in self.running.values()), "work-conserving"
            self.seen["more work than places"] += bool(self.running)

    def done(self) -> None:
        busy = [device for device, chunks in self.running.items() if chunks]
        if busy:
            device = self.random.choice(busy)
            chunk = self.running[device].pop(0)
            self.dispatcher.done(device, list(chunk))
            self.ended += len(chunk)

    def done_of_nothing(self) -> None:
        """A call without jobs, and an answer of a device that is gone."""
        self.dispatcher.done(self.random.choice(DEVICES), ())
        self.dispatcher.done("who", [Job("g", "never asked", 1, None, 0)])

    def withdraw(self) -> None:
        if self.random.random() < 0.7:
            return
        group = self.random.choice(GROUPS)
        keys = self.dispatcher.withdraw(group)
        assert sorted(keys) == sorted(key for key in self.waiting if key[0] == group)
        self.seen["withdrawn"] += bool(keys)
        for key in keys:
            del self.waiting[key]
        self.ended += len(keys)

    def check(self) -> None:
        """Every job is in one place."""
        assert set(self.dispatcher.devices) == set(self.running)
        for device, chunks in self.running.items():
            assert list(self.dispatcher.running(device)) == chunks
            assert len(chunks) <= self.depth
        for group in GROUPS:
            assert self.dispatcher.has_waiting(group) == any(key[0] == group for key in self.waiting)
        num_running = sum(len(chunk) for chunks in self.running.values() for chunk in chunks)
        assert self.asked == self.ended + num_running + len(self.waiting)

    def finish(self) -> None:
        """Whatever happened, the devices that are there finish all that is left."""
        self.dispatcher.join("x")
        self.running.setdefault("x", [])
        self.decide()
        while any(self.running.values()):
            self.done()
            self.decide()
            self.check()
        assert not self.waiting and self.ended == self.asked


@pytest.mark.parametrize("policy", names("policy"))
def test_nothing_is_lost_doubled_or_left_waiting(policy: str) -> None:
    seen: Counter[str] = Counter()
    for seed in range(20):
        ledger = Ledger(Random(seed), policy)
        try:
            for _ in range(STEPS):
                ledger.step()
            ledger.finish()
        except AssertionError as error:
            error.add_note(f"seed {seed}: ... {', '.join(ledger.story[-12:])}")
            raise
        seen += ledger.seen
    assert min(seen[what] for what in ("left with several chunks", "withdrawn", "more work than places")) > 20, seen
    assert seen["shared a call"] > 20, seen
