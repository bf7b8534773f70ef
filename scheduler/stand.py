"""Where a run stands at a moment: what hubs wait for, and what the devices are at; a simulation may begin there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["HubStand", "Running", "Stand"]


@dataclass(frozen=True, slots=True)
class Running:
    """A site's job on a device, predicted to end in `left_s` seconds."""

    site: str
    device: str
    left_s: float


@dataclass(frozen=True, slots=True)
class HubStand:
    """A hub that has done `number` of its rounds, counted through.

    Its next round is open while sites wait or run, or while it has its barrier in `barrier_in_s` seconds. A hub without
    any of these waits for its federation's barrier.
    """

    number: int = 0
    waiting: tuple[str, ...] = ()
    running: tuple[Running, ...] = ()
    barrier_in_s: float | None = None

    @property
    def is_open(self) -> bool:
        """Say whether a round is under way."""
        return bool(self.waiting or self.running) or self.barrier_in_s is not None


@dataclass(frozen=True)
class Stand:
    """The devices that are there, the hubs by path, the federations that have begun or ended; sites go by path."""

    devices: tuple[str, ...]
    hubs: Mapping[str, HubStand] = field(default_factory=dict)
    begun: frozenset[str] = frozenset()
    ended: frozenset[str] = frozenset()
    now_s: float = 0.0
