"""Corrupt: bytes of an update change on their way to its hub, as in a broken memory or network card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hierfl.errors import ConfigError
from hierfl.fault import MESSAGE, Message

__all__ = ["Corrupt"]


@dataclass(frozen=True)
class Corrupt:
    """Changes one bit of the nth update of a round on its way; what its sender has stays as it is."""

    at: ClassVar[Mapping[str, Sequence[str]]] = {"hub": ("before_accept",)}
    strikes: ClassVar[str] = MESSAGE
    own_process: ClassVar[bool] = False

    bit: int = 0
    """Which bit of its vector, from 0; beyond its end counts on from its beginning."""

    def __post_init__(self) -> None:
        if self.bit < 0:
            raise ConfigError(f"bit is {self.bit}; at least 0")

    def strike(self, struck: Message) -> None:
        """Let it happen."""
        struck.garble(self.bit)
