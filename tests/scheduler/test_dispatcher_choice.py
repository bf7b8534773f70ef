"""The rule of choice against a plain loop over all jobs and devices, on small drawn instances, event by event."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.kinds import load, names
from scheduler import Device, Dispatcher, Job, Policy

KINDS = [kind for kind in names("policy") if getattr(load("policy", kind), "work_conserving", True)]
LABELS = [frozenset[str](), frozenset({"de"}), frozenset({"de", "charite"})]
SPEEDS = {"cpu": 1.0, "gpu": 4.0}
LOADING_S = {"": 0.0, "unet": 0.5, "vit": 3.0}

devices = st.lists(
    st.tuples(
        st.sampled_from(sorted(SPEEDS)),
        st.sampled_from([LABELS[2], *LABELS]),
        st.sampled_from([None, 4, 9]),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=4,
)
needs = st.tuples(
    st.none() | st.sampled_from([0.5, 1.0, 2.0, 2.1, 8.0]),
    st.sampled_from([LABELS[0], *LABELS]),
    st.sampled_from([0, 3, 4, 6]),
    st.sampled_from(sorted(LOADING_S)),
    st.sampled_from(["g", "h"]),
    st.integers(0, 5),
)


@dataclass
class Loop:
    """What a device runs and has loaded; the choice by going through everything."""

    policy: Policy
    devices: list[Device]
    waiting: list[Job] = field(default_factory=list)
    runs: dict[str, list[Job]] = field(default_factory=dict)
    warm: dict[str, str] = field(default_factory=dict)

    def takes(self, device: Device, job: Job) -> bool:
        held = self.runs.setdefault(device.name, [])
        limit = 10**9 if device.memory_bytes is None else device.memory_bytes
        fits = sum(other.memory_bytes for other in held) + job.memory_bytes <= limit
        return len(held) < device.places and job.labels <= device.labels and fits

    def completes_s(self, device: Device, job: Job) -> float:
        loads_s = 0.0 if self.warm.get(device.name) == job.model else LOADING_S[job.model]
        return (job.estimate_s or 0.0) / SPEEDS[device.kind] + loads_s

    def key(self, job: Job) -> tuple[float, ...]:
        def may_ever(device: Device) -> bool:
            return job.labels <= device.labels and job.memory_bytes <= (device.memory_bytes or 10**9)

        return self.policy.priority(job, sum(map(may_ever, self.devices)))

    def decide(self) -> list[tuple[str, Job]]:
        """Emptiest devices first; there the first job that one of them takes, where it ends earliest."""
        given = []
        for num_held in range(3):
            while True:
                level = [device for device in self.devices if len(self.runs.get(device.name, [])) == num_held]
                able = [job for job in self.waiting if any(self.takes(device, job) for device in level)]
                if not able:
                    break
                job = min(able, key=self.key)
                takers = [device for device in level if self.takes(device, job)]
                device = min(takers, key=lambda device: (self.completes_s(device, job), device.name))
                self.waiting.remove(job)
                self.runs[device.name].append(job)
                self.warm[device.name] = job.model or self.warm.get(device.name, "")
                given.append((device.name, job))
        return given


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=80)
@given(drawn=devices, asked=st.lists(needs, max_size=12), late=st.lists(needs, max_size=6), seed=st.integers(0, 99))
def test_the_dispatcher_chooses_as_the_plain_loop_does(
    kind: str,
    drawn: list[tuple[object, ...]],
    asked: list[tuple[object, ...]],
    late: list[tuple[object, ...]],
    seed: int,
) -> None:
    """Jobs longer than a chunk and a depth of 1, so that a decision is one job at a free place."""
    policy, random = load("policy", kind)(), Random(seed)
    here = [Device(f"d{i}", *fields) for i, fields in enumerate(drawn)]  # type: ignore[arg-type]
    dispatcher = Dispatcher(
        *(policy, 1, lambda job, device: job.estimate_s and job.estimate_s / SPEEDS[device.kind]),
        load=lambda model, device: LOADING_S[model],
    )
    loop = Loop(policy, here)
    for device in here:
        dispatcher.join(device)
    for wave in (asked, late, [], [], [], []):
        jobs = [
            Job(group, f"s{len(wave)}-{i}", size, estimate, i, "", 0.0, labels, memory, model)  # type: ignore[arg-type]
            for i, (estimate, labels, memory, model, group, size) in enumerate(wave)
        ]
        dispatcher.ask(jobs)
        loop.waiting += jobs
        assert [(d.device, *d.jobs) for d in dispatcher.decide()] == loop.decide()
        for name, held in loop.runs.items():
            for job in random.sample(held, random.randint(0, len(held))):
                held.remove(job)
                dispatcher.done(name, (job,))
