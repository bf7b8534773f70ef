"""Members of one hub that answer in time or late, in any order, are lost, and say things twice; and a ledger of it all.

The ledger is kept from the events and commands alone, and every command is held against it. A second machine takes the
same events: it is never replaced, while the first is made anew now and then, from what it remembers or from all that it
was told. Both must command the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from random import Random
from typing import Any

from hierfl.kinds import load
from scheduler.participation import Participation, needed
from scheduler.participations.deadline import Deadline
from tiers import Hub, HubRounds, Phase, Site, Topology
from tiers.messages import (
    Add,
    Advance,
    Arrived,
    Begin,
    Carry,
    Close,
    Command,
    Dismiss,
    Event,
    Exchange,
    Finish,
    GiveUp,
    Hold,
    Left,
    Lost,
    Mixed,
    Open,
    Refuse,
    SetTimer,
    Share,
    TimeUp,
    TrainMember,
    Update,
)
from tiers.topologies.star import Star

__all__ = ["ORDERS", "SETTINGS", "HubSchedule", "policy_of"]

ORDERS: Mapping[str, Sequence[Mapping[str, object]]] = {
    "cyclic": [{"order": order} for order in ("fixed", "shuffled", "by_size")],
    "swarm": [{"leader": "drawn"}],
    "peer": [{"graph": graph} for graph in ("ring", "torus", "small_world", "erdos_renyi")],
}
"""Settings of the known topologies, beside their defaults."""

SETTINGS: Mapping[str, Sequence[Mapping[str, object]]] = {
    "all": [{}, {"probe_after": 1}],
    "sample": [{"fraction": 0.5}, {"count": 2, "by": "samples", "probe_after": 1}],
    "deadline": [
        {"quorum": 0.5, "weight": 0.3},
        {"after_s": 3.0, "quorum": 0.2, "weight": 0.1, "staleness": 1, "discount": "linear", "probe_after": 1},
        {"after_s": 3.0, "quorum": 0.4, "weight": 0.4, "late": "refuse"},
        {"after_s": 3.0, "quorum": 0.9, "weight": 0.9, "give_up_s": 9.0, "discount": "none"},
    ],
    "buffered": [{"goal": 1, "staleness": 1}, {"goal": 2, "discount": "linear", "probe_after": 1}, {"goal": 3}],
}
"""Settings of the known kinds under which much happens in a hub of a few members, beside a kind's defaults."""


def policy_of(kind: str, random: Random) -> Participation:
    """Draw a policy of a kind."""
    policy: Participation = load("participation", kind)(**random.choice([{}, *SETTINGS.get(kind, ())]))
    return policy


class HubSchedule:
    """One hub under a drawn history. `step` draws an event; `drain` lets all members answer until nothing is open."""

    def __init__(self, hub: Hub, weights: Mapping[str, int], random: Random) -> None:
        self.hub, self.weights, self.random = hub, dict(weights), random
        self.policy = hub.participation
        self.machine, self.twin = self.fresh(), self.fresh()
        self.told: list[Event] = []
        self.number, self.open = -1, False
        self.mixing = False
        self.left: dict[str, str] = {}
        self.room = self.used = self.in_sum = 0
        self.at_work: dict[str, int] = {}
        """The round for which each member is at work."""
        self.dismissed: set[str] = set()
        self.reported: dict[str, int] = {}
        self.carried: dict[str, int] = {}
        self.held: dict[tuple[int, str], Update] = {}
        self.timers: list[TimeUp] = []
        self.elapsed_s = 0.0
        self.cohort: dict[str, int] = {}
        self.seen: Counter[str] = Counter()

    @classmethod
    def drawn(cls, kind: str, random: Random, topology: Topology | None = None) -> HubSchedule:
        """Draw a hub under a policy of a kind."""
        policy = policy_of(kind, random)
        weights = {f"m{i}": random.choice([0, 1, 3, 40, 500]) for i in range(random.randint(1, 6))}
        settings: dict[str, Any] = {"keep_going": random.random() < 0.8, "quorum": random.choice([0.1, 0.5, 1.0])}
        settings |= {"participation": policy, "topology": topology or Star()}
        return cls(Hub("h", tuple(Site(name) for name in weights), **settings), weights, random)

    def fresh(self) -> HubRounds:
        return HubRounds(self.hub, self.weights, path="w/h", seed=7)

    def copied(self) -> HubSchedule:
        """One that goes on by itself from here; what is frozen they share."""
        random = Random()
        random.setstate(self.random.getstate())
        shared = {id(one): one for one in (self.hub, self.policy, *self.told)}
        return deepcopy(self, {id(self.random): random, **shared})

    @property
    def waiting(self) -> set[str]:
        return {name for name, number in self.at_work.items() if self.open and number == self.number}

    def step(self) -> None:
        draw = self.random.random()
        if self.mixing and draw < 0.4:
            self.mix()
        elif self.mixing and draw < 0.55:
            self.leave()
        elif not (self.open or self.mixing) and draw < 0.4:
            self.begin()
        elif draw < 0.7 and self.at_work:
            self.answer()
        elif draw < 0.75 and self.at_work:
            self.lose()
        elif draw < 0.85 and self.timers:
            self.fire()
        elif draw < 0.93 and self.told:
            self.echo()
        elif draw < 0.96:
            self.nonsense()
        else:
            self.replace()

    def begin(self) -> None:
        known = [name for name in self.weights if self.random.random() < 0.7]
        forecast_s = {name: float(self.random.randint(1, 5)) for name in known}
        self.tell(Begin(self.number + self.random.choice([1, 1, 1, 3]), self.random.randint(1, 3), forecast_s))

    def mix(self) -> None:
        """The members have exchanged."""
        self.mixing = False
        self.tell(Mixed(self.number))

    def leave(self) -> None:
        """Members cannot do their part in the exchange: the others begin it anew, if the hub's own rule allows it."""
        gone = self.random.sample(sorted(self.reported), min(len(self.reported), self.random.choice([1, 1, 2])))
        for name in gone:
            del self.reported[name]
        self.left |= dict.fromkeys(gone, "its machine is gone")
        [command] = self.tell(Left(self.number, dict.fromkeys(gone, "its machine is gone")))
        assert self.reported or isinstance(command, GiveUp)
        assert self.hub.keep_going or isinstance(command, GiveUp)
        self.seen["left"] += 1

    def answer(self) -> None:
        """A right update: of one member, or of several of the open round by one worker."""
        [first] = self.random.sample(sorted(self.at_work), 1)
        members = {first}
        if first in self.waiting and self.random.random() < 0.3:
            members |= set(self.random.sample(sorted(self.waiting), self.random.randint(1, len(self.waiting))))
        shares = tuple(
            Share(
                name, self.weights[name] if self.random.random() < 0.7 else self.random.randint(1, self.weights[name])
            )
            for name in sorted(members)
        )
        number = self.at_work[first]
        late = not (self.open and number == self.number)
        commands = self.tell(Arrived(Update("h", number, shares)), answered=members)
        answer = next(one for one in commands if isinstance(one, Add | Carry | Hold | Refuse))
        assert isinstance(answer, (Carry if self.was_open else Hold) | Refuse if late else Add)
        if isinstance(answer, Refuse):
            assert first in self.was_dismissed or not self.policy.admit(shares[0].weight, 1).weight or not self.was_open

    def lose(self) -> None:
        [member] = self.random.sample(sorted(self.at_work), 1)
        self.tell(Lost(self.at_work[member], {member: "power cut"}), answered={member})
        self.seen["lost"] += 1

    def fire(self) -> None:
        self.tell(self.random.choice(self.timers))

    def echo(self) -> None:
        """Something comes once more: nothing but a refusal may follow."""
        event = self.random.choice(self.told)
        if isinstance(event, Begin | Mixed) or (isinstance(event, Arrived) and self.is_due(event.update)):
            return
        if isinstance(event, Lost) and any(self.at_work.get(name) == event.round_number for name in event.members):
            return
        if isinstance(event, TimeUp) and self.open and event.round_number == self.number:
            return
        commands = self.tell(event)
        assert all(isinstance(command, Refuse) for command in commands) and len(commands) <= 1
        self.seen["echoed"] += 1

    def is_due(self, update: Update) -> bool:
        return all(self.at_work.get(share.member) == update.round_number for share in update.shares)

    def nonsense(self) -> None:
        """What may never count."""
        late = sorted(set(self.at_work) - self.waiting)
        some = self.random.choice([["stranger"], list(self.weights)[:1], late[:2]])
        extra = 1 if len(some) == 1 else 0
        if len(some) == 2 and len({self.at_work[name] for name in some}) > 1:
            return
        number = self.at_work.get(some[0], self.number) if some else self.number
        shares = tuple(Share(name, self.weights.get(name, 1) + extra) for name in some)
        [refusal] = self.tell(Arrived(Update("h", number, shares)))
        assert isinstance(refusal, Refuse)
        self.seen["nonsense"] += 1

    def replace(self) -> None:
        """Another machine takes over, told what the old one remembers, or all that the old one was told."""
        if self.machine.phase is Phase.IDLE and self.random.random() < 0.5:
            self.machine = HubRounds(self.hub, self.weights, path="w/h", seed=7, standing=self.machine.standing)
            self.seen["restored"] += 1
        else:
            self.machine = self.fresh()
            for event in self.told:
                self.machine.handle(event)
            self.seen["replayed"] += 1

    def moves(self) -> list[Callable[[HubSchedule], object]]:
        """List all that may happen next that is not nonsense, as moves of this schedule or a copy of it."""
        found: list[Callable[[HubSchedule], object]] = []
        if self.mixing:
            found.append(HubSchedule.mix)
        elif not self.open:
            found.append(lambda copy: copy.tell(Begin(copy.number + 1, 2)))
        for name, number in self.at_work.items():
            update = Update("h", number, (Share(name, self.weights[name]),))
            found.append(partial(HubSchedule.tell, event=Arrived(update), answered={name}))
            found.append(partial(HubSchedule.tell, event=Lost(number, {name: "power cut"}), answered={name}))
        found += [partial(HubSchedule.tell, event=timer) for timer in self.timers if timer.elapsed_s > self.elapsed_s]
        return found

    def drain(self) -> None:
        """Let every member answer; the rounds that were begun must come to their end."""
        for _ in range(100):
            if self.mixing:
                self.mix()
                continue
            if not self.open:
                return
            assert self.at_work, "an open round waits for nobody"
            self.answer()
        raise AssertionError("the rounds do not end")

    def tell(self, event: Event, answered: set[str] | None = None) -> list[Command]:
        """Tell both machines, and check what they command."""
        self.told.append(event)
        self.was_open, self.was_dismissed = self.open, set(self.dismissed)
        commands = self.machine.handle(event)
        assert commands == self.twin.handle(event), "a machine made anew commands otherwise"
        for member in answered or ():
            del self.at_work[member]
            self.dismissed.discard(member)
        if isinstance(event, TimeUp) and self.open and event.round_number == self.number:
            self.elapsed_s = max(self.elapsed_s, event.elapsed_s)
        for index, command in enumerate(commands):
            self.obey(command, commands[index + 1 :])
        self.check()
        return commands

    def obey(self, command: Command, rest: Sequence[Command]) -> None:
        """Enter one command; it must follow from what was before."""
        match command:
            case Open():
                assert not self.open and command.round_number > self.number
                self.number, self.open = command.round_number, True
                self.room, self.used, self.in_sum, self.elapsed_s = command.total_weight, 0, 0, 0.0
                self.reported, self.carried, self.timers, self.left = {}, {}, [], {}
                assert all(command.skipped.values())
                late = any(name not in self.dismissed for name in self.at_work) or (
                    self.policy.rolling and self.at_work
                )
                assert late or any(isinstance(one, TrainMember | Carry) for one in rest), "it opens with nobody"
                left_out = {name for name, why in command.skipped.items() if why.startswith("not drawn")}
                self.cohort = {name: weight for name, weight in self.weights.items() if weight and name not in left_out}
            case Advance():
                assert self.open and command.round_number == self.number and self.hub.topology.sequential
                assert not self.waiting, "a stage begins while the one before it is at work"
                self.room, self.in_sum = command.total_weight, 0
                self.seen["advanced"] += 1
            case TrainMember():
                assert not (self.hub.topology.sequential and self.waiting), "two are asked at once"
                assert self.open and command.round_number == self.number
                assert command.member not in self.at_work, "it is asked while it is at work"
                assert command.member not in self.reported
                assert command.weight == self.weights[command.member] > 0
                self.at_work[command.member] = self.number
            case SetTimer():
                assert self.open and command.round_number == self.number and command.after_s > 0
                self.timers.append(TimeUp(command.round_number, command.after_s))
            case Add():
                assert self.open and command.update.round_number == self.number
                for share in command.update.shares:
                    assert share.member not in self.reported
                    self.reported[share.member] = share.weight
                    self.used, self.in_sum = self.used + share.weight, self.in_sum + share.weight
            case Hold():
                assert not self.open and command.reason
                [share] = command.update.shares
                self.held[command.update.round_number, share.member] = command.update
                self.seen["held"] += 1
            case Carry():
                self.carry(command)
            case Refuse():
                assert command.reason
                if len(command.update.shares) == 1:
                    self.held.pop((command.update.round_number, command.update.shares[0].member), None)
                self.seen["refused"] += 1
            case Dismiss():
                assert command.members and all(command.members.values())
                for member in command.members:
                    assert self.at_work[member] == command.round_number and member not in self.dismissed
                    self.dismissed.add(member)
                self.seen["dismissed"] += 1
            case Close():
                self.close(command)
            case Exchange():
                assert not (self.open or rest) and command.round_number == self.number
                assert self.mixing == bool(self.left) and dict(command.missing) == self.left
                assert not self.hub.topology.has_centre and dict(command.weights) == self.reported
                assert list(command.weights) == [name for name in self.weights if name in self.reported], "its order"
                took_part = {name for step in command.steps for name in (step.at, *step.of)}
                assert command.steps and took_part <= set(self.reported)
                self.mixing = True
                self.seen["exchanged"] += 1
            case Finish():
                assert not (self.open or self.mixing) and command.round_number == self.number
                self.seen["finished"] += 1
            case GiveUp():
                assert command.reason
                self.number, self.open, self.mixing = command.round_number, False, False
                self.at_work, self.held, self.timers = {}, {}, []
                self.dismissed = set()
                self.seen["given up"] += 1

    def carry(self, command: Carry) -> None:
        [share] = command.update.shares
        assert self.open and command.update.round_number < self.number
        assert share.member not in self.carried and share.member not in self.reported
        admission = self.policy.admit(share.weight, self.number - command.update.round_number)
        assert (command.weight, command.reason) == (admission.weight, admission.reason)
        assert 0 < command.weight <= share.weight and "late by" in command.reason
        self.held.pop((command.update.round_number, share.member), None)
        self.carried[share.member] = command.weight
        self.used, self.in_sum = self.used + command.weight, self.in_sum + command.weight
        self.seen["carried"] += 1

    def close(self, command: Close) -> None:
        assert not self.mixing and self.open and command.round_number == self.number
        assert command.members == tuple(self.reported) and set(command.carried) == set(self.carried)
        assert self.reported or self.carried, "it closes with nobody"
        assert command.weight == self.used > 0
        assert command.reason and all(command.missing.values()) and all(command.carried.values())
        inside = {*self.reported, *self.carried}
        assert set(command.missing) == set(self.weights) - inside
        if self.waiting:
            assert self.policy.may_close_early
            self.seen["closed early"] += 1
        late = {name for name in self.at_work if name not in self.dismissed}
        if isinstance(self.policy, Deadline) and late:
            best = {**self.carried, **self.reported}
            assert len(inside) >= needed(self.policy.quorum, len(self.cohort)), "it closes below its quorum"
            assert sum(best.values()) >= needed(self.policy.weight, sum(self.cohort.values()))
            assert not self.waiting or self.elapsed_s > 0
        self.open = False
        self.seen["closed"] += 1

    def check(self) -> None:
        """What holds after every event."""
        assert self.in_sum <= self.room
        assert (self.machine.phase is Phase.COLLECTING) == self.open
        assert (self.machine.phase is Phase.MIXING) == self.mixing
        assert not (self.open and self.held)
        if self.open:
            assert set(self.machine.waiting) == self.waiting
            able = self.at_work if self.policy.rolling else set(self.at_work) - self.dismissed
            assert able, "an open round waits for somebody who may count"
