"""What policies see: frozen headers of work and devices, never data."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Assign", "Device", "Job", "JobKey"]

JobKey = tuple[str, str]
"""(group, name): the hub's path (or another group) and the work inside it; unique among the open jobs."""


@dataclass(frozen=True, slots=True)
class Device:
    """A slot that runs work: a GPU, a share of one, or CPU cores.

    `kind`: devices of one kind are equally fast (durations are learned per kind); `labels`: whose data may be
    processed here (nation, hospital ...); `memory_bytes`: what jobs may take together, None if unknown; `places`: how
    many jobs may run at once.
    """

    name: str
    kind: str = "cpu"
    labels: frozenset[str] = frozenset()
    memory_bytes: int | None = None
    places: int = 1

    def __post_init__(self) -> None:
        assert self.places >= 1, f"{self.name} has {self.places} places; a device has at least one"


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work for one device: a site to train, measure or describe.

    `group`: jobs of one group (a hub's round) may share a call; `size`: samples; `estimate_s`: predicted duration on a
    device of the usual kind, None if unknown; `order`: the position in which the work was asked for; `run`: the
    federation that asks, where several share the devices; `chain_s`: predicted time from this group's barrier to the
    end of its federation (the remaining chain); `labels`: residency, a device must carry all of them; `memory_bytes`:
    predicted peak, 0 if unknown; `model`: what a device must have loaded before; `is_guess`: the prediction goes by
    others, for this name's own work has never ended yet; `is_alone`: it shares a chunk with no other.
    """

    group: str
    name: str
    size: int
    estimate_s: float | None
    order: int
    run: str = ""
    chain_s: float = 0.0
    labels: frozenset[str] = frozenset()
    memory_bytes: int = 0
    model: str = ""
    is_guess: bool = False
    is_alone: bool = False

    @property
    def key(self) -> JobKey:
        """Identify the job among the open ones."""
        return (self.group, self.name)


@dataclass(frozen=True, slots=True)
class Assign:
    """Decision: this device runs these jobs of one group next, in order, for a reason."""

    device: str
    jobs: tuple[Job, ...]
    reason: str
