"""Lie: an aggregator answers what is not so, as one that is broken or bought (Lamport et al. 1982, "The Byzantine
Generals Problem"). Nobody can tell that from one answer alone: only `redundancy.mode: vote` finds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hierfl.errors import ConfigError
from hierfl.fault import ANSWER, Answer
from hierfl.kinds import nearest

__all__ = ["Lie"]

WHAT = {
    "bit_flip": "after_aggregate",
    "dropped_site": "before_accept",
    "doubled_site": "before_accept",
    "stale_model": "after_aggregate",
}
"""The lies, and where each is told."""


@dataclass(frozen=True)
class Lie:
    """Lets an aggregator tell the run a wrong result; with replicas the first that gets there, or `replica`."""

    strikes: ClassVar[str] = ANSWER
    own_process: ClassVar[bool] = False

    what: str = "bit_flip"
    """bit_flip: one bit of the aggregate is another; dropped_site, doubled_site: the nth update is not in the sum, or
    twice; stale_model: the model of before the round."""

    def __post_init__(self) -> None:
        if self.what not in WHAT:
            raise ConfigError(f"what is {self.what!r}{nearest(self.what, WHAT)}")

    @property
    def at(self) -> Mapping[str, Sequence[str]]:
        """Give where it is told."""
        return {"hub": (WHAT[self.what],)}

    def strike(self, struck: Answer) -> None:
        """Let it happen."""
        struck.lie(self.what)
