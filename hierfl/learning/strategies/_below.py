"""What an inner hub does below a strategy that steps by itself, and whose sites follow a rule: average what travels."""

from __future__ import annotations

from dataclasses import dataclass

from hierfl.learning.local import LocalRule
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategy import Strategy

__all__ = ["Below"]


@dataclass(frozen=True)
class Below(FedAvg):
    """Averages, with the weights of the strategy above; the model and its channels alike."""

    of: Strategy | None = None
    """The strategy above, whose rule the sites follow."""

    @classmethod
    def hub(cls, above: Strategy) -> Below:
        """Make what the hubs below a strategy do."""
        return cls(weights=above.weights, of=above)

    def objective(self) -> LocalRule:
        """Let its sites do as all others do below the strategy."""
        assert self.of is not None
        return self.of.objective()

    def inherited(self) -> Strategy:
        """So do the hubs below it."""
        return self
