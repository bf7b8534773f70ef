"""An update's checksum is another once any bit of it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hierfl.errors import UpdateDamaged
from hierfl.learning.ring import PartialSum
from hierfl.runtime.checksums import check, checksum
from hierfl.runtime.way import garbled
from tiers.messages import Share, Update

UPDATE = Update("w", 0, (Share("a", 3),))


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("size", [0, 1, 3, 16])
def test_every_bit_counts(dtype: str, size: int) -> None:
    rng = np.random.default_rng(size)
    part = PartialSum(rng.integers(-99, 99, size).astype(dtype), rng.integers(-9, 9, 2), 3)
    header = replace(UPDATE, checksum=checksum(part))
    check(header, part)
    for bit in range(8 * part.floats.nbytes):
        with pytest.raises(UpdateDamaged, match="the update of a has changed on its way"):
            check(header, garbled(part, bit))
    for bit in range(8 * part.ints.nbytes):
        other = garbled(PartialSum(part.ints, part.ints, 3), bit).floats  # type: ignore[union-attr]
        with pytest.raises(UpdateDamaged):
            check(header, replace(part, ints=other))


def test_who_gave_none_is_not_asked() -> None:
    check(UPDATE, PartialSum(np.arange(3), np.arange(2), 3))
