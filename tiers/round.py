"""The rounds of one hub as a machine: an event in, commands out, no clock and no I/O.

A round opens with its compute plan and carries it out stage by stage: the members of a stage are asked at once, each
one's update is collected once, and when nobody of the stage is waited for the model advances to the next. The round
closes for a stated reason, and the next one opens until all that the parent asked for are done. The same machine serves
every tier.

    IDLE --Begin--> COLLECTING --a stage is over and another is left--> (Advance) COLLECTING
                    COLLECTING --the participation policy says so--> (Close) --more rounds--> COLLECTING
                                                                             `--none left----> IDLE (Finish)
                      without a centre: (Close, Exchange) --> MIXING --Mixed--> the same
                                                              MIXING --Left--> (Exchange, without them) MIXING
    COLLECTING --a member lost and not keep_going, or below the quorum, or the policy says so--> FAILED (GiveUp)
    MIXING --a member has left and not keep_going, or below the quorum--> FAILED (GiveUp)

A round may close while members are at work. They stay at work, and are not asked again until they have reported or are
lost. What they send counts, discounted, in the round that is open when it comes, or in the next one (`Hold`); or it is
refused. The weight of all that may come is in the total with which a round opens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import Enum

from scheduler.participation import Admission, Candidates, Choice, Ending, needed
from tiers.collecting import Collecting, overclaims
from tiers.federation import Hub
from tiers.messages import (
    Add,
    Advance,
    Arrived,
    Begin,
    Carry,
    Command,
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
    Shortfall,
    TimeUp,
    TrainMember,
    Update,
)
from tiers.plan import Partners, Plan
from tiers.standing import Attendance, Standing

__all__ = ["HubRounds", "Phase"]


class Phase(Enum):
    """Where a hub's machine stands."""

    IDLE = "idle"
    COLLECTING = "collecting"
    MIXING = "mixing"
    FAILED = "failed"


class HubRounds:
    """The state machine of one hub.

    `weights`: each member's public integer weight; a member of weight 0 has nothing to train on and is skipped by
    name. `absent`: members that could not even be loaded, each for a reason; the quorum counts them as lost. Members
    without a weight are an error (KeyError). `path` (the hub's) and `seed` (the run's) fix what policies draw.
    `standing`: what an earlier machine of this hub had to remember.
    """

    def __init__(
        self,
        hub: Hub,
        weights: Mapping[str, int],
        absent: Mapping[str, str] | None = None,
        *,
        path: str = "",
        seed: int = 0,
        standing: Standing | None = None,
    ) -> None:
        self.hub = hub
        self.path = path or hub.name
        self.seed = seed
        self.weights = {member.name: weights[member.name] for member in hub.members}
        self.absent = {name: reason for name, reason in (absent or {}).items() if not self.weights.get(name, 1)}
        self.phase = Phase.IDLE
        before = standing or Standing()
        self.round_number = before.round_number
        self._last_round = -1
        self._forecast_s: Mapping[str, float] = {}
        self._attendance = Attendance(before)
        self._round = Collecting(self.hub.name, before.round_number, {}, lost=(), late=(), skipped={})

    @property
    def waiting(self) -> tuple[str, ...]:
        """List the members whose updates of the open round are waited for."""
        return tuple(self._round.waiting)

    @property
    def upcoming(self) -> tuple[str, ...]:
        """List the members that the open round will ask once those are heard of that it waits for, in order."""
        return self._round.upcoming

    @property
    def standing(self) -> Standing:
        """Give what is to be remembered while no round is open."""
        assert self.phase not in (Phase.COLLECTING, Phase.MIXING), self._story()
        return self._attendance.standing(self.round_number)

    def handle(self, event: Event) -> list[Command]:
        """Take an event; return what to do now, in order."""
        match event:
            case Begin():
                assert self.phase in (Phase.IDLE, Phase.FAILED), f"{self.hub.name} begun while {self._story()}"
                assert not self.standing.awaits or event.round_number > self.round_number, self._story()
                self._last_round, self._forecast_s = event.round_number + event.rounds - 1, event.forecast_s
                self._attendance.told(event.shortfalls, self.weights)
                return self._open(event.round_number)
            case Arrived():
                return self._arrived(event.update)
            case Lost():
                return self._lost(event)
            case TimeUp():
                return self._time_up(event)
            case Mixed():
                assert self.phase is Phase.MIXING and event.round_number == self.round_number, self._story()
                return self._end()
            case Left():
                return self._left(event)

    def _open(self, round_number: int) -> list[Command]:
        """Open a round: whom the policy chooses takes part, as the topology plans it."""
        policy, attendance = self.hub.participation, self._attendance
        self.round_number, self.phase = round_number, Phase.COLLECTING
        dismissed = attendance.dismiss(round_number, policy.admit)
        errands = attendance.errands.items()
        late = {name: self._admit(errand.weight, errand.round_number).weight for name, errand in errands}
        held, refused = attendance.take_held(self._admit)
        asked = self._gather(name for name, weight in late.items() if weight)
        commands: list[Command] = [*dismissed, *refused]
        nobody = self._nobody(bool(asked or held))
        if nobody:
            return [*commands, *self._give_up(nobody)]
        again = sum(errand.weight for _, errand in errands) if policy.rolling else 0
        total = sum(asked.values()) + sum(late.values()) + sum(carry.weight for carry in held) + again
        commands.append(Open(round_number, total, dict(self._round.missing)))
        for carry in held:
            self._round.carry(carry.update.shares[0].member, carry.weight, carry.reason)
        self._round.limits = policy.limits([self._forecast_s[name] for name in asked if name in self._forecast_s])
        return [*commands, *held, *self._go_on(asked, opens=True)]

    def _gather(self, late: Iterable[str]) -> dict[str, int]:
        """Choose who takes part and start the round's book; give those of the first stage, with their weights."""
        attendance, policy, number = self._attendance, self.hub.participation, self.round_number
        empty = {name: "no training samples" for name, weight in self.weights.items() if not weight}
        resting = attendance.resting(number, policy.probe_after)
        able = [name for name, weight in self.weights.items() if weight and name not in attendance.errands]
        if all(name in resting for name in able):
            resting = {}
        free = {name: self.weights[name] for name in able if name not in resting}
        busy = {
            name: f"still at work for round {errand.round_number}, which closed without it"
            for name, errand in attendance.errands.items()
        }
        unable = {**self.absent, **resting, **busy}
        weights = {name: self.weights[name] for name in unable}
        choice = policy.choose(Candidates(self.path, number, self.seed, free, weights)) if free else Choice(())
        assert bool(choice.asked) == bool(free) and free.keys() >= set(choice.asked), f"{policy} chose {choice.asked}"
        why = {**empty, **choice.skipped, **unable}
        self._round = Collecting(
            *(self.hub.name, number),
            {name: weight for name, weight in {**free, **weights}.items() if name not in choice.skipped},
            lost=(name for name in unable if name not in busy),
            late=late,
            skipped={name: why[name] for name in self.weights if name in why},
        )
        if free:
            asked = {name: free[name] for name in choice.asked}
            self._round.stages.extend(self._plan(asked).stages)
        return self._next_stage()

    def _next_stage(self) -> dict[str, int]:
        """Take the plan's next stage: its members with their weights; none if no stage is left."""
        stages = self._round.stages
        return {name: self.weights[name] for name in stages.popleft()} if stages else {}

    def _nobody(self, has_some: bool) -> str:
        """Say why a round cannot even open; empty if it can. `has_some`: somebody is asked, or already in."""
        book = self._round
        if not any(self.weights.values()):
            return f"no member of {self.hub.name} has training samples"
        if not has_some and not book.late and not self._may_roll():
            return f"no member of {self.hub.name} can be asked: {_said(book.missing)}"
        return self._too_few({name: book.missing[name] for name in book.missing if name in book.lost})

    def _arrived(self, update: Update) -> list[Command]:
        """Count an update once, if members that are waited for sent it, or such as are at work for an earlier round."""
        if self._attendance.errands and any(
            (errand := self._attendance.errands.get(share.member)) is not None
            and errand.round_number == update.round_number
            for share in update.shares
        ):
            return self._arrived_late(update)
        refusal = self._refusal(update)
        if refusal:
            return [Refuse(update, refusal)]
        for share in update.shares:
            self._round.report(share)
            self._attendance.answered(share.member)
        return [Add(update), *self._go_on({})]

    def _arrived_late(self, update: Update) -> list[Command]:
        """Carry an update of a round that closed without it, hold it for the next round, or refuse it."""
        if len(update.shares) > 1:
            return [Refuse(update, f"it is late, for round {update.round_number}: late updates come one member each")]
        [share] = update.shares
        errand = self._attendance.errands[share.member]
        if not 0 < share.weight <= errand.weight:
            return [Refuse(update, overclaims(share, errand.weight, f"round {errand.round_number}"))]
        is_open = self.phase is Phase.COLLECTING
        admission = self._admit(share.weight, errand.round_number, 0 if is_open else 1)
        self._attendance.answered(share.member, Shortfall(errand.round_number, admission.weight, share.weight))
        if not is_open and admission.weight:
            self._attendance.held.append(update)
            return [Hold(update, admission.reason)]
        if not admission.weight:
            return [Refuse(update, admission.reason), *self._free(share.member)]
        self._round.carry(share.member, admission.weight, admission.reason)
        return [Carry(update, admission.weight, admission.reason), *self._free(share.member)]

    def _free(self, member: str) -> list[Command]:
        """A member at work for an earlier round is free now: the policy may want it asked at once."""
        if self.phase is not Phase.COLLECTING:
            return []
        self._round.late.discard(member)
        return self._go_on({member: self.weights[member]} if self.hub.participation.rolling else {})

    def _refusal(self, update: Update) -> str:
        """Say why an update may not count in the open round; empty if it may."""
        if self.phase is not Phase.COLLECTING or update.round_number != self.round_number:
            return f"it is of round {update.round_number}; {self._story()}"
        members = [share.member for share in update.shares]
        if len(set(members)) < len(members) or not members:
            return "it names a member twice, or none"
        return next((reason for reason in map(self._round.refuse, update.shares) if reason), "")

    def _lost(self, event: Lost) -> list[Command]:
        """Take members out of the wait set at once; the hub's own rule says whether the round goes on."""
        number, is_open = event.round_number, self.phase is Phase.COLLECTING
        if event.excused:
            self._attendance.excuse(number, event.members)
        errands = self._attendance.errands
        gone = {
            name: reason
            for name, reason in event.members.items()
            if (name in errands and errands[name].round_number == number)
            or (is_open and number == self.round_number and name in self._round.waiting)
        }
        lost = {name: reason for name, reason in gone.items() if self._attendance.lose(name, self.round_number)}
        if not is_open or not gone:
            return []
        for name, reason in lost.items():
            self._round.lose(name, reason)
        self._round.late.difference_update(gone)
        if lost and (failure := self._cannot_spare(lost)):
            return self._give_up(failure)
        freed = [name for name in gone if name not in lost and self.hub.participation.rolling]
        return self._go_on({name: self.weights[name] for name in freed})

    def _time_up(self, event: TimeUp) -> list[Command]:
        """Let the policy decide anew, later than before."""
        if self.phase is not Phase.COLLECTING or event.round_number != self.round_number:
            return []
        self._round.elapsed_s = max(self._round.elapsed_s, event.elapsed_s)
        return self._go_on({})

    def _go_on(self, asked: Mapping[str, int], *, opens: bool = False) -> list[Command]:
        """Go on to the next stage, or end the round if the policy says so; else ask these members, and wait."""
        book = self._round
        book.plan(asked)
        if not book.waiting and book.stages:
            following = self._next_stage()
            return [Advance(book.number, sum(following.values())), *self._go_on(following)]
        ending = self._ending()
        if ending is None:
            short = self._attendance.shortfalls
            train = [TrainMember(book.number, name, weight, short.get(name, ())) for name, weight in asked.items()]
            return [*(self._timers() if opens else ()), *train]
        book.unplan(asked)
        return self._give_up(ending.reason) if ending.gives_up else self._close(ending.reason)

    def _ending(self) -> Ending | None:
        """Ask the policy; a round without an update goes on while somebody may come, and gives up otherwise."""
        book, policy = self._round, self.hub.participation
        if book.waiting and not book.elapsed_s and not policy.may_close_early:
            return None
        if book.over and not book.num_in and not self._may_roll():
            return Ending(f"nobody is left who could report to {self.hub.name}", gives_up=True)
        ending = policy.decide(book.view())
        assert ending is not None or not book.over or self._may_roll(), f"{policy} waits for nobody: {book.view()}"
        return ending if ending is None or ending.gives_up or book.num_in else None

    def _close(self, reason: str) -> list[Command]:
        """Close the round; without a centre its members exchange before anything else."""
        book, attendance = self._round, self._attendance
        closed = book.closed(reason)
        attendance.at_work(book.number, book.waiting)
        book.waiting = {}
        if self.hub.topology.has_centre:
            return [closed, *self._end()]
        self.phase = Phase.MIXING
        return [closed, self._exchange()]

    def _exchange(self) -> Exchange:
        """Let those exchange who have reported, and have not left since; it does not matter when in it they left."""
        book = self._round
        weights = {name: book.reported[name] for name in self.weights if name in book.reported}
        return Exchange(book.number, weights, self._plan(weights).exchange, dict(book.left))

    def _left(self, event: Left) -> list[Command]:
        """Begin an exchange anew without members that cannot do their part; the hub's own rule says whether it may."""
        if self.phase is not Phase.MIXING or event.round_number != self.round_number:
            return []
        gone = {name: reason for name, reason in event.members.items() if name in self._round.reported}
        for name, reason in gone.items():
            self._round.leave(name, reason)
            self._attendance.lose(name, self.round_number)
        if not gone:
            return []
        if failure := self._cannot_spare(gone):
            return self._give_up(failure)
        if not self._round.reported:
            return self._give_up(f"nobody is left who could exchange at {self.hub.name}: {_said(gone)}")
        return [self._exchange()]

    def _plan(self, weights: Mapping[str, int]) -> Plan:
        """Let the topology plan the round for these members."""
        members = tuple(name for name, weight in self.weights.items() if weight)
        return self.hub.topology.plan(Partners(self.path, self.round_number, self.seed, weights, members))

    def _end(self) -> list[Command]:
        """A round is over: open the next one if the parent asked for more."""
        number = self._round.number
        if number < self._last_round:
            return self._open(number + 1)
        self.phase = Phase.IDLE
        return [*self._attendance.dismiss(number + 1, self.hub.participation.admit), Finish(number)]

    def _give_up(self, reason: str) -> list[Command]:
        """End the round without a result; what was asked and held is void."""
        self.phase = Phase.FAILED
        self._attendance.errands, self._attendance.held = {}, []
        return [GiveUp(self.round_number, reason)]

    def _cannot_spare(self, lost: Mapping[str, str]) -> str:
        """Say why the round cannot go on without members; empty if it can."""
        if not self.hub.keep_going:
            name, reason = next(iter(lost.items()))
            return f"{name}: {reason}"
        return self._too_few(lost)

    def _too_few(self, lost: Mapping[str, str]) -> str:
        """Say that too many are lost; empty while enough are not."""
        number = len(self._round.cohort)
        least = needed(self.hub.quorum, number)
        if self._round.num_alive >= least:
            return ""
        return f"below the quorum of {least} of {number} members: {_said(lost)}"

    def _admit(self, weight: int, asked_in: int, rounds_on: int = 0) -> Admission:
        """Let the policy weigh an update for the round that is `rounds_on` after this one."""
        admission = self.hub.participation.admit(weight, self.round_number + rounds_on - asked_in)
        assert 0 <= admission.weight <= weight, f"{self.hub.participation} makes {admission.weight} of {weight}"
        return admission

    def _may_roll(self) -> bool:
        """Whether a member that is too late to count would be asked again once it reports."""
        return self.hub.participation.rolling and bool(self._attendance.errands)

    def _timers(self) -> list[Command]:
        """Ask to be told when the policy's limits have passed."""
        times = sorted({self._round.limits.close_s, self._round.limits.give_up_s} - {math.inf})
        return [SetTimer(self.round_number, after_s) for after_s in times]

    def _story(self) -> str:
        """Tell where the hub stands, for messages: if idle without its round, which a fresh replica may not know."""
        number = "" if self.phase is Phase.IDLE else f" in round {self.round_number}"
        waiting = f", waiting for {', '.join(self.waiting[:3])}" if self._round.waiting else ""
        return f"the hub is {self.phase.value}{number}{waiting}"


def _said(lost: Mapping[str, str]) -> str:
    """Name members, each with its reason."""
    return "; ".join(f"{name}: {reason}" for name, reason in lost.items())
