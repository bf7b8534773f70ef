"""Small tasks for whole runs: wards with made-up patients, and everything that can go wrong at one of them."""

from __future__ import annotations

import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from hierfl.learning.own_metrics import TWO_CLASSES
from hierfl.learning.task import Prediction, SiteData

__all__ = [
    "FINDINGS",
    "Deep",
    "Doses",
    "Findings",
    "Frozen",
    "Lines",
    "MisnamedDoses",
    "NamedDoses",
    "Stumbles",
    "Tabled",
    "Wards",
]


def patients(site: str, n: int) -> tuple[Tensor, Tensor]:
    """Features (n, 4) and labels (n,) of one ward, the same each time."""
    random = np.random.default_rng(zlib.crc32(site.encode()))
    x = random.standard_normal((n, 4), dtype=np.float32)
    y = (x[:, 0] - x[:, 1] + 0.3 * random.standard_normal(n) > 0).astype(np.int64)
    return torch.from_numpy(x), torch.from_numpy(y)


@dataclass(frozen=True)
class Wards:
    """Logistic regression; `data: {fault: ...}` breaks a ward, `n` and `test` are its numbers of patients."""

    standardise: str = "none"

    def model(self) -> nn.Module:
        return nn.Linear(4, 1)

    def data(self, site: str, n: int = 12, test: int = 6, fault: str = "", labels: int | None = None) -> SiteData:
        if fault == "no file":
            raise FileNotFoundError(f"{site}.csv is missing")
        x, y = patients(site, n + test)
        if labels is not None:
            y = torch.full_like(y, labels)
        if fault:
            x[:, 3] = {"raise": 1001.0, "nan": float("nan"), "reshape": 1002.0, "raise measured": 1003.0}[fault]
        return SiteData(TensorDataset(x[:n], y[:n]), TensorDataset(x[n:], y[n:]))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        mark = float(batch[0][0, 3])
        if mark == 1001.0 and model.training:
            raise ZeroDivisionError("a ward's own mistake")
        if mark == 1002.0 and model.training:
            model.weight = nn.Parameter(torch.zeros(1, 4).repeat(2, 1))
        if mark == 1003.0 and not model.training:
            raise ZeroDivisionError("a mistake in measuring")
        return F.binary_cross_entropy_with_logits(model(batch[0])[:, 0], batch[1].float())

    def predict(self, model: nn.Module, batch: Any) -> Prediction:
        return Prediction(model(batch[0])[:, 0].sigmoid(), batch[1])


@dataclass(frozen=True)
class Stumbles(Wards):
    """Wards of which those with the fault "raise" fail only while a file is there, which the first of them removes."""

    flag: str = ""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        if float(x[0, 3]) == 1001.0:
            if not Path(self.flag).exists():
                return super().loss(model, (x / 1001.0, y))
            Path(self.flag).unlink()
        return super().loss(model, batch)


@dataclass(frozen=True)
class Doses(Wards):
    """A regression: the first feature minus the second, measured by its absolute error, and by its labels if `both`."""

    both: bool = False

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return F.mse_loss(model(batch[0])[:, 0], batch[0][:, 0] - batch[0][:, 1])

    def predict(self, model: nn.Module, batch: Any) -> Prediction:
        dose = model(batch[0])[:, 0]
        own = {"absolute_error": (dose - (batch[0][:, 0] - batch[0][:, 1])).abs(), "dose": dose}
        return Prediction(dose.sigmoid(), batch[1], own) if self.both else Prediction(own=own)


class Visits(Doses):
    """Doses of patients with two visits each."""

    def patients(self, train: Any) -> list[str]:
        return [f"patient {visit // 2}" for visit in range(len(train))]


class NamedDoses(Doses):
    """Doses that say which way their error gets better, and nothing of the dose."""

    def metrics(self) -> dict[str, str]:
        return {"absolute_error": "min"}


class MisnamedDoses(Doses):
    """Doses that name a metric which they do not have."""

    def metrics(self) -> dict[str, str]:
        return {"absolut_error": "min"}


FINDINGS = ("effusion", "mass", "nodule")


@dataclass(frozen=True)
class Findings:
    """Three findings of each patient, a tenth of which nobody looked for; `without` one, it is known of nobody."""

    def model(self) -> nn.Module:
        return nn.Linear(4, len(FINDINGS))

    def data(self, site: str, without: str = "") -> SiteData:
        x, _ = patients(site, 60)
        chance = np.random.default_rng(zlib.crc32(site.encode()))
        y = (x[:, :3] - x[:, 1:] + torch.from_numpy(chance.standard_normal((60, 3))) > 0).float()
        y[torch.from_numpy(chance.random((60, 3)) < 0.1)] = torch.nan
        if without:
            y[:, FINDINGS.index(without)] = -1
        return SiteData(TensorDataset(x[:30], y[:30]), TensorDataset(x[30:], y[30:]))

    @staticmethod
    def age(site: str) -> np.ndarray:
        """What is told of each of the patients that are measured, shape (n,)."""
        return patients(site, 60)[0][30:, 3].abs().numpy()

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        known = y >= 0
        return F.binary_cross_entropy_with_logits(model(x)[known], y[known])

    def predict(self, model: nn.Module, batch: Any) -> Prediction:
        return Prediction(model(batch[0]).sigmoid(), batch[1], {"age": batch[0][:, 3].abs()}, names=FINDINGS)

    def metrics(self) -> dict[str, str]:
        return {**TWO_CLASSES, **{f"auc_{name}": "max" for name in FINDINGS}, "age": "min"}


class Frozen(Wards):
    """Wards whose model comes as a base that does not train."""

    def model(self) -> nn.Module:
        return super().model().requires_grad_(False)


@dataclass(frozen=True)
class Deep:
    """Batch norm (integer counters in the state), dropout (global random numbers), any dtype, and layers of a size."""

    dtype: str = "float32"
    dropout: float = 0.2
    hidden: int = 5

    def model(self) -> nn.Module:
        layers = (nn.Linear(4, self.hidden), nn.BatchNorm1d(self.hidden), nn.ReLU(), nn.Dropout(self.dropout))
        return nn.Sequential(*layers, nn.Linear(self.hidden, 2)).to(getattr(torch, self.dtype))

    def data(self, site: str, n: int = 12) -> SiteData:
        x, y = patients(site, n + 6)
        x = x.to(getattr(torch, self.dtype))
        return SiteData(TensorDataset(x[:n], y[:n]), TensorDataset(x[n:], y[n:]))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    def predict(self, model: nn.Module, batch: Any) -> Prediction:
        return Prediction(model(batch[0]).float().softmax(dim=1), batch[1])


@dataclass(frozen=True)
class Lines:
    """Least squares on exactly known numbers: y = x @ (1, -2), so that a reader's loop can follow each step."""

    def model(self) -> nn.Module:
        line = nn.Linear(2, 1, bias=False)
        nn.init.constant_(line.weight, 0.5)
        return line

    def data(self, site: str, n: int = 4, shift: float = 0.0) -> SiteData:
        x, y = lines(site, n, shift)
        return SiteData(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), TensorDataset(*_empty()))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return 0.5 * (model(batch[0])[:, 0] - batch[1]).square().mean()

    def predict(self, model: nn.Module, batch: Any) -> Prediction:
        return Prediction(model(batch[0])[:, 0].sigmoid(), batch[1].long())


def lines(site: str, n: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """One site's x (n, 2) and y (n,), float32; `shift` makes sites disagree."""
    random = np.random.default_rng(zlib.crc32(site.encode()))
    x = random.standard_normal((n, 2)).astype(np.float32)
    return x, (x @ np.array([1.0, -2.0], np.float32) + np.float32(shift)).astype(np.float32)


def _empty() -> tuple[Tensor, Tensor]:
    return torch.zeros(0, 2), torch.zeros(0)


@dataclass(frozen=True)
class Unlike:
    """Every worker that builds it builds another model: what a task must not do."""

    def model(self) -> nn.Module:
        return nn.Linear(4, 1 + _count())

    data = Wards.data
    loss = Wards.loss
    predict = Wards.predict


@dataclass(frozen=True)
class Drifting:
    """Every worker that builds it begins with other weights: what a task must not do."""

    def model(self) -> nn.Module:
        line = nn.Linear(4, 1)
        nn.init.constant_(line.weight, float(_count()))
        return line

    data = Wards.data
    loss = Wards.loss
    predict = Wards.predict


_built = 0
_lock = threading.Lock()


def _count() -> int:
    """Count up, over all workers of the process."""
    global _built
    with _lock:
        _built += 1
        return _built


@dataclass(frozen=True)
class Tabled(Wards):
    """Wards that show a table of their own; `words`: one more column, or what is no table."""

    def data(self, site: str, n: int = 12, words: str = "") -> SiteData:  # type: ignore[override]
        return super().data(site, n)

    def table(self, site: str, n: int = 12, words: str = "") -> Any:
        if words == "none":
            return {"age": [1] * n}
        columns: dict[str, Any] = {"age": np.arange(n) + 20.0}
        return pa.table({**columns, **({words: ["x"] * n} if words else {})})
