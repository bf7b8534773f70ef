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
from typing import Any, ClassVar, Protocol, runtime_checkable

from hierfl.errors import ConfigError
from hierfl.learning.seeds import derive

__all__ = [
    "ANSWER",
    "EXCHANGE",
    "HUB_STEPS",
    "MEMBER_STEPS",
    "MESSAGE",
    "PROCESS",
    "RUN",
    "RUN_STEPS",
    "SITE_STEPS",
    "STEPS",
    "Answer",
    "Fault",
    "FaultKind",
    "Message",
    "Moment",
    "Plan",
    "Process",
    "Where",
    "positive",
    "rehearsed",
    "steps",
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

EXCHANGE = "exchange"

MEMBER_STEPS: Mapping[str, str] = {
    EXCHANGE: "all have trained, its place is asked to do its part of the exchange",
}
"""The steps of a hub or a site whose hub has no centre; rounds are that hub's."""

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


STEPS: Mapping[str, Mapping[str, str]] = {
    "hub": {**HUB_STEPS, **MEMBER_STEPS},
    "site": {**SITE_STEPS, **MEMBER_STEPS},
    RUN: RUN_STEPS,
}
"""All steps, by what a node is."""


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
    replica: int | None = None
    """Of a hub that several replicas serve: which one, from 1; null: the first that reaches the step."""


PROCESS, MESSAGE, ANSWER = "process", "message", "answer"
"""What a kind strikes: the process that reaches the step; an update on its way to a hub; what an aggregator answers."""


def steps(**usual: str) -> dict[str, tuple[str, ...]]:
    """Give all steps of what a node is (hub, site, run), with a usual one first, as a kind's `at`."""
    return {what: (step, *(other for other in STEPS[what] if other != step)) for what, step in usual.items()}


class Process(Protocol):
    """What a fault may do to a process."""

    def kill(self, after_s: float) -> None:
        """End the process with SIGKILL, at once or after so many seconds of going on."""

    def hang(self, for_s: float) -> None:
        """Stop the process with SIGSTOP; SIGCONT comes after so many seconds."""

    def delay(self, for_s: float) -> None:
        """Wait, and go on."""


class Message(Protocol):
    """What a fault may do to an update that is about to be handed to its hub."""

    def repeat(self, copies: int) -> None:
        """Hand it over so many times more."""

    def garble(self, bit: int) -> None:
        """Change one bit of it on the way; what the sender has stays."""

    def cut_off(self, for_s: float) -> None:
        """Hold up all that is said to the hub, this first, and all that it answers."""


class Answer(Protocol):
    """What a fault may do to an aggregator's part in a round."""

    def lie(self, what: str) -> None:
        """Answer what is not so."""


@runtime_checkable
class FaultKind(Protocol):
    """One kind is one file in `hierfl/faults/`, a frozen dataclass.

    `at`: by what a node is (hub, site, run), the steps at which it may happen, the usual one first; where one of the
    three is missing, it does not happen there. `strikes`: what it is given to strike. `own_process`: that must have a
    process to itself.
    """

    strikes: ClassVar[str]
    own_process: ClassVar[bool]

    @property
    def at(self) -> Mapping[str, Sequence[str]]:
        """Give where it may happen."""

    def strike(self, struck: Any) -> None:
        """Let it happen to a Process, a Message or an Answer, whichever it `strikes`."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A node reaches a step of its round, counted from 1; `nth`: which update it is about; `replica`: of
    a hub, from 1.
    """

    node: str
    step: str
    round: int
    nth: int = 1
    replica: int = 1


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
        of = where.node if where.replica is None else f"replica {where.replica} of {where.node}"
        nth = f" of update {where.nth}" if where.step in ("before_accept", "after_accept") else ""
        when = "every round" if where.round is None else f"round {where.round}"
        often = f", {where.times} times" if where.times > 1 else ""
        chance = f", with probability {where.probability:g}" if where.probability < 1 else ""
        return f"{self.kind} of {of} at {where.step}{nth} in {when}{often}{chance}"


@dataclass(frozen=True)
class Plan:
    """The faults of a run; `seed` is the run's."""

    faults: Sequence[Fault] = ()
    seed: int = 0

    def of(self, strikes: str) -> Plan:
        """Give those that strike the same."""
        return Plan(tuple(fault for fault in self.faults if fault.what.strikes == strikes), self.seed)

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
            and where.replica in (None, moment.replica)
            and (moment.node == where.node or fnmatchcase(moment.node, where.node))
        )

    def _drawn(self, fault: Fault, moment: Moment) -> bool:
        if fault.where.probability >= 1:
            return True
        return Random(derive(self.seed, fault.key, moment.node, moment.round)).random() < fault.where.probability


def rehearsed(faults: Sequence[Fault]) -> dict[str, str]:
    """Say of each node that is struck on purpose how."""
    found: dict[str, list[str]] = {}
    for fault in faults:
        found.setdefault(fault.where.node, []).append(str(fault))
    return {node: f"THIS RUN INJECTS FAULTS: {'; '.join(said)}" for node, said in found.items()}


def positive(name: str, value: float) -> None:
    """Refuse a field that is no finite number above 0, by name. Errors: ConfigError."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is {value}; a number above 0")
