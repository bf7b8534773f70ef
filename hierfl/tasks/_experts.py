"""A mixture of two experts, one everyone's and one the site's own; a gate says for each sample which to believe more.

    p(x) = alpha(x) p_shared(x) + (1 - alpha(x)) p_private(x),    alpha(x) = sigmoid(psi . x + b)

Peterson et al. 2019, "Private Federated Learning with Domain Adaptation"; Li et al. 2020, "Multi-site fMRI analysis
using privacy-preserving federated learning and domain adaptation", whose first way to adapt this is. In their
program the private expert learns by a loss of its own; here all three parts learn by that of the mixture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["experts"]


def experts(expert: Callable[[], Module], num_features: int) -> Module:
    """Mix two experts, `shared` and `private`, by a `gate`: features (n, d) to one logit for two classes, else C.

    `expert`: builds one, which gives such logits.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.private = expert(), expert()
            self.gate = nn.Linear(num_features, 1)

        def forward(self, x: Tensor) -> Tensor:
            alpha, one, other = self.gate(x), self.shared(x), self.private(x)

            def mixed(of: Callable[[Tensor], Tensor]) -> Tensor:
                return torch.logaddexp(F.logsigmoid(alpha) + of(one), F.logsigmoid(-alpha) + of(other))

            if one.shape[1] > 1:
                return mixed(lambda logits: F.log_softmax(logits, dim=1))
            return mixed(F.logsigmoid) - mixed(lambda logit: F.logsigmoid(-logit))

    return Experts()
