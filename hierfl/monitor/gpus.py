"""How much the GPUs were used while they were the run's: mean utilisation and peak memory, by device."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hierfl.monitor.records import GpuSampled, Leased, Record

__all__ = ["GpuFigures", "GpuTime"]

LEASES = 10_000
"""Leases of a device that are remembered at least: runs take turns for weeks, and what a GPU did is told soon."""


@dataclass
class GpuFigures:
    """What samples of one device's GPU add up to; memory is all that is in use there, whoever holds it."""

    gpu: str
    memory_bytes: int
    num_samples: int = 0
    used: float = 0.0
    peak_bytes: int = 0

    @property
    def utilisation(self) -> float:
        """Give the mean fraction of the time in which the GPU computed something."""
        return self.used / self.num_samples

    def record(self) -> dict[str, Any]:
        """Give the figures for JSON."""
        return {
            "gpu": self.gpu,
            "utilisation": self.utilisation,
            "peak_memory_bytes": self.peak_bytes,
            "memory_bytes": self.memory_bytes,
            "num_samples": self.num_samples,
        }


class GpuTime:
    """A monitor that adds up samples, by device; where runs share devices, those within the run's own leases."""

    heeds: ClassVar = (GpuSampled, Leased)

    def __init__(self) -> None:
        self._total: dict[str, GpuFigures] = {}
        self._recent: dict[str, GpuFigures] = {}
        self._leases: dict[str, list[list[float]]] = {}

    def on(self, record: Record) -> None:
        """Take a record."""
        if isinstance(record, Leased):
            spans = self._leases.setdefault(record.device, [])
            if record.change == "granted":
                spans.append([record.time_s, float("inf")])
                if len(spans) > 2 * LEASES:
                    del spans[:-LEASES]
            elif record.change == "released" and spans:
                spans[-1][1] = record.time_s
        elif isinstance(record, GpuSampled):
            for time_s, used, memory_bytes in record.samples:
                if self._is_ours(record.device, time_s):
                    for figures in (self._total, self._recent):
                        found = figures.setdefault(record.device, GpuFigures(record.gpu, record.memory_bytes))
                        found.num_samples += 1
                        found.used += used
                        found.peak_bytes = max(found.peak_bytes, memory_bytes)

    def close(self) -> None:
        """Nothing is open."""

    def total(self) -> Mapping[str, GpuFigures]:
        """Give the figures of the whole run."""
        return self._total

    def take(self) -> Mapping[str, GpuFigures]:
        """Give the figures since this was last asked."""
        recent, self._recent = self._recent, {}
        return recent

    def _is_ours(self, device: str, time_s: float) -> bool:
        """Say whether the device was the run's at a time."""
        spans = self._leases.get(device)
        if spans is None:
            return True
        place = bisect_right(spans, [time_s, float("inf")])  # one lease ends before the next begins
        return place > 0 and time_s <= spans[place - 1][1]
