"""What a compression is, and a member's change as it travels under one: small, and exact from there on.

A member compresses its change once, where it is born. What the code stands for is a change like any other: whoever adds
it up restores it, puts it on the round's grid and adds integers, so that a tree has the flat federation's bits, and no
sum above is rounded again. Buffers (running statistics of batch norm and the like) and integers travel whole: an error
in them is no error of a step. With error feedback the member keeps e, what the code left out, and adds it to its next
change:

    p = change + e      send C(p)      e <- p - C(p)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import UpdateRefused
from hierfl.held import held_compression
from hierfl.learning.ring import Accumulator, Grid, PartialSum, over_clip
from hierfl.learning.state import Layout, ModelState

__all__ = ["RESIDUAL", "Change", "Code", "Compression", "Packed", "as_sum", "pack"]

Change: TypeAlias = tuple[NDArray[Any], NDArray[Any] | None]
"""Values (n,), and their places in the vector; None: it is the whole vector."""

Code: TypeAlias = Mapping[str, NDArray[Any]]
"""What a compression makes of a vector, by name."""

RESIDUAL = "compression.residual"
"""What a member under error feedback keeps, by this name among what it keeps: e, of all elements but the buffers'."""


@runtime_checkable
class Compression(Protocol):
    """One kind is one file in `hierfl/learning/compressions/`: a frozen dataclass that holds parameters only."""

    @property
    def error_feedback(self) -> bool:
        """Say whether a member adds what the code left out to its next change."""

    def compress(self, change: NDArray[Any], random: np.random.Generator) -> Code:
        """Make a code of a change (P,), which is finite; `random` is the member's and the round's own."""

    def restore(self, code: Code, size: int, dtype: np.dtype[Any]) -> Change:
        """Give the change that a code of a vector of `size` stands for, the same bits everywhere."""

    def num_bytes(self, size: int, item_bytes: int) -> int:
        """Say how many bytes a code of `size` elements of `item_bytes` each has at most."""


@dataclass(frozen=True, slots=True)
class Packed:
    """One member's change, compressed: `code`, what of it travels whole, and integer buffers (Q,).

    `size`: P, the elements that it stands for. `runs`, shape (n, 2): where those that travel `whole` begin and end; the
    code is of the others, in their order.
    """

    compression: Compression
    code: Code
    whole: NDArray[Any]
    runs: NDArray[np.uint32]
    ints: NDArray[np.int64]
    weight: int
    size: int

    @property
    def num_bytes(self) -> int:
        """Count the bytes that travel."""
        vectors = [*self.code.values(), self.whole, self.runs, self.ints]
        return sum(int(vector.nbytes) for vector in vectors)

    def spared_bytes(self, item_bytes: int) -> int:
        """Say by how many bytes it is smaller than the sum of `item_bytes` an element that it stands for."""
        return self.size * item_bytes + int(self.ints.nbytes) - self.num_bytes

    def change(self) -> Change:
        """Restore the change: values, and places where it is not the whole vector."""
        found, where = self.compression.restore(self.code, self.size - self.whole.size, self.whole.dtype)
        if not self.whole.size:
            return found, where
        is_whole = np.zeros(self.size, np.bool_)
        for start, stop in self.runs:
            is_whole[start:stop] = True
        if where is not None:
            places = np.concatenate([_among_all(where, self.runs), np.flatnonzero(is_whole)])
            return np.concatenate([found, self.whole]), places
        both = np.empty(self.size, self.whole.dtype)
        both[~is_whole], both[is_whole] = found, self.whole
        return both, None

    def add_to(self, total: Accumulator) -> None:
        """Add it to a round's sum, exactly. Errors: UpdateRefused as for `Accumulator.add_change`."""
        values, places = self.change()
        total.add_change(values, self.ints, self.weight, places)


def as_sum(part: PartialSum | Packed, grid: Grid) -> PartialSum:
    """Put a member's part on a round's grid. Errors: UpdateRefused."""
    if isinstance(part, PartialSum):
        return part
    shapes = {"the update": ((part.size,), grid.dtype), "its integers": ((part.ints.size,), "int64")}
    total = Accumulator(grid, Layout.of(shapes))
    part.add_to(total)
    return total.total()


def pack(
    compression: Compression,
    local: ModelState,
    start: ModelState,
    residual: NDArray[Any] | None,
    layout: Layout,
    weight: int,
    clip: float,
    seed: int,
    *,
    at: str = "",
) -> tuple[Packed, NDArray[Any] | None]:
    """Compress `local - start` with what was left out before; give what travels, and what is left out now.

    The latter is None without error feedback. `at`: who compresses, where whoever catches an error does not know it.
    Errors: UpdateRefused for a change that is not finite or over the clip, by name; StrategyFailed for what a
    compression of the user's own gives that is none.
    """
    own = held_compression(compression, at)
    change = np.subtract(local.floats, start.floats)
    size, is_whole = change.size, layout.buffers_mask
    _check(change, None, layout, clip)
    whole, runs = change[is_whole], _runs(is_whole)
    if whole.size:
        change = change[~is_whole]
    if own.error_feedback and residual is not None:
        change += residual
        _check(change, None, layout, clip, runs)
    code = own.compress(change, np.random.Generator(np.random.PCG64(seed)))
    packed = Packed(compression, code, whole, runs, local.ints - start.ints, weight, size)
    values, where = own.restore(code, change.size, change.dtype)
    _check(values, where, layout, clip, runs)
    if not own.error_feedback:
        return packed, None
    change[slice(None) if where is None else where] -= values
    return packed, change


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Say where the runs of a mask begin and end, shape (n, 2)."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return edges.reshape(-1, 2).astype(np.uint32)


def _among_all(where: NDArray[Any], runs: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Count elements that leave the runs out among all."""
    lengths = np.diff(runs.astype(np.int64), axis=1)[:, 0]
    before = np.append(0, np.cumsum(lengths))
    places: NDArray[np.int64] = where + before[np.searchsorted(runs[:, 0] - before[:-1], where, side="right")]
    return places


def _check(
    values: NDArray[Any],
    where: NDArray[Any] | None,
    layout: Layout,
    clip: float,
    runs: NDArray[np.uint32] | None = None,
) -> None:
    """Refuse the first element without a place on the round's grid, by name. Errors: UpdateRefused.

    `where`: the values' places, if they are not all; counted without `runs`, if these are given.
    """
    if not values.size or (values.max() <= clip and values.min() >= -clip):
        return
    first = int(np.flatnonzero(~(np.abs(values) <= clip))[0])
    at = np.array([first if where is None else where[first]])
    index = int((at if runs is None else _among_all(at, runs))[0])
    help_ = "lower training.lr, set training.clip_norm, look at the site's data, or raise arithmetic.clip"
    said = over_clip(layout, index, clip, help_)
    if runs is not None:
        said = said.replace("a change", "a change, with what compression left out before,", 1)
    raise UpdateRefused(f"{said} changed by {values[first]:g}")
