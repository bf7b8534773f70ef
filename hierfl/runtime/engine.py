"""The supervisor of a run: carries orders down the tree and updates up it, by the commands of the hubs' machines.

It owns all handles and all calls, and decides nothing: hubs say what they want of whom, the scheduler says which device
does what next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hierfl.config.schema import RunConfig
from hierfl.errors import DataError, RoundFailed, SiteFailed
from hierfl.learning.metrics import Tally
from hierfl.learning.standardise import Moments
from hierfl.learning.state import Layout
from hierfl.monitor import records
from hierfl.monitor.records import Record, Scalars
from hierfl.runtime import results
from hierfl.runtime.chains import Chains
from hierfl.runtime.crew import Crew
from hierfl.runtime.driver import Driver, Handle
from hierfl.runtime.hubs import HubLost, Hubs, HubSaid
from hierfl.runtime.jobs import Inventory, Order, Outcome
from hierfl.runtime.ledger import Ledger
from hierfl.runtime.patience import Patience
from hierfl.runtime.results import Group
from hierfl.runtime.specs import hub_spec
from tiers.federation import parent
from tiers.messages import Begin, Close, Lost

__all__ = ["Engine", "RoundResult"]

WAIT_S = 0.5
LOOK_S = 3.0
"""How often the engine looks for new devices, and for work that has none."""


@dataclass(frozen=True)
class RoundResult:
    """A committed round: the root's new model, and every stateful strategy's state by hub."""

    model: Handle
    states: Mapping[str, Handle]


class Engine:
    """Runs rounds over the tree on a driver; `emit` takes every record of what happens.

    Machines count rounds from 0, people from 1: records carry the latter.
    """

    def __init__(
        self, config: RunConfig, driver: Driver, crew: Crew, emit: Callable[[Record], None], started_s: float
    ) -> None:
        self.config = config
        self.driver = driver
        self.crew = crew
        self.hubs = Hubs(driver)
        self.ledger = Ledger(crew.workers)
        self._emit = emit
        self._started_s = started_s
        self._tree = config.federation
        self._steps: dict[str, int] = {}
        self.inventories: dict[str, Inventory] = {}
        self._tallies: dict[str, list[Tally]] = {}
        self._scalars: dict[str, Scalars] = {}
        self._open: dict[str, set[str]] = {}
        self._opened: dict[str, tuple[float, int]] = {}
        self._shown = 0
        self._published: list[RoundResult] = []
        self._built: list[tuple[Layout, Handle]] = []
        self._states: dict[str, Handle] = {}
        self._next_states: dict[str, Handle] = {}
        self._looked_s = time.monotonic()
        self._patience = Patience()
        self._down: set[str] = set()
        self._chains = Chains(config.federation)

    def initial(self) -> tuple[Layout, Handle]:
        """Let a worker build the model; return its layout and its values as the run's seed makes them."""
        self.crew.build()
        self._run_until(lambda: bool(self._built))
        return self._built[0]

    def describe(self) -> Mapping[str, Inventory]:
        """Let every site count its samples. Errors: DataError naming the sites that could not be loaded.

        Where a hub goes on without failing sites (`on_failure: continue`), such a site counts as empty, by name.
        """
        for path in self._tree.hubs:
            self._ask(Group(f"describe:{path}", "describe", path, 0, dict.fromkeys(self._own_sites(path), 1)))
        self._run_until(lambda: not self._open)
        bad = {path: item.error for path, item in self.inventories.items() if item.error is not None}
        for path in [path for path in bad if self._tree.hubs[parent(path) or ""].keep_going]:
            self._notice("error", path, f"could not be loaded: {bad.pop(path)}")
        if bad:
            first, *others = bad
            more = [f"\n{path}: {_first(bad[path])}" for path in others[:2]]
            more += [f"\n(and {len(others) - 2} more sites)"] if len(others) > 2 else []
            raise DataError(f"{first}: {bad[first]}" + "".join(more))
        return self.inventories

    def moments(self) -> Moments:
        """Add up the features' moments of all sites, hub by hub; exact in any order."""
        total = Moments()
        for item in self.inventories.values():
            if item.moments is not None:
                total = total + item.moments
        return total

    def set_up(self, layout: Layout, num_samples: Mapping[str, int], steps: Mapping[str, int]) -> None:
        """Make the hubs. `num_samples`: training samples by path, hubs rolled up; `steps`: optimizer steps by site."""
        self._steps = dict(steps)
        for path in self._tree.hubs:
            errors = {site.rpartition("/")[2]: self.inventories[site].error for site in self._own_sites(path)}
            absent = {name: _first(error) for name, error in errors.items() if error is not None}
            self.hubs.make(hub_spec(self.config, path, layout, num_samples, absent))

    def round(self, number: int, model: Handle, states: Mapping[str, Handle]) -> RoundResult:
        """Run one round of the root, counted from 0. Errors: RoundFailed, SiteFailed, naming who and why."""
        self._shown = number + 1
        self._published, self._states, self._next_states = [], dict(states), dict(states)
        self.ledger.open()
        root = self._tree.root.name
        self._chains.begin(number, lambda site: self.crew.estimates.predict("train", site, self._steps[site]))
        self._begin(root, Begin(number), None, model)
        self._run_until(lambda: bool(self._published))
        self.ledger.close()
        return self._published[0]

    def evaluate(self, round_number: int, model: Handle) -> Mapping[str, Scalars]:
        """Measure a model at every site and roll the figures up per hub; by path."""
        self._shown = round_number
        self._tallies, self._scalars = {}, {}
        self.ledger.open()
        for path in self._tree.hubs:
            present = [site for site in self._own_sites(path) if self.inventories[site].error is None]
            sizes = {site: max(1, self.inventories[site].num_test) for site in present}
            self._ask(Group(f"evaluate:{path}", "evaluate", path, round_number, sizes, model=model))
        self._run_until(lambda: not self._open)
        self.ledger.close()
        return self._rolled_up()

    def _rolled_up(self) -> dict[str, Scalars]:
        """Add tallies from the leaves to the root."""
        for path in reversed(list(self._tree.hubs)):
            above = parent(path)
            total = Tally.total(self._tallies.get(path, []))
            self._tallies[path] = [total]
            if above is not None:
                self._tallies.setdefault(above, []).append(total)
            self._scalars[path] = total.scalars()
        return {path: self._scalars[path] for path in self._tree.nodes if path in self._scalars}

    def _own_sites(self, path: str) -> tuple[str, ...]:
        """List the sites directly under a hub."""
        return tuple(member for member in self._tree.members(path) if member in self._tree.sites)

    def _ask(self, group: Group) -> None:
        """Ask the crew for a group's work."""
        if group.sizes:
            self._open[group.name] = set(group.sizes)
            self.crew.ask(group)

    def _run_until(self, over: Callable[[], bool]) -> None:
        """Feed the workers and route what comes back."""
        self._pump()
        while not over():
            for result in self.crew.overdue():
                self._take(result)
            for done in self.driver.wait(WAIT_S):
                if self.crew.owns(done.ticket):
                    for result in self.crew.handle(done):
                        self._take(result)
                elif self.hubs.owns(done.ticket):
                    for said in self.hubs.handle(done):
                        self._hear(said)
            self._pump()
            self._look_around()

    def _pump(self) -> None:
        """Feed the workers."""
        for result in self.crew.pump():
            self._take(result)

    def _look_around(self) -> None:
        """From time to time, take in devices that have come, and name the sites that wait for one that is not there."""
        now = time.monotonic()
        if now - self._looked_s < LOOK_S:
            return
        self._looked_s = now
        self.crew.add(self.driver.grow())
        for said in self._patience.look(self.crew.refusals(), now):
            self._notice("warning", self._tree.root.name, said)

    def _take(self, result: results.Result) -> None:
        """Route what the crew says."""
        match result:
            case results.Built():
                self._built.append((result.layout, result.model))
            case results.Trained():
                self._trained(result)
            case results.HandedUp():
                self._handed_up(result)
            case results.Measured():
                self._measured(result)
            case results.Described():
                self.inventories.update((item.site, item) for item in result.inventories)
                self._close_open(result.group, [item.site for item in result.inventories])
            case results.SitesLost():
                self._sites_lost(result)
            case results.WorkerLost():
                said = f"died ({result.reason}) and is being replaced; {len(result.sites)} sites are done again"
                self._notice("warning", result.worker, said)
                self._down.add(result.worker)
            case results.WorkerJoined():
                if result.worker in self._down:
                    self._down.discard(result.worker)
                    self._notice("info", result.worker, "is back")
                self.ledger.join(result.worker)
            case results.Assigned():
                self._emit(
                    records.Assigned(
                        *(self._now(), result.worker, result.device, result.group.kind, result.group.hub),
                        *(result.sites, self._shown, result.reason),
                    )
                )
            case results.Said():
                self._notice(result.level, result.node, result.message)
            case results.Busy():
                self._phase(result.worker, result.phase, result.start_s, result.end_s, result.sites)

    def _trained(self, result: results.Trained) -> None:
        """Record trained sites."""
        for report in result.reports:
            if report.error is None:
                self.ledger.work(result.worker, report.duration_s)
                self._emit(
                    records.SiteTrained(
                        *(self._now(), report.site, result.group.round_number + 1, result.worker),
                        *(report.duration_s, report.num_samples, report.num_steps, report.loss),
                    )
                )

    def _handed_up(self, result: results.HandedUp) -> None:
        """Give a worker's sum to its hub."""
        group = result.group
        self._count_bytes(group.hub, result.update.num_bytes)
        self.hubs.tell(group.hub, "arrive", result.update, result.part)
        self._close_open(group, [f"{group.hub}/{share.member}" for share in result.update.shares])

    def _measured(self, result: results.Measured) -> None:
        """Keep a worker's measurements."""
        evaluated, group = result.evaluated, result.group
        self._tallies.setdefault(group.hub, []).append(evaluated.total)
        self._scalars.update(evaluated.sites)
        for duration_s in evaluated.durations.values():
            self.ledger.work(result.worker, duration_s)
        for site, error in evaluated.errors.items():
            self._site_failed(group.hub, site, error, "measured")
        self._close_open(group, list(evaluated.durations))

    def _sites_lost(self, result: results.SitesLost) -> None:
        """Tell a hub which of its sites give nothing."""
        group = result.group
        if group.kind == "describe":
            self.inventories.update((site, Inventory(site, 0, 0, None, why)) for site, why in result.sites.items())
        elif group.kind == "evaluate":
            for site, why in result.sites.items():
                self._site_failed(group.hub, site, why, "measured")
        else:
            for site, why in result.sites.items():
                self._site_failed(group.hub, site, why, "trained")
            names = {site.rpartition("/")[2]: _first(why) for site, why in result.sites.items()}
            self.hubs.tell(group.hub, "lose", Lost(group.round_number, names))
        self._close_open(group, list(result.sites))

    def _site_failed(self, hub: str, site: str, error: str, what: str) -> None:
        """Say it, and stop the run unless the hub goes on without the site. Errors: SiteFailed."""
        if not self._tree.hubs[hub].keep_going:
            raise SiteFailed(f"{site} could not be {what}: {error}\n(on_failure: continue goes on without such a site)")
        self._emit(records.NodeChanged(self._now(), site, "failed", self._shown))
        self._notice("error", site, f"could not be {what}: {error}")

    def _close_open(self, group: Group, sites: list[str]) -> None:
        """Cross sites off a group; a group without open sites is forgotten."""
        waiting = self._open.get(group.name)
        if waiting is None:
            return
        waiting.difference_update(sites)
        if not waiting:
            del self._open[group.name]
            self.crew.finish(group.name)

    def _begin(self, path: str, event: Begin, order: Order | None, model: Handle) -> None:
        """Begin a hub's rounds."""
        self._opened[path] = (self._now(), 0)
        self.hubs.begin(path, event, order, model, self._states.get(path))

    def _hear(self, said: HubSaid | HubLost) -> None:
        """Carry out what a hub wants."""
        if isinstance(said, HubLost):
            self._notice(
                "warning", said.path, f"its aggregator died ({said.reason}) and was replaced; its round goes on"
            )
            return
        path, outcome = said.path, said.outcome
        self._phase(path, "aggregate", said.started_s, said.ended_s, (path,))
        for refused in outcome.refused:
            members = ", ".join(share.member for share in refused.update.shares)
            self._notice("warning", path, f"refused an update of {members}: {refused.reason}")
            lost = {share.member: f"its update was refused: {refused.reason}" for share in refused.update.shares}
            self.hubs.tell(path, "lose", Lost(refused.update.round_number, lost))  # no effect on who has reported
        for closed in outcome.closed:
            self._closed(path, closed)
        if outcome.failed is not None:
            self._give_up(path, outcome.failed)
            return
        for order in outcome.orders:
            self._order(path, order)
        if outcome.finished is not None:
            self._finished(path, outcome, said.result, said.state)

    def _closed(self, path: str, closed: Close) -> None:
        """Record a closed round."""
        opened_s, bytes_up = self._opened[path]
        self._opened[path] = (self._now(), 0)
        self._emit(
            records.RoundClosed(
                *(self._now(), path, closed.round_number + 1, closed.reason, closed.members, closed.missing),
                *(self._now() - opened_s, bytes_up),
            )
        )

    def _count_bytes(self, path: str, num_bytes: int) -> None:
        """Count what has come up to a hub in its open round."""
        opened_s, bytes_up = self._opened[path]
        self._opened[path] = (opened_s, bytes_up + num_bytes)

    def _order(self, path: str, order: Order) -> None:
        """Carry an order to a hub's members: sites to the crew, hubs to their aggregators."""
        weights = {f"{path}/{name}": weight for name, weight in order.members}
        sites = {site: self._steps[site] for site in weights if site in self._steps}
        model = self.hubs.model(path)
        name = _group_name(path, order.round_number)
        chain_s = self._chains.remaining_s(path, order.round_number)
        self._ask(Group(name, "train", path, order.round_number, sites, weights, order, model, chain_s=chain_s))
        for member in weights:
            if member in self._tree.hubs:
                rounds = self._tree.hubs[member].rounds
                self._begin(member, Begin(order.round_number * rounds, rounds), order, model)
        self._pump()  # devices first: a word for each member takes time
        for member in weights:
            self._emit(records.NodeChanged(self._now(), member, "training", order.round_number + 1))

    def _finished(self, path: str, outcome: Outcome, result: Handle, state: Handle) -> None:
        """Hand a hub's result to its parent; at the root, publish."""
        assert outcome.finished is not None
        if outcome.has_state:
            self._next_states[path] = state
        above = parent(path)
        if above is None:
            self._published.append(RoundResult(result, self._next_states))
            return
        self._emit(records.NodeChanged(self._now(), path, "done", outcome.finished.round_number + 1))
        self._count_bytes(above, outcome.finished.num_bytes)
        self.hubs.tell(above, "arrive", outcome.finished, result)

    def _give_up(self, path: str, reason: str) -> None:
        """A hub's round failed: its parent goes on without it, or the run ends. Errors: RoundFailed."""
        above = parent(path)
        if above is None or not self._tree.hubs[above].keep_going:
            raise RoundFailed(f"{path}: the round cannot be closed: {reason}")
        self._notice("error", path, f"gave up its round: {reason}")
        order = self.hubs.order(path)
        for hub in self._tree.hubs:
            if hub == path or hub.startswith(path + "/"):
                for name in [name for name in self._open if name.startswith(f"train:{hub}:")]:
                    self.crew.withdraw(name)
                    del self._open[name]
                self.hubs.stop(hub)
        self.hubs.tell(above, "lose", Lost(order.round_number, {path.rpartition("/")[2]: _first(reason)}))

    def _notice(self, level: str, node: str, message: str) -> None:
        self._emit(records.Notice(self._now(), level, node, message))

    def _phase(self, actor: str, phase: str, start_s: float, end_s: float, nodes: tuple[str, ...]) -> None:
        """Record a busy span, in seconds since the run's start."""
        begun, ended = start_s - self._started_s, end_s - self._started_s
        self._emit(records.Phase(self._now(), actor, phase, begun, ended, nodes, self._shown))

    def _now(self) -> float:
        return time.time() - self._started_s


def _first(text: str | None) -> str:
    """Give the first line of a reason."""
    return (text or "").strip().splitlines()[0] if (text or "").strip() else ""


def _group_name(path: str, round_number: int) -> str:
    """Name the training work of a hub's round."""
    return f"train:{path}:{round_number}"
