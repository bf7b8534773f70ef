"""The ledger of faults on Ray: an actor beside the run's own process, which all of the run's processes ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hierfl.fault import Fault, Moment
from hierfl.runtime.ledger import Ledger

__all__ = ["RayLedger"]


class LedgerProcess:
    """An actor that writes the file, on the machine where the run's folder is."""

    def __init__(self, path: str) -> None:
        self._ledger = Ledger(Path(path))

    def claim(self, fault: Fault, moment: Moment) -> bool:
        """Write down that a fault happens now; False if it has happened as often as it may."""
        return self._ledger.claim(fault, moment)


class RayLedger:
    """What every process of a run is given to ask; the actor ends with the run."""

    def __init__(self, path: Path) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor: Any = ray.remote(LedgerProcess).options(num_cpus=0, scheduling_strategy=here)
        self._actor = actor.remote(str(path.resolve()))

    def claim(self, fault: Fault, moment: Moment) -> bool:
        """Write down that a fault happens now; False if it may not, or the run that would know is over."""
        try:
            return bool(ray.get(self._actor.claim.remote(fault, moment)))
        except RayError:
            return False
