"""Live scheduling: sleeping sites on four logical devices on Ray, policy by policy, beside the bound and the simulator.

The first row is the bound that no schedule can beat, so "x first" of a policy is one over its efficiency. A policy's
second row is what the simulator makes of that very run's log (`hierfl plan --replay`). Seconds are a round's, without
the first round, in which durations are not known and workers warm up. The policies take turns within one process, in
the order A-B-C and then C-B-A.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.common import Case, Sample, Size, Work
from benchmarks.contenders.live_runs import POLICIES
from benchmarks.processes import watch


def works(size: Size) -> Iterator[Work]:
    setting = {"rounds": size.pick(8, 3), "scale": size.pick(100, 5) / 100}
    turns = Turns(setting)
    names = [name for policy in POLICIES for name in (policy, f"{policy}, simulated")]
    policies = [Case(name, lambda memory, name=name: Sample(turns.last[name])) for name in names]  # type: ignore[misc]
    yield Work("live, 16 sites on 4 devices", "s per round", [Case("bound", lambda memory: turns.take()), *policies])


class Turns:
    """Runs all policies in one process per turn; `last` holds the seconds of the newest turn by contender."""

    def __init__(self, setting: dict[str, Any]) -> None:
        self.last: dict[str, float] = {}
        self._setting = setting
        self._num = 0

    def take(self) -> Sample:
        """Run the next turn; give its bound."""
        order = POLICIES if self._num % 2 == 0 else POLICIES[::-1]
        self._num += 1
        asked = json.dumps({**self._setting, "policies": order})
        said, _, _ = watch([sys.executable, "-m", "benchmarks.contenders.live_runs", asked])
        self.last = json.loads(said.strip().splitlines()[-1])
        return Sample(self.last["bound"])
