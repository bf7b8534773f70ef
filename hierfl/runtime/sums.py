"""What a worker has to hand up, by hub and round: the exact sum of its sites, or one site's change, compressed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from numpy.typing import NDArray

from hierfl.learning.compression import Compression, Packed, pack
from hierfl.learning.ring import Accumulator, Grid, PartialSum
from hierfl.learning.state import Layout
from hierfl.runtime.checksums import checksum
from tiers.messages import Share, Update

if TYPE_CHECKING:
    from hierfl.learning.passes import Followed

__all__ = ["Part", "Sums", "spared_bytes"]

Part: TypeAlias = PartialSum | Packed
"""What travels beside an update's header."""


@dataclass
class _Open:
    """What there is for one hub's round; `packed` as long as it is all there is."""

    grid: Grid
    layout: Layout
    total: Accumulator | None = None
    packed: Packed | None = None
    shares: list[Share] = field(default_factory=list)

    def sum(self) -> Accumulator:
        """Give the sum, with the compressed change in it."""
        if self.total is None:
            self.total = Accumulator(self.grid, self.layout)
        packed, self.packed = self.packed, None
        if packed is not None:
            packed.add_to(self.total)
        return self.total


class Sums:
    """One worker's; a site whose update is refused leaves them as they were."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], _Open] = {}

    def open(self, hub: str, round_number: int, grid: Grid, layout: Layout) -> None:
        """Begin with a hub's round, unless that was done. `layout`: of what its members send."""
        self._open.setdefault((hub, round_number), _Open(grid, layout))

    def add(self, hub: str, round_number: int, share: Share, followed: Followed) -> None:
        """Add a site's update. Errors: UpdateRefused."""
        mine = self._open[hub, round_number]
        mine.sum().add_update(followed.sent, followed.base, share.weight)
        mine.shares.append(share)

    def compress(
        self,
        hub: str,
        round_number: int,
        share: Share,
        followed: Followed,
        compression: Compression,
        residual: NDArray[Any] | None,
        seed: int,
    ) -> NDArray[Any] | None:
        """Add a site's update, compressed; give what was left out. Errors: UpdateRefused."""
        mine = self._open[hub, round_number]
        packed, left_out = pack(
            *(compression, followed.sent, followed.base, residual, mine.layout),
            *(share.weight, mine.grid.clip, seed),
        )
        if mine.shares:
            packed.add_to(mine.sum())
        else:
            mine.packed = packed
        mine.shares.append(share)
        return left_out

    def collect(self, hub: str, round_number: int) -> tuple[Update | None, Part | None]:
        """Hand over what there is of a hub's round; None if no site of it gave an update."""
        mine = self._open.pop((hub, round_number), None)
        if mine is None or not mine.shares:
            return None, None
        part: Part = mine.packed if mine.packed is not None else mine.sum().total()
        spared = spared_bytes(part, mine.grid)
        return Update(hub, round_number, tuple(mine.shares), part.num_bytes, spared, checksum(part)), part


def spared_bytes(part: Part, grid: Grid) -> int:
    """Say by how many bytes a part is smaller than a sum on the round's grid."""
    return part.spared_bytes(grid.bits // 8) if isinstance(part, Packed) else 0
