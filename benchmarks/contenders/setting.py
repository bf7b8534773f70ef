"""The work that every contender is given: how many sites, which model, how much training."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hierfl.tasks.synthetic import Synthetic

__all__ = ["KEPT_SITES", "Setting", "answer", "setting"]

KEPT_SITES = 256
"""Sites whose data stay in memory, as in a worker of hierfl; with more, each visit makes them anew."""

LR = 0.1


@dataclass(frozen=True)
class Setting:
    """One work. `hubs` 0 puts all sites under the root; the first `warm_up` rounds do not count, the last neither:
    hierfl writes its checkpoint in it. `threads` 0 leaves the raw loop the number that torch takes by itself. `kept`:
    with the journal and a checkpoint each round, as hierfl runs where nothing is said. `replicas`: of each hub's
    aggregator; three or more vote. `turn`: so many rounds hierfl and the raw loop take in turns, where they do so.
    """

    sites: int
    num_parameters: int
    rounds: int
    warm_up: int = 2
    network: str = "flat"
    num_features: int = 20
    num_samples: int = 32
    local_steps: int = 1
    hubs: int = 0
    kind: str = "local"
    variant: str = "per site"
    num_workers: int = 2
    threads: int = 0
    kept: bool = False
    replicas: int = 1
    turn: int = 0

    @cached_property
    def task(self) -> Synthetic:
        return Synthetic(
            num_parameters=self.num_parameters,
            network=self.network,
            num_features=self.num_features,
            num_samples_min=self.num_samples,
            num_test=0,
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(f"site-{number:05d}" for number in range(self.sites))

    def counted(self, seconds: list[float]) -> list[float]:
        """Cut what does not count off the rounds' seconds."""
        return seconds[self.warm_up : -1]


def setting() -> Setting:
    """Read this process' work from the command line."""
    return Setting(**json.loads(sys.argv[1]))


def answer(**said: Any) -> None:
    """Tell the parent process what came of it, as the last line."""
    print(json.dumps(said), flush=True)
