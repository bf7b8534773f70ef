"""What is broken on purpose, where and when: `faults:` in the YAML makes a run rehearse what hospitals must outlive.

Where is a node and a step of its work; what happens there is a kind's. Which faults a run will see follows from its
configuration and its seed alone; that each happens no more often than it says, also in a run that is taken up again, is
the ledger's business (`hierfl.runtime.ledger`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from random import Random
from typing import ClassVar, Protocol, runtime_checkable

from hierfl.errors import ConfigError
from hierfl.learning.seeds import derive

__all__ = [
    "HUB_STEPS",
    "RUN",
    "RUN_STEPS",
    "SITE_STEPS",
    "Fault",
    "FaultKind",
    "Moment",
    "Plan",
    "Struck",
    "Where",
    "positive",
]

RUN = "run"
"""The node that is the run's own process."""

HUB_STEPS: Mapping[str, str] = {
    "open": "a round has been opened, no member has been asked",
    "before_accept": "the nth update has come, and is in no sum",
    "after_accept": "the nth update is in the sum, nobody has been told",
    "before_close": "all that count are in the sum, the round is not closed",
    "mid_aggregate": "the sum is decoded or reduced, the model has not stepped",
    "after_aggregate": "the model has stepped, nobody has been told",
    "before_publish": "the hub's rounds are over, its result is not made",
    "after_publish": "its result is made, nobody has been given it",
}
"""The steps of a hub's aggregator, in the order of a round."""

SITE_STEPS: Mapping[str, str] = {
    "training": "the site's data are there, its training begins",
    "trained": "the site has trained, its update is in no sum",
}
"""The steps of a site in its worker."""

RUN_STEPS: Mapping[str, str] = {
    "open": "a round of the root is about to be begun",
    "before_accept": "the nth update of the round is about to be handed to its hub",
    "after_accept": "a hub has answered to the nth update of the round",
    "closed": "the root has closed its round",
    "published": "the root's model is there, no checkpoint of it",
    "before_checkpoint": "the round is measured, its checkpoint is about to be written",
    "after_checkpoint": "the checkpoint is on disk, the journal still the old one",
}
"""The steps of the run's own process; rounds are the root's."""


@dataclass(frozen=True)
class Where:
    """The keys that every fault has beside its kind's."""

    node: str
    """The path of a hub or a site, a pattern of paths (world/*), or run: the run's own process."""
    step: str | None = None
    """The step of the node's work at which it happens (see the table); null: the kind's usual one."""
    round: int | None = None
    """The node's round, counted from 1 as in events.jsonl (a site's is its hub's, the run's the root's); null: each."""
    nth: int = 1
    """At before_accept and after_accept: at which update of the round."""
    times: int = 1
    """How often at this node in one round."""
    probability: float = 1.0
    """Whether it happens is drawn for each node and round, from the run's seed."""


class Struck(Protocol):
    """What a fault may do to whom it strikes."""

    def kill(self, after_s: float) -> None:
        """End the process with SIGKILL, at once or after so many seconds of going on."""

    def hang(self, for_s: float) -> None:
        """Stop the process with SIGSTOP; SIGCONT comes after so many seconds."""

    def delay(self, for_s: float) -> None:
        """Wait, and go on."""


@runtime_checkable
class FaultKind(Protocol):
    """One kind is one file in `hierfl/faults/`, a frozen dataclass.

    `usual`: by what a node is (hub, site, run), the step where none is named; where one of the three is missing, the
    kind does not happen there. `own_process`: what it strikes must have a process to itself.
    """

    usual: ClassVar[Mapping[str, str]]
    own_process: ClassVar[bool]

    def strike(self, struck: Struck) -> None:
        """Let it happen."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A node reaches a step of its round, counted from 1; `nth`: which update it is about."""

    node: str
    step: str
    round: int
    nth: int = 1


@dataclass(frozen=True)
class Fault:
    """One entry of `faults:`; its `where` has a step. `number`: of its equals in the list, from 0."""

    kind: str
    where: Where
    what: FaultKind
    number: int = 0

    @cached_property
    def key(self) -> str:
        """Tell it from all others, in this process and in those that take the run up again."""
        what = asdict(self.what)  # type: ignore[call-overload]
        return json.dumps([self.kind, asdict(self.where), what, self.number], sort_keys=True)

    def __str__(self) -> str:
        where = self.where
        nth = f" of update {where.nth}" if where.step in ("before_accept", "after_accept") else ""
        when = "every round" if where.round is None else f"round {where.round}"
        often = f", {where.times} times" if where.times > 1 else ""
        chance = f", with probability {where.probability:g}" if where.probability < 1 else ""
        return f"{self.kind} of {where.node} at {where.step}{nth} in {when}{often}{chance}"


@dataclass(frozen=True)
class Plan:
    """The faults of a run; `seed` is the run's."""

    faults: Sequence[Fault] = ()
    seed: int = 0

    def due(self, moment: Moment) -> Iterator[Fault]:
        """Give those that are to happen at a moment, in the list's order."""
        for fault in self.faults:
            if self._fits(fault.where, moment) and self._drawn(fault, moment):
                yield fault

    def _fits(self, where: Where, moment: Moment) -> bool:
        return (
            where.step == moment.step
            and where.round in (None, moment.round)
            and where.nth == moment.nth
            and (moment.node == where.node or fnmatchcase(moment.node, where.node))
        )

    def _drawn(self, fault: Fault, moment: Moment) -> bool:
        if fault.where.probability >= 1:
            return True
        return Random(derive(self.seed, fault.key, moment.node, moment.round)).random() < fault.where.probability


def positive(name: str, value: float) -> None:
    """Refuse a field that is no finite number above 0, by name. Errors: ConfigError."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is {value}; a number above 0")
