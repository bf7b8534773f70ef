"""Draws that follow from what they are for: a resumed run repeats them, and no other draw moves them."""

from __future__ import annotations

import hashlib

__all__ = ["RANGE", "draw"]

RANGE = 2**48
"""How many numbers there are to be drawn, from 0."""


def draw(seed: int, what: str, hub: str, round_number: int, name: str) -> int:
    """Draw a member's number for a purpose in a round of a hub (its path), all of `RANGE` as likely."""
    text = f"{seed}/{what}/{hub}/{round_number}/{name}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
