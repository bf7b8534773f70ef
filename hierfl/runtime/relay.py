"""Carries orders down the tree and updates up it, by the commands of the hubs' machines; decides nothing.

Members that are late stay at work: what they send goes to their hub whenever it comes, whether a round of the hub is
open or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from hierfl.config.schema import RunConfig
from hierfl.errors import OutputError, RoundFailed, SiteFailed
from hierfl.learning.state import Layout
from hierfl.learning.strategy import Reducer
from hierfl.runtime.chains import Chains
from hierfl.runtime.closings import Closings
from hierfl.runtime.crew import Crew
from hierfl.runtime.driver import Done, Driver, Handle
from hierfl.runtime.exchanges import Exchanges, Moved
from hierfl.runtime.forecasts import forecasts
from hierfl.runtime.hubs import HubLost, Hubs, HubSaid, HubUp, Kept
from hierfl.runtime.jobs import Order, Outcome
from hierfl.runtime.openwork import OpenWork
from hierfl.runtime.orders import of_hub
from hierfl.runtime.recorder import Recorder
from hierfl.runtime.results import TRAIN, Group, HandedUp, SitesLost
from hierfl.runtime.scribe import Scribe, first_line
from hierfl.runtime.specs import hub_spec
from hierfl.runtime.timers import Timers
from hierfl.runtime.trials import Trials
from tiers.federation import parent
from tiers.messages import Begin, Close, Dismiss, Left, Lost, Mixed, Update

__all__ = ["Relay"]


class Relay:
    """The hubs of a run and what they asked for; `published` is the root's new model once its round is over, and at a
    branch, which works for a hub elsewhere, its update, with the header in `handed`.

    `feed`: gives the workers what they are asked for.
    """

    def __init__(
        self,
        config: RunConfig,
        driver: Driver,
        crew: Crew,
        scribe: Scribe,
        feed: Callable[[], None],
        recorder: Recorder | None = None,
    ) -> None:
        self.exchanges = Exchanges(driver, self._exchanging, self._give_up, self._left)
        self.hubs = Hubs(driver, recorder, self.exchanges.again)
        self._recorder = recorder
        self.states: dict[str, Handle] = {}
        self.published: Handle = None
        self.handed: Update | None = None
        self._top = config.federation.root.name
        self._config = config
        self._tree = config.federation
        self._crew = crew
        self._scribe = scribe
        self._feed = feed
        self._work = OpenWork(crew)
        self._timers = Timers()
        self._closings = Closings(scribe)
        self._chains = Chains(config.federation)
        self._trials = Trials(config, crew, scribe)
        self._steps: Mapping[str, int] = {}
        self._reducing: set[str] = set()
        self._num_orders = 0

    def make(
        self, path: str, layout: Layout, num_samples: Mapping[str, int], absent: Mapping[str, str], kept: Kept | None
    ) -> None:
        """Make a hub; see `hub_spec` and `Hubs.make`."""
        if isinstance(self._config.hubs[path].strategy, Reducer):  # asked once: it takes as long as a small step
            self._reducing.add(path)
        spec = hub_spec(self._config, path, layout, num_samples, absent)
        self.exchanges.make(spec)
        self.hubs.make(spec, kept)
        self._go_on(path)

    def _go_on(self, path: str) -> None:
        """Let a hub whose rounds were under way when the run was taken up go on with them."""
        found = self._recorder.under_way(path) if self._recorder is not None else None
        if found is not None:
            event, order, model = found
            self._closings.opened(path)
            self._closings.asked(order.hub, order.round_number, [_name(path)])
            self.hubs.begin(path, event, order, model, self.states.get(path))

    def begin(self, number: int, model: Handle, steps: Mapping[str, int]) -> None:
        """Begin a round of the root, counted from 0. `steps`: optimizer steps by site."""
        self.published, self._steps = None, steps
        estimates = self._crew.estimates
        seconds = {site: estimates.predict("train", site, num, self._kind(site)) for site, num in steps.items()}
        self._chains.begin(number, seconds.__getitem__)
        self._trials.begin(steps, seconds)
        self._begin(self._tree.root.name, number, 1, None, model)

    def begin_branch(self, path: str, order: Order, model: Handle, steps: Mapping[str, int]) -> None:
        """Begin what a member was asked by its hub, which is served elsewhere; `published` will be its update."""
        self.published, self.handed, self._steps, self._top = None, None, steps, path
        number = order.round_number
        if path in self._tree.hubs:
            rounds = self._tree.hubs[path].rounds
            self._begin(path, number * rounds, rounds, order, model)
            return
        self._ask(order, {path: dict(order.members)[_name(path)]}, model, alone=True)

    def stop_branch(self) -> None:
        """Give up what a branch was asked."""
        self._work.withdraw(parent(self._top) or "")
        self._stop(self._top)

    def ring(self) -> None:
        """Tell hubs that time has passed, and look after their processes."""
        for path, event in self._timers.ring(time.monotonic()):
            self.hubs.tell(path, "elapse", event)
        for said in self.hubs.tick(time.monotonic()):
            self.hear(said)

    def left_s(self) -> float:
        """Give the seconds until a hub must be told, or looked after."""
        now = time.monotonic()
        return min(self._timers.left_s(now), self.hubs.left_s(now))

    def handed_up(self, result: HandedUp) -> None:
        """Give a worker's sum to its hub."""
        group = result.group
        if group.hub == parent(self._top):
            self.published, self.handed = result.part, result.update
            self._work.account(group, list(group.sizes))
            return
        self._closings.count_bytes(group.hub, result.update.num_bytes, result.update.spared_bytes)
        self._arrive(group.hub, result.update, result.part)
        self._work.account(group, [f"{group.hub}/{share.member}" for share in result.update.shares])

    def lost(self, result: SitesLost) -> None:
        """Tell a hub which of its sites give nothing. Errors: SiteFailed."""
        group = result.group
        for site, why in result.sites.items():
            self._scribe.site_failed(site, why, "trained")
        if group.hub == parent(self._top):
            raise SiteFailed("; ".join(f"{site}: {self._scribe.reason(why)}" for site, why in result.sites.items()))
        reasons = {_name(site): self._scribe.reason(why) for site, why in result.sites.items()}
        self._lose(group.hub, group.round_number, reasons)
        self._work.lose(group, result.sites)

    def hear(self, said: HubSaid | HubLost | HubUp) -> None:
        """Carry out what a hub wants. Errors: RoundFailed."""
        if isinstance(said, HubUp):
            self._scribe.placed(said.path, said.replica, said.num_replicas, said.machine, again=said.again)
            return
        if isinstance(said, HubLost):
            self._replaced(said)
            return
        path, outcome = said.path, said.outcome
        self._scribe.phase(path, "aggregate", said.started_s, said.ended_s, (path,))
        for refused in outcome.refused:
            members = ", ".join(share.member for share in refused.update.shares)
            self._scribe.notice("warning", path, f"refused an update of {members}: {refused.reason}")
            lost_ones = {share.member: f"its update was refused: {refused.reason}" for share in refused.update.shares}
            self._lose(path, refused.update.round_number, lost_ones)  # no effect on who has reported
        for closed in outcome.closed:
            self._timers.drop(path)
            self._note_closing(path, closed)
            self._closings.closed(path, closed)
        for dismissed in outcome.dismissed:
            self._dismiss(path, dismissed)
        if outcome.failed is not None:
            self._give_up(path, outcome.failed)
            return
        opened_s = time.monotonic()
        for timer in outcome.timers:
            self._timers.set(path, timer, opened_s)
        if outcome.exchange is not None:
            self._exchange(path, outcome)
        for order in outcome.orders:
            self._order(path, order)
        if outcome.finished is not None:
            if outcome.has_state:
                self.states[path] = said.state
            self._finish(path, outcome.finished, said.result)

    def _replaced(self, lost: HubLost) -> None:
        """Name a replica that was replaced, and why."""
        if self._recorder is not None:
            self._recorder.replaced(lost.path, lost.replica, lost.cause, lost.reason)
        who = lost.path, lost.replica, lost.num_replicas
        self._scribe.replaced(*who, lost.cause, first_line(lost.reason), sits_out=lost.sits_out)

    def lost_place(self, actor: str) -> None:
        """Replace the process of a member's place; what it was asked is asked anew."""
        for said in self.hubs.replace(actor, "its process died"):
            self.hear(said)

    def _note_closing(self, path: str, closed: Close) -> None:
        """Let the journal have who counts. Errors: OutputError if it says otherwise already."""
        departs = self._recorder.closed(path, closed) if self._recorder is not None else None
        if departs is not None:
            raise OutputError(f"the journal does not fit to this run: {departs}; delete it to go on without it")

    def end(self, why: str, *, stops: bool = False) -> None:
        """The run with this tree is over, for a reason: say whose work is dropped, and whose update will not count.

        `stops`: hubs whose rounds are under way do not go on with them either.
        """
        for path, kept in self.hubs.kept().items():
            if not self.hubs.running(path):
                self._closings.ended(path, kept.memory.standing, why)
        for path in self._tree.hubs:
            self._work.withdraw(path)
            if stops and path in self.hubs.under_way():
                self._stop(path)

    def _begin(self, path: str, number: int, rounds: int, order: Order | None, model: Handle) -> None:
        """Begin a hub's rounds."""
        self._closings.opened(path)
        hub, late = self._tree.hubs[path], self._tree.hubs[path].participation.may_close_early
        expected = forecasts(self._tree, path, self._p90, len(self._crew.workers)) if late else {}
        event, state = Begin(number, rounds, expected, of_hub(order, hub) or ()), self.states.get(path)
        if self.exchanges.serves(path):
            begin = partial(self.hubs.begin, path, event, order, None, None)
            self.exchanges.begin(path, model, state, begin)
        else:
            self.hubs.begin(path, event, order, model, state)

    def _p90(self, site: str) -> float | None:
        """Predict how long a site takes at most, nine times of ten."""
        if site not in self._steps:
            return None
        estimates = self._crew.estimates
        return estimates.durations.p90("train", site, self._steps[site], self._kind(site), estimates.model)

    def _kind(self, site: str) -> str:
        """Name the usual kind of device among those that may take a site."""
        return self._crew.usual_kind(self._config.sites[site].labels)

    def _order(self, path: str, order: Order) -> None:
        """Carry an order to a hub's members: sites to the crew, hubs to their aggregators."""
        weights = {f"{path}/{name}": weight for name, weight in order.members}
        models = {member: self._model(path, member) for member in weights}
        number, hub = order.round_number, self._tree.hubs[path]
        alone = hub.participation.may_close_early or path in self._reducing or not hub.topology.has_centre
        self._closings.asked(path, number, [name for name, _ in order.members])
        alike: dict[int, dict[str, int]] = {}
        for site in (member for member in weights if member in self._tree.sites):
            alike.setdefault(id(models[site]), {})[site] = weights[site]
        for own in alike.values():
            chain_s = self._chains.remaining_s(path, number, order.then)
            self._ask(order, own, models[next(iter(own))], alone, chain_s)
        for member in weights:
            if member in self._tree.hubs and not self._is_over(path, number, member):
                rounds = self._tree.hubs[member].rounds
                if self.hubs.running(member):  # told again that it gave up, it has gone on before it did once more
                    self._stop(member)
                self._begin(member, number * rounds, rounds, order, models[member])
        self._feed()  # devices first
        self._scribe.changed(weights, "training", number + 1)

    def _is_over(self, path: str, round_number: int, member: str) -> bool:
        """Say whether an inner hub's answer is there, of before the run was taken up."""
        return self._recorder is not None and self._recorder.over(path, round_number, _name(member))

    def _ask(self, order: Order, weights: Mapping[str, int], model: Handle, alone: bool, chain_s: float = 0.0) -> None:
        """Ask the crew for the sites among those with weights; `alone`: each is handed up by itself."""
        sites = {site: self._steps[site] for site in weights if site in self._tree.sites}
        packs = [one for site in sites if (one := self._config.sites[site].compression) is not None]
        path, number = order.hub, order.round_number
        if self._recorder is not None:
            answered = self._recorder.answered
            sites = {site: steps for site, steps in sites.items() if not answered(path, number, _name(site))}
        self._num_orders += 1
        group = Group(
            *(f"{TRAIN}{path}:{number}:{self._num_orders}", "train", path, number, sites, weights, order, model),
            one_by_one=alone or bool(packs),
            keeps=order.objective.keeps or any(one.error_feedback for one in packs),
            is_masked=self._config.is_served and self._config.hubs[path].secure_aggregation != "none",
            chain_s=chain_s,
        )
        self._work.ask(group)

    def _model(self, path: str, member: str) -> Handle:
        """Give the model that a member of a hub trains from now."""
        if self.exchanges.serves(path):
            return self.exchanges.model(path, _name(member))
        return self.hubs.model(path)

    def _arrive(self, path: str, update: Update, part: Handle) -> None:
        """Give a hub an update; without a centre its header, while the vector stays where its members can have it."""
        if self.exchanges.serves(path):
            self.exchanges.keep(path, update, part)
            self.hubs.tell(path, "arrive", update)
        else:
            self.hubs.tell(path, "arrive", update, part)

    def _exchange(self, path: str, outcome: Outcome) -> None:
        """Let the members of a hub exchange."""
        assert outcome.exchange is not None
        event = Mixed(outcome.exchange.round_number)

        def mixed(moved: Moved) -> None:
            number = event.round_number + 1
            self._scribe.exchanged(path, number, moved.mixed, moved.num_bytes, moved.missing)
            self.hubs.tell(path, "mixed", event)

        self.exchanges.start(path, outcome, mixed)

    def _left(self, path: str, round_number: int, members: Mapping[str, str]) -> None:
        """Members cannot do their parts in an exchange: their hub says whether the others go on without them."""
        self._scribe.changed([f"{path}/{name}" for name in members], "failed", round_number + 1)
        for name, reason in members.items():
            said = f"has left the exchange of round {round_number + 1}: {reason}"
            self._scribe.notice("error", f"{path}/{name}", said)
        self.hubs.tell(path, "leave", Left(round_number, members))

    def _exchanging(self, path: str, member: str, done: Done) -> None:
        """Say when a member's place was busy for its hub."""
        self._scribe.phase(f"{path}/{member}", "aggregate", done.started_s, done.ended_s, (path,))

    def _finish(self, path: str, update: Update, result: Handle) -> None:
        """Hand a hub's result on, which its members hold where it has no centre."""
        if not self.exchanges.serves(path):
            self._finished(path, update, result)
            return

        def deliver(handle: Handle, num_bytes: int, spared_bytes: int = 0) -> None:
            if self.exchanges.state(path) is not None:
                self.states[path] = self.exchanges.state(path)
            distance = self.exchanges.consensus_distance(path)
            if distance is not None:
                self._scribe.consensus(path, distance)
            self._finished(path, replace(update, num_bytes=num_bytes, spared_bytes=spared_bytes), handle)

        above = parent(path)
        self.exchanges.deliver(path, update, None if above is None else self.hubs.order(path), deliver)

    def _finished(self, path: str, update: Update, result: Handle) -> None:
        """Hand a hub's result to its parent; at the root, publish."""
        above = parent(path)
        if above is None or path == self._top:
            self.published, self.handed = result, update
            return
        self._scribe.changed([path], "done", update.round_number + 1)
        self._closings.count_bytes(above, update.num_bytes, update.spared_bytes)
        self._arrive(above, update, result)

    def _give_up(self, path: str, reason: str) -> None:
        """A hub's round failed: its parent goes on without it, or the run ends. Errors: RoundFailed."""
        above = parent(path)
        if self._recorder is not None:
            self._recorder.gave_up(path, first_line(reason))
        if above is None or path == self._top or not self._tree.hubs[above].keep_going:
            raise RoundFailed(f"{path}: the round cannot be closed: {reason}")
        self._scribe.notice("error", path, f"gave up its round: {reason}")
        asked_in = self.hubs.order(path).round_number
        self._stop(path, failed=True)
        self._lose(above, asked_in, {_name(path): first_line(reason)})

    def _dismiss(self, path: str, dismissed: Dismiss) -> None:
        """Stop work that cannot count any more, where it can be: what a site has begun goes on to its end."""
        stopped = {}
        for name, reason in dismissed.members.items():
            member = f"{path}/{name}"
            if member in self._tree.hubs and self.hubs.running(member):
                self._stop(member)
                stopped[name] = reason
            elif member in self._tree.sites and self._work.take_back(member, dismissed.round_number):
                stopped[name] = reason
        for name, reason in stopped.items():
            said = f"its work for round {dismissed.round_number + 1} is stopped: {reason}"
            self._scribe.notice("info", f"{path}/{name}", said)
        if stopped:
            self._lose(path, dismissed.round_number, stopped)

    def _stop(self, path: str, *, failed: bool = False) -> None:
        """End the rounds of a hub and of all hubs below it; `failed`: since it gave up."""
        for hub in self._tree.hubs:
            if hub == path or hub.startswith(path + "/"):
                self._work.withdraw(hub)
                self._timers.drop(hub)
                self._closings.stopped(hub)
                self.exchanges.stop(hub)
        self.hubs.stop(path, failed=failed)

    def _lose(self, path: str, round_number: int, members: Mapping[str, str]) -> None:
        """Tell a hub that members will send nothing for the round in which they were asked."""
        self._closings.lost(path, round_number, members)
        self.hubs.tell(path, "lose", Lost(round_number, members))


def _name(path: str) -> str:
    """Give a node's name among its siblings."""
    return path.rpartition("/")[2]
