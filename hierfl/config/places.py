"""Places in the YAML, as messages show them and overrides write them: `federation.members.us.training.lr`.

A member stands for itself by its name, or by its index where it has none. A name that holds a dot or a bracket is
written in brackets: `federation.members[st. mary].rounds`.
"""

from __future__ import annotations

import re

__all__ = ["join", "split"]

_PART = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)|(\.)")


def join(place: str, *parts: str | int) -> str:
    """Append parts to a place."""
    for part in parts:
        word = str(part)
        if isinstance(part, int) or not word or any(mark in word for mark in ".[]="):
            place = f"{place}[{word}]"
        else:
            place = f"{place}.{word}" if place else word
    return place


def split(place: str) -> list[str]:
    """Take a place apart. Errors: ValueError for `a..b`, `.a`, `a.`, `a[`."""
    parts: list[str] = []
    position, may_start = 0, True
    while position < len(place):
        match = _PART.match(place, position)
        if match is None:
            raise ValueError(f"unexpected {place[position]!r} at character {position + 1}")
        bracketed, word, dot = match.groups()
        if dot is not None:
            if may_start:
                raise ValueError(f"a name is missing at character {position + 1}")
            may_start = True
        else:
            if word is not None and not may_start:
                raise ValueError(f"a dot is missing at character {position + 1}")
            parts.append(word if word is not None else bracketed)
            may_start = False
        position = match.end()
    if may_start:
        raise ValueError("a name is missing at the end")
    return parts
