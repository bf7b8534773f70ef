"""Seeds from (seed, round, node): every draw of a run repeats itself, wherever and whenever it is made."""

from __future__ import annotations

import hashlib

__all__ = ["derive"]


def derive(seed: int, *where: int | str) -> int:
    """Derive a 63-bit seed from the run's seed and what it is for: a purpose, a round number, a site's name."""
    text = "/".join(str(part) for part in (seed, *where))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
