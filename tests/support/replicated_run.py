"""The supervisor of a played run: it tells hubs in one order, writes that down, and carries out the answers that count.

It does what the product's (`hierfl.runtime.hubs`, `relay`, `recorder`) does, on the product's machines, and checks at
each step what must hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any, Protocol

from replicated_brain import Recall, must
from replicated_carried import VECTORS, SinceIdle, asked_in, recalled
from replicated_disk import Disk, Line, Saved, written
from replicated_hub import Served
from replicated_trees import Tree, stepped

from scheduler.participations.all import All
from tiers.journal import Closed, GaveUp, Head, Stopped, Told
from tiers.messages import (
    Arrived,
    Begin,
    Close,
    Command,
    Dismiss,
    Event,
    Finish,
    GiveUp,
    Lost,
    Refuse,
    SetTimer,
    Share,
    TimeUp,
    TrainMember,
    Update,
)
from tiers.replay import Replay
from tiers.replica_messages import Mode

__all__ = ["Supervisor", "World"]


class World(Protocol):
    """What outlives supervisors, and who knows what was promised."""

    tree: Tree
    random: Random
    disk: Disk
    kinds: Mapping[str, tuple[Mode, int]]
    every: int
    alone: bool
    receipts: set[tuple[str, int, str]]
    owed: set[tuple[str, int, str]]
    published: dict[int, int]
    story: list[str] | None

    def void(self, path: str) -> None: ...

    def check_receipts(self, process: Supervisor) -> None: ...


class Supervisor:
    """One process of the run, of its own epoch."""

    def __init__(self, world: World) -> None:
        self.world, self.tree, self.random = world, world.tree, world.random
        disk = self.disk = world.disk
        self.saved = disk.saved
        self.epoch = disk.claim()
        self.now = 0.0
        self.number, self.model = self.saved.number, self.saved.model
        self.ended = self.finished = False
        self.at_work: dict[tuple[str, str], tuple[int, int]] = {}
        self.timers: dict[str, list[TimeUp]] = {}
        self.models, self.orders = dict[str, int](), dict[str, tuple[int, int]]()
        self.closed, self.void = set[tuple[str, int]](), set[int]()
        self.waiting: list[Line] = []
        self.replay: Replay[int] | None = None
        self.told = SinceIdle()
        found = disk.read()
        head = self.saved.head or found.head
        if head is not None:
            entries = [*self.saved.left, *found.entries]
            self.replay = Replay(head, entries, root="w", carried=self.saved.carried)
        self.stream = disk.stream(self.epoch, found)
        self.repeats = not any(type(entry.record) is GaveUp for entry in found.entries)
        errands = head.errands if head is not None else {}
        self.hubs: dict[str, Served] = {}
        for shape in self.tree.shapes:
            mode, num = world.kinds[shape.path]
            self.hubs[shape.path] = Served(self, shape, num, mode, world.random, world.alone)
        self.seats = [(one, replica) for one in self.hubs.values() for replica in range(one.num)]
        for path, served in self.hubs.items():
            kept = recalled(path, self.saved.kept, errands, self.replay)
            if kept is not None:
                served.memory = kept
                served.tell(kept)
            for cue in self.replay.start(path) if self.replay is not None else ():
                self._deliver(served, cue.event, cue.live, cue.entry)
            begun = self.replay.under_way(path) if self.replay is not None else None
            if begun is not None:
                self.tell_story(f"{path} goes on")
                self.orders[path] = asked_in(path, errands)
                self._go_on(path, begun.record.event, disk.value(begun))  # type: ignore[union-attr]
        self.begin()

    def begin(self) -> None:
        """Begin a round of the root."""
        if not self.ended and self.number < self.tree.rounds:
            self._begin("w", self.number, 1, self.model)

    def _begin(self, path: str, number: int, rounds: int, model: int) -> None:
        served = self.hubs[path]
        forecast = {}
        if served.shape.hub.participation.may_close_early:
            forecast = dict.fromkeys(served.shape.weights, 1.0 + int(self.random.random() * 2))
        self._go_on(path, Begin(number, rounds, forecast), model)

    def _go_on(self, path: str, event: Begin, model: int) -> None:
        self.hubs[path].begin(range(event.round_number, event.round_number + event.rounds))
        self.models[path] = model
        self.tell(path, event, model)

    def tell(self, path: str, event: Event, value: int = 0) -> None:
        """Tell a hub something, in its turn."""
        if self.ended:
            return
        served = self.hubs[path]
        if self.replay is None:
            self._deliver(served, event, value, None)
        else:
            for cue in self.replay.offer(path, event, value):
                self._deliver(served, cue.event, cue.live, cue.entry)

    def _deliver(self, served: Served, event: Event, value: int | None, entry: Any) -> None:
        path = served.shape.path
        if entry is not None and value is None:
            value = self.disk.value(entry)
        said = served.tell(event, value or 0)
        kind = type(event)
        if kind is Arrived:
            names = [share.member for share in event.update.shares]  # type: ignore[union-attr]
            number = event.update.round_number  # type: ignore[union-attr]
            for name in names:
                if self.at_work.get((path, name), (-1, 0))[0] == number:
                    del self.at_work[path, name]
        elif kind is Lost:
            for name in event.members:  # type: ignore[union-attr]
                if self.at_work.get((path, name), (-1, 0))[0] == event.round_number:  # type: ignore[union-attr]
                    del self.at_work[path, name]
                ends = event.excused and self._goes_on(f"{path}/{name}")  # type: ignore[union-attr]
                must(not ends, "{} takes the work of {} for ended", path, name)
        if self.world.story is not None:
            self.tell_story(f"{path} is told {event}{' again' if entry is not None else ''}")
        self.told.add(path, Told(path, event, VECTORS if kind is Arrived else ()), value or 0, said)
        if entry is None:
            whole = kind is Arrived and names[0] not in served.shape.hubs
            self.waiting.append((Told(path, event, VECTORS if whole else ()), value or 0, said))
        elif self.repeats:  # who led to a round's failure is asked again
            self.disk.compare(entry, said)

    def _goes_on(self, path: str) -> bool:
        return path in self.hubs and (self.hubs[path].running or bool(self.replay and self.replay.under_way(path)))

    def flush(self, number: int) -> None:
        """So many of the lines that wait become durable: now they are acknowledged."""
        if not number:
            return
        lines = self.waiting[:number]
        del self.waiting[:number]
        self.stream.write(lines)
        if self.disk.epoch == self.epoch:
            self.acknowledge(lines)

    def acknowledge(self, lines: Sequence[Line]) -> None:
        """Members whose updates are durable hear of it, and let them go."""
        for record, _, _ in lines:
            if type(record) is Told and record.vectors and id(record) not in self.void:
                update = record.event.update  # type: ignore[union-attr]
                for share in update.shares:
                    self.world.receipts.add((record.hub, update.round_number, share.member))
                    self.world.owed.add((record.hub, update.round_number, share.member))

    # what a hub's answers say

    def ask(self, served: Served, command: TrainMember) -> None:
        path, name, number = served.shape.path, command.member, command.round_number
        if name in served.shape.hubs:
            inner = f"{path}/{name}"
            if self.replay is not None and self.replay.over(path, number, name):
                return
            self.orders[inner] = number, command.weight
            rounds = self.hubs[inner].shape.hub.rounds
            if self.hubs[inner].running:
                self.stop(self.hubs[inner])
            self._begin(inner, number * rounds, rounds, self.models[path])
            return
        if self.replay is not None and self.replay.answered(path, number, name):
            return
        asked_again = (path, number, name) in self.world.receipts and not self.is_fenced()
        must(not asked_again, "{}/{} has a receipt for round {}, and is asked again", path, name, number)
        must((path, name) not in self.at_work, "{}/{} is asked while it is at work", path, name)
        self.at_work[path, name] = number, self.models[path]

    def obey(self, served: Served, command: Command) -> None:
        path = served.shape.path
        if self.world.story is not None:
            self.tell_story(f"{path}: {command}")
        match command:
            case SetTimer():
                self.timers.setdefault(path, []).append(TimeUp(command.round_number, command.after_s))
            case Close():
                self._closed(served, command)
            case Refuse():
                said = {share.member: "refused" for share in command.update.shares}
                self.tell(path, Lost(command.update.round_number, said))
            case Dismiss():
                for name in command.members:
                    key, inner = (path, name), self.hubs.get(f"{path}/{name}")
                    if inner is not None and inner.running:
                        self.stop(inner)
                        self.tell(path, Lost(command.round_number, {name: "its work is stopped"}))
                    elif self.at_work.get(key, (-1, 0))[0] == command.round_number and self.random.random() < 0.5:
                        del self.at_work[key]
                        self.tell(path, Lost(command.round_number, {name: "its work is stopped"}))
            case GiveUp():
                self._give_up(served, command.reason)
            case Finish() if path == "w":
                self.finished = True
            case Finish():
                above, _, name = path.rpartition("/")
                number, weight = self.orders[path]
                if isinstance(served.shape.hub.participation, All):
                    weight = served.last_weight  # its sum is passed up; otherwise it hands up a change of its own
                update = Update(above, number, (Share(name, weight),), 8)
                self.tell(above, Arrived(update), self.models[path] * weight)

    def _closed(self, served: Served, command: Close) -> None:
        path, number = served.shape.path, command.round_number
        self.timers.pop(path, None)
        must((path, number) not in self.closed, "round {} of {} is closed twice", number, path)
        self.closed.add((path, number))
        said = self.replay.departs(path, command) if self.replay is not None else None
        must(said is None, "the journal says otherwise: {}", said)
        self.models[path] = stepped(self.models[path], served.last_sum)
        self.told.add(path, Closed(path, command))
        self.waiting.append((Closed(path, command), 0, None))

    def _give_up(self, served: Served, reason: str) -> None:
        """A hub's round failed: its parent goes on without it, or the run ends."""
        path = served.shape.path
        above, _, name = path.rpartition("/")
        if self.replay is None or not self.replay.stops(path):
            self.waiting.append((GaveUp(path, reason), 0, None))
        if not above or not self.hubs[above].shape.hub.keep_going:
            self.end()
            return
        self.stop(served, failed=True)
        self.tell(above, Lost(self.orders[path][0], {name: reason}))

    def stop(self, served: Served, *, failed: bool = False) -> None:
        """End the rounds of a hub and of those below it; what they were told is void."""
        path = served.shape.path
        own = [hub for hub in self.hubs if hub == path or hub.startswith(path + "/")]
        stopped = [hub for hub in own if self.hubs[hub].running or self.hubs[hub].told]
        for hub in own:
            self.world.void(hub)
            self.told.drop(hub)
            self.void |= {id(record) for record, _, _ in self.waiting if record.hub == hub}  # type: ignore[union-attr]
            self.timers.pop(hub, None)
            for key in [key for key in self.at_work if key[0] == hub]:
                del self.at_work[key]
        for hub in stopped:
            self.hubs[hub].stop()
        known, cues = self.replay.stop(path) if self.replay is not None else (None, [])
        if known is None:
            self.waiting += [(Stopped(hub, failed), 0, None) for hub in stopped]
        for cue in cues:
            self._deliver(served, cue.event, cue.live, cue.entry)

    def abandon(self, served: Served, reason: str) -> None:
        """A replica dies again and again."""
        self.tell_story(f"{served.shape.path}: {reason}")
        self.end()

    def end(self) -> None:
        """The run fails; what waits is written."""
        self.flush(len(self.waiting))
        self.ended = True

    def settle(self) -> None:
        """Publish the root's round once all that was told is answered, and begin the next."""
        while self.finished and not self.ended:
            if any(one.waits and not one.running for one in self.hubs.values()):
                return
            self.finished = False
            self._commit()
            self.begin()

    def is_fenced(self) -> bool:
        return self.disk.epoch > self.epoch

    def _commit(self) -> None:
        """Note how the hubs stand, and save a checkpoint, or not."""
        world, disk = self.world, self.disk
        self.number, self.model = self.number + 1, self.models["w"]
        if self.is_fenced():
            self.ended = True
            return
        if self.number % world.every and self.number != self.tree.rounds:
            return
        must(disk.epoch == self.epoch, "epoch {} publishes, while {} leads", self.epoch, disk.epoch)
        must(self.saved is disk.saved and self.number > disk.saved.number, "round {} is published again", self.number)
        must(world.published.setdefault(self.number, self.model) == self.model, "{} has two models", self.number)
        world.check_receipts(self)
        running = tuple(path for path, one in self.hubs.items() if one.running)
        errands = {
            path: dict(one.memory.standing.errands)
            for path, one in self.hubs.items()
            if one.memory is not None and one.memory.standing.errands
        }
        kept = {
            path: Recall(replace(one.memory.standing, errands={}), one.memory.held)
            for path, one in self.hubs.items()
            if one.memory is not None
        }
        left = tuple(entry for _, entry in self.replay.left()) if self.replay is not None else ()
        if not self.repeats:
            left = tuple(written((entry.record, disk.value(entry), None), world.alone) for entry in left)
        head = Head(self.number, "", running, errands)
        carried = tuple(written(line, world.alone) for line in self.told.carried(running, self.orders, errands))
        self.saved = disk.saved = Saved(self.number, self.model, kept, head, carried, left)
        self.stream = disk.rotate(self.epoch, head)
        self.waiting = []
        self.tell_story(f"round {self.number} is published")

    # what may happen

    def tell_story(self, what: str) -> None:
        if self.world.story is not None:
            self.world.story.append(f"epoch {self.epoch}: {what}")

    def pending(self, start: int) -> tuple[Served, int] | None:
        """Give the first, from somewhere on, whose answer may come."""
        seats = self.seats
        for at in range(start - len(seats), start):
            served, replica = seats[at]
            process = served.processes[replica]
            if process.next < len(process.told) and not process.stuck:
                return seats[at]
        return None

    def deliver(self, served: Served, replica: int, twice: bool = False) -> None:
        if self.world.story is not None:
            at = served.processes[replica].next
            self.tell_story(f"replica {replica} of {served.shape.path} answers {at}{' twice' * twice}")
        served.deliver(replica, twice)
        if self.finished:
            self.settle()

    def answer(self, key: tuple[str, str], how: str = "") -> None:
        """A member that is at work answers. `how`: twice, or two sites as one, or with other bits the second time."""
        path, name = key
        number, model = self.at_work[key]
        shape = self.hubs[path].shape
        names = [name]
        if how == "together" and isinstance(shape.hub.participation, All):
            names = [one for at, one in self.at_work if at == path and self.at_work[at, one] == (number, model)]
        shares = tuple(Share(one, shape.weights[one]) for one in names)
        value = sum(self.tree.value(f"{path}/{one}", number, model) * shape.weights[one] for one in names)
        event = Arrived(Update(path, number, shares, 8))
        self.tell(path, event, value)
        if how == "twice":
            self.tell(path, event, value)
        elif how == "otherwise":
            self.tell(path, event, value + shape.weights[name])
        self.settle()

    def lose(self, key: tuple[str, str]) -> None:
        self.tell(key[0], Lost(self.at_work[key][0], {key[1]: "power cut"}))
        self.settle()

    def ring(self, path: str) -> None:
        timers = self.timers[path]
        timer = timers[0]
        if self.random.random() < 0.7:
            del timers[0]
            if not timers:
                del self.timers[path]
        self.tell(path, timer)
        self.settle()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for one in self.hubs.values():
            one.tick()
        self.settle()
