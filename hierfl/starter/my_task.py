"""A task of your own: a model, each site's data, a loss, and predictions to measure. Make it yours.

`federation.yaml` names it as `kind: "my_task:Readmission"`; the fields below are its further keys.
"""

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import TensorDataset

from hierfl.learning.task import Prediction, SiteData


@dataclass(frozen=True)
class Readmission:
    """Will a patient come back within a month? Invented patients with four measurements each."""

    hidden: int = 8

    def model(self) -> nn.Module:
        """Build any torch.nn.Module; hierfl seeds torch beforehand."""
        return nn.Sequential(nn.Linear(4, self.hidden), nn.Tanh(), nn.Linear(self.hidden, 1))

    def data(self, site: str, patients: int = 200, age_shift: float = 0.0) -> SiteData:
        """Load one site's records: here you read your own files. `data:` in the YAML gives the arguments."""
        generator = torch.Generator().manual_seed(zlib.crc32(site.encode()))  # the same patients each time
        x = torch.randn(patients, 4, generator=generator)
        x[:, 0] += age_shift
        risk = 1.5 * x[:, 0] - x[:, 1] + 2.0 * x[:, 2] * x[:, 3]
        y = (risk + torch.randn(patients, generator=generator) > 0).float()
        cut = patients * 3 // 4
        return SiteData(TensorDataset(x[:cut], y[:cut]), TensorDataset(x[cut:], y[cut:]))

    def num_samples(self, site: str, patients: int = 200, age_shift: float = 0.0) -> tuple[int, int]:
        """Count train and test without loading: for `hierfl tree` and `hierfl plan`, and may be left out."""
        return patients * 3 // 4, patients - patients * 3 // 4

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean loss of one batch."""
        x, y = batch
        return binary_cross_entropy_with_logits(model(x).squeeze(1), y)

    def predict(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Prediction:
        """Return scores and labels of one batch."""
        x, y = batch
        return Prediction(scores=torch.sigmoid(model(x).squeeze(1)), labels=y.long())
