"""Part-data sharing: a hub holds a public data set and hands each site below a part of it, to train on beside its own
(Zhao et al. 2018, "Federated Learning with Non-IID Data", Section 4.2).

    site k trains on D_k and G_k,   G_k a random part alpha of the public set G, drawn once

What a site is given depends on the run's seed, the set and the site's name alone: the same in every round, tree and
runtime. It counts as the site's own samples do, in its steps and in its weight; what is measured are its own test
samples, and what standardises are its own training samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hierfl.config.learning import Handed
from hierfl.learning.seeds import derive

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from hierfl.learning.task import SiteData

__all__ = ["chosen", "with_handed"]


def chosen(handed: Handed, num_samples: int, site: str, part: tuple[int, int] | None, seed: int) -> NDArray[np.int64]:
    """Draw the samples that a site is given, in their order in the public set. `site`: its name."""
    number = handed.count(num_samples, None)
    random = np.random.Generator(np.random.PCG64(derive(seed, "shared", handed.key, site)))
    drawn: NDArray[np.int64] = np.sort(random.permutation(num_samples)[:number])
    first, step = part or (0, 1)
    return drawn[first::step]


def with_handed(data: SiteData, public: SiteData, indices: NDArray[np.int64]) -> SiteData:
    """Put chosen samples of a public set behind a site's training samples; its test samples stay as they are."""
    from hierfl.learning.parts import joined
    from hierfl.learning.task import SiteData

    return SiteData(joined([data.train, _taken(public.train, indices)]), data.test)


def _taken(dataset: Dataset[Any], indices: NDArray[np.int64]) -> Dataset[Any]:
    """Take samples of a data set."""
    import torch
    from torch.utils.data import Subset, TensorDataset

    if isinstance(dataset, TensorDataset):
        wanted = torch.from_numpy(indices)
        return TensorDataset(*(tensor[wanted] for tensor in dataset.tensors))
    return Subset(dataset, indices.tolist())
