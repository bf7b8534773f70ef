"""Small images of made-up patients, for federations whose pictures cannot be shipped: the data are synthetic.

A class shows as motifs of its own at random places in noise, so that a convolutional network is needed and does. What
differs among the sites is what differs among hospitals: how many patients they have, which classes they see (Roth et
al. 2020, breast density in seven institutions; Dayan et al. 2021, chest X-rays in twenty), and what their scanner or
stain makes of the same tissue (gain, offset and noise of each channel).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierfl.tasks import _classifier as classifier
from hierfl.tasks._sites import Sites

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torch.nn import Module

    from hierfl.learning.task import Prediction, SiteData

__all__ = ["Images"]

_MOTIF = 5
_MOTIFS = 3


@dataclass(frozen=True)
class Images(Sites):
    """Synthetic images in classes, at sites named site-0, site-1, ...; the network's last layer is called `head`."""

    num_classes: int = 2
    """Number of classes, all alike frequent but for `label_shift`."""
    channels: int = 1
    """1 for grey images (X-rays), 3 for colour (histology, dermoscopy)."""
    size: int = 16
    """Height and width in pixels, a multiple of 4."""
    signal: float = 1.5
    """Contrast of the classes' motifs; the noise around them has a standard deviation of 1."""
    width: int = 8
    """Channels of the first convolution; the second has twice as many."""
    norm: str = "batch"
    """What normalises after each convolution: batch, group (one group) or none."""

    def __post_init__(self) -> None:
        classifier.check(
            *self.checks(),
            classifier.at_least("num_classes", self.num_classes, 2),
            classifier.at_least("channels", self.channels, 1),
            classifier.multiple("size", self.size, 4, 8),
            classifier.at_least("signal", self.signal, 0),
            classifier.at_least("width", self.width, 1),
            classifier.choice("norm", self.norm, ("batch", "group", "none")),
        )

    def model(self) -> Module:
        """Build two convolutions (`trunk`), the mean over the image, and a linear `head` of one logit or C."""
        from torch import nn

        def block(before: int, after: int) -> list[Module]:
            norms: dict[str, list[Module]] = {
                "batch": [nn.BatchNorm2d(after)],
                "group": [nn.GroupNorm(1, after)],
                "none": [],
            }
            return [nn.Conv2d(before, after, 5, padding=2), *norms[self.norm], nn.ReLU(), nn.AvgPool2d(2)]

        layers = [*block(self.channels, self.width), *block(self.width, 2 * self.width)]
        trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        head = nn.Linear(2 * self.width, 1 if self.num_classes == 2 else self.num_classes)
        return nn.Sequential(OrderedDict(trunk=trunk, head=head))

    def data(self, site: str) -> SiteData:
        """Make one site's images: float32 (n, channels, size, size), labels int64 (n,).

        Errors: DataError for an unknown site.
        """
        n = len(self.test_cases(site))
        random = self.random(site, "cases")
        labels = self.classes(site, random.standard_normal(n), [1 / self.num_classes] * self.num_classes)
        shape = (self.num_classes, self.channels, _MOTIF, _MOTIF)
        motifs = self.signal * self.random("", "motifs").standard_normal(shape)
        images = random.standard_normal((n, self.channels, self.size, self.size))
        places = random.randint(self.size - _MOTIF + 1, size=(n, _MOTIFS, 2))
        for image, label, corners in zip(images, labels, places, strict=True):
            for row, column in corners:
                image[:, row : row + _MOTIF, column : column + _MOTIF] += motifs[label]
        return self.site_data(site, self.measured(site, images, channel_axis=1), labels)

    def loss(self, model: Module, batch: Any) -> Tensor:
        """Return the mean cross entropy."""
        return classifier.loss(model, batch)

    def predict(self, model: Module, batch: Any) -> Prediction:
        """Return the probability of class 1 or of every class, and the labels."""
        return classifier.predict(model, batch)

    def metrics(self) -> Mapping[str, str]:
        """Name what is measured."""
        return classifier.metrics(self.num_classes)
