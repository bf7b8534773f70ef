"""Uniform and normal numbers from a key: nobody without it can tell them from chance.

SHAKE-256 of (key, purpose, a counter) gives the bits, a pseudo-random function (FIPS 202; NIST SP 800-185 keys it
alike). Normal numbers are made of them after Box & Muller 1958, in double precision: no magnitude is above 8.6, which
true ones are with a probability of 1e-17. The same key and purpose give the same numbers, another purpose others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stream"]

BLOCK = 1 << 18
"""Numbers that are made at once."""


class Stream:
    """One purpose's numbers, in their order. `key`: any bytes; `purpose`: in full what the numbers are for."""

    def __init__(self, key: bytes, *purpose: bytes) -> None:
        whole = hashlib.sha256()
        for part in (key, *purpose):
            whole.update(len(part).to_bytes(8, "big"))  # so that no two lists of parts read alike
            whole.update(part)
        self._prefix = whole.digest()
        self._counter = 0

    def uniforms(self, size: int) -> NDArray[np.float64]:
        """Draw numbers in (0, 1), each an odd multiple of 2^-53."""
        return np.concatenate([_unit(words) for words in self._words(size)] or [np.empty(0)])

    def normals(self, size: int) -> NDArray[np.float64]:
        """Draw standard normal numbers."""
        drawn = np.empty(size)
        done = 0
        for words in self._words(size + size % 2):
            radius, angle = np.split(_unit(words), 2)
            radius = np.sqrt(-2.0 * np.log(radius))
            angle *= 2.0 * np.pi
            pairs = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
            taken = min(pairs.size, size - done)
            drawn[done : done + taken] = pairs[:taken]
            done += taken
        return drawn

    def _words(self, size: int) -> Iterator[NDArray[np.uint64]]:
        """Give so many words of 64 bits, block by block; blocks but the last hold an even number."""
        for first in range(0, size, BLOCK):
            self._counter += 1
            number = min(BLOCK, size - first)
            drawn = hashlib.shake_256(self._prefix + self._counter.to_bytes(8, "big")).digest(8 * number)
            yield np.frombuffer(drawn, "<u8")


def _unit(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Turn words into numbers in (0, 1) by their first 52 bits: a half more, and none needs rounding."""
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
