"""Wards, at one of which the task does what it must not, or the data are unlike the others'."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from ward_tasks import Wards

from hierfl.learning.task import Prediction, SiteData

__all__ = ["Counted", "Noisy", "Odd", "Unlike"]

MARK = 7.0


@dataclass(frozen=True)
class Odd(Wards):
    """`data: {odd: ...}` says what is odd at a ward; the samples of such a one carry a mark in the last feature."""

    odds: dict[str, str] = field(default_factory=dict)
    """What is odd, once for the whole task: {"loss": "float", "predict": "nan" ...}."""
    norm: bool = False

    def model(self) -> Any:
        match self.odds.get("model"):
            case "none":
                return None
            case "class":
                return nn.Linear
            case "frozen":
                return super().model().requires_grad_(False)
            case "nan":
                model = super().model()
                model.bias.data[0] = torch.nan
                return model
            case "mask":
                model = super().model()
                model.register_buffer("mask", torch.full((4,), -torch.inf))
                return model
            case "tied":
                model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1))
                model[1].weight.data = model[0].weight.data
                return model
            case "raise":
                raise KeyError("hidden")
            case "exit":
                raise SystemExit(3)
        if self.norm:
            return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        return super().model()

    def data(self, site: str, odd: str = "", **source: Any) -> Any:
        given = super().data(site, **source)
        if odd == "tuple":
            return given.train, given.test
        if odd == "none":
            return None
        if odd == "list":
            return SiteData([*given.train], [*given.test])
        if odd == "tensors":
            return SiteData(given.train.tensors[0], given.test.tensors[0])
        if odd == "columns":
            return SiteData(given.train.tensors, given.test)
        if odd == "iterable":
            return SiteData(DataLoader(given.train), given.test)
        if odd == "stream":
            return SiteData(Stream(), given.test)
        if odd.startswith("label"):
            return SiteData(*(relabelled(part, float(odd.split()[1])) for part in (given.train, given.test)))
        if odd:
            for part in (given.train, given.test):
                part.tensors[0][:, 3] = MARK
        return given

    def loss(self, model: nn.Module, batch: Any) -> Any:
        found = super().loss(model, batch)
        if not is_odd(batch) or not model.training:
            return found
        match self.odds.get("loss"):
            case "float":
                return found.item()
            case "vector":
                return found * torch.ones(len(batch[0]))
            case "detached":
                return found.detach()
            case "none":
                return None
            case "shape":
                model.weight.data = torch.zeros(2, 5)
            case "layer":
                model.extra = nn.Linear(3, 3)
            case "inner":
                model.weight = nn.Parameter(torch.zeros(2, 4))
                return nn.functional.linear(batch[0], model.weight).sum()
        return found

    def predict(self, model: nn.Module, batch: Any) -> Any:
        found = super().predict(model, batch)
        match self.odds.get("predict") if is_odd(batch) else None:
            case "nan":
                return replace(found, scores=found.scores * torch.nan)
            case "tuple":
                return found.scores, found.labels
            case "logits":
                return replace(found, scores=found.scores * 40)
        return found


class Stream(torch.utils.data.IterableDataset):
    """Records whose number nobody knows."""

    def __iter__(self) -> Any:
        return iter(())


def is_odd(batch: tuple[Tensor, Tensor]) -> bool:
    return bool((batch[0][:, 3] == MARK).all())


def relabelled(part: TensorDataset, label: float) -> TensorDataset:
    x, y = part.tensors
    return TensorDataset(x, torch.full(y.shape, label))


@dataclass(frozen=True)
class Unlike(Wards):
    """Wards whose predictions are of another kind where the last feature of all their records is `MARK`."""

    differs: str = "classes"

    def data(self, site: str, odd: bool = False, **source: Any) -> SiteData:  # type: ignore[override]
        given = super().data(site, **source)
        for part in (given.train, given.test) if odd else ():
            part.tensors[0][:, 3] = MARK
        return given

    def predict(self, model: nn.Module, batch: Any) -> Prediction:
        found = super().predict(model, batch)
        own = {"mae": found.scores - batch[1]}
        if not is_odd(batch):
            return Prediction(own=own) if self.differs == "names" else replace(found, own=own)
        match self.differs:
            case "names":
                return Prediction(own={**own, "extra": own["mae"]})
            case "classes":
                return replace(found, scores=found.scores[:, None].expand(-1, 3) / 3.0, own=own)
        return Prediction(own=own)


class Counts(nn.Linear):
    """Counts its passes, each of which it follows: in an attribute, and in a buffer."""

    passes = 0

    def __init__(self) -> None:
        super().__init__(4, 1)
        self.register_buffer("counted", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        self.counted += 1.0
        return super().forward(x * self.passes) + 0.1 * self.counted


@dataclass(frozen=True)
class Counted(Wards):
    """Wards whose model counts; `once`: it is made once."""

    once: bool = False

    def __post_init__(self) -> None:
        torch.manual_seed(3)
        object.__setattr__(self, "made", Counts())

    def model(self) -> nn.Module:
        torch.manual_seed(3)
        return self.made if self.once else Counts()  # type: ignore[attr-defined, no-any-return]


class Noisy(Wards):
    """Wards some of which, by their `data`, draw from torch's global generator in training."""

    def data(self, site: str, draws: bool = False, **source: Any) -> SiteData:  # type: ignore[override]
        given = super().data(site, **source)
        if draws:
            given.train.tensors[0][:, 3] = MARK
        return given

    def loss(self, model: nn.Module, batch: Any) -> Any:
        x = batch[0] + torch.randn(1) if is_odd(batch) else batch[0]
        return super().loss(model, (x, batch[1]))
