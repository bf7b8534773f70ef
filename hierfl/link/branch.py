"""A member's work: the part of the tree at and below it, run by the same engine as a whole federation.

What its hubs and sites keep from round to round stays here, on disk after every round, so that a member that was killed
goes on where it was, and a hub that went back to its last checkpoint finds the state that belongs to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hierfl import checkpoint
from hierfl.budget import Cost, costs, counted_on
from hierfl.checkpoint import Checkpoint
from hierfl.commits import complete, rounds_done
from hierfl.config.membership import epoch_of, epochs, still_known
from hierfl.config.schema import RunConfig
from hierfl.config.terms import Terms
from hierfl.errors import QUOTED, ConfigError, DataError, HierflError, LinkError, OutputError, told_above
from hierfl.learning.compression import as_sum
from hierfl.learning.metrics import Tally
from hierfl.learning.ring import PartialSum
from hierfl.learning.state import Layout, ModelState
from hierfl.link import kept
from hierfl.link.asks import MOST_WORDS
from hierfl.link.codec import folder_name_in
from hierfl.link.ledger import Ledger
from hierfl.link.measured import Measured, check_measurement
from hierfl.link.served import num_rounds, sites_here, stay_of
from hierfl.link.terms import check_delta
from hierfl.monitor.records import Notice, Record
from hierfl.runtime.driver import Driver
from hierfl.runtime.engine import Engine
from hierfl.runtime.hub import grid_of
from hierfl.runtime.jobs import Inventory, Order
from hierfl.runtime.opening import crew_of
from hierfl.runtime.remembered import Remembered
from hierfl.runtime.specs import worker_spec
from hierfl.runtime.survey import patients_of, samples_of
from hierfl.told import rolled_up
from tiers.federation import is_within, parent
from tiers.messages import Opening, Shortfall

__all__ = ["Asked", "Branch", "what_is_said"]

STATES_KEPT = 4
ANY_ROUND = 2**31


@dataclass(frozen=True, slots=True)
class Asked:
    """What a hub asks of a member: an update of its round, with at most this weight, on the grid of an opening.

    `shortfalls`: of its updates that did not count whole.
    """

    hub: str
    round_number: int
    weight: int
    opened_by: str
    opened_round: int
    total_weight: int
    shortfalls: tuple[Shortfall, ...] = ()


class Branch:
    """Runs one member's part. `config`: as its process sees it (`as_served`); `folder`: where its states are kept;
    `ledger`: what its sites pay for their records' privacy; `terms`: gives those of the institution, or raises
    HierflError where they are not kept.
    """

    def __init__(
        self,
        config: RunConfig,
        path: str,
        driver: Driver,
        folder: Path,
        emit: Callable[[Record], None],
        ledger: Ledger,
        terms: Callable[[], Terms] = Terms,
    ) -> None:
        self.config = config
        self.path = path
        self._driver = driver
        self._folder = folder
        self._emit = emit
        self._ledger = ledger
        self._terms = terms
        seats = driver.start(worker_spec(config), len(config.federation.hubs))
        crew = crew_of(config, driver, seats, emit)
        self._crew = crew
        self._epochs = {epoch.number: epoch for epoch in epochs(config)}
        self._epoch = next(iter(self._epochs.values()))
        self._open: Callable[..., Engine] = lambda *known: Engine(
            self._epoch.config, driver, crew, emit, time.time(), *known
        )
        self._engine = self._open()
        self._kept: Remembered | None = None
        self._has_hubs = False
        self._layout: Layout | None = None
        self._inventory: Inventory | None = None
        self._run = ""
        self._measured: Measured | None = None
        self._round = -1
        self._num_samples: dict[str, int] = {}
        self._num_units: dict[str, int | None] = {}

    @property
    def layout(self) -> Layout:
        """Give the model's layout; it is built the first time."""
        if self._layout is None:
            self._layout, _ = self._engine.initial()
        return self._layout

    def enter(self, number: int) -> None:
        """Go on with the tree of an epoch. Errors: LinkError for one in which this node is no member."""
        if number == self._epoch.number:
            return
        if number not in self._epochs:
            raise LinkError(f"epoch {number} of the tree, in which {self.path} is no member")
        if self._has_hubs:
            self._engine.end("the members change", stops=True)
        before, self._epoch = self._epoch, self._epochs[number]
        known = still_known(self._engine.inventories, self.config, before, self._epoch)
        self._engine, self._inventory, self._has_hubs = self._open(known), None, False

    def heed(self) -> None:
        """Errors: LinkError where the terms of the institution are not kept now, or cannot be read."""
        try:
            self._terms()
        except ConfigError as error:
            said = "; ".join(str(error).splitlines())
            raise LinkError(f"the terms of {self.path} cannot be read{QUOTED}{said}") from error

    def describe(self) -> Inventory:
        """Count what is at and below this node now."""
        if self._inventory is None:
            try:
                found = self._engine.describe()
                told = rolled_up(self._epoch.config, found).get(self.path)
            except HierflError as error:
                return Inventory(self.path, 0, 0, None, str(error))
            self._num_samples = samples_of(self._epoch.config, found)
            self._num_units = counted_on(self._epoch.config, self._num_samples, patients_of(found))
            moments = self._engine.moments()
            self._engine.compare()
            num_test = sum(item.num_test for item in found.values())
            is_first = self._epoch.number == self.config.federation.epoch  # then features are standardised for the run
            has_moments = is_first and any(item.moments is not None for item in found.values())
            self._inventory = Inventory(
                *(self.path, self._num_samples[self.path], num_test, moments if has_moments else None),
                statistics=told,
                num_patients=found[self.path].num_patients if self.path in found else None,
            )
        return self._inventory

    def prepare(self, run: str, scale: tuple[np.ndarray, np.ndarray] | None) -> None:
        """Begin a run, or take one up again. Errors: HierflError if the data cannot be loaded; as of `terms`."""
        terms = self._terms()
        self._count()
        folder_name_in(run, "a run's name")
        self._ledger.check_run(self._costs(terms), run)
        self._crew.prepare(self.layout, scale)
        kept.forget_all_before(self._folder, run)
        self._run, self._round, self._measured = run, -1, Measured(self._folder / run)
        self._restore(ANY_ROUND)

    def train(self, asked: Asked, model: ModelState) -> tuple[int, PartialSum]:
        """Do a round for the hub above; give the update's weight, and the update. Errors: HierflError."""
        if not self._run:
            raise LinkError("a round was asked for before the run was begun")
        order = self._order(asked)
        self._make_hubs(asked.round_number)
        price = self._price()
        try:
            update, handle = self._engine.branch(self.path, order, self._driver.put(model))
        finally:  # before anybody hears of it, or what it left is kept; that it failed tells of the records, too
            self._ledger.pay(price, self._run, asked.round_number)
        self._round = asked.round_number
        self._save(asked.round_number)
        part = as_sum(self._driver.get(handle), grid_of(order.opening))
        return sum(share.weight for share in update.shares), part

    def tally(self, round_number: int, digest: bytes, model: ModelState, *, tunes: bool = False) -> Tally:
        """Measure the model of a digest at every site here, after a round of the root, counted from 1; `tunes`: after
        each site has made it its own. Errors: HierflError; LinkError for what is not in the plan.
        """
        if self._measured is None:
            raise LinkError("a measurement was asked for before the run was begun")
        check_measurement(self.config, round_number, tunes=tunes)
        self._check_there(round_number)
        self._measured.admit(round_number, digest)
        self._make_hubs(self._round + 1)
        found = self._engine.tally(round_number, self._driver.put(model), tunes=tunes)
        if tunes and self._round >= 0:
            self._save(self._round)
        return found

    def _order(self, asked: Asked) -> Order:
        """Make of what was asked the order that the hub would give here. Errors: LinkError for another's."""
        above = parent(self.path)
        hubs = self.config.federation.hubs
        if asked.hub != above or not is_within(self.path, asked.opened_by) or asked.opened_by not in hubs:
            raise LinkError(f"an order of {asked.hub}, opened by {asked.opened_by}; {self.path} works for {above}")
        self._check_round(asked.hub, asked.round_number)
        self._check_round(asked.opened_by, asked.opened_round)
        arithmetic = self.config.arithmetic
        opening = Opening(
            *(asked.opened_by, asked.opened_round, arithmetic.width, arithmetic.clip, asked.total_weight),
            str(self.layout.float_dtype),
        )
        objective, name = self.config.hubs[asked.hub].strategy.objective(), self.path.rpartition("/")[2]
        leaves_out = any(one.may_leave_out for path, one in hubs.items() if is_within(asked.hub, path))
        short = {name: asked.shortfalls} if leaves_out else None
        return Order(asked.hub, asked.round_number, ((name, asked.weight),), opening, objective, shortfalls=short)

    def _check_round(self, hub: str, number: int) -> None:
        """Errors: LinkError for a round that the plan does not have, or not with this member and this tree."""
        most = num_rounds(self.config, hub)
        if number >= most:
            raise LinkError(f"round {number + 1} of {hub} is asked for, and the plan has {most}")
        self._check_there(1 + number // (most // self.config.federation.root.rounds))

    def _check_there(self, at: int) -> None:
        """Errors: LinkError for a round of the root in which this is no member, or not with this tree."""
        root, stay = self.config.federation.root, stay_of(self.config, self.path)
        if not stay.has(at):
            until = f" to round {stay.end - 1}" if stay.end is not None else " on"
            said = f"takes part from round {stay.first}{until}"
            raise LinkError(f"round {at} of {root.name} is asked for, and {self.path} {said}")
        if epoch_of([*self._epochs.values()], at) is not self._epoch:
            raise LinkError(f"round {at} of {root.name} is asked for with the members of another")

    def _price(self) -> Mapping[str, Cost]:
        """Say what a round costs sites with a privacy mechanism.

        Errors: ConfigError for one that they cannot pay; as of `terms`.
        """
        terms = self._terms()
        price = self._costs(terms, self.path)
        self._ledger.check(price, self._costs(terms), self._run)
        return price

    def _costs(self, terms: Terms, top: str = "") -> dict[str, Cost]:
        """Give what sites pay whose records are here, as of `costs`, and at most what the terms allow.

        Errors: LinkError for a delta with which the terms' epsilon says nothing.
        """
        found = costs(self._epoch.config, self._num_units, top)
        here = (site for site in sites_here(self._epoch.config, self.path) if site in found)
        priced = {site: replace(found[site], allowed=terms.epsilon) for site in here}
        check_delta(terms, self.path, priced.values())
        return priced

    def _count(self) -> None:
        """Have all sites' samples counted. Errors: DataError if data cannot be loaded."""
        said = self.describe()
        if said.error is not None:
            raise DataError(said.error)

    def _make_hubs(self, before: int) -> None:
        """Have the hubs of this epoch's tree, as they are before a round. Errors: DataError."""
        if before <= self._round:
            self._count()
            self._restore(before)
        elif not self._has_hubs:
            self._count()
            before_that = self._kept or Remembered()
            self._set_up(before_that.within(self._epoch.config, ANY_ROUND, self._driver))

    def _restore(self, before: int) -> None:
        """Make the hubs, with what was kept after the newest round that came before this one."""
        remembered, self._round = Remembered(), -1
        saved = self._newest(before)
        if saved is not None:
            remembered = Remembered.of(replace(saved, rounds_done=ANY_ROUND), self._epoch.config, self._driver)
            self._round = saved.rounds_done - 1
        self._set_up(remembered)

    def _set_up(self, remembered: Remembered) -> None:
        """Make the hubs, with what they keep."""
        units, sites = self._num_units, self._epoch.config.sites
        steps = {site: settings.training.num_steps(units[site] or 0) for site, settings in sites.items()}
        self._engine.set_up(self.layout, self._num_samples, steps, remembered, top=self.path)
        self._kept, self._has_hubs = remembered, True

    def _newest(self, before: int) -> Checkpoint | None:
        """Read what was kept after the newest round that came before this one, and is whole; say what is not."""
        spoilt, found = [], None
        for folder in reversed(complete(self._folder / self._run)):
            if rounds_done(folder) > before:
                continue
            try:
                found = checkpoint.load(folder)
                break
            except OutputError as error:
                spoilt.append(str(error))
        used = f"that of round {found.rounds_done} is used" if found is not None else "what is kept begins anew"
        for reason in spoilt:
            self._emit(Notice(0.0, "warning", self.path, f"{reason}; {used} in its place"))
        return found

    def _save(self, round_number: int) -> None:
        """Keep what hubs and sites remember; nothing is written where they remember nothing."""
        remembered = self._kept = self._engine.remember(round_number + 1)
        if not (remembered.states or remembered.hubs or remembered.sites):
            return
        nothing = ModelState(np.zeros(0, np.float32), np.zeros(0, np.int64))
        content = Checkpoint(
            *(round_number + 1, self._epoch.number, self.config.seed, Layout(()), nothing),
            **remembered.fetched(self._driver),
        )
        checkpoint.save(self._folder / self._run, content, STATES_KEPT)


def what_is_said(error: HierflError, path: str) -> str:
    """Say an error to a hub: a line of ours, without what it quotes of records; what a task's own code says stays here,
    since it may quote some.
    """
    said = told_above(str(error))
    return f"the task's code failed at {path}; what it said is in the log there" if said is None else said[:MOST_WORDS]
