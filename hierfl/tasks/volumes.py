"""Tumours in scans of made-up patients, voxel by voxel: the data are synthetic.

Brain tumour segmentation as in FeTS (Pati et al. 2022; the challenge's 1251 cases lie at 23 institutions, the largest
with 41% of them): a 3D U-Net (Cicek et al. 2016), soft Dice as the loss (Milletari et al. 2016), and scanners that
differ from institution to institution. Metrics are of voxels, so that `num_test` counts these, and `dice` is of all of
them together; `case_dice` is the mean over scans of each one's own, as challenges have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hierfl.errors import ConfigError, Problem
from hierfl.learning.task import Prediction
from hierfl.tasks import _classifier as classifier
from hierfl.tasks._sites import Sites

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.nn import Module

    from hierfl.learning.task import SiteData

__all__ = ["Volumes"]


@dataclass(frozen=True)
class Volumes(Sites):
    """Synthetic scans with one tumour each, at sites named site-0, site-1, ..."""

    channels: int = 4
    """Sequences of a scan (T1, contrast-enhanced T1, T2, FLAIR)."""
    size: int = 16
    """Edge of the volume in voxels, a multiple of 2^(levels - 1)."""
    tumour: float = 0.05
    """Share of the volume that a tumour takes, about; `label_shift` moves its odds from site to site."""
    signal: float = 2.0
    """Contrast of the tumour; the noise around it has a standard deviation of 1."""
    network: str = "unet"
    """unet, or monai: MONAI's U-Net with residual units (pip install 'hierfl[medical]')."""
    width: int = 8
    """Channels of the first level; each level below has twice as many."""
    levels: int = 3
    """Levels of the U-Net, at least 2."""

    def __post_init__(self) -> None:
        below = 2 ** max(self.levels - 1, 1)
        classifier.check(
            *self.checks(),
            classifier.at_least("channels", self.channels, 1),
            classifier.multiple("size", self.size, below, 2 * below),
            classifier.above_zero("tumour", self.tumour),
            classifier.at_least("tumour", self.tumour, 0, below=0.3),
            classifier.at_least("signal", self.signal, 0),
            classifier.choice("network", self.network, ("unet", "monai")),
            classifier.at_least("width", self.width, 1),
            classifier.at_least("levels", self.levels, 2),
        )

    def model(self) -> Module:
        """Build the network: (n, channels, size, size, size) to one logit per voxel.

        Errors: ConfigError where MONAI is asked for and not installed.
        """
        widths = [self.width * 2**level for level in range(self.levels)]
        return _unet(self.channels, widths) if self.network == "unet" else _monai(self.channels, widths)

    def data(self, site: str) -> SiteData:
        """Make one site's scans: float32 (n, channels, size, size, size), labels int64 (n, size, size, size).

        Errors: DataError for an unknown site.
        """
        n = len(self.test_cases(site))
        random = self.random(site, "cases")
        labels = self._tumours(n, float(self.frequencies(site, (1 - self.tumour, self.tumour))[1]), random)
        contrasts = self.signal * (0.5 + self.random("", "contrasts").random_sample((self.channels, 1, 1, 1)))
        scans = random.standard_normal((n, self.channels, *labels.shape[1:])) + contrasts * labels[:, None]
        return self.site_data(site, self.measured(site, scans, channel_axis=1), labels)

    def loss(self, model: Module, batch: Any) -> Tensor:
        """Return 1 - the mean soft Dice of the batch's volumes: 2 sum(p y) / (sum p + sum y)."""
        scores, labels = model(batch[0])[:, 0].float().sigmoid().flatten(1), batch[1].flatten(1)
        overlap = 2 * (scores * labels).sum(dim=1)
        dice: Tensor = (overlap + 1) / (scores.sum(dim=1) + labels.sum(dim=1) + 1)
        return 1 - dice.mean()

    def predict(self, model: Module, batch: Any) -> Prediction:
        """Return each voxel's probability of being tumour, and its label; each scan's Dice, 1 where both are empty."""
        scores, labels = model(batch[0])[:, 0].float().sigmoid().flatten(1), batch[1].flatten(1)
        found, truth = scores > 0.5, labels > 0
        of_either = found.sum(dim=1) + truth.sum(dim=1)
        dice = (2 * (found & truth).sum(dim=1) / of_either).nan_to_num(1.0)
        return Prediction(scores.flatten(), labels.flatten(), {"case_dice": dice})

    def metrics(self) -> Mapping[str, str]:
        """Name what is measured."""
        return {**classifier.metrics(2), "case_dice": "max"}

    def _tumours(self, n: int, share: float, random: np.random.RandomState) -> NDArray[np.bool_]:
        """Draw an ellipsoid for each of n volumes, bool (n, size, size, size), its volume about `share` of all."""
        import numpy as np

        radius = (share * 3 / (4 * np.pi)) ** (1 / 3)
        radii = (radius * np.exp(0.2 * random.standard_normal((n, 3)))).clip(1 / self.size, 0.5)
        centres = radii + random.random_sample((n, 3)) * (1 - 2 * radii)
        axis = (np.arange(self.size) + 0.5) / self.size
        squares = [((axis - centres[:, [i]]) / radii[:, [i]]) ** 2 for i in range(3)]
        inside: NDArray[np.bool_] = (
            squares[0][:, :, None, None] + squares[1][:, None, :, None] + squares[2][:, None, None, :]
        ) < 1
        return inside


def _unet(channels: int, widths: list[int]) -> Module:
    """Build a 3D U-Net: one convolution per level and way, instance norm, strides down, repeated voxels up."""
    import torch
    from torch import nn

    def block(before: int, after: int, stride: int = 1) -> Module:
        convolution = nn.Conv3d(before, after, 3, stride=stride, padding=1, bias=False)
        return nn.Sequential(convolution, nn.InstanceNorm3d(after, affine=True), nn.LeakyReLU(0.01))

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = block(channels, widths[0])
            self.down = nn.ModuleList(block(above, below, stride=2) for above, below in pairwise(widths))
            self.up = nn.ModuleList(block(above + below, above) for above, below in pairwise(widths))
            self.head = nn.Conv3d(widths[0], 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            levels = [self.first(x)]
            for step in self.down:
                levels.append(step(levels[-1]))
            low = levels.pop()
            for step in reversed(self.up):
                wide = nn.functional.interpolate(low, scale_factor=2.0)
                low = step(torch.cat([wide, levels.pop()], dim=1))
            logits: Tensor = self.head(low)
            return logits

    return UNet()


def _monai(channels: int, widths: list[int]) -> Module:
    """Build MONAI's U-Net of the same levels."""
    try:
        from monai.networks.nets import UNet
    except ModuleNotFoundError as error:
        way = "network: monai needs MONAI, which is not installed: pip install 'hierfl[medical]', or take unet"
        raise ConfigError([Problem("network", way)]) from error
    module: Module = UNet(
        spatial_dims=3,
        in_channels=channels,
        out_channels=1,
        channels=widths,
        strides=[2] * (len(widths) - 1),
        num_res_units=2,
        norm=("instance", {"affine": True}),
    )
    return module
