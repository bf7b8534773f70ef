"""What a lever is, and the bench on which it is tried: the configuration changed, the case simulated anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from hierfl.config import from_mapping
from hierfl.config.places import join
from hierfl.config.schema import RunConfig
from hierfl.errors import ConfigError
from hierfl.planning.case import Case, Figures, case_of
from hierfl.planning.costs import Knowledge
from hierfl.planning.ran import Ran
from hierfl.planning.simulation import simulate
from scheduler.policy import Policy

__all__ = ["LEAST_IDLE", "LEAST_TIME", "Bench", "Lever", "Say", "place_of", "silent"]

Say: TypeAlias = Callable[[str], None]
"""Hears what is being done, in a few words."""

LEAST_TIME, LEAST_IDLE = 0.02, 0.01
"""What a lever must gain: a fraction of the round's time, or of the devices'."""


@dataclass(frozen=True)
class Lever:
    """A change, what it would do, and why; `overrides` do it, where it is one of this configuration.

    `num_federations`: how many there are after it, each with the work of the one before it.
    """

    kind: str
    what: str
    reason: str
    overrides: tuple[str, ...]
    before: Figures
    after: Figures
    num_federations: int = 1

    @property
    def time_gain(self) -> float:
        """Give the fraction of the time that it saves for the same work; below 0 where that takes longer."""
        return 1.0 - self.after.round_s / (self.num_federations * self.before.round_s)

    @property
    def idle_gain(self) -> float:
        """Give the fraction of the devices' time that is idle no more."""
        return self.before.idle - self.after.idle

    @property
    def counts(self) -> bool:
        """Whether it gains enough to be told."""
        return self.time_gain > LEAST_TIME or self.idle_gain > LEAST_IDLE

    def record(self) -> dict[str, Any]:
        """Give the lever for JSON."""
        return {
            "kind": self.kind,
            "what": self.what,
            "reason": self.reason,
            "overrides": list(self.overrides),
            "time_gain": self.time_gain,
            "idle_gain": self.idle_gain,
            **self.after.record(),
        }


def silent(said: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Bench:
    """The case that levers are compared with; `say` hears what is tried."""

    config: RunConfig
    known: Knowledge
    case: Case
    policy: Policy
    ran: Ran
    say: Say = silent

    @cached_property
    def before(self) -> Figures:
        """Give the figures without any lever."""
        return self.case.figures(self.ran)

    def changed(self, overrides: Sequence[str]) -> Case | None:
        """Make the case of a changed configuration; None where there can be none."""
        try:
            return case_of(from_mapping(self.config.resolved, overrides), self.known, self.case.rounds)
        except ConfigError:
            return None

    def after(self, case: Case) -> Figures:
        """Give the figures of another case under the same policy."""
        return case.figures(simulate(case, self.policy))

    def lever(
        self, kind: str, what: str, reason: str, overrides: tuple[str, ...], *, at_most_s: float = math.inf
    ) -> Lever | None:
        """Try a change; None where there can be none, or where no schedule has its round done in `at_most_s`."""
        self.say(what)
        case = self.changed(overrides)
        if case is None or (not case.closes_early and case.bound_s > at_most_s * case.rounds):
            return None
        return Lever(kind, what, reason, overrides, self.before, self.after(case))


def place_of(path: str) -> str:
    """Write a node's path as the place of its keys in the YAML."""
    return join("federation", *(word for name in path.split("/")[1:] for word in ("members", name)))
