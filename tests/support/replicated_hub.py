"""One hub's replicas under one supervisor, over a network that delays, doubles and reorders; and a ledger of the hub.

The machines (`tiers.replicas`, `tiers.round`) are the product's; the processes, what lies between them and what is in
their sums are played here. A replica that was never replaced was told what the hub's own machine was told, and says
the same; a fresh one has a machine of its own, and is told everything once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from replicated_brain import Brain, Recall, Said, Shape, Violation, key_of, must, weighed
from replicated_lies import agreed, lie

from tiers.messages import Add, Begin, Carry, Close, Command, Event, Finish, GiveUp, Hold, Open, Refuse, TrainMember
from tiers.replica_messages import (
    FAILED,
    Abandon,
    Answered,
    CarryOut,
    Died,
    Disagree,
    Forged,
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

if TYPE_CHECKING:
    from replicated_carried import SinceIdle

__all__ = ["LEASE_S", "Run", "Served"]

LEASE_S = 2.0


class Process:
    """One life of a replica: what it was told, which index it answers next, and what is wrong with it."""

    __slots__ = (
        "brain",
        "first",
        "fresh",
        "last",
        "lies",
        "life",
        "named",
        "next",
        "recalls",
        "stuck",
        "told",
        "truth",
    )

    def __init__(self, life: int, served: Served, recalls: Recall | None = None, *, fresh: bool = False) -> None:
        """`recalls`: what it is told in place of the first thing; `fresh`: it has a machine of its own."""
        self.life, self.recalls, self.fresh = life, recalls, fresh
        self.next = self.first = served.replicas.first
        self.told, self.truth = served.told, served.truth
        self.brain: Brain | None = None
        self.last: Said | None = None
        self.lies = ""
        self.stuck = self.named = False


class Run(Protocol):
    """What supervises hubs."""

    now: float
    told: SinceIdle

    def ask(self, served: Served, command: TrainMember) -> None: ...

    def obey(self, served: Served, command: Command) -> None: ...

    def abandon(self, served: Served, reason: str) -> None: ...

    def tell_story(self, what: str) -> None: ...


class Served:
    """One hub as its supervisor knows it, and the processes that serve it."""

    def __init__(self, run: Run, shape: Shape, num: int, mode: Mode, random: Random, alone: bool) -> None:
        self.run, self.shape, self.random, self.alone = run, shape, random, alone
        self.replicas = Replicas(num, mode, LEASE_S)
        self.num, self.votes = num, mode == "vote"
        self.quorum = num // 2 + 1 if self.votes else 1
        self.num_stops = 0
        self.memory: Recall | None = None
        self.zombies: list[tuple[int, Process, int]] = []
        self.processes: list[Process] = []
        self._begin()
        for replica in range(num):
            self.replicas.handle(Up(replica, 0, run.now))

    def _begin(self) -> None:
        self.told: list[Any] = []
        self.truth: list[Said] = []
        self.brain = Brain(self.shape, alone=self.alone)
        self.heard: dict[int, dict[int, Said]] = {}
        self.carried = 0
        self.running = False
        self.is_open = False
        self.number = -1
        self.last_weight = self.last_sum = 0
        self.due: list[int] = []
        self.inside: dict[str, int] = {}
        self.late: dict[str, int] = {}
        self.expected = 0
        self.held: dict[tuple[str, int], int] = {}
        self.fate: dict[tuple[str, int], str] = {}
        before, lives = self.processes, self.replicas.lives
        self.processes = [Process(lives[one], self) for one in range(self.num)]
        for process, earlier in zip(self.processes, before, strict=False):  # the same processes, with fresh machines
            process.lies, process.stuck = earlier.lies, earlier.stuck

    def __str__(self) -> str:
        return self.shape.path

    @property
    def waits(self) -> bool:
        return self.carried < len(self.told)

    def tell(self, event: Event | Recall, value: int = 0) -> Said:
        """All replicas are told the next thing; give what is the right answer."""
        if type(event) is Recall:
            self.brain = Brain(self.shape, event, alone=self.alone)
            said = Said([], [], self.brain.recall())
            self.held = dict(event.held)
            self.fate = dict.fromkeys(event.held, "held")
        else:
            said = self.brain.tell(event, value)  # type: ignore[arg-type]
        said.digest = b"%d" % len(self.told)
        self.told.append((event, value))
        self.truth.append(said)
        self.replicas.handle(Told())
        return said

    def begin(self, rounds: Sequence[int]) -> None:
        """Its rounds begin."""
        must(not self.running, "{} is begun while its rounds are under way", self.shape.path)
        self.running = True
        self.due = list(rounds)
        self.obey(self.replicas.handle(Opened()))
        must(len(self.replicas.active) == self.num, "{}: one sits out a round in which it has not died", self)

    def stop(self) -> None:
        """Its rounds are given up; what its processes still say of them comes late."""
        self.num_stops += 1
        for replica, process in enumerate(self.processes):
            if process.next < len(process.told):
                self.zombies.append((replica, process, len(process.told)))
        self.memory = None
        self.replicas.handle(Stopped())
        self._begin()

    def deliver(self, replica: int, twice: bool = False) -> None:
        """A replica's next answer comes."""
        process = self.processes[replica]
        index = process.next
        said = self._compute(process)
        if index >= self.carried:
            self.heard.setdefault(index, {})[replica] = said
        event = Answered(replica, process.life, index, said.digest, self.run.now, said.signed)
        self.obey(self.replicas.handle(event))
        if twice:
            self.obey(self.replicas.handle(event))
        if process.lies == "impersonates" and process is self.processes[replica]:
            self._impersonate(index, said)

    def _impersonate(self, index: int, said: Said) -> None:
        """A liar says the same in the name of the others, whose keys it has not."""
        for other, process in enumerate(self.processes):
            if process.next == index < len(process.told) and self.replicas.lives[other] == process.life:
                process.named = True
                if index >= self.carried:
                    self.heard.setdefault(index, {})[other] = said
                self.obey(self.replicas.handle(Answered(other, process.life, index, said.digest, self.run.now, False)))
                return

    def _compute(self, process: Process) -> Said:
        """Let a process answer the next thing that it was told."""
        index = process.next
        process.next = index + 1
        said = truth = process.truth[index]
        if process.fresh:
            event, value = process.told[index]
            if index == process.first and process.recalls is not None:
                event = process.recalls
            if type(event) is Recall:
                process.brain = Brain(self.shape, event, alone=self.alone)
                said = Said([], [], process.brain.recall())
                said.digest = agreed(said, truth, index)
            else:
                if process.brain is None:
                    process.brain = Brain(self.shape, alone=self.alone)
                said = process.brain.tell(event, value)
                said.digest = agreed(said, truth, index)
        if process.lies and self.random.random() < 0.6:
            said = lie(process.lies, said, process.last, lambda one: agreed(one, truth, index))
        process.last = said
        return said

    def die(self, replica: int) -> None:
        life = self.processes[replica].life
        self.obey(self.replicas.handle(Died(replica, life, "killed")))

    def haunt(self, which: int, until_end: bool) -> None:
        """A process of an earlier life says what it had not said yet, all of it or one answer."""
        replica, process, end = self.zombies[which]
        while process.next < end:
            index = process.next
            said = self._compute(process)
            event = Answered(replica, process.life, index, said.digest, self.run.now, said.signed)
            self.obey(self.replicas.handle(event))
            if not until_end:
                break
        if process.next >= end and self.zombies[which : which + 1] == [(replica, process, end)]:
            del self.zombies[which]

    def tick(self) -> None:
        if self.replicas.lags:
            self.obey(self.replicas.handle(Tick(self.run.now)))

    def obey(self, commands: Sequence[Any]) -> None:
        """Do what is to be done about the replicas, as long as the hub is not stopped meanwhile."""
        num_stops = self.num_stops
        for command in commands:
            kind = type(command)
            if kind is CarryOut:
                self._carry_out(command.index, command.replicas)
            elif kind is Replace or kind is Retire or kind is Return:
                self._replace(command)
            elif kind is Disagree:
                must(len(self.replicas.active) < self.num, "{}: {}, though most are honest", self.shape.path, command)
                self.run.abandon(self, command.reason)
                return
            elif kind is Abandon:
                must(len(self.replicas.active) <= self.quorum, "{}: {}, though the others are enough", self, command)
                self.run.abandon(self, command.reason)
                return
            if self.num_stops != num_stops:
                return

    def _replace(self, command: Replace | Retire | Return) -> None:
        replica, before = command.replica, self.processes[command.replica]
        self.run.tell_story(f"{self.shape.path}: {command}")
        must(command.life > before.life, "{} has the life of the one before", command)
        if type(command) is not Return and command.cause not in ("died", "silent"):
            accused = before.named if command.cause == "unsigned" else False
            must(before.lies or accused, "an honest replica is accused: {}", command)
        for said in self.heard.values():
            said.pop(replica, None)
        if before.next < len(before.told):
            self.zombies.append((replica, before, len(before.told)))
        recalls = self.memory if self.replicas.recalls else None
        self.processes[replica] = Process(command.life, self, recalls, fresh=True)
        if type(command) is Retire:
            self.processes[replica].told = []
        self.replicas.handle(Up(replica, command.life, self.run.now))

    def _carry_out(self, index: int, voters: Sequence[int]) -> None:
        """Check that an answer may count, and do what it says."""
        path = self.shape.path
        must(index == self.carried, "{}: answer {} is carried out after {}", path, index, self.carried - 1)
        must(len(set(voters)) == len(voters) >= self.quorum, "{}: {} alone decide", path, voters)
        heard = self.heard.pop(index, {})
        must(all(one in heard for one in voters), "{}: who decided answer {} has not said it in this life", path, index)
        answers = [heard[one] for one in voters]
        must({one.digest for one in answers} == {answers[0].digest}, "{}: {} differ", path, answers)
        if answers[0].digest == FAILED:
            must(len(voters) == len(self.replicas.active) < self.num, "{}: {} fail, and others do not", path, voters)
            self.run.abandon(self, "none of those that are left can say it")
            return
        num_stops = self.num_stops
        said = self._take(index, voters, answers)
        truth = self.truth[index]
        must(said is truth or said.same(truth), "{}: what counts is not what the hub's machine says", path)
        self.carried = index + 1
        event, value = self.told[index]
        for command in said.commands:
            self._enter(command, said, event, value)
            if self.num_stops != num_stops:
                return
        if not self.running:
            self._idle(index, said.memory)

    def _take(self, index: int, voters: Sequence[int], answers: Sequence[Said]) -> Said:
        """Give the first answer beside which lies what was signed."""
        for replica, said in zip(voters, answers, strict=True):
            if said.true:
                return said
            self.obey(self.replicas.handle(Forged(replica, self.processes[replica].life, index)))
        raise Violation(f"{self.shape.path}: no vector is what was signed")

    def _idle(self, index: int, memory: Recall | None) -> None:
        """After this no round is open: a memory replaces all up to it."""
        self.memory = memory
        self.replicas.handle(Rebased(index if memory is not None else index + 1, recalls=memory is not None))
        self.run.told.idle(self.shape.path, len(self.told) - index - 1)

    def _enter(self, command: Command, said: Said, event: Event | Recall, value: int) -> None:
        """Enter a command in the ledger, from which it must follow, and let it be carried out."""
        kind = type(command)
        path = self.shape.path
        if kind is Add:
            must(self.is_open and command.update.round_number == self.number, "{}: added out of its round", path)
            for share in command.update.shares:
                must(share.member not in self.inside, "{}: {} counts twice", path, share.member)
                self.inside[share.member] = share.weight
                self._settle((share.member, self.number), "in")
            self.expected += value
        elif kind is TrainMember:
            must(self.is_open and command.round_number == self.number, "{}: asked out of its round", path)
            self.run.ask(self, command)
        elif kind is Open:
            must(not self.is_open and self.due and command.round_number == self.due[0], "{}: {}", path, command)
            self.is_open, self.number = True, self.due.pop(0)
            self.inside, self.late, self.expected = {}, {}, 0
        elif kind is Close:
            self._close(command, said)
            self.run.obey(self, command)
        elif kind is Carry:
            key = key_of(command)
            must(self.is_open and key[1] < self.number and key[0] not in self.late, "{}: carried {}", path, key)
            policy = self.shape.hub.participation
            weight = policy.admit(command.update.shares[0].weight, self.number - key[1]).weight
            must(command.weight == weight > 0, "{}: {} carried with {}", path, key, command.weight)
            self.late[key[0]] = weight
            self.expected += weighed(command, self.held.pop(key, value))
            self._settle(key, "carried")
        elif kind is Hold:
            key = key_of(command)
            must(not self.is_open, "{}: {} is held while a round is open", path, key)
            self.held[key] = value
            self.fate.setdefault(key, "held")
        elif kind is Refuse:
            key = key_of(command)
            if self.fate.setdefault(key, "refused") == "held" and type(event) is Begin:
                self.fate[key] = "refused"
            self.run.obey(self, command)
        else:
            if kind is GiveUp:
                self.is_open = False
            elif kind is Finish:
                must(not self.due and not self.is_open, "{}: it finishes before its rounds are over", path)
                self.running = False
            self.run.obey(self, command)

    def _settle(self, key: tuple[str, int], fate: str) -> None:
        before = self.fate.get(key)
        must(before in (None, "held", "refused"), "{}: {} counts twice", self.shape.path, key)
        self.fate[key] = fate

    def _close(self, command: Close, said: Said) -> None:
        path = self.shape.path
        must(self.is_open and command.round_number == self.number, "{}: closed out of its turn", path)
        must(len(set(command.members)) == len(command.members), "{}: one is listed twice", path)
        must(set(command.members) == set(self.inside), "{}: {} are listed, {} counted", path, command, self.inside)
        must(command.carried.keys() == self.late.keys(), "{}: others are carried than listed", path)
        weight = sum(self.inside.values()) + sum(self.late.values())
        must(command.weight == weight > 0, "{}: weight {} is listed, {} counted", path, command.weight, weight)
        closes = [one for one in said.commands if type(one) is Close]
        total = said.sums[closes.index(command)]
        must(total == self.expected, "{}: the sum is not that of those listed", path)
        self.is_open = False
        self.last_weight, self.last_sum = weight, total
