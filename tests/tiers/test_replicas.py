"""Whose answer counts among the replicas of a hub, and who is replaced: by hand, and in drawn histories."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiers.replicas import (
    MAX_RESTARTS,
    Abandon,
    Answered,
    CarryOut,
    Command,
    Died,
    Disagree,
    Forged,
    Mode,
    Opened,
    Rebased,
    Replace,
    Replicas,
    Stopped,
    Tick,
    Told,
    Up,
    quorum_of,
)

LEASE_S = 2.0


def crash(num_replicas: int, told: int = 1) -> Replicas:
    return begun(Replicas(num_replicas, "crash", LEASE_S), told)


def vote(num_replicas: int = 3, told: int = 1) -> Replicas:
    return begun(Replicas(num_replicas, "vote", LEASE_S), told)


def begun(replicas: Replicas, told: int) -> Replicas:
    for number in range(replicas.num_replicas):
        assert replicas.handle(Up(number, 0, 0.0)) == []
    for _ in range(told):
        assert replicas.handle(Told()) == []
    return replicas


def said(replica: int, index: int, digest: str = "right", life: int = 0, now: float = 0.0, **more: bool) -> Answered:
    return Answered(replica, life, index, digest.encode(), now, **more)


def named(commands: list[Command]) -> list[tuple[int, str]]:
    return [(one.replica, one.cause) for one in commands if isinstance(one, Replace)]


def test_the_first_answer_counts_and_equal_ones_are_dropped() -> None:
    replicas = crash(3, told=2)
    assert replicas.handle(said(1, 0)) == [CarryOut(0, (1,))]
    assert replicas.handle(said(0, 0)) == replicas.handle(said(2, 0)) == []
    assert replicas.handle(said(2, 1)) == [CarryOut(1, (2,))]
    assert replicas.carried_out == 2


def test_an_answer_that_comes_twice_counts_once() -> None:
    replicas = crash(2)
    assert replicas.handle(said(0, 0)) == [CarryOut(0, (0,))]
    assert replicas.handle(said(0, 0)) == replicas.handle(said(0, 0, "other")) == []


def test_who_answers_something_else_than_what_counted_is_named_though_nobody_voted() -> None:
    replicas = crash(2)
    replicas.handle(said(0, 0))
    assert named(replicas.handle(said(1, 0, "wrong"))) == [(1, "differs")]
    assert replicas.lives == (0, 1)


def test_that_an_answer_could_not_be_computed_counts_once_all_say_so() -> None:
    replicas = crash(2, told=2)
    assert replicas.handle(said(0, 0, "failed")) == []
    commands = replicas.handle(said(1, 0))
    assert named(commands) == [(0, "differs")] and commands[-1] == CarryOut(0, (1,))
    replicas.handle(said(0, 0, life=1))
    assert replicas.handle(said(0, 1, "failed", life=1)) == []
    assert replicas.handle(said(1, 1, "failed")) == [CarryOut(1, (0, 1))]


def test_the_others_go_on_while_a_dead_one_catches_up() -> None:
    replicas = crash(2, told=3)
    replicas.handle(said(0, 0))
    assert named(replicas.handle(Died(0, 0, "killed"))) == [(0, "died")]
    assert replicas.handle(said(1, 0)) == []
    assert replicas.handle(said(1, 1)) == [CarryOut(1, (1,))]
    assert [replicas.handle(said(0, index, life=1)) for index in range(3)] == [[], [], [CarryOut(2, (0,))]]


def test_what_an_earlier_life_still_says_is_dropped() -> None:
    replicas = crash(1)
    replicas.handle(Died(0, 0, "killed"))
    assert replicas.handle(said(0, 0, "zombie")) == replicas.handle(Died(0, 0, "killed")) == []
    assert replicas.handle(Forged(0, 0, 0)) == replicas.handle(Up(0, 0, 0.0)) == []
    assert replicas.handle(said(0, 0, life=1)) == [CarryOut(0, (0,))]


def test_who_is_behind_for_a_lease_is_replaced_once_it_has_begun() -> None:
    replicas = crash(2)
    replicas.handle(said(0, 0, now=10.0))
    assert replicas.lags
    assert replicas.handle(Tick(12.0)) == []
    [command] = replicas.handle(Tick(12.5))
    reason = "its answer to message 1 has not come 2.5 s after another replica's"
    assert command == Replace(1, 1, "silent", reason)
    assert replicas.handle(Tick(100.0)) == [], "it has not begun yet"
    replicas.handle(Up(1, 1, 100.0))
    assert replicas.handle(Tick(104.0)) == [], "the patience has doubled"
    assert named(replicas.handle(Tick(104.5))) == [(1, "silent")]
    replicas.handle(Opened())
    replicas.handle(Up(1, 2, 200.0))
    assert named(replicas.handle(Tick(202.5))) == [(1, "silent")]


def test_who_catches_up_is_not_behind_as_long_as_it_says_something() -> None:
    replicas = crash(2, told=4)
    for index in range(4):
        replicas.handle(said(0, index))
    for index in range(4):
        assert replicas.handle(said(1, index, now=1.5 * (index + 1))) == replicas.handle(Tick(1.5 * index + 3.0)) == []
    assert not replicas.lags
    assert replicas.handle(Tick(1e6)) == []


def test_nobody_is_behind_what_nobody_has_answered() -> None:
    replicas = vote()
    assert not replicas.lags
    assert replicas.handle(Tick(1e6)) == []


def test_a_majority_of_equal_answers_counts_and_the_odd_one_is_named_in_the_same_breath() -> None:
    replicas = vote()
    assert replicas.handle(said(1, 0, "wrong")) == replicas.handle(said(2, 0)) == []
    commands = replicas.handle(said(0, 0))
    assert named(commands) == [(1, "outvoted")]
    assert commands[-1] == CarryOut(0, (2, 0))


def test_one_that_lies_after_all_others_have_agreed_is_named_too() -> None:
    replicas = vote()
    replicas.handle(said(0, 0))
    assert replicas.handle(said(1, 0)) == [CarryOut(0, (0, 1))]
    assert named(replicas.handle(said(2, 0, "wrong"))) == [(2, "outvoted")]


def test_an_answer_without_the_right_signature_is_no_vote() -> None:
    replicas = vote()
    replicas.handle(said(0, 0))
    assert named(replicas.handle(said(1, 0, signed=False))) == [(1, "unsigned")]
    assert replicas.handle(said(1, 0, life=1)) == [CarryOut(0, (0, 1))]


def test_what_is_not_what_was_signed_is_named_after_it_was_looked_at() -> None:
    replicas = vote()
    replicas.handle(said(0, 0))
    replicas.handle(said(1, 0))
    assert named(replicas.handle(Forged(0, 0, 0))) == [(0, "forged")]


def test_too_many_liars_fail_the_round_with_what_each_said() -> None:
    replicas = vote()
    assert replicas.handle(said(0, 0, "a")) == replicas.handle(said(1, 0, "b")) == []
    [command] = replicas.handle(said(2, 0, "c"))
    assert isinstance(command, Disagree) and command.index == 0
    assert command.reason.startswith("no 2 of 3 replicas give the same answer: 1 says 61; 2 says 62; 3 says 63")


def test_a_vote_ends_with_the_life_that_gave_it() -> None:
    replicas = vote()
    replicas.handle(said(0, 0, "wrong"))
    replicas.handle(said(1, 0))
    replicas.handle(Died(0, 0, "killed"))
    assert replicas.handle(said(0, 0, life=1)) == [CarryOut(0, (1, 0))]


def test_votes_for_later_messages_wait_for_their_turn() -> None:
    replicas = vote(told=2)
    replicas.handle(said(0, 0))
    assert replicas.handle(said(0, 1)) == []
    assert replicas.handle(said(1, 0)) == [CarryOut(0, (0, 1))]
    assert replicas.handle(said(1, 1)) == [CarryOut(1, (0, 1))]


def test_a_fresh_replica_begins_with_a_memory_whose_answer_is_nobody_elses() -> None:
    replicas = vote(told=2)
    for index in range(2):
        replicas.handle(said(0, index))
        replicas.handle(said(1, index))
    replicas.handle(Rebased(1, recalls=True))
    replicas.handle(Died(0, 0, "killed"))
    replicas.handle(Told())
    assert replicas.handle(said(0, 1, "what it recalls", life=1)) == []
    assert named(replicas.handle(said(2, 0, "wrong"))) == [(2, "outvoted")], "it began before, and lies"
    assert replicas.handle(said(0, 2, life=1)) == []
    assert replicas.handle(said(1, 2)) == [CarryOut(2, (0, 1))]


def test_after_a_stop_all_begin_anew() -> None:
    replicas = vote(told=2)
    for number in (0, 1):
        replicas.handle(said(number, 0))
    assert replicas.handle(Stopped()) == []
    assert (replicas.lives, replicas.told, replicas.carried_out) == ((1, 1, 1), 0, 0)
    assert replicas.handle(said(2, 0)) == [] and replicas.carried_out == 0
    replicas.handle(Told())
    assert replicas.handle(said(0, 0, life=1)) == []
    assert replicas.handle(said(2, 0, life=1)) == [CarryOut(0, (0, 2))]


def test_one_that_dies_again_and_again_ends_the_run() -> None:
    replicas = crash(2)
    for life in range(MAX_RESTARTS):
        assert named(replicas.handle(Died(1, life, "killed"))) == [(1, "died")]
    [command] = replicas.handle(Died(1, MAX_RESTARTS, "killed"))
    assert command == Abandon(1, f"died {MAX_RESTARTS + 1} times in one round: killed")


@pytest.mark.parametrize(("mode", "num", "quorum"), [("crash", 3, 1), ("vote", 1, 1), ("vote", 3, 2), ("vote", 5, 3)])
def test_how_many_equal_answers_count(mode: Mode, num: int, quorum: int) -> None:
    assert quorum_of(mode, num) == quorum


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
                case Abandon():
                    self.handle(Opened())
                    self.begin(command.replica)
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
        for replica in range(self.num):
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
            [6, 12, 2, 1, 2, 2, 1, 0.3, 0.5],
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
    assert {"CarryOut", "Replace", "died", "silent", "outvoted", "lies"} <= seen.keys()
