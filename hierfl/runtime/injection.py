"""Faults of a run, as its supervisor sees them: it says loudly what kind of run this is, strikes itself where the run's
own process is the node, and tells what has happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hierfl.config.schema import RunConfig
from hierfl.fault import RUN, Fault, Moment, Plan, Process
from hierfl.monitor.records import FaultInjected, Notice, Record
from hierfl.monitor.words import plural
from hierfl.runtime.driver import Driver
from hierfl.runtime.faulty import FaultyDriver
from hierfl.runtime.ledger import FILE, Ledger, News, shown
from hierfl.runtime.points import Claims
from hierfl.runtime.watched import OwnProcess, OwnThread, Watched
from hierfl.runtime.way import Way

__all__ = ["Injection"]


class Injection:
    """The faults of one process of a run. `emit` takes records; `facts`: what is known of the run, for its summary.

    `started_s`: when this process took the run up, in seconds since the epoch.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        emit: Callable[[Record], None],
        facts: dict[str, Any],
        started_s: float,
    ) -> None:
        self._faults: Sequence[Fault] = config.faults
        self._plan = Plan(config.faults, config.seed)
        self._root = config.federation.root.name
        self._path = run_dir / FILE
        self._emit = emit
        self._facts = facts
        self._started_s = started_s
        self._news = News(self._path)
        self._happened = [*self._news.take()]
        self._num_earlier = len(self._happened)
        self._own = Watched(self._plan, Ledger(self._path), self) if self._faults else None
        self._process = OwnProcess()
        self._tell_facts()

    def over(self, driver: Driver) -> Driver:
        """Give the driver that lets faults happen to what it starts; the same one, if there are none."""
        if not self._faults:
            return driver
        claims, struck = self._outside(driver)

        def points(replica: int) -> Watched:
            return Watched(self._plan, claims, struck, replica)

        return FaultyDriver(driver, self._root, self, Way(driver, self._plan, Ledger(self._path)), points)

    def _outside(self, driver: Driver) -> tuple[Claims, Process]:
        """Give whom other processes ask, and what they strike: themselves, or a thread that stands for one."""
        if driver.kind == "local":
            return Ledger(self._path), OwnThread()
        from hierfl.runtime.ray_ledger import RayLedger

        return RayLedger(self._path), OwnProcess()

    def story(self) -> list[tuple[str, str]]:
        """Say loudly what kind of run this is: each with its level."""
        found = []
        if self._faults:
            told = "; ".join(map(str, self._faults[:5])) + (" ..." if len(self._faults) > 5 else "")
            found.append(("warning", f"THIS RUN INJECTS FAULTS: it is a rehearsal, and no production run: {told}"))
        if self._num_earlier:
            times = plural(self._num_earlier, "time")
            found.append(("warning", f"earlier processes of this run were struck by faults on purpose, {times}"))
        return found

    def reached(self, step: str, round_number: int, nth: int = 1) -> None:
        """The run's own process has reached a step of a round of the root, counted from 0."""
        if self._own is not None:
            self._own.at(Moment(RUN, step, round_number + 1, nth))

    def look(self) -> None:
        """Say what has happened since the last look."""
        news = self._news.take()
        for line in news:
            self._tell(line)
        if news:
            self._happened += news
            self._tell_facts()

    def end(self) -> None:
        """The run is over: say which faults have not happened."""
        self.look()
        happened = {line["fault"] for line in self._happened}
        for fault in self._faults:
            if fault.key not in happened and fault.where.probability >= 1:
                self._notice("warning", fault.where.node, f"a fault was never reached: {fault}")

    def kill(self, after_s: float) -> None:
        """End the run's process, once it has told so."""
        self.look()
        self._process.kill(after_s)

    def hang(self, for_s: float) -> None:
        """Stop the run's process."""
        self.look()
        self._process.hang(for_s)

    def delay(self, for_s: float) -> None:
        """Let the run's process wait."""
        self.look()
        self._process.delay(for_s)

    def _tell(self, line: Mapping[str, Any]) -> None:
        """Tell one that has happened."""
        at_s = line["epoch_s"] - self._started_s
        named = (line["kind"], line["node"], line["step"], line["round"], line["nth"])
        self._emit(FaultInjected(at_s, *named))
        self._notice("warning", line["node"], f"struck on purpose: {shown(line)}")

    def _notice(self, level: str, node: str, message: str) -> None:
        self._emit(Notice(time.time() - self._started_s, level, node, message))

    def _tell_facts(self) -> None:
        """Leave in the summary what was planned and what has happened."""
        if self._faults or self._happened:
            shown_keys = ("kind", "node", "step", "round", "nth", "epoch_s")
            happened = [{key: line[key] for key in shown_keys} for line in self._happened]
            self._facts["faults"] = {"planned": [str(fault) for fault in self._faults], "injected": happened}
