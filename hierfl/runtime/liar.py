"""An aggregator that lies where it is told to: what serves a hub, with wrong answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hierfl.fault import Moment, Plan
from hierfl.learning.compression import Packed
from hierfl.learning.ring import PartialSum
from hierfl.learning.state import ModelState
from hierfl.runtime.checksums import checksum
from hierfl.runtime.jobs import Outcome
from hierfl.runtime.points import Claims
from hierfl.runtime.sums import Part
from hierfl.runtime.way import garbled
from tiers.messages import Update

__all__ = ["Liar"]


BIT = 20
"""The bit that is flipped: of the first element, within its value."""


@dataclass
class _Told:
    """What it is told to lie now."""

    what: str = ""

    def lie(self, what: str) -> None:
        """Take note of it."""
        self.what = what


class Liar:
    """Serves a hub as `serving` does."""

    def __init__(self, serving: Any, path: str, replica: int, plan: Plan, claims: Claims) -> None:
        self._serving = serving
        self._path = path
        self._replica = replica
        self._plan = plan
        self._claims = claims
        self._start: ModelState | None = None
        self._nth: dict[int, int] = {}

    def __getattr__(self, method: str) -> Callable[..., Any]:
        """Give a method that answers as it is told to."""
        return _Method(self, method)

    def answer(self, method: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Let the aggregator answer, and lie in what it hears or says."""
        if method == "begin":
            self._start = arguments[2]
        if method == "arrive":
            arguments = self._heard(*arguments)
        outcome, model, result, state = getattr(self._serving, method)(*arguments)
        if isinstance(outcome, Outcome) and outcome.closed:
            what = self._what("after_aggregate", outcome.closed[-1].round_number)
            model, result = (self._said(what, vector) for vector in (model, result))
            if what and outcome.finished is not None and isinstance(result, PartialSum | Packed):
                finished = replace(outcome.finished, checksum=checksum(result))  # a lie that hangs together
                outcome = replace(outcome, finished=finished)
        return outcome, model, result, state

    def _heard(self, update: Update, *parts: Part) -> tuple[Any, ...]:
        """Give the update that it adds in place of the one that has come."""
        nth = self._nth[update.round_number] = self._nth.get(update.round_number, 0) + 1
        what = self._what("before_accept", update.round_number, nth)
        if not what or not parts:
            return update, *parts
        times = 0 if what == "dropped_site" else 2
        return replace(update, checksum=None), _times(parts[0], times)

    def _said(self, what: str, vector: Any) -> Any:
        """Give what it says in place of a model or a sum."""
        if what == "bit_flip" and vector is not None:
            return garbled(vector, BIT)
        if what == "stale_model" and isinstance(vector, ModelState):
            return self._start
        return _times(vector, 0) if what == "stale_model" and vector is not None else vector

    def _what(self, step: str, round_number: int, nth: int = 1) -> str:
        told = _Told()
        moment = Moment(self._path, step, round_number + 1, nth, self._replica)
        for fault in self._plan.due(moment):
            if self._claims.claim(fault, moment):
                fault.what.strike(told)
        return told.what


class _Method:
    """A method of an aggregator that lies, named as the aggregator's own."""

    def __init__(self, liar: Liar, name: str) -> None:
        self._liar = liar
        self.__name__ = name

    def __call__(self, *arguments: Any) -> tuple[Any, ...]:
        return self._liar.answer(self.__name__, arguments)


def _times(part: Any, times: int) -> Any:
    """Copy an update so many times over, under its own weight; of a compressed one a bit is changed."""
    if not isinstance(part, PartialSum):
        return garbled(part, BIT)
    number = part.floats.dtype.type(times)
    return replace(part, floats=np.asarray(part.floats * number), ints=np.asarray(part.ints * times))
