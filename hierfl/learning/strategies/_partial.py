"""Sharing a part of the model: the rest is each site's own, and stays there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.local import Finished, Parts, Pass, PlainRule, Trained, unmatched
from hierfl.learning.strategy import State, Vector

__all__ = ["Partial"]


@dataclass(frozen=True)
class Partial(PlainRule):
    """A rule under which the tensors `names` (patterns), or with `norms` all layers that normalise, are the site's own.

    The first time they begin as the hub's. What is sent has no change in them, so that the hub's stay as they are.
    """

    names: tuple[str, ...] = ()
    norms: bool = False

    keeps: ClassVar[bool] = True
    is_personal: ClassVar[bool] = True

    def own(self, parts: Parts) -> NDArray[np.bool_]:
        """Mark what is the site's own, shape (P,)."""
        mask = parts.named(self.names)
        return mask | parts.normalisation if self.norms else mask

    def passes(self, model: Vector, sent: State, kept: State, parts: Parts) -> Sequence[Pass]:
        """Train the hub's part and the site's own together."""
        return (Pass(self.personal(model, kept, parts)),)

    def finish(self, model: Vector, trained: Trained, sent: State, kept: State, parts: Parts) -> Finished:
        """Keep the site's own part, send the other."""
        own, end = self.own(parts), trained.ends[-1]
        return Finished(np.where(own, model, end), kept={"own": end[own]})

    def personal(self, model: Vector, kept: State, parts: Parts) -> Vector:
        """Put the site's own part into the hub's model."""
        if "own" not in kept:
            return model
        mixed = np.array(model)
        mixed[self.own(parts)] = kept["own"]
        return mixed

    def misfit(self, parts: Parts) -> str:
        """Say that a pattern fits no tensor, or that no layer normalises, or that nothing is left to share."""
        said = unmatched(self.names, parts.layout)
        if not said and self.norms and not parts.normalisation.any():
            return "the model has no layer that normalises, so that there is nothing for a site to keep; take fedavg"
        if not said and self.own(parts).all():
            return f"all tensors are the sites' own ({', '.join(self.names)}), so that none is shared"
        return said
