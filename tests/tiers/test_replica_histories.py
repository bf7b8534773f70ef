"""One hub's replicas in short drawn histories, in some of which they die so often that they sit rounds out.

Longer ones, of whole trees, are in `test_replicated`.
"""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tiers.replica_messages import (
    Abandon,
    Answered,
    CarryOut,
    Died,
    Disagree,
    Mode,
    Opened,
    Rebased,
    Replace,
    Retire,
    Return,
    Stopped,
    Tick,
    Told,
    Up,
)
from tiers.replicas import Replicas

LEASE_S = 2.0


class Hub:
    """One hub whose replicas are told by a supervisor; what is on its way from each comes in its order, or late.

    A process keeps what it was told and answers with a digest of it; a liar's answer is another one.
    """

    def __init__(self, random: Random, mode: Mode, num: int, liars: int) -> None:
        self.random, self.mode, self.num, self.max_liars = random, mode, num, liars
        self.machine = Replicas(num, mode, LEASE_S)
        self.now = 0.0
        self.told: list[str] = []
        self.base = ""
        self.first = 0
        self.sent: list[list[Answered]] = [[] for _ in range(num)]
        self.late: list[Answered] = []
        self.state = [""] * num
        self.lies: set[int] = set()
        self.lying = True
        self.deadly = random.choice([1, 1, 10])
        self.accused: list[tuple[int, str, bool]] = []
        self.carried: list[bytes] = []
        self.truth: list[bytes] = []
        self.seen: Counter[str] = Counter()
        for replica in range(num):
            self.handle(Up(replica, 0, self.now))

    def handle(self, event: object) -> None:
        """Give the machine an event and do what it says, with all invariants checked."""
        commands = self.machine.handle(event)  # type: ignore[arg-type]
        for command in commands:
            self.seen[type(command).__name__] += 1
            match command:
                case Replace():
                    self.accused.append((command.replica, command.cause, command.replica in self.lies))
                    self.seen[command.cause] += 1
                    self.begin(command.replica)
                case CarryOut():
                    assert command.index == len(self.carried), "in order, each once"
                    assert self.mode == "crash" or len(command.replicas) >= self.machine.quorum
                    self.carried.append(self.truth[command.index])
                    honest = [replica for replica in command.replicas if replica not in self.lies]
                    assert honest, f"{command} is carried out in the words of liars alone"
                case Retire():
                    self.accused.append((command.replica, command.cause, command.replica in self.lies))
                    self.late += self.sent[command.replica]
                    self.sent[command.replica] = []
                    self.lies.discard(command.replica)
                case Return():
                    self.begin(command.replica)
                case Abandon():
                    self.handle(Opened())
                    self.begin(command.replica)
                case Disagree() if len(self.machine.active) < self.num:
                    self.stop()
                case _:
                    raise AssertionError(f"{command} with {len(self.lies)} liars of {self.num}")

    def begin(self, replica: int) -> None:
        """A fresh process is told everything once more, and says the truth."""
        self.late += self.sent[replica]
        self.sent[replica] = []
        self.state[replica] = self.base
        self.lies.discard(replica)
        if self.random.random() < 0.8:
            self.handle(Up(replica, self.machine.lives[replica], self.now))
        for index in range(self.first, len(self.truth)):
            self.answer(replica, index)

    def answer(self, replica: int, index: int) -> None:
        if index >= self.first and self.told[index] == "recall":
            digest = b"recalled"
            self.state[replica] = self.base
        else:
            self.state[replica] = sha256((self.state[replica] + self.told[index]).encode()).hexdigest()
            digest = self.state[replica].encode()
        if replica in self.lies and self.lying and self.random.random() < 0.7:
            digest += b"!"
            self.seen["lies"] += 1
        self.sent[replica].append(Answered(replica, self.machine.lives[replica], index, digest, self.now))

    def tell(self) -> None:
        self.told.append(f"message {len(self.told)}")
        self.handle_told()

    def handle_told(self) -> None:
        index = len(self.truth)
        before = self.truth[-1].decode() if self.truth else ""
        self.truth.append(sha256((before + self.told[index]).encode()).hexdigest().encode())
        self.handle(Told())
        for replica in self.machine.active:
            self.answer(replica, index)

    def deliver(self, replica: int) -> None:
        if self.sent[replica]:
            event = self.sent[replica].pop(0)
            event = Answered(event.replica, event.life, event.index, event.digest, self.now)
            self.handle(event)
            if self.random.random() < 0.2:
                self.handle(event)

    def rebase(self) -> None:
        """All that is carried out is replaced by a memory, which stands at the last index."""
        if len(self.carried) > self.first:
            self.first = len(self.carried) - 1
            self.base = self.truth[self.first].decode()
            self.told[self.first] = "recall"
            self.handle(Rebased(self.first, recalls=True))

    def stop(self) -> None:
        for replica in range(self.num):
            self.late += self.sent[replica]
            self.sent[replica] = []
        self.told, self.truth, self.carried, self.base, self.first = [], [], [], "", 0
        self.state = [""] * self.num
        self.handle(Stopped())

    def step(self) -> None:
        replica = self.random.randrange(self.num)
        what = self.random.choices(
            ["tell", "deliver", "late", "die", "lie", "tick", "rebase", "stop", "open"],
            [6, 12, 2, self.deadly, 2, 2, 1, 0.3, 0.5],
        )[0]
        match what:
            case "tell":
                self.tell()
            case "deliver":
                self.deliver(replica)
            case "late" if self.late:
                self.handle(self.late.pop(self.random.randrange(len(self.late))))
            case "die":
                self.handle(Died(replica, self.machine.lives[replica], "killed"))
            case "lie" if len(self.lies) < self.max_liars:
                self.lies.add(replica)
            case "tick":
                self.now += self.random.choice([0.1, 1.0, 5.0])
                self.handle(Tick(self.now))
            case "rebase":
                self.rebase()
            case "stop":
                self.stop()
            case "open":
                self.handle(Opened())
            case _:
                pass
        assert self.machine.carried_out == len(self.carried) <= self.machine.told == len(self.truth)

    def finish(self) -> None:
        """Nothing fails any more: all that was told is carried out."""
        self.lying = False
        while any(self.sent):
            for replica in range(self.num):
                self.deliver(replica)
        assert len(self.carried) == len(self.truth)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([("crash", 1), ("crash", 2), ("crash", 3), ("vote", 3), ("vote", 5)]))
def test_drawn_histories(seed: int, kind: tuple[Mode, int]) -> None:
    mode, num = kind
    hub = Hub(Random(seed), mode, num, liars=num // 2 if mode == "vote" else 0)
    for _ in range(60):
        hub.step()
    hub.finish()
    for replica, cause, lied in hub.accused:
        assert cause in ("died", "silent") or lied, f"{replica} was honest, and was accused: {cause}"


def test_the_drawn_histories_have_all_that_may_happen() -> None:
    seen: Counter[str] = Counter()
    for seed in range(40):
        hub = Hub(Random(seed), "vote", 3, liars=1)
        for _ in range(60):
            hub.step()
        seen += hub.seen
    assert {"CarryOut", "Replace", "Retire", "Return", "died", "silent", "outvoted", "lies"} <= seen.keys()
