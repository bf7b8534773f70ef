"""Sections of the schema on how models are learned beside plain training: adapters, fine-tuning, public data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FineTune", "Handed", "Lora", "SharedData"]


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
