"""A digest of whatever replicas answer: equal in all processes where what they say is equal, to the last bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np

__all__ = ["digest"]


def digest(*values: Any) -> bytes:
    """Give the SHA-256 of values: numbers, words, arrays, dataclasses, and whatever holds them, mappings in any order.

    An array counts with its dtype, shape and bytes; of an object of another kind only its class counts.
    """
    found = hashlib.sha256()
    for value in values:
        _feed(found, value)
    return found.digest()


def _feed(found: Any, value: Any) -> None:
    """Add a value so that no two different ones add the same bytes."""
    match value:
        case None | bool() | int() | float() | complex() | str():
            _word(found, type(value).__name__, repr(value.item() if isinstance(value, np.generic) else value))
        case bytes() | bytearray() | memoryview():
            _word(found, "bytes", str(len(value)))
            found.update(value)
        case np.ndarray():
            _word(found, "array", f"{value.dtype.str}{value.shape}")
            found.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        case np.generic():
            _word(found, value.dtype.str, repr(value.item()))
        case Enum():
            _word(found, type(value).__name__, value.name)
        case Mapping():
            _word(found, "mapping", str(len(value)))
            for key, item in sorted(((digest(key), item) for key, item in value.items()), key=lambda one: one[0]):
                found.update(key)
                _feed(found, item)
        case Set():
            _word(found, "set", str(len(value)))
            for one in sorted(map(digest, value)):
                found.update(one)
        case tuple() | list():
            _word(found, "list", str(len(value)))
            for item in value:
                _feed(found, item)
        case _ if is_dataclass(value) and not isinstance(value, type):
            _word(found, type(value).__qualname__, str(len(fields(value))))
            for field in fields(value):
                _feed(found, getattr(value, field.name))
        case _:
            kind = value if isinstance(value, type) else type(value)
            _word(found, "object", f"{kind.__module__}.{kind.__qualname__}")


def _word(found: Any, kind: str, said: str) -> None:
    found.update(f"{kind}:{len(said)}:{said};".encode())
