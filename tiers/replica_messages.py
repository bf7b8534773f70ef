"""What the machine of a hub's replicas is told, and what it tells whoever runs them: frozen headers; see `replicas`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = [
    "FAILED",
    "Abandon",
    "Answered",
    "CarryOut",
    "Cause",
    "Command",
    "Died",
    "Disagree",
    "Event",
    "Forged",
    "Mode",
    "Opened",
    "Rebased",
    "Replace",
    "Retire",
    "Return",
    "Stopped",
    "Tick",
    "Told",
    "Up",
]

FAILED = b"failed"
"""The digest of an answer that could not be computed."""

Mode: TypeAlias = Literal["crash", "vote"]

Cause: TypeAlias = Literal["died", "silent", "damaged", "differs", "outvoted", "unsigned", "forged"]
"""Why a replica is replaced: its process died; others had answered a lease ago; it was handed an update with
other bytes than were sent; its answer is not the one that counts (in the two modes); it is not signed by its key; what
lay beside it is not what was signed."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Event: the hub's rounds begin; who died in earlier ones, or sat out, starts with a clean slate."""


@dataclass(frozen=True, slots=True)
class Told:
    """Event: all replicas are told the next thing."""


@dataclass(frozen=True, slots=True)
class Up:
    """Event: a replica's process has begun, so that it can be behind from now on."""

    replica: int
    life: int
    now: float


@dataclass(frozen=True, slots=True)
class Answered:
    """Event: a replica's answer to the thing of this index has come; `signed`: by the key of this life."""

    replica: int
    life: int
    index: int
    digest: bytes
    now: float
    signed: bool = True


@dataclass(frozen=True, slots=True)
class Forged:
    """Event: what lay beside a replica's answer was looked at, and is not what its digest says."""

    replica: int
    life: int
    index: int


@dataclass(frozen=True, slots=True)
class Died:
    """Event: a replica's process is gone, for a reason."""

    replica: int
    life: int
    reason: str
    cause: Cause = "died"


@dataclass(frozen=True, slots=True)
class Tick:
    """Event: it is now so many seconds after some fixed moment."""

    now: float


@dataclass(frozen=True, slots=True)
class Rebased:
    """Event: from now on a fresh replica is told everything from the index `first` on; all before is carried out.

    `recalls`: the thing of that index stands for all those before it, and its answer is nobody else's.
    """

    first: int
    recalls: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    """Event: all that was told is void, and every replica has a fresh machine; what comes next has the index 0."""


Event: TypeAlias = Opened | Told | Up | Answered | Forged | Died | Tick | Rebased | Stopped


@dataclass(frozen=True, slots=True)
class CarryOut:
    """Command: do what the answer to this index says, in the words of any of these replicas, the first of them if there
    is no reason against it.
    """

    index: int
    replicas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Replace:
    """Command: end a replica's process, name it, and let a fresh one of this life be told everything once more."""

    replica: int
    life: int
    cause: Cause
    reason: str


@dataclass(frozen=True, slots=True)
class Retire:
    """Command: as `Replace`, for the last time in these rounds: the fresh process is told nothing until `Return`."""

    replica: int
    life: int
    cause: Cause
    reason: str


@dataclass(frozen=True, slots=True)
class Return:
    """Command: a replica that sat out is one like any other again: let it be told everything from the first on."""

    replica: int
    life: int


@dataclass(frozen=True, slots=True)
class Disagree:
    """Command: no answer to this index can get enough votes any more; the hub's round fails."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """Command: a replica dies again and again, and the others are too few without it; end the run."""

    replica: int
    reason: str


Command: TypeAlias = CarryOut | Replace | Retire | Return | Disagree | Abandon
