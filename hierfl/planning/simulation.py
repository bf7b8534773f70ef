"""Trees in simulated time: the hubs' own machines, the participation policies and the dispatcher of a run, and a clock
that jumps.

Orders go down and updates come up as in a run (`hierfl.runtime.relay`): a hub's machine (`tiers.round`) says whom it
asks and when its round closes, by the participation policy of its configuration; sites that are late stay at work, keep
their device, and are heard in a later round. What happens is said in the records that a run writes, so that a
simulated log is read, and simulated again, like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count

from hierfl.held import held, held_policy
from hierfl.monitor import records
from hierfl.planning.case import Case
from hierfl.planning.orders import Orders, group_of
from hierfl.planning.ran import Ran, Worked
from hierfl.planning.shape import member_weights
from hierfl.runtime.estimates import Estimates
from scheduler.eventlog import Span
from scheduler.forecast import Forecast, Learned, Oracle
from scheduler.policy import Policy
from scheduler.simcrew import SimCrew
from scheduler.views import Job, JobKey
from scheduler.workload import Workload
from tiers.federation import is_within, parent
from tiers.messages import (
    Arrived,
    Begin,
    Close,
    Dismiss,
    Event,
    Exchange,
    Finish,
    GiveUp,
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
from tiers.round import HubRounds, Phase

__all__ = ["Emit", "simulate"]

Emit = Callable[[records.Record], None]


def simulate(
    case: Case,
    policy: Policy,
    *,
    beside: Sequence[Case] = (),
    forecast: Forecast | None = None,
    estimates: Estimates | None = None,
    emit: Emit = lambda record: None,
) -> Ran:
    """Run a case to the end of its rounds, with others beside it on the same devices.

    The scheduler knows the durations if neither a forecast is given nor `estimates`, which learn as those of a run do,
    also which jobs gain by sharing a device; else all share that may. `emit`: hears what a run would write down.
    A tree whose root gives a round up ends there.
    """
    if estimates is not None:
        forecast = Learned(estimates.durations)
    return _Simulation([case, *beside], policy, forecast, estimates, emit).run()


class _Simulation:
    """Trees that share devices; those after the first are told apart by a number behind their root's name."""

    def __init__(
        self,
        cases: Sequence[Case],
        policy: Policy,
        forecast: Forecast | None,
        estimates: Estimates | None,
        emit: Emit,
    ) -> None:
        first = cases[0]
        self.actual: dict[JobKey, float] = {}
        self._work = Workload((), first.devices, first.speeds, first.rates, call_s=first.pauses.call_s)
        self.forecast = forecast or Oracle(self._work, self.actual)
        self.crew = SimCrew(
            *(self._work, held_policy(policy), self.actual, self.forecast),
            ended=self._ended,
            number=_number,
            gap=lambda jobs: self._of[jobs[0].run].gap_s(jobs[0]),
            company=estimates,
        )
        self.numbers = count()
        self.emit = emit
        self._worked: list[Worked] = []
        self._trees = [_Tree(case, f" ({place})" if place else "", self) for place, case in enumerate(cases)]
        self._of = {tree.root: tree for tree in self._trees}

    def run(self) -> Ran:
        """Let all trees do their rounds."""
        for device in self._work.devices:
            self.crew.join(device.name)
        for tree in self._trees:
            tree.begin()
        self._decide()
        while not all(tree.is_over for tree in self._trees):
            assert not self.crew.is_over, f"{[tree.root for tree in self._trees]}: nothing is left to happen"
            self.crew.advance()
            self._decide()
        return Ran(
            tuple(self._worked),
            tuple(tuple(tree.rounds) for tree in self._trees),
            tuple(self.crew.decisions),
            next((tree.gave_up for tree in self._trees if tree.gave_up), ""),
        )

    def _decide(self) -> None:
        for assign in self.crew.decide():
            jobs = assign.jobs
            hub, _, number = jobs[0].group.rpartition("#")
            self.emit(
                records.Assigned(
                    *(self.crew.now_s, assign.device, assign.device, "train", hub),
                    *(tuple(job.name for job in jobs), int(number) + 1, assign.reason),
                )
            )
        for tree in self._trees:
            tree.say_asked()

    def _ended(self, jobs: tuple[Job, ...]) -> None:
        span, own = self.crew.log[-1], [self.actual[job.key] for job in jobs]
        self.emit(records.Phase(span.end_s, span.actor, "train", span.start_s, span.end_s, span.nodes, 0))
        self._worked.append(
            Worked(span.actor, span.start_s, span.end_s, jobs[0].labels, jobs[0].memory_bytes, sum(own))
        )
        for job, seconds in zip(jobs, own, strict=True):
            took_s = (span.end_s - span.start_s) * seconds / sum(own)
            number = int(job.group.rpartition("#")[2]) + 1
            self.emit(records.SiteTrained(span.end_s, job.name, number, span.actor, took_s, 0, job.size, None))
        self._of[jobs[0].run].ended(jobs)


class _Tree:
    """The hubs of one federation: carries their orders down and their answers up, and decides nothing."""

    def __init__(self, case: Case, mark: str, sim: _Simulation) -> None:
        self.root = f"{case.tree.root.name}{mark}"
        self.is_over = False
        self.rounds: list[tuple[float, float]] = []
        self.gave_up = ""
        self._plain_root = case.tree.root.name
        self._case = case.marked(mark) if mark else case
        self._sim = sim
        self._crew = sim.crew
        self._tree = self._case.tree
        self._orders = Orders(self._case, sim.crew.dispatcher, sim.forecast, sim.numbers, self.root)
        self._weights = member_weights(self._tree, self._case.sites)
        self._machines = {path: self._machine(path) for path in self._tree.hubs}
        self._asked_in: dict[str, int] = {}
        self._opened_s: dict[str, float] = {}
        self._groups: dict[str, set[int]] = {path: set() for path in self._tree.hubs}
        self._said: list[records.NodesChanged] = []
        self._next = case.first
        self._gaps_s: dict[tuple[str, int], dict[str, float]] = {}
        for (site, number), gap_s in self._case.pauses.gaps_s.items():
            self._gaps_s.setdefault((parent(site) or "", number), {})[site] = gap_s

    def begin(self) -> None:
        """Begin the root's next round."""
        number, self._next = self._next, self._next + 1
        self._orders.begin(number)
        self._begin(self.root, number, 1)

    def ended(self, jobs: tuple[Job, ...]) -> None:
        """Sites have ended: their updates go up."""
        for job in jobs:
            hub, _, number = job.group.rpartition("#")
            self._up(hub, int(number), job.name)
        self._orders.ended(len(jobs))

    def gap_s(self, job: Job) -> float | None:
        """Say what went by before a call's work when it was measured, by its first site; where sites were put together
        otherwise, what went by before the next call of the round that is not yet given: each counts once.
        """
        left = self._gaps_s.get((parent(job.name) or "", _number(job.group) - 1))
        return left.pop(job.name if job.name in left else next(iter(left))) if left else None

    def say_asked(self) -> None:
        """Say who was asked since the last decision, as a run does: devices first."""
        said, self._said = self._said, []
        for record in said:
            self._sim.emit(record)

    def _machine(self, path: str) -> HubRounds:
        weights = {member.rpartition("/")[2]: self._weights[member] for member in self._tree.members(path)}
        plain = f"{self._plain_root}{path[len(self.root) :]}"  # every federation of a kind draws alike
        return HubRounds(held(self._tree.hubs[path], plain), weights, path=plain, seed=self._case.seed)

    def _begin(self, path: str, number: int, rounds: int) -> None:
        """Begin a hub's rounds."""
        self._opened_s[path] = self._crew.now_s
        early = self._tree.hubs[path].participation.may_close_early
        self._tell(path, Begin(number, rounds, self._orders.forecasts_s(path) if early else {}))

    def _tell(self, path: str, event: Event) -> None:
        """Tell a hub, and carry out what it wants: first what it asks for, then what has ended."""
        asked: list[TrainMember] = []
        wait_s = 0.0
        for command in self._machines[path].handle(event):
            match command:
                case Open():
                    wait_s = self._case.pauses.before(path, command.round_number)
                case TrainMember():
                    asked.append(command)
                case SetTimer():
                    due = TimeUp(command.round_number, command.after_s)
                    self._soon(wait_s + command.after_s, partial(self._tell, path, due))
                case Close():
                    self._closed(path, command)
                case Exchange():  # what members hand each other takes no device of theirs
                    self._soon(0.0, partial(self._tell, path, Mixed(command.round_number)))
                case Dismiss():
                    self._soon(0.0, partial(self._dismiss, path, command))
                case Refuse():
                    lost = dict.fromkeys((share.member for share in command.update.shares), command.reason)
                    self._soon(0.0, partial(self._lose, path, command.update.round_number, lost))
                case Finish():
                    self._finished(path)
                case GiveUp():
                    self._gave_up(path, command)
        if asked:
            names = [command.member for command in asked]
            act = partial(self._ask, path, self._machines[path], asked[0].round_number, names)
            self._soon(wait_s, act) if wait_s else act()

    def _soon(self, in_s: float, act: Callable[[], None]) -> None:
        self._crew.at(self._crew.now_s + in_s, act)

    def _ask(self, path: str, machine: HubRounds, number: int, names: Sequence[str]) -> None:
        """Carry an order to a hub's members: sites to the dispatcher, hubs to their machines."""
        if machine is not self._machines[path] or machine.phase is Phase.FAILED:
            return  # it was stopped meanwhile
        members = [f"{path}/{name}" for name in names]
        sites = {site: self._case.seconds(path, number, site) for site in members if site in self._tree.sites}
        for site, seconds in sites.items():
            if seconds is None:  # it sat this round out
                self._up(path, number, site)
            else:
                self._sim.actual[group_of(path, number), site] = seconds
        self._groups[path].add(number)
        busy = [site for site, seconds in sites.items() if seconds is not None]
        self._orders.ask(path, number, busy, machine.upcoming)
        self._said.append(records.NodesChanged(self._crew.now_s, members, "training", number + 1))
        for member in members:
            if member in self._tree.hubs:
                rounds = self._tree.hubs[member].rounds
                self._asked_in[member] = number
                self._begin(member, number * rounds, rounds)

    def _up(self, hub: str, number: int, member: str) -> None:
        """An update goes up to a hub."""
        share = Share(member.rpartition("/")[2], self._weights[member])
        arrived = Arrived(Update(hub, number, (share,)))
        self._soon(self._case.pauses.after(hub, number), partial(self._tell, hub, arrived))

    def _closed(self, path: str, closed: Close) -> None:
        """A hub's round is over."""
        now_s, began_s = self._crew.now_s, self._opened_s[path]
        number = closed.round_number + 1
        self._crew.log.append(Span(path, "round", began_s, now_s, closed.members, number))
        if path == self.root:
            self.rounds.append((began_s, now_s))
        self._sim.emit(
            records.RoundClosed(
                *(now_s, path, number, closed.reason, closed.members, closed.missing, now_s - began_s, 0),
                carried=closed.carried,
            )
        )
        self._opened_s[path] = now_s

    def _finished(self, path: str) -> None:
        """A hub has done what its parent asked for; the root begins its next round, or is done."""
        above = parent(path)
        if above is not None:
            self._up(above, self._asked_in[path], path)
        elif self._next < self._case.first + self._case.rounds:
            self._soon(self._case.pauses.between_s.get(self._next - 1, 0.0), self.begin)
        else:
            self.is_over = True

    def _gave_up(self, path: str, gave_up: GiveUp) -> None:
        """A hub's round failed: its parent goes on without it, or the run ends."""
        above = parent(path)
        if above is None or not self._tree.hubs[above].keep_going:
            self.gave_up = f"{path} gives up its round {gave_up.round_number + 1}: {gave_up.reason}"
            self.is_over = True
            if path == self.root or not self.rounds:
                self.rounds.append((self._opened_s[self.root], self._crew.now_s))
            return
        self._stop(path)
        lost = {path.rpartition("/")[2]: gave_up.reason}
        self._soon(0.0, partial(self._lose, above, self._asked_in[path], lost))

    def _dismiss(self, path: str, dismissed: Dismiss) -> None:
        """Stop work that cannot count any more, where it can be: what a site has begun goes on to its end."""
        stopped: dict[str, str] = {}
        for name, reason in dismissed.members.items():
            member = f"{path}/{name}"
            if member in self._tree.hubs:
                if self._machines[member].phase is Phase.COLLECTING:
                    self._stop(member)
                    stopped[name] = reason
            elif self._take_back(path, dismissed.round_number, member):
                stopped[name] = reason
        if stopped:
            self._lose(path, dismissed.round_number, stopped)

    def _take_back(self, hub: str, number: int, site: str) -> bool:
        """Let a site's work go if it still waits for a device; say whether it did."""
        waiting = [name for _, name in self._crew.dispatcher.withdraw(group_of(hub, number))]
        self._orders.ask(hub, number, [name for name in waiting if name != site])
        return site in waiting

    def _stop(self, path: str) -> None:
        """End the rounds of a hub and of all hubs below it."""
        for hub in self._below(path):
            for number in self._groups[hub]:
                self._crew.dispatcher.withdraw(group_of(hub, number))
            self._groups[hub].clear()
            self._machines[hub] = self._machine(hub)

    def _below(self, path: str) -> Iterator[str]:
        return (hub for hub in self._tree.hubs if is_within(hub, path))

    def _lose(self, path: str, round_number: int, names: dict[str, str]) -> None:
        """Tell a hub that members will send nothing for the round in which they were asked."""
        self._tell(path, Lost(round_number, names))


def _number(group: str) -> int:
    """Give the round of a group of jobs, from 1."""
    return int(group.rpartition("#")[2]) + 1
