"""The memory that a job will need at its peak, learned from measured peaks by model, kind of device and batch size.

The estimate is the largest peak seen plus a tenth. A peak loses half of its lead over newer ones in twenty rounds, so
that one freak does not keep a device half empty for ever. After an out-of-memory error the estimate lies above what had
been admitted for twenty rounds, and twice as long after each further error.

Memory is a constant (weights, gradients, optimizer state) and a part that grows with the batch. So a batch of b that
was never measured needs no more than any measured b' >= b, no more than b / b' times any measured b' < b, and no less
than any measured b' <= b.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

__all__ = ["Memory"]

VERSION = 1

MARGIN = 1.1
"""Estimate over measured peak: fragmentation, and libraries that choose another algorithm."""

RAISE = 1.25
"""Estimate after an out-of-memory error over what had been admitted."""

HALF_LIFE_ROUNDS = 20
HOLD_ROUNDS = 20
MAX_DOUBLINGS = 10
MAX_BATCH_SIZES = 64
"""Batch sizes remembered per model and kind of device; the least recently measured goes first."""


@dataclass(frozen=True, slots=True)
class Peak:
    """What is known of one batch size: the measured peak in bytes as of a round, and what errors have raised it to."""

    measured_bytes: float
    measured_round: int
    raised_bytes: float = 0.0
    raised_until: int = 0
    num_errors: int = 0

    def measured(self, peak_bytes: float, round_number: int) -> Peak:
        """Add a measurement: the old peak counts as what has not yet decayed of it."""
        later = max(round_number, self.measured_round)
        left = self.measured_bytes * math.exp2((self.measured_round - later) / HALF_LIFE_ROUNDS)
        return Peak(max(peak_bytes, left), later, self.raised_bytes, self.raised_until, self.num_errors)

    def raised(self, admitted_bytes: float, round_number: int) -> Peak:
        """Add an out-of-memory error."""
        raised_bytes = RAISE * max(admitted_bytes, self.estimate(round_number))
        until = round_number + HOLD_ROUNDS * 2 ** min(self.num_errors, MAX_DOUBLINGS)
        return Peak(self.measured_bytes, self.measured_round, raised_bytes, until, self.num_errors + 1)

    def estimate(self, round_number: int) -> float:
        """Give the estimate in bytes, margin included."""
        return max(MARGIN * self.measured_bytes, self.raised_bytes if round_number < self.raised_until else 0.0)


class Memory:
    """Predicted peaks in bytes. Rounds are any count that grows; all calls speak of the same one."""

    def __init__(self) -> None:
        self._peaks: dict[str, dict[str, dict[int, Peak]]] = {}
        self._round = 0

    def predict(self, model: str, batch_size: int, device: str = "") -> int | None:
        """Predict the peak of a job, margin included; None if this model was never measured.

        A kind of device on which the model was never measured is thought to need what the hungriest other kind needs.
        """
        devices = self._peaks.get(model)
        if not devices:
            return None
        if device in devices:
            return math.ceil(self._bound(devices[device], batch_size))
        return max((math.ceil(self._bound(peaks, batch_size)) for peaks in devices.values()), default=None)

    def largest(self, model: str, device: str = "") -> int | None:
        """Predict the peak of the largest job of a model, of those that were measured on a kind of device."""
        needs = [self.predict(model, size, device) for size in self._peaks.get(model, {}).get(device, {})]
        return max((need for need in needs if need is not None), default=None)

    def observe(self, model: str, batch_size: int, peak_bytes: float, round_number: int, device: str = "") -> None:
        """Learn from the measured peak of a job that ended well."""
        peak = self._enter(model, batch_size, peak_bytes, round_number, device)
        self._peaks[model][device][batch_size] = peak.measured(peak_bytes, round_number)

    def out_of_memory(
        self, model: str, batch_size: int, admitted_bytes: float, round_number: int, device: str = ""
    ) -> None:
        """Learn from a job that ran out of memory though `admitted_bytes` had been set aside for it."""
        peak = self._enter(model, batch_size, admitted_bytes, round_number, device)
        self._peaks[model][device][batch_size] = peak.raised(admitted_bytes, round_number)

    def state(self) -> dict[str, Any]:
        """Return all that was learned, as JSON has it."""
        return {"version": VERSION, "round": self._round, "peaks": [list(entry) for entry in self._entries()]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Memory:
        """Make what `state` returned work again.

        Raises:
            ValueError: if the state is of another version.
        """
        if state.get("version") != VERSION:
            raise ValueError(f"peaks of version {state.get('version')!r} cannot be read, only {VERSION}: learn anew")
        memory = cls()
        memory._round = state["round"]
        for model, device, batch_size, *peak in state["peaks"]:
            memory._peaks.setdefault(model, {}).setdefault(device, {})[batch_size] = Peak(*peak)
        return memory

    def _entries(self) -> Iterator[tuple[Any, ...]]:
        for model, devices in self._peaks.items():
            for device, peaks in devices.items():
                for batch_size, peak in peaks.items():
                    yield (model, device, batch_size, *astuple(peak))

    def _enter(self, model: str, batch_size: int, num_bytes: float, round_number: int, device: str) -> Peak:
        """Check an event, make room for its entry and return what the entry held."""
        assert batch_size > 0, f"a batch of {batch_size}"
        assert math.isfinite(num_bytes) and num_bytes >= 0, (
            f"{num_bytes} bytes: a finite number of at least 0 is needed"
        )
        self._round = max(self._round, round_number)
        peaks = self._peaks.setdefault(model, {}).setdefault(device, {})
        peak = peaks.pop(batch_size, Peak(0.0, round_number))
        if len(peaks) >= MAX_BATCH_SIZES:
            del peaks[next(iter(peaks))]
        return peak

    def _bound(self, peaks: Mapping[int, Peak], batch_size: int) -> float:
        """Bound the need of a batch by those of the measured ones."""
        needs = {size: peak.estimate(self._round) for size, peak in peaks.items()}
        most = min(need * max(1.0, batch_size / size) for size, need in needs.items())
        return max(most, max((need for size, need in needs.items() if size <= batch_size), default=0.0))
