"""What the tasks on made-up patients share: sites of natural sizes, and how one site differs from another.

Sizes are log-normal, as hospitals' are: the quantiles of a log-normal law, dealt out by the seed, with site-0 as the
largest. Chance comes from `numpy.random.RandomState`, whose stream is frozen for good, by (seed, site, purpose).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from hierfl.tasks import _classifier as classifier
from hierfl.tasks import _partition as shards

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from hierfl.errors import Problem
    from hierfl.learning.task import SiteData

__all__ = ["FEWEST", "Sites"]

FEWEST = 4
"""The fewest cases of a site."""


@dataclass(frozen=True)
class Sites:
    """Sites named site-0, site-1, ..., with cases that are made anew from the seed and the site's name."""

    num_sites: int = 4
    """Number of sites."""
    num_cases: int = 800
    """Cases of all sites together, training and test."""
    size_spread: float = 0.0
    """Standard deviation of the logarithm of the sites' sizes; 0: all alike."""
    largest_share: float | None = None
    """Share of all cases that site-0 has; null leaves it to the spread."""
    test_fraction: float = 0.25
    """Share of each site's cases to test on."""
    shift: float = 0.0
    """How far the sites' devices differ, in standard deviations of what they measure: gain, offset and noise."""
    label_shift: float = 0.0
    """How far the classes' frequencies differ among the sites: standard deviation of their log-odds."""
    seed: int = 0
    """Seed of everything drawn."""

    def checks(self) -> tuple[Problem | None, ...]:
        """Find mistakes in the fields that the tasks share."""
        share = self.largest_share
        return (
            classifier.at_least("num_sites", self.num_sites, 1),
            classifier.at_least("num_cases", self.num_cases, FEWEST * max(self.num_sites, 1)),
            classifier.at_least("size_spread", self.size_spread, 0),
            None if share is None else classifier.above_zero("largest_share", share),
            None if share is None else classifier.at_least("largest_share", share, 0, below=1),
            classifier.at_least("test_fraction", self.test_fraction, 0, below=1),
            classifier.at_least("shift", self.shift, 0),
            classifier.at_least("label_shift", self.label_shift, 0),
            classifier.at_least("seed", self.seed, 0, below=2**32),
        )

    def sites(self) -> Sequence[str]:
        """List the sites: site-0, site-1, ..."""
        return shards.site_names(self.num_sites)

    def num_samples(self, site: str) -> tuple[int, int]:
        """Count a site's (train, test) cases."""
        is_test = self.test_cases(site)
        return int((~is_test).sum()), int(is_test.sum())

    def sizes(self) -> list[int]:
        """Count every site's cases, at least four each; rounding may move their sum a little."""
        import numpy as np

        places = [NormalDist().inv_cdf((i + 0.5) / self.num_sites) for i in reversed(range(self.num_sites))]
        sizes = np.exp(self.size_spread * np.array(places))
        sizes[1:] = np.random.RandomState(self.seed).permutation(sizes[1:])
        if self.largest_share is not None and self.num_sites > 1:
            sizes[0] = self.largest_share / (1 - self.largest_share) * sizes[1:].sum()
        return [max(FEWEST, round(self.num_cases * float(share))) for share in sizes / sizes.sum()]

    def test_cases(self, site: str) -> NDArray[np.bool_]:
        """Mark a site's test cases, shape (n,) for its n cases. Errors: DataError for an unknown site."""
        number = shards.site_number(site, self.num_sites)
        return shards.test_mask(self.sizes()[number], self.test_fraction, site, self.seed)

    def random(self, site: str, purpose: str) -> np.random.RandomState:
        """Make a generator of a site's own for one purpose; of the federation's, for the site ""."""
        import numpy as np

        return np.random.RandomState([self.seed, zlib.crc32(site.encode()), zlib.crc32(purpose.encode())])

    def frequencies(self, site: str, of_all: Sequence[float]) -> NDArray[np.float64]:
        """Return a site's own class frequencies (C,): the federation's, moved by `label_shift`."""
        import numpy as np

        moved = np.log(of_all) + self.label_shift * self.random(site, "frequencies").standard_normal(len(of_all))
        own: NDArray[np.float64] = np.exp(moved) / np.exp(moved).sum()
        return own

    def classes(self, site: str, scores: NDArray[np.float64], of_all: Sequence[float]) -> NDArray[np.int64]:
        """Cut scores (n,) into classes 0 to C - 1 by rising score, as frequent as the site has them."""
        import numpy as np

        cuts = np.quantile(scores, np.cumsum(self.frequencies(site, of_all))[:-1].clip(0, 1))
        return np.searchsorted(cuts, scores).astype(np.int64)

    def measured(self, site: str, values: NDArray[np.float64], channel_axis: int) -> NDArray[np.float64]:
        """Return the values (n, ...) as the site's device shows them: noise, a gain and an offset for each channel."""
        random = self.random(site, "device")
        shape = [1] * values.ndim
        shape[channel_axis] = values.shape[channel_axis]
        gain, offset = 2.0 ** (self.shift * random.standard_normal(shape)), self.shift * random.standard_normal(shape)
        noise = 0.3 * self.shift * random.random_sample()
        return gain * (values + noise * self.random(site, "noise").standard_normal(values.shape)) + offset

    def site_data(self, site: str, x: NDArray[Any], y: NDArray[Any]) -> SiteData:
        """Make the data sets of one site from its cases (n, ...): features float32, labels int64."""
        return classifier.site_data(x, y, self.test_cases(site))
