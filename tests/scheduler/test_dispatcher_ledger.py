"""The dispatcher's ledger under long drawn histories: every job is in one place, no device idles while work waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from hierfl.kinds import load, names
from scheduler import Assign, Device, Dispatcher, Job
from scheduler.dispatch import CHUNK_MAX_S, PREFETCH_S

DE, CHARITE, NONE = frozenset({"de"}), frozenset({"de", "charite"}), frozenset[str]()
DEVICES = (
    Device("v"),
    Device("w", "fast", DE, 9, 3),
    Device("x", "fast", CHARITE, 12, 2),
    Device("y", "cpu", DE, 6),
    Device("z", "cpu", CHARITE, None, 2),
)
GROUPS = ("g", "h", "i")
ESTIMATES = (None, 0.0, 0.0005, 0.003, 0.02, 0.15, 0.3)
STEPS = 150


def predict(job: Job, device: Device) -> float | None:
    return None if job.estimate_s is None else job.estimate_s / (2.0 if device.kind == "fast" else 1.0)


def loading(model: str, device: Device) -> float:
    return {"unet": 0.05, "vit": 1.0}[model]


def gain(running: tuple[Job, ...], candidate: Job, device: Device) -> bool:
    return candidate.model != "vit" or all(job.model != "vit" for job in running)


class Ledger:
    """Devices come, work and go; the runner asks again for what a lost device had. A ledger of our own beside it."""

    def __init__(self, random: Random, policy: str) -> None:
        self.random = random
        self.policy = load("policy", policy)()
        self.is_free = getattr(self.policy, "work_conserving", True)
        self.claims = getattr(self.policy, "claims", False)
        self.depth = random.choice([1, 2, 2, 3])
        self.runs = random.choice([("",), ("a", "b")])
        self.dispatcher = Dispatcher(self.policy, self.depth, predict, loading, gain=gain, saves=self.saves)
        self.devices: dict[str, Device] = {}
        self.waiting: dict[tuple[str, str], Job] = {}
        self.running: dict[str, list[tuple[Job, ...]]] = {}
        self.now_s = 0.0
        self.asked = 0
        self.ended = 0
        self.story: list[str] = []
        self.decided: list[Assign] = []
        self.seen: Counter[str] = Counter()

    def saves(self, job: Job) -> dict[str, float]:
        """Some jobs' data lie on some devices, some of which are gone."""
        return dict.fromkeys("uvwxyz"[job.order % 5 :: 2], 0.25) if job.size % 2 else {}

    def step(self) -> None:
        """One event, then what must always hold."""
        rules = [self.join, self.leave, self.ask, self.ask, self.decide, self.decide, self.done, self.done]
        rule = self.random.choice([*rules, self.done, self.done_of_nothing, self.withdraw, self.learn])
        self.story.append(rule.__name__)
        self.now_s += self.random.choice([0.0, 0.1, 5.0])
        rule()
        self.check()

    def join(self) -> None:
        device = self.random.choice(DEVICES)
        self.dispatcher.join(device)
        self.devices.setdefault(device.name, device)
        self.running.setdefault(device.name, [])

    def leave(self) -> None:
        if self.random.random() < 0.5:
            return
        device = self.random.choice(DEVICES).name
        self.devices.pop(device, None)
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
        number = self.random.randrange(len(GROUPS))
        group, run = GROUPS[number], self.runs[number % len(self.runs)]
        num, is_alike = self.random.randint(1, 8), self.random.random() < 0.5
        needs = [self.need() for _ in range(num)]
        jobs = [
            Job(
                *(group, f"s{self.asked + i}", self.random.randrange(9), self.random.choice(ESTIMATES), i, run),
                **{"chain_s": float(number), **needs[0 if is_alike else i]},
            )
            for i in range(num)
        ]
        self.asked += len(jobs)
        self.dispatcher.ask(jobs)
        self.waiting.update((job.key, job) for job in jobs)

    def need(self) -> dict[str, Any]:
        return {
            "labels": self.random.choice([NONE, NONE, DE, CHARITE]),
            "memory_bytes": self.random.choice([0, 3, 5, 7, 20]),
            "model": self.random.choice(["", "unet", "vit"]),
        }

    def decide(self) -> None:
        for decision in self.dispatcher.decide(self.now_s):
            self.take(decision)
        assert self.dispatcher.decide(self.now_s) == [], "nothing is left to decide"
        for device in self.devices if self.is_free else ():
            idle = [job.key for job in self.waiting.values() if self.has_place(device, job)]
            assert not idle, f"work-conserving: {device} could take {idle}"
        self.seen["more work than places"] += len(self.waiting) > 3 and len(self.devices) > 1

    def take(self, decision: Assign) -> None:
        """Book a decision; what it must keep, whatever the policy."""
        chunk, chunks, device = decision.jobs, self.running[decision.device], self.devices[decision.device]
        first = chunk[0]
        assert len({(job.group, job.model) for job in chunk}) == 1
        assert all(job.key in self.waiting for job in chunk), "only what waits, and once"
        assert all(job.labels <= device.labels for job in chunk), "residency"
        self.seen["somebody's own device"] += bool(first.labels)
        if self.is_free and len(self.runs) == 1 and len(chunks) < device.places and (chunks or not self.claims):
            rivals = [job for job in self.waiting.values() if self.has_place(device.name, job)]
            assert self.key(first) == min(map(self.key, rivals)), "the first of those that the device may take"
        if len(chunk) > 1:
            self.seen["shared a call"] += 1
            assert sum(predict(job, device) or 0.0 for job in chunk) <= CHUNK_MAX_S + 1e-9
            assert all(job.estimate_s is not None for job in chunk)
        if len(chunks) >= device.places:
            self.seen["waits at a device"] += 1
            assert all(self.is_short(each, device) for each in chunks[device.places :])
            assert self.is_short(chunk, device)
            if self.is_free and len(self.runs) == 1:
                rivals = [job for job in self.waiting.values() if self.may_ever(device, job)]
                assert self.key(first) == min(map(self.key, rivals)), "nothing is overtaken"
            num_short = sum(self.is_short(each, device) for each in chunks[: device.places])
            assert len(chunks) < device.places + (self.depth - 1) * num_short
        elif chunks:
            self.seen["runs beside others"] += 1
            assert self.gains(device.name, first)
        chunks.append(chunk)
        most = sorted((max(job.memory_bytes for job in each) for each in chunks), reverse=True)[: device.places]
        assert device.memory_bytes is None or sum(most) <= device.memory_bytes, "memory"
        for job in chunk:
            del self.waiting[job.key]
        self.decided.append(decision)

    def key(self, job: Job) -> tuple[float, ...]:
        return self.policy.priority(job, sum(self.may_ever(device, job) for device in self.devices.values()))

    def may_ever(self, device: Device, job: Job) -> bool:
        return job.labels <= device.labels and job.memory_bytes <= (device.memory_bytes or 10**9)

    def has_place(self, name: str, job: Job) -> bool:
        """Whether a job could begin on a device now."""
        device, chunks = self.devices[name], self.running[name]
        held = sum(max(each.memory_bytes for each in chunk) for chunk in chunks)
        return (
            len(chunks) < device.places
            and self.may_ever(device, job)
            and held + job.memory_bytes <= (device.memory_bytes or 10**9)
            and self.gains(name, job)
        )

    def gains(self, name: str, job: Job) -> bool:
        """Whether a job gains beside what is on a device; what should have been over there is no company."""
        late = [chunk.jobs for chunk in self.dispatcher._shelves.slots[name].chunks if chunk.is_overdue]
        beside = tuple(chunk[0] for chunk in self.running[name] if chunk not in late)
        return not beside or gain(beside, job, self.devices[name])

    def is_short(self, chunk: tuple[Job, ...], device: Device) -> bool:
        """Whether a chunk is short without its loading, which a ledger of decisions does not show."""
        seconds = [predict(job, device) for job in chunk]
        return None not in seconds and sum(filter(None, seconds)) <= PREFETCH_S

    def done(self) -> None:
        busy = [device for device, chunks in self.running.items() if chunks]
        if busy:
            device = self.random.choice(busy)
            place = self.random.randrange(min(len(self.running[device]), self.devices[device].places))
            chunk = self.running[device].pop(place)
            self.dispatcher.done(device, list(chunk))
            self.ended += len(chunk)

    def done_of_nothing(self) -> None:
        """A call without jobs, and an answer of a device that is gone."""
        self.dispatcher.done(self.random.choice(DEVICES).name, ())
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

    def learn(self) -> None:
        """Every third job is thought of anew; what waits is known by its key, and its fresh self replaces it."""
        fresh: dict[tuple[str, str], Job] = {}

        def renew(job: Job) -> Job:
            fresh[job.key] = job
            return replace(job, estimate_s=0.02, chain_s=job.chain_s + 0.5) if job.order % 3 == 0 else job

        self.dispatcher.refresh(renew)
        assert fresh == self.waiting
        self.waiting = {key: renew(job) for key, job in self.waiting.items()}

    def check(self) -> None:
        """Every job is in one place."""
        assert set(self.dispatcher.devices) == set(self.running)
        for device, chunks in self.running.items():
            assert list(self.dispatcher.running(device)) == chunks
        for group in GROUPS:
            assert self.dispatcher.has_waiting(group) == any(key[0] == group for key in self.waiting)
        num_running = sum(len(chunk) for chunks in self.running.values() for chunk in chunks)
        assert self.asked == self.ended + num_running + len(self.waiting)
        stuck = [
            key for key, job in self.waiting.items() if not any(self.may_ever(d, job) for d in self.devices.values())
        ]
        assert sorted(self.dispatcher.refusals()) == sorted(stuck)
        self.seen["refused"] += bool(stuck) and bool(self.devices)

    def finish(self) -> None:
        """Whatever happened, the devices that are there finish all that is left once somebody may take it."""
        if "z" not in self.devices:
            self.dispatcher.join(DEVICES[-1])
            self.devices["z"], self.running["z"] = DEVICES[-1], []
        self.decide()
        while any(self.running.values()):
            self.done()
            self.decide()
            self.check()
        assert not self.waiting and self.ended == self.asked


def played(policy: str, seed: int) -> Iterator[Ledger]:
    """Play a history to its end; a failure tells the seed and the last events."""
    ledger = Ledger(Random(seed), policy)
    try:
        for _ in range(STEPS):
            ledger.step()
        ledger.finish()
    except AssertionError as error:
        error.add_note(f"seed {seed}: ... {', '.join(ledger.story[-12:])}")
        raise
    yield ledger


@pytest.mark.parametrize("policy", names("policy"))
def test_nothing_is_lost_doubled_or_left_waiting(policy: str) -> None:
    seen: Counter[str] = Counter()
    for seed in range(16):
        for ledger in played(policy, seed):
            seen += ledger.seen
    each = ["left with several chunks", "withdrawn", "refused", "shared a call", "somebody's own device"]
    if getattr(load("policy", policy), "work_conserving", True):
        each += ["more work than places", "runs beside others", "waits at a device"]
    assert min(seen[what] for what in each) > 10, seen


@pytest.mark.parametrize("policy", names("policy"))
def test_the_same_events_give_the_same_decisions(policy: str) -> None:
    (once,), (again,) = played(policy, 0), played(policy, 0)
    assert once.decided == again.decided and len(once.decided) > 50
