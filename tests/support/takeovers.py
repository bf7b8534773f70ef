"""One hub whose processes are killed, hang and come back, under a journal that is torn: drawn schedules, and a ledger.

The recorder, the journal's bytes, what is told again and the hub's machine are those of the product; the disk, the
members and time are played here. What must hold is checked after every step; `Violation` says what did not.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
from takeover_disk import Disk, Queue, Saved

from hierfl.errors import OutputError
from hierfl.journal import Lead
from hierfl.learning.ring import PartialSum
from hierfl.runtime.hubs import Kept
from hierfl.runtime.jobs import Memory
from hierfl.runtime.keeper import Keeper
from hierfl.runtime.recorder import Recorder
from hierfl.runtime.underway import Before
from scheduler.participation import Participation
from scheduler.participations.all import All
from scheduler.participations.buffered import Buffered
from scheduler.participations.deadline import Deadline
from tiers import Federation, Hub, HubRounds, Phase, Site
from tiers.journal import Told, join
from tiers.messages import (
    Add,
    Arrived,
    Begin,
    Carry,
    Close,
    Command,
    Event,
    Finish,
    GiveUp,
    Lost,
    Open,
    Opening,
    SetTimer,
    Share,
    TimeUp,
    TrainMember,
    Update,
)
from tiers.standing import Standing

__all__ = ["Schedule", "Violation"]

ROUNDS = 4
POLICIES: tuple[Participation, ...] = (
    All(),
    Deadline(after_s=5.0, quorum=0.3, weight=0.3),
    Deadline(after_s=5.0, quorum=0.3, weight=0.3, late="refuse"),
    Buffered(goal=2),
)


class Violation(AssertionError):
    """Something that must hold does not."""


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


class Process:
    """One process of the run: a machine, a recorder, and the members that it has asked."""

    def __init__(self, world: Schedule, found: set[tuple[str, int]]) -> None:
        """`found`: whose updates are durable as it begins."""
        self.world, disk, self.found = world, world.disk, found
        self.saved = disk.saved or Saved(0, 1, None, frozenset())
        self.queue = Queue(disk, world.next_epoch(disk))
        disk.claim(self.queue.epoch)
        lead = Lead(disk, self.queue.epoch)  # type: ignore[arg-type]
        driver = SimpleNamespace(get=lambda handle: handle, put=lambda value: value)
        self.recorder = Recorder(world.config, driver, Keeper(), lead, self.saved.rounds_done)  # type: ignore[arg-type]
        streams = disk.read(self.saved.rounds_done)
        self.recorder.resume(self.queue, streams, self.saved.before)  # type: ignore[arg-type]
        self.recorder.begin()
        self.model, self.number = self.saved.model, self.saved.rounds_done
        self.counted = set(self.saved.counted)
        self.asked: dict[str, tuple[int, int]] = {}
        self.timers: list[TimeUp] = []
        self.sum: dict[tuple[str, int], int] = {}
        self.openings: dict[int, Opening] = {}
        self.payloads: dict[tuple[str, int], Any] = {}
        self.ended = self.finished = False
        kept = self.recorder.recalled({"w": self.saved.kept} if self.saved.kept else {}).get("w")
        memory = kept.memory if kept else Memory(Standing())
        self.openings.update(memory.openings)
        if kept:
            held = zip(memory.standing.held, kept.payloads, strict=True)
            self.payloads = {(one.shares[0].member, one.round_number): part for one, part in held}
        self.machine = HubRounds(world.hub, world.weights, path="w", standing=memory.standing if kept else None)
        self.deliver(self.recorder.start("w"))
        self.begin()

    def begin(self) -> None:
        if not self.ended and self.number < ROUNDS:
            self.tell("begin", Begin(self.number, 1, self.world.forecast()))

    def tell(self, method: str, event: Event, part: Any = None) -> None:
        arguments = (event.update, part) if isinstance(event, Arrived) else (event,)
        self.deliver(self.recorder.tell("w", method, arguments))

    def deliver(self, calls: list[tuple[str, tuple[Any, ...]]]) -> None:
        for _, arguments in calls:
            if self.ended:
                return
            update = arguments[0] if isinstance(arguments[0], Update) else None
            if update is not None:
                key = (update.shares[0].member, update.round_number)
                self.payloads.setdefault(key, arguments[1])
                if self.asked.get(key[0], ())[:1] == (key[1],):
                    del self.asked[key[0]]
            if isinstance(arguments[0], Lost):
                for name in arguments[0].members:
                    if self.asked.get(name, ())[:1] == (arguments[0].round_number,):
                        del self.asked[name]
            for command in self.machine.handle(Arrived(update) if update is not None else arguments[0]):
                self.obey(command)
        if self.finished:  # all that was told is answered, as before a commit
            self.finished = False
            self.commit()

    def obey(self, command: Command) -> None:
        match command:
            case Open():
                self.sum, self.timers = {}, []
                self.openings[command.round_number] = Opening("w", command.round_number, 32, 8.0, 100, "float32")
            case TrainMember():
                key = (command.member, command.round_number)
                if not self.recorder.answered("w", command.round_number, command.member):
                    _must(key not in self.found, f"{key} is in the journal and is asked again")
                    self.asked[command.member] = (command.round_number, self.model)
            case Add() | Carry():
                key = (command.update.shares[0].member, command.update.round_number)
                _must(key not in self.counted, f"{key} counts twice")
                self.counted.add(key)
                self.sum[key] = int(self.payloads[key].floats[0])
            case SetTimer():
                self.timers.append(TimeUp(command.round_number, command.after_s))
            case Close():
                self.closed(command)
            case GiveUp():
                self.recorder.gave_up("w", command.reason)
                self.queue.flush()
                self.ended = True
            case Finish():
                self.finished = True

    def closed(self, command: Close) -> None:
        said = self.recorder.closed("w", command)
        _must(said is None, f"the journal says otherwise: {said}")
        self.model = crc32(repr((self.model, sorted(self.sum.items()))).encode())

    def commit(self) -> None:
        """Publish a round, as the run does: what the hub remembers is marked, then the checkpoint is saved, or not."""
        world, disk = self.world, self.world.disk
        self.number += 1
        standing = self.machine.standing
        rounds = {one.round_number for one in standing.errands.values()} | {one.round_number for one in standing.held}
        memory = Memory(standing, {number: self.openings[number] for number in rounds})
        payloads = tuple(self.payloads[one.shares[0].member, one.round_number] for one in standing.held)
        at_work = {name: number for name, (number, _) in self.asked.items()}
        replayed = self.recorder.replay is not None and self.recorder.replay.hubs
        errands = {name: one.round_number for name, one in standing.errands.items()}
        _must(bool(replayed) or errands == at_work, f"errands {errands}, at work {at_work}")
        self.recorder.mark(self.number, {"w": Kept(memory, payloads)}, {})
        try:
            self.recorder.check()
        except OutputError:
            self.ended = True
            return
        if self.number % world.every == 0 or self.number == ROUNDS:
            before = disk.published.setdefault(self.number, self.model)
            _must(before == self.model, f"round {self.number} was published as {before}, and is as {self.model}")
            bare = replace(memory, standing=replace(standing, errands={}))
            left = self.recorder.replay.left() if self.recorder.replay is not None else ()
            before = Before(self.recorder._head, left=tuple(entry for _, entry in left))
            self.saved = disk.saved = Saved(
                self.number, self.model, Kept(bare, payloads), frozenset(self.counted), before
            )
            self.recorder.rotate(self.number, Path("nothing is under way"))
        world.later.append(self)


def _value(member: str, number: int, model: int) -> int:
    """What a member makes of a model: 63 bits, of which each byte matters."""
    return crc32(repr((member, number, model)).encode()) << 31 | 1


def _durable(streams: Mapping[int, memoryview], before: Before | None) -> set[tuple[str, int]]:
    """The members whose updates a successor finds in the journal, with the round."""
    found = set()
    for entry in (*(before.left if before is not None else ()), *join(streams).entries):
        if isinstance(entry.record, Told) and isinstance(entry.record.event, Arrived):
            update = entry.record.event.update
            found.add((update.shares[0].member, update.round_number))
    return found


@dataclass
class Schedule:
    """A drawn history; `run` plays it to its end. Whoever is killed is succeeded; who hangs may come back."""

    seed: int
    disk: Disk = field(default_factory=Disk)
    hung: list[Process] = field(default_factory=list)
    later: list[Process] = field(default_factory=list)
    steps: int = 0
    failures: int = 0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        policy = self.random.choice(POLICIES)
        self.weights = {name: self.random.choice([1, 2, 5]) for name in "abc"}
        losses = self.random.random() < 0.5
        self.is_calm = isinstance(policy, All) and not losses
        self.loses = losses
        self.hub = Hub(
            *("w", tuple(map(Site, self.weights)), ROUNDS),
            participation=policy,
            keep_going=losses and self.random.random() < 0.7,
            quorum=0.3,
        )
        self.every = self.random.choice([1, 2, 2, 4])
        self.config: Any = SimpleNamespace(
            federation=Federation(self.hub), hubs={}, sites={}, resolved={"federation": {}}, seed=0
        )
        self.process: Process | None = None
        self.known: set[tuple[str, int]] = set()
        self.known_at = -1

    @staticmethod
    def next_epoch(disk: Disk) -> int:
        return disk.epoch() + 1

    def forecast(self) -> dict[str, float]:
        return {name: self.random.random() for name in self.weights}

    def run(self) -> None:
        """Play until the last round is published."""
        self.process = Process(self, set())
        while not (self.disk.saved and self.disk.saved.rounds_done == ROUNDS):
            self.steps += 1
            _must(self.steps < 250, "the run does not end")
            self.step()
            while self.later:
                process = self.later.pop(0)
                process.begin()
        if self.is_calm:
            _must(
                self.disk.published.items() <= self.calm().items(),
                "the bits are not those of a run that nothing disturbs",
            )

    def step(self) -> None:
        assert self.process is not None
        draw, process = self.random.random(), self.process
        calm = self.steps > 100
        if process.ended or (draw < 0.10 and not calm):
            self.succeed(kill=True)
        elif draw < 0.15 and not calm:
            self.succeed(kill=False)
        elif draw < 0.20 and self.hung and not calm:
            zombie = self.random.choice(self.hung)
            for _ in range(self.random.randint(1, 4)):
                self.act(zombie)
        elif draw < 0.40:
            process.queue.write(self.random.randint(0, len(process.queue.waiting)))
        else:
            self.act(process)

    def act(self, process: Process) -> None:
        """Let a member of a process answer, or be lost, or time pass."""
        if process.ended:
            return
        if process in self.hung and self.random.random() < 0.5:
            process.queue.write(len(process.queue.waiting))
        draw = self.random.random()
        if process.asked and draw < 0.7:
            [name] = self.random.sample(sorted(process.asked), 1)
            number, model = process.asked[name]
            value = _value(name, number, model)
            part = PartialSum(np.array([value], np.int64), np.zeros(0, np.int64), self.weights[name])
            event = Arrived(Update("w", number, (Share(name, self.weights[name]),), 8))
            for _ in range(2 if self.random.random() < 0.2 else 1):
                if not process.ended:
                    process.tell("arrive", event, part)
        elif process.asked and draw < 0.78 and self.loses:
            [name] = self.random.sample(sorted(process.asked), 1)
            process.tell("lose", Lost(process.asked[name][0], {name: "power cut"}))
        elif process.timers and process.machine.phase is Phase.COLLECTING:
            process.tell("elapse", self.random.choice(process.timers))

    def succeed(self, *, kill: bool) -> None:
        """Another process takes the run up: of the one before, what waited is lost, or it hangs and may come back."""
        assert self.process is not None
        before = self.process
        if kill:
            waiting = len(before.queue.waiting)
            if waiting:
                before.queue.write(self.random.randint(0, waiting), self.random.choice([None, 1, 9, 40]))
            before.ended = True
        else:
            self.hung.append(before)
        rounds_done = self.disk.saved.rounds_done if self.disk.saved else 0
        counted = self.disk.saved.counted if self.disk.saved else frozenset()
        kept = self.disk.saved.kept if self.disk.saved else None
        held = {(one.shares[0].member, one.round_number) for one in kept.memory.standing.held} if kept else set()
        durable = _durable(self.disk.read(rounds_done), self.disk.saved and self.disk.saved.before)
        found = durable | counted | held
        if rounds_done == self.known_at:
            _must(self.known <= found, f"{self.known - found} were durable, and are lost")
        self.known, self.known_at = found, rounds_done
        self.process = Process(self, durable)

    def calm(self) -> dict[int, int]:
        """What is published where nothing happens."""
        model, found = 1, {}
        for number in range(ROUNDS):
            values = {(name, number): _value(name, number, model) for name in self.weights}
            model = crc32(repr((model, sorted(values.items()))).encode())
            found[number + 1] = model
        return found
