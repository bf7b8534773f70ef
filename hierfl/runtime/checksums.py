"""A sum over an update's bytes, in its header: whoever is handed the update sees whether it is what was sent.

It tells any one changed bit, and all but one in 2^64 of what else changes by accident; it costs one pass over memory.
Who changes bytes on purpose is the business of links and signatures.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hierfl.errors import UpdateDamaged
from hierfl.learning.compression import Packed
from hierfl.learning.ring import PartialSum
from tiers.messages import Update

__all__ = ["check", "checksum"]


def checksum(part: PartialSum | Packed) -> int:
    """Sum an update's vectors modulo 2^64, as 64-bit words and what is left as bytes."""
    vectors = [part.floats, part.ints] if not isinstance(part, Packed) else [*_by_name(part), part.whole, part.ints]
    total = 0
    for place, vector in enumerate(vectors, 1):
        total += (2 * place - 1) * _sum(vector)  # odd: no bit is lost
    return total % 2**64


def check(update: Update, part: PartialSum | Packed) -> None:
    """Errors: UpdateDamaged if a payload is not what its header says."""
    if update.checksum is not None and checksum(part) != update.checksum:
        members = ", ".join(share.member for share in update.shares)
        raise UpdateDamaged(f"the update of {members} has changed on its way: its header has another checksum")


def _by_name(part: Packed) -> list[Any]:
    return [part.code[name] for name in sorted(part.code)]


def _sum(vector: Any) -> int:
    content = np.ascontiguousarray(vector).reshape(-1).view(np.uint8)
    whole = content.size - content.size % 8
    words = content[:whole].view(np.uint64)
    return int(words.sum(dtype=np.uint64)) + int(content[whole:].sum(dtype=np.uint64))
