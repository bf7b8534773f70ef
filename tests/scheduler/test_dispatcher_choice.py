"""The rule of choice against a plain loop over all jobs and devices, on small drawn instances, event by event."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from operator import itemgetter
from random import Random

import pytest

from hierfl.kinds import load, names
from scheduler import Device, Dispatcher, Job, Policy

KINDS = [kind for kind in names("policy") if getattr(load("policy", kind), "work_conserving", True)]
LABELS = [frozenset[str](), frozenset({"de"}), frozenset({"de", "charite"})]
SPEEDS = {"cpu": 1.0, "gpu": 4.0}
LOADING_S = {"": 0.0, "unet": 0.5, "vit": 3.0}

Lane = tuple[str, str, int, tuple[str, ...]]
"""(group, model, bytes where they matter, devices)."""

ESTIMATES = [None, 0.5, 1.0, 2.0, 2.1, 8.0]


def drawn_device(random: Random, number: int) -> Device:
    return Device(
        f"d{number}",
        random.choice(sorted(SPEEDS)),
        random.choice([LABELS[2], *LABELS]),
        random.choice([None, None, 4, 9]),
        random.choice([1, 1, 1, 2, 3]),
    )


def drawn_job(random: Random, name: str) -> Job:
    return Job(
        random.choice("gh"),
        name,
        random.randrange(6),
        random.choice(ESTIMATES),
        random.randrange(4),
        chain_s=random.choice([0.0, 0.0, 3.0]),
        labels=random.choice([LABELS[0], *LABELS]),
        memory_bytes=random.choice([0, 0, 3, 4, 6]),
        model=random.choice(sorted(LOADING_S)),
    )


@dataclass
class Loop:
    """What a device runs, since when, and has loaded; the choice by going through everything."""

    policy: Policy
    devices: list[Device]
    seen: Counter[str]
    waiting: list[Job] = field(default_factory=list)
    runs: dict[str, list[tuple[Job, float | None, float]]] = field(default_factory=dict)
    warm: dict[str, str] = field(default_factory=dict)
    now_s: float = 0.0

    def may_ever(self, device: Device, job: Job) -> bool:
        return job.labels <= device.labels and job.memory_bytes <= (device.memory_bytes or 10**9)

    def takes(self, device: Device, job: Job) -> bool:
        held = self.runs[device.name]
        fits = sum(other.memory_bytes for other, _, _ in held) + job.memory_bytes <= (device.memory_bytes or 10**9)
        return len(held) < device.places and self.may_ever(device, job) and fits

    def ends_s(self, device: Device, job: Job, warm: str) -> float:
        return (predict(job, device) or 0.0) + (0.0 if warm == job.model else LOADING_S[job.model])

    def left_s(self, device: Device) -> float:
        held = [(predict(job, device) if s is None else s, begun_s) for job, s, begun_s in self.runs[device.name]]
        left = [math.inf if s is None else max(0.0, s - (self.now_s - begun_s)) for s, begun_s in held]
        return sum(left) / device.places

    def key(self, job: Job) -> tuple[float, ...]:
        return self.policy.priority(job, sum(self.may_ever(device, job) for device in self.devices))

    def lane(self, job: Job) -> Lane:
        reach = [device for device in self.devices if self.may_ever(device, job)]
        shares = any(device.places > 1 and device.memory_bytes is not None for device in reach)
        return job.group, job.model, job.memory_bytes * shares, tuple(device.name for device in reach)

    def probe(self, job: Job) -> Job:
        """The smallest of a lane's jobs of unknown duration, where there are several kinds of devices for it."""
        if len({device.kind for device in self.devices if self.may_ever(device, job)}) == 1:
            return job
        unknown = [each for each in self.waiting if each.estimate_s is None and self.lane(each) == self.lane(job)]
        smallest = min(unknown, key=lambda each: each.size)
        self.seen["the smallest first"] += smallest != job
        return smallest

    def demand(self, device: Device) -> float:
        """Seconds that wait per device; the jobs of a lane count as a second each where no duration is known."""
        lanes: dict[Lane, list[Job]] = {}
        for job in self.waiting:
            if self.may_ever(device, job):
                lanes.setdefault(self.lane(job), []).append(job)
        known = {lane: math.fsum(job.estimate_s or 0.0 for job in jobs) for lane, jobs in lanes.items()}
        return math.fsum((known[lane] or len(jobs)) / len(lane[3]) for lane, jobs in lanes.items())

    def best(self, job: Job, devices: list[Device]) -> Device:
        def ends_s(device: Device) -> float:
            return self.ends_s(device, job, self.warm.get(device.name, ""))

        soonest_s = min(map(ends_s, devices))
        return min((d for d in devices if ends_s(d) == soonest_s), key=lambda d: (self.demand(d), d.name))

    def claimed(self, able: list[Job], idle: list[Device]) -> tuple[Job, Device]:
        """Each job in its turn claims the busy device of a faster kind that ends it before any idle one would."""
        left_s = {device.name: self.left_s(device) for device in self.devices if self.runs[device.name]}
        warm = dict(self.warm)
        losses: list[tuple[float, int, Job, Device]] = []
        for job in sorted(able, key=self.key):
            free = self.best(job, [device for device in idle if self.takes(device, job)])
            if predict(job, free) is None:
                return self.probe(job), free
            here_s, until_s = predict(job, free), self.ends_s(free, job, self.warm.get(free.name, ""))
            faster = [
                (left_s[device.name] + self.ends_s(device, job, warm.get(device.name, "")), device.name)
                for device in self.devices
                if device.name in left_s and self.may_ever(device, job)
                if here_s is not None and (predict(job, device) or 0.0) < here_s
            ]
            if not faster or min(faster)[0] >= until_s:
                self.seen["waited for a faster one"] += bool(losses)
                return job, free
            ends_s, name = min(faster)
            losses.append((until_s - ends_s, len(losses), job, free))
            left_s[name], warm[name] = ends_s, job.model or warm.get(name, "")
        self.seen["lost least"] += len(losses) > 1
        return min(losses)[2:]

    def decide(self) -> list[tuple[str, Job]]:
        """Emptiest devices first; there the first job that one of them takes, where it ends earliest."""
        given = []
        for num_held in range(3):
            while True:
                level = [device for device in self.devices if len(self.runs[device.name]) == num_held]
                able = [job for job in self.waiting if any(self.takes(device, job) for device in level)]
                if not able:
                    break
                if num_held == 0 and getattr(self.policy, "claims", False):
                    job, device = self.claimed(able, level)
                else:
                    job = min(able, key=self.key)
                    device = self.best(job, [device for device in level if self.takes(device, job)])
                seconds = predict(job, device)
                if seconds is not None:
                    seconds = self.ends_s(device, job, self.warm.get(device.name, ""))
                self.waiting.remove(job)
                self.runs[device.name].append((job, seconds, self.now_s))
                self.warm[device.name] = job.model or self.warm.get(device.name, "")
                given.append((device.name, job))
        return given


def predict(job: Job, device: Device) -> float | None:
    return None if job.estimate_s is None else job.estimate_s / SPEEDS[device.kind]


@pytest.mark.parametrize("kind", KINDS)
def test_the_dispatcher_chooses_as_the_plain_loop_does(kind: str) -> None:
    """Jobs longer than a chunk and a depth of 1, so that a decision is one job at a free place; devices may be decided
    on in any order."""
    seen: Counter[str] = Counter()
    for seed in range(150):
        policy, random = load("policy", kind)(), Random(seed)
        here = [drawn_device(random, number) for number in range(random.randint(1, 5))]
        dispatcher = Dispatcher(policy, 1, predict, lambda model, device: LOADING_S[model])
        loop = Loop(policy, here, seen, runs={device.name: [] for device in here})
        for device in here:
            dispatcher.join(device)
        for wave in range(8):
            jobs = [drawn_job(random, f"s{wave}-{number}") for number in range(random.randint(0, 9 - wave))]
            dispatcher.ask(jobs)
            loop.waiting += jobs
            decided = [(decision.device, *decision.jobs) for decision in dispatcher.decide(loop.now_s)]
            assert sorted(decided, key=itemgetter(0)) == sorted(loop.decide(), key=itemgetter(0)), f"seed {seed}"
            for name, held in loop.runs.items():
                for ended in random.sample(held, random.randint(0, len(held))):
                    held.remove(ended)
                    dispatcher.done(name, (ended[0],))
            loop.now_s += random.choice([0.0, 0.25, 2.0])
    if getattr(load("policy", kind), "claims", False):
        assert seen["waited for a faster one"] > 20 < seen["lost least"]
        assert seen["the smallest first"] > 2
