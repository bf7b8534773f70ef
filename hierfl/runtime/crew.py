"""The workers of a run: work is asked of the crew, the dispatcher says which device does what, results come back.

A worker keeps the sum of the sites that it trained for a hub's round; when no site of that round waits for a device
any more, every worker that holds a part of it is asked to hand it up. What a lost worker had not handed up is done
again by others: the same work gives the same bits. A worker counts from its first answer on: a process that is still
starting, or whose node is gone, is given no work and holds nobody up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from hierfl.config.schema import SiteSettings
from hierfl.errors import HierflError
from hierfl.monitor.words import few
from hierfl.runtime import results
from hierfl.runtime.asking import BUILDING, PHASES, WARMING_UP
from hierfl.runtime.blame import Blame
from hierfl.runtime.driver import Done, Driver, Seat
from hierfl.runtime.estimates import Estimates
from hierfl.runtime.foresight import WAY_OUT, Foresight
from hierfl.runtime.gate import Gate, OpenGate
from hierfl.runtime.jobs import LeftOut, SiteReport
from hierfl.runtime.keeper import Keeper
from hierfl.runtime.outbox import TAKE_BACK, Outbox
from hierfl.runtime.roster import Call, Roster
from scheduler import Assign, Device, Dispatcher, Job, JobKey, Policy

__all__ = ["Crew"]


class Crew:
    """Keeps workers fed and their results in order.

    `declared`: devices that may come, beside those of the seats, which may come back.
    """

    def __init__(
        self,
        driver: Driver,
        seats: Sequence[Seat],
        policy: Policy,
        *,
        preaggregate: bool,
        sites: Mapping[str, SiteSettings] | None = None,
        estimates: Estimates | None = None,
        declared: Iterable[Device] = (),
        gate: Gate | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.driver = driver
        known = self.estimates = estimates or Estimates("")
        self.gate = gate or OpenGate()
        self.keeper = Keeper()
        self._roster = Roster(seats)
        self.usual_kind = self._roster.usual_kind
        self._declared = tuple(declared)
        self._now = now
        self._outbox = Outbox(driver, self.keeper, preaggregate)
        self._holdings = self._outbox.holdings
        self._groups: dict[str, results.Group] = {}
        self._blame = Blame()
        seen = self._foresight = Foresight(known, sites or {}, self._groups, self._blame, self._roster)
        self._dispatcher = Dispatcher(
            policy, predict=seen.predict, gain=known.gains, saves=seen.saves, total=known.total
        )
        self.use = self._dispatcher.use
        self._order = count()
        self._prepared: tuple[Any, ...] = (None, None)
        self._to_build = False
        self._building: tuple[Any, ...] = BUILDING[:1]
        self._said: list[results.Result] = []
        for worker in self.workers:
            self._outbox.send(worker, "prepare", *self._prepared)

    @property
    def workers(self) -> tuple[str, ...]:
        """List the workers, those that are not up yet with them."""
        return tuple(self._roster.devices)

    @property
    def devices(self) -> Mapping[str, Device]:
        """Give each worker's device."""
        return self._roster.devices

    @property
    def prospects(self) -> tuple[Device, ...]:
        """List the devices that are there, that may come, and that may come back."""
        return (*self._declared, *self.devices.values())

    def owns(self, ticket: int) -> bool:
        """Say whether a call was the crew's."""
        return ticket in self._outbox

    def build(self, method: str = "initial", *arguments: Any) -> None:
        """Ask a worker for the model as the run's seed makes it, or `merged` from one with adapters."""
        ready, self._building = self._roster.ready, (method, *arguments)
        self._to_build = not ready
        if ready:
            self._outbox.send(min(ready), method, *arguments)

    def prepare(self, layout: Any, scale: Any) -> None:
        """Tell every worker, now and after a restart, the layout and the features' mean and deviation."""
        if scale is not None and self._prepared[1] is None:
            self._foresight.warmth.clear()  # data are kept as they are standardised
        self._prepared = (layout, scale)
        for worker in self.workers:
            self._outbox.send(worker, "prepare", layout, scale)

    def add(self, seats: Iterable[Seat]) -> None:
        """Take in workers that have come while the run is under way."""
        for seat in seats:
            self._roster.add(seat)
            self._outbox.send(seat.worker, "prepare", *self._prepared)

    def ask(self, group: results.Group) -> None:
        """Ask for the work of a group."""
        self._groups[group.name] = group
        self._queue(group, group.sizes)

    def withdraw(self, group_name: str) -> None:
        """Let a group's waiting work go, and drop what is still handed up for it."""
        self._dispatcher.withdraw(group_name)
        group = self._groups[group_name]
        for worker in self._holdings.workers_of(group_name):
            self._outbox.send(worker, "collect", group.hub, group.round_number)
        self.finish(group_name)

    def take_back(self, group_name: str, sites: Collection[str]) -> list[str]:
        """Let sites' work go if it still waits for a device; return whose did."""
        waiting = [name for _, name in self._dispatcher.withdraw(group_name)]
        self._queue(self._groups[group_name], [name for name in waiting if name not in sites])
        return [name for name in waiting if name in sites]

    def leave_out(self, group: results.Group, sites: Mapping[str, str]) -> None:
        """Tell members that mask their updates, each a worker by its path, that a group's sum is without them."""
        for site, why in sites.items():
            self._outbox.send(site, "leave_out", group.hub, group.name, why)

    def pump(self) -> list[results.Result]:
        """Give free devices work, and ask for sums whose sites are all on their way; tell what was decided.

        What waits at a worker behind work that should have been over is asked back: others can do it.
        """
        late = self._roster.late(self._now())
        for worker in late:
            self._dispatcher.overdue(self._roster.devices[worker].name, self._roster.chunks(worker)[0])
        for decision in self.gate.decide(self._dispatcher, self._now()):
            self._assign(decision)
        for worker, name in self._holdings.due:
            if not self._dispatcher.has_waiting(name):
                self._collect(worker, name)
        for worker in late:
            self._outbox.reclaim(worker)
        said, self._said = self._said, []
        return said

    def refusals(self) -> Mapping[JobKey, str]:
        """Name the waiting work that no device which is there may take, each with the reason."""
        return self._dispatcher.refusals(absent=set(self.prospects))

    def hopeless(self) -> Mapping[JobKey, str]:
        """Name the waiting work that no device will take, whichever comes or comes back, each with the reason."""
        found = self._dispatcher.refusals(self.prospects)
        return {key: f"{reason}; {WAY_OUT}" for key, reason in found.items()}

    def give_up(self, refused: Mapping[JobKey, str]) -> Iterator[results.Result]:
        """Wait no more for devices for this work; name the sites."""
        for name, sites in self._foresight.given_up(refused).items():
            group = self._groups.get(name)
            if group is not None and self.take_back(name, sites):
                yield results.SitesLost(group, sites)

    def overdue(self) -> Iterator[results.Result]:
        """End the workers whose work takes longer than is allowed; name the sites."""
        overdue = self._roster.overdue(self._outbox.left, self._foresight.allowed_s, self._now())
        for worker, chunk, allowed_s in overdue:
            if self._outbox.at(worker)[0].method in WARMING_UP:
                continue  # that is what the worker has not answered first
            reason = f"no answer within {allowed_s:g} s (site_timeout_s)"
            if len(chunk) == 1:  # a site that had the worker to itself is given up, others are tried again one by one
                self._blame.condemn(chunk[0].key, reason)
            yield from self._lost_worker(Call(worker, "train", None, chunk), reason)

    def handle(self, done: Done) -> Iterator[results.Result]:
        """Take the end of a call; yield what it means, in order. Errors: HierflError that is no single site's."""
        call = self._outbox.answered(done.ticket)
        if done.crashed is not None:
            yield from self._lost_worker(call, done.crashed, is_away=done.away)
            return
        self._end(call)
        if done.error is not None:
            raise done.error
        if call.method == TAKE_BACK:
            self._given_back(call.worker, done.value)
            return
        self._blame.answered(call.worker)
        if call.method == "prepare":
            if done.value is not None:
                raise HierflError(f"{call.worker} cannot take part in the run: {done.value}")
            yield from self._up(call.worker)
            return
        if call.method in BUILDING:
            self._blame.built()
            yield results.Built(done.value, done.beside[0])
        group = call.group
        if group is None or group.name not in self._groups:
            return
        if call.method != "collect" or done.value is not None:
            phase = PHASES.get(call.method, call.method)
            sites = tuple(job.name for job in call.jobs) or (group.hub,)
            yield results.Busy(call.worker, phase, done.started_s, done.ended_s, sites)
        yield from self._result(call, group, done)

    def _up(self, worker: str) -> Iterator[results.Result]:
        """Count a worker in from its first answer on."""
        if worker in self._roster.ready:
            return
        self._roster.ready.add(worker)
        device = self._roster.devices[worker]
        self._dispatcher.join(device)
        self._dispatcher.limit(device.name, self._roster.num_up(device.name))
        if self._to_build:
            self.build(*self._building)
        yield results.WorkerJoined(worker, device.name)

    def _end(self, call: Call) -> None:
        """A worker has answered: the place of what it did is free again."""
        if not call.is_aside and self._roster.end(call.worker, call.jobs, self._now()):
            self._dispatcher.done(self._roster.devices[call.worker].name, call.jobs)

    def _result(self, call: Call, group: results.Group, done: Done) -> Iterator[results.Result]:
        """Turn a call's reply into results."""
        match call.method:
            case "train" | "train_keeping":
                self.keeper.trained(call.worker, group.name, done.value, done.beside)
                yield from self._trained(call, group, done.value)
            case "collect":
                if isinstance(done.value, LeftOut):
                    self._holdings.drop(call.worker, group.name, done.value.sites)
                    yield results.SitesLost(group, done.value.sites)
                elif done.value is not None:
                    handed = {f"{group.hub}/{share.member}" for share in done.value.shares}
                    self._holdings.drop(call.worker, group.name, handed)
                    self.keeper.handed_up(call.worker, group.name, handed)
                    yield results.HandedUp(group, done.value, done.beside[0])
            case "evaluate" | "fine_tune":
                self._learn(call, group, done.value.durations)
                for kept in done.beside:
                    self.keeper.keep(done.value.sites, kept)
                yield results.Measured(group, call.worker, done.value)
            case "describe":
                self._foresight.learn_loads(call.worker, done.value)
                self._learn(call, group, {item.site: item.duration_s for item in done.value if item.error is None})
                yield results.Described(group, done.value)

    def _trained(self, call: Call, group: results.Group, reports: tuple[SiteReport, ...]) -> Iterator[results.Result]:
        """Learn from reports; tell which sites gave nothing. A site without memory beside others is tried again."""
        again = self._without_memory(call, group, reports)
        failed = {r.site: r.error for r in reports if r.error is not None and r.site not in again}
        self._foresight.learn_loads(call.worker, reports)
        self._learn(call, group, {report.site: report.work_s for report in reports if report.error is None})
        self._holdings.drop(call.worker, group.name, [report.site for report in reports if report.error is not None])
        self._foresight.learn_memory(group, reports, self._roster.devices[call.worker])
        yield results.Trained(group, call.worker, tuple(report for report in reports if report.site not in again))
        if failed:
            yield results.SitesLost(group, failed)
        if again:
            self._queue(group, again)

    def _without_memory(self, call: Call, group: results.Group, reports: tuple[SiteReport, ...]) -> list[str]:
        """List the sites that ran out of memory and are tried again, and say so."""
        device = self._roster.devices[call.worker]
        again = self._foresight.without_memory(call, group, reports, device)
        if call.others and any(report.out_of_memory for report in reports):
            self.gate.short(device.name)
        if again:
            said = f"{few(again)} ran out of memory beside {call.company} others there, and will be tried again"
            self._said.append(results.Said("warning", device.name, said))
        return again

    def _learn(self, call: Call, group: results.Group, durations: Mapping[str, float]) -> None:
        """Learn durations; once there is something to go by, predict anew what waits."""
        device = self._roster.devices[call.worker]
        company = self._roster.company_of(call, self.gate.others(device.name), self._now())
        is_news, rate = self._foresight.learn(group, durations, device, call.others, *company)
        if is_news:
            self._dispatcher.refresh(self._foresight.renewed)
        if rate is not None:
            self.gate.rated(device.name, rate, sum(durations.values()))

    def _queue(self, group: results.Group, sites: Iterable[str]) -> None:
        """Put sites into the dispatcher's queue."""
        self._dispatcher.ask([self._foresight.job(group, site, next(self._order)) for site in sites])

    def _assign(self, decision: Assign) -> None:
        """Send a chunk of work to a worker of its device."""
        jobs, group = decision.jobs, self._groups[decision.jobs[0].group]
        sites = tuple(job.name for job in jobs)
        holders = self._foresight.warmth.holders(jobs[0].name)
        worker = self._roster.give(decision.device, jobs, self._now(), holders)
        company = min(len(self._dispatcher.running(decision.device)), self._roster.num_up(decision.device)) - 1
        if company:  # what is sent next counts too
            device = self._roster.devices[worker]
            self.estimates.colocation.started([self.estimates.model] * company, self.estimates.model, device.kind)
        memory_bytes = max(job.memory_bytes for job in jobs)
        self._said.append(results.Assigned(decision.device, worker, group, sites, decision.reason, memory_bytes))
        if self._blame.in_group(group.name):
            for name in self._holdings.groups_at(worker):
                self._collect(worker, name)  # workers have died of this group: what is next takes no others' work along
        others = self.gate.others(decision.device)
        self._outbox.work(worker, group, jobs, company + others, others)

    def _collect(self, worker: str, name: str) -> None:
        """Ask a worker for its sum, if the group is not over."""
        if name in self._groups:
            self._outbox.collect(worker, self._groups[name])
        else:
            self._holdings.ask(worker, name)

    def _given_back(self, worker: str, tickets: Collection[int]) -> None:
        """Let others do what a worker has given back, if it is still wanted; say so where there are others."""
        device = self._roster.devices[worker].name
        calls, over = self._outbox.given_back(worker, tickets, self._roster.chunks(worker))
        for chunk in over:
            self._roster.take_back(worker, chunk)
            self._dispatcher.done(device, chunk)
        for group, sites in calls:
            if group.name in self._groups:
                self._queue(group, sites)
                if len(self._roster.ready) == 1:
                    continue
                said = f"{few(sites)} waited behind work that should have been over, and will go to who is free"
                self._said.append(results.Said("info", device, said))

    def _lost_worker(self, lost: Call, reason: str, *, is_away: bool = False) -> Iterator[results.Result]:
        """Replace a dead worker; what it had not handed up is done again, unless it may be what killed it."""
        worker = lost.worker
        self._blame.died(worker, reason)
        chunks = self._leave(worker)
        begun = {job.key for chunk in chunks for job in chunk}
        held = self._holdings.lose(worker)
        self._blame.wasted(worker, held - begun, reason)
        kinds = {name: group.kind for name, group in self._groups.items()}
        again = held | {key for key in begun if kinds.get(key[0]) != "train"}  # what was handed up is not
        suspects = {job.key for job in chunks[0]} & again if chunks else set()
        under_way = {lost.method, *(call.method for call in self._outbox.lose(worker))}
        was_building = bool(under_way & {*BUILDING})
        if was_building:
            self._blame.died_building(worker, reason)
        self.driver.restart(worker)
        self._outbox.send(worker, "prepare", *self._prepared)
        if was_building:
            self.build(*self._building)
        yield results.WorkerLost(worker, reason, tuple(sorted(site for _, site in again)), is_away)
        yield from self._again(again, suspects, reason)

    def _leave(self, worker: str) -> list[tuple[Job, ...]]:
        """Take a worker out until it answers again; return the chunks that it had."""
        device = self._roster.devices[worker].name
        self._foresight.warmth.lost(worker)
        self.keeper.lost(worker)
        chunks = self._roster.lose(worker)
        for chunk in chunks:
            self._dispatcher.done(device, chunk)
        if num_up := self._roster.num_up(device):
            self._dispatcher.limit(device, num_up)
        else:
            self._dispatcher.leave(device)
        return chunks

    def _again(
        self, keys: set[tuple[str, str]], suspects: set[tuple[str, str]], reason: str
    ) -> Iterator[results.Result]:
        """Queue work once more; give a site up whose worker died under it too often."""
        for name in sorted({name for name, _ in keys}):
            group = self._groups.get(name)
            if group is None:
                continue
            sites = [site for site in group.sizes if (name, site) in keys]
            for key in [key for key in suspects if key[0] == name]:
                self._blame.failed(key)
            verdicts = {site: self._blame.verdict((name, site), reason) for site in sites}
            given_up = {site: said for site, said in verdicts.items() if said is not None}
            self._queue(group, [site for site in sites if site not in given_up])
            if given_up:
                yield results.SitesLost(group, given_up)

    def finish(self, group_name: str) -> None:
        """Forget a group whose work is all accounted for."""
        self._groups.pop(group_name, None)
        self._blame.forget(group_name)
        self.keeper.finish(group_name)
        self._holdings.finish(group_name)
