"""The dispatcher's ledger under drawn histories: every job is in one place, and no device idles while work waits."""

from __future__ import annotations

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hierfl.kinds import load, names
from scheduler import Dispatcher, Job
from scheduler.dispatch import CHUNK_MAX_S

DEVICES = st.sampled_from(["x", "y", "z"])
GROUPS = st.sampled_from(["g", "h", "i"])
ESTIMATES = st.none() | st.sampled_from([0.0, 0.0005, 0.003, 0.02, 0.3])


class Ledger(RuleBasedStateMachine):
    """Devices come, work and go; the runner asks again for what a lost device had."""

    @initialize(policy=st.sampled_from(names("policy")), depth=st.integers(1, 3))
    def found(self, policy: str, depth: int) -> None:
        self.policy = load("policy", policy)()
        self.depth = depth
        self.dispatcher = Dispatcher(self.policy, depth)
        self.waiting: dict[tuple[str, str], Job] = {}
        self.running: dict[str, list[tuple[Job, ...]]] = {}
        self.asked = 0
        self.ended = 0

    @rule(device=DEVICES)
    def join(self, device: str) -> None:
        self.dispatcher.join(device)
        self.running.setdefault(device, [])

    @rule(device=DEVICES, again=st.booleans())
    def leave(self, device: str, again: bool) -> None:
        held = [job for chunk in self.running.pop(device, []) for job in chunk]
        returned = self.dispatcher.leave(device)
        assert list(returned) == held
        if again:
            self.dispatcher.ask(returned)
            self.waiting.update((job.key, job) for job in returned)
        else:
            self.ended += len(returned)
        if returned:
            event("a device left with work")

    @rule(group=GROUPS, drawn=st.lists(st.tuples(st.integers(0, 9), ESTIMATES), min_size=1, max_size=8))
    def ask(self, group: str, drawn: list[tuple[int, float | None]]) -> None:
        jobs = [Job(group, f"s{self.asked + i}", size, estimate, i) for i, (size, estimate) in enumerate(drawn)]
        self.asked += len(jobs)
        self.dispatcher.ask(jobs)
        self.waiting.update((job.key, job) for job in jobs)

    @rule()
    def decide(self) -> None:
        for decision in self.dispatcher.decide():
            chunk, chunks = decision.jobs, self.running[decision.device]
            first = chunk[0]
            assert len({job.group for job in chunk}) == 1
            assert all(job.key in self.waiting for job in chunk), "only what waits, and once"
            assert self.policy.priority(first) == min(map(self.policy.priority, self.waiting.values()))
            assert len(chunks) == min(map(len, self.running.values())), "the emptiest device first"
            assert len(chunk) == 1 or sum(job.estimate_s or 0.0 for job in chunk) <= CHUNK_MAX_S + 1e-9
            assert len(chunk) == 1 or all(job.estimate_s is not None for job in chunk)
            of_group = [job for job in self.waiting.values() if job.group == first.group]
            assert len(chunk) <= -(-len(of_group) // len(self.running)), "no more than its share"
            chunks.append(chunk)
            for job in chunk:
                del self.waiting[job.key]
        if self.waiting:
            assert all(len(chunks) == self.depth for chunks in self.running.values()), "work-conserving"
            event("more work than places")

    @precondition(lambda self: any(self.running.values()))
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        device = data.draw(st.sampled_from([device for device, chunks in self.running.items() if chunks]))
        chunk = self.running[device].pop(0)
        self.dispatcher.done(device, list(chunk))
        self.ended += len(chunk)

    @rule(device=DEVICES)
    def done_of_nothing(self, device: str) -> None:
        """An answer of a device that is gone, or a call without jobs."""
        self.dispatcher.done(device, ())
        self.dispatcher.done("who", [Job("g", "never asked", 1, None, 0)])

    @rule(group=GROUPS)
    def withdraw(self, group: str) -> None:
        keys = self.dispatcher.withdraw(group)
        assert sorted(keys) == sorted(key for key in self.waiting if key[0] == group)
        for key in keys:
            del self.waiting[key]
        self.ended += len(keys)

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        if not hasattr(self, "dispatcher"):
            return
        assert set(self.dispatcher.devices) == set(self.running)
        for device, chunks in self.running.items():
            assert list(self.dispatcher.running(device)) == chunks
            assert len(chunks) <= self.depth
        for group in ("g", "h", "i"):
            assert self.dispatcher.has_waiting(group) == any(key[0] == group for key in self.waiting)
        num_running = sum(len(chunk) for chunks in self.running.values() for chunk in chunks)
        assert self.asked == self.ended + num_running + len(self.waiting)

    def teardown(self) -> None:
        """Whatever happened, one device finishes all that is left."""
        if not hasattr(self, "dispatcher"):
            return
        self.join("x")
        self.decide()
        while any(self.running.values()):
            for device in list(self.running):
                for chunk in list(self.running[device]):
                    self.running[device].remove(chunk)
                    self.dispatcher.done(device, chunk)
                    self.ended += len(chunk)
            self.decide()
        assert not self.waiting and self.ended == self.asked


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=25)
