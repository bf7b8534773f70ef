"""FedPer: sites share a base and keep layers of their own (Arivazhagan et al. 2019, "Federated Learning with
Personalization Layers"). With `personal: [head.*]`: a shared trunk, and a head for each site.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hierfl.errors import ConfigError
from hierfl.learning.local import LocalRule
from hierfl.learning.strategies._partial import Partial
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategy import Strategy

__all__ = ["FedPer"]


@dataclass(frozen=True)
class FedPer(FedAvg):
    """The mean of what is shared; the tensors in `personal` stay at the sites, and are what is measured there."""

    lasting: ClassVar[tuple[str, ...]] = ("personal",)

    personal: tuple[str, ...] = ("head.*",)
    """Patterns of tensors' names that are each site's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "personal", tuple(self.personal))
        if not self.personal:
            raise ConfigError("personal is empty; name the tensors that stay at the sites, [head.*], or take fedavg")

    def objective(self) -> LocalRule:
        """Keep the personal tensors at the site."""
        return Partial(self.personal)

    def inherited(self) -> Strategy:
        """So it is in the whole subtree."""
        return self
