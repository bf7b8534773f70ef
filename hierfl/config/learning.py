"""Sections of the schema on what is learned beside plain training: adapters, fine-tuning, public data, statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FineTune", "Handed", "Lora", "OperatingPoint", "SharedData", "Statistics"]


MOST_CELLS = 10_000
"""Values or bins of one column at most."""


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters: what is trained and travels in place of whole layers."""

    rank: int = 8
    """r: rows and columns of the adapters; what travels of a weight of d x k is r x (d + k)."""
    alpha: float = 16.0
    """The adapters' change is scaled by alpha / rank."""
    layers: list[str] = field(default_factory=lambda: ["*"])
    """Patterns of names of layers (linear, convolution, embedding) that get an adapter: [encoder.*.attention.*]."""
    whole: list[str] = field(default_factory=list)
    """Patterns of names of tensors that are trained, and travel, whole: [head.*]."""
    freeze_down: bool = False
    """Train B alone, A stays as it was drawn: then averaging is exact, and half as much travels."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}; at least 1")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha is {self.alpha}; a number above 0")
        if not self.layers:
            raise ValueError("layers is empty; name those that get an adapter, or leave it out for all")


@dataclass(frozen=True)
class FineTune:
    """How each site makes the model its own before it is measured there once more."""

    steps: int = 20
    """Optimizer steps on the site's own training data, from the model that it would use; as `training` says there."""
    lr: float | None = None
    """Learning rate; null: the site's training.lr."""
    tensors: list[str] = field(default_factory=lambda: ["*"])
    """Patterns of tensors' names that are tuned: [head.*] tunes the head alone. Buffers follow the data in any case."""
    at: str = "end"
    """end: after the last round; every: at every measurement."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; at least 1")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"lr is {self.lr}; a number above 0")
        if self.at not in ("end", "every"):
            raise ValueError(f"at is {self.at!r}; one of end, every")
        if not self.tensors:
            raise ValueError("tensors is empty; name what is tuned, [head.*], or leave it out for all")


@dataclass(frozen=True)
class OperatingPoint:
    """Which threshold of two classes is looked at: exactly one of these; see evaluation.md."""

    specificity: float | None = None
    """The smallest threshold at which so many of all negatives are predicted right."""
    sensitivity: float | None = None
    """The largest threshold at which so many of all positives are predicted right."""
    threshold: float | None = None
    """This one, with `auc: histogram` the nearest edge of a bin: class 1 is predicted from this probability on."""

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            said = " and ".join(given) or "none"
            raise ValueError(f"needs exactly one of specificity, sensitivity and threshold, and has {said}")
        for name, value in given.items():
            if not 0 < value < 1:
                raise ValueError(f"{name} is {value}; between 0 and 1")


@dataclass(frozen=True)
class SharedData:
    """A public data set that a hub holds and hands to the sites below it, for their training."""

    key: str
    """The set's key into the task's data, as a site has one; no site of the federation may have it."""
    basis: str
    """Why it may be handed out: its licence, consent or agreement; `hierfl validate` and every run's start say it."""
    fraction: float = 1.0
    """The part of its training samples that each site is given, drawn for each site; above 0, at most 1."""
    data: dict[str, Any] = field(default_factory=dict)
    """Further keys for the task's `data` method, beside those that hold at the hub."""

    def __post_init__(self) -> None:
        if not self.basis.strip():
            raise ValueError("basis is empty; say why the data may be handed out (a licence, a consent, an agreement)")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction is {self.fraction}; above 0, at most 1")


@dataclass(frozen=True)
class Handed:
    """What a site is given of a hub's public data; `source`: what `Task.data` is called with beside the key."""

    hub: str
    key: str
    fraction: float
    basis: str
    source: Mapping[str, Any] = field(default_factory=dict)

    def count(self, num_samples: int, part: tuple[int, int] | None) -> int:
        """Count what a site is given of so many training samples; `part`: of a site that is split."""
        first, step = part or (0, 1)
        return len(range(first, math.ceil(self.fraction * num_samples), step))


@dataclass(frozen=True)
class Statistics:
    """What sites tell of their records before the first round, column by column; see statistics.md."""

    min_count: int = 5
    """Fewest records that a number may stand for; what would stand for fewer is put to others, or kept back."""
    columns: list[str] | None = None
    """Columns that are told of; null: all."""
    ranges: dict[str, list[float]] = field(default_factory=dict)
    """Of numbers, the range that bins divide, {age: [0, 100]}: such columns have a histogram, and quartiles, in
    place of counts by value."""
    bins: int = 20
    """Bins of a range; what is below and above it is counted beside."""
    max_values: int = 20
    """Values of a column that are counted one by one, the most frequent; numbers with more, or with fractions, not."""
    only: bool = False
    """The run ends with the statistics: nothing is trained."""

    def __post_init__(self) -> None:
        for name, low in (("min_count", 1), ("bins", 2), ("max_values", 0)):
            if not low <= getattr(self, name) <= MOST_CELLS:
                raise ValueError(f"{name} is {getattr(self, name)}; from {low} to {MOST_CELLS:,}")
        if self.columns is not None and (not self.columns or len(set(self.columns)) < len(self.columns)):
            raise ValueError("columns must name at least one column, each once; leave it out for all")
        for name, span in self.ranges.items():
            if len(span) != 2 or not -math.inf < span[0] < span[1] < math.inf:
                raise ValueError(f"ranges has {span} for {name}; needed are two numbers, the lower one first")
            wide = (span[1] - span[0]) / self.bins
            if not (wide < math.inf and span[0] + wide > span[0] and span[1] - wide < span[1]):
                raise ValueError(f"ranges has {span} for {name}, which {self.bins} bins do not divide in float64")
            if self.columns is not None and name not in self.columns:
                raise ValueError(f"ranges names {name}, which is not among the columns that are told of")
