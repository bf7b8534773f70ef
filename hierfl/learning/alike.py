"""What a site measures, by its kind: only sites that measure the same can be added up."""

from __future__ import annotations

from dataclasses import dataclass

from hierfl.learning.metrics import Tally

__all__ = ["Form"]


@dataclass(frozen=True, slots=True)
class Form:
    """Of how many classes predictions are, 0 of none, and the names of the task's own metrics, in order; the names of
    the labels, where each sample has several.
    """

    num_classes: int
    own: tuple[str, ...]
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, tally: Tally) -> Form | None:
        """Tell it from what was counted; None where nothing was that would show it."""
        if tally.num_samples == tally.num_left_out and not tally.own and not tally.labels:
            return None
        num_classes = 2 if tally.labels else 0 if tally.confusion is None else len(tally.confusion)
        return cls(num_classes, tuple(sorted(tally.own)), tally.labels)

    def __str__(self) -> str:
        classes = [f"{self.num_classes} classes"] if self.num_classes else []
        if self.labels:
            classes = [
                f"{len(self.labels)} labels ({', '.join(self.labels[:8])}{', ...' if len(self.labels) > 8 else ''})"
            ]
        return " and ".join([*classes, *([", ".join(self.own)] if self.own else [])])
