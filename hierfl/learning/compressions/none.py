"""Whole updates: what is sent where nothing else is said, and what undoes the compression of a hub above."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.compression import Change, Code

__all__ = ["Whole"]


@dataclass(frozen=True)
class Whole:
    """Nothing is left out, and nothing rounded."""

    error_feedback: ClassVar[bool] = False

    def compress(self, change: NDArray[Any], random: np.random.Generator) -> Code:
        """Take the change as it is."""
        return {"values": change}

    def restore(self, code: Mapping[str, NDArray[Any]], size: int, dtype: np.dtype[Any]) -> Change:
        """Give it as it is."""
        return code["values"], None

    def num_bytes(self, size: int, item_bytes: int) -> int:
        """Count all."""
        return size * item_bytes
