"""Duplicate: an update is handed to its hub more than once, as by a sender that has heard of no receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hierfl.errors import ConfigError
from hierfl.fault import MESSAGE, Message

__all__ = ["Duplicate"]


@dataclass(frozen=True)
class Duplicate:
    """Hands the nth update of a round to its hub again and again; it must count once."""

    at: ClassVar[Mapping[str, Sequence[str]]] = {"hub": ("before_accept",)}
    strikes: ClassVar[str] = MESSAGE
    own_process: ClassVar[bool] = False

    copies: int = 1
    """How many times more it is handed over, at least 1."""

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ConfigError(f"copies is {self.copies}; at least 1")

    def strike(self, struck: Message) -> None:
        """Let it happen."""
        struck.repeat(self.copies)
