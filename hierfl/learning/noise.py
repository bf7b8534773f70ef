"""Uniform and normal numbers from a key: nobody without it can tell them from chance.

SHAKE-256 of (key, purpose, a counter) gives the bits, a pseudo-random function (FIPS 202; NIST SP 800-185 keys it
alike). Normal numbers are made of them after Box & Muller 1958, in double precision: no magnitude is above 13.4, and
those that can come lie closer together than 2^-30, but for one draw in 10^14, next to 0. The same key and purpose give
the same numbers, another purpose others.
"""

from __future__ import annotations

import hashlib

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
        parts = [_unit(self._words(min(BLOCK, size - first))) for first in range(0, size, BLOCK)]
        return np.concatenate(parts or [np.empty(0)])

    def normals(self, size: int) -> NDArray[np.float64]:
        """Draw standard normal numbers."""
        drawn = np.empty(size)
        for first in range(0, size, BLOCK):
            taken = min(BLOCK, size - first)
            whole, rest, angle = np.split(self._words(3 * (taken + taken % 2) // 2), 3)
            # Finer the nearer to 0, as numbers with a point are: far out radii lie as close as near the middle.
            uniform = (whole.astype(np.float64) + (rest.astype(np.float64) + 0.5) * 2.0**-64) * 2.0**-64
            radius = np.sqrt(-2.0 * np.log(uniform))
            turned = 2.0 * np.pi * _unit(angle)
            pairs = np.concatenate([radius * np.cos(turned), radius * np.sin(turned)])
            drawn[first : first + taken] = pairs[:taken]
        return drawn

    def _words(self, number: int) -> NDArray[np.uint64]:
        """Draw so many words of 64 bits."""
        self._counter += 1
        drawn = hashlib.shake_256(self._prefix + self._counter.to_bytes(8, "big")).digest(8 * number)
        return np.frombuffer(drawn, "<u8")


def _unit(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Turn words into numbers in (0, 1) by their first 52 bits: a half more, and none needs rounding."""
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
