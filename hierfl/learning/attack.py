"""What a site does that attacks its federation, to rehearse: `attack:` at a site in the YAML makes it one.

An attacker takes part as any site does: it is asked, trains in a worker, and its update is encoded, weighed and refused
by the same rules. Only what it trains on, or what it sends, is the attack's. Attacks that know what honest sites send
(Baruch et al. 2019; Xie et al. 2019) get it in simulation alone: the worker that does the attacker's work repeats the
training of the honest sites of its hub, from the same model and the same seeds, which has the same bits. This takes
their data, so it is refused where these are bound to devices or served by other institutions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from hierfl.learning.local import Vector

__all__ = ["Attack"]


@runtime_checkable
class Attack(Protocol):
    """One kind is one file in `hierfl/learning/attacks/`, a frozen dataclass.

    `knows_honest`: whether it is given what the honest sites of its hub send.
    """

    knows_honest: ClassVar[bool]

    def poison(self, data: Dataset[Any]) -> Dataset[Any]:
        """Give what the attacker trains on in place of its own data."""

    def change(self, own: Vector, honest: Vector, num_bad: int) -> Vector:
        """Give the change that it sends, shape (P,), in place of its own.

        `honest`: those of the honest sites of its hub, shape (n, P), in the order of their paths; (0, P) where it does
        not know them. `num_bad`: attackers at that hub, this one included.
        """
