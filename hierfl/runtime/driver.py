"""The seam between the run's supervisor and what carries its calls: threads here, Ray actors there.

An actor is a worker (`worker-0`), a replica of a hub's aggregator (`replica_of`; the first is called by the hub's path)
or the place of a member of a hub without a centre (`place_of`).
Calls to one actor run one at a time, in the order in which they were made; only what is called `aside` goes past those
that were made before, and comes before those that are made after it. A reply is a small header; vectors stay where they
are and are known by handles, which may be passed on as arguments. A driver never retries: it says what happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from hierfl.errors import HierflError
from hierfl.runtime.gate import Link
from hierfl.runtime.jobs import HubSpec, Post, WorkerSpec
from scheduler import Device

__all__ = ["BESIDE", "Done", "Driver", "Handle", "Seat", "hub_of", "is_further", "num_beside", "replica_of"]

Handle: TypeAlias = Any
"""A vector's place: the object itself in threads, an object reference on Ray."""

BESIDE = {
    **dict.fromkeys(("initial", "merged", "collect", "train_keeping", "fine_tune", "add", "average"), 1),
    **dict.fromkeys(("begin", "arrive", "lose", "elapse", "recall", "mixed", "leave"), 3),
    **dict.fromkeys(("broadcast", "reduce", "gather", "mix", "join", "read_own"), 3),
    **dict.fromkeys(("cut", "cut_model"), -1),
    "encode": 2,
}
"""How many vectors a method returns beside its header, -1 for as many as its first argument says; the others none."""


def replica_of(path: str, replica: int) -> str:
    """Name a replica of a hub's aggregator, counted from 0; no node's path begins with a slash."""
    return f"/replica-{replica}/{path}" if replica else path


def hub_of(actor: str) -> tuple[str, int]:
    """Give the path of the hub that a replica serves, and its number."""
    if not is_further(actor):
        return actor, 0
    number, _, path = actor.removeprefix("/replica-").partition("/")
    return path, int(number)


def is_further(actor: str) -> bool:
    """Say whether this is a replica, and not the first one."""
    return actor.startswith("/replica-")


def num_beside(method: str, arguments: Sequence[Any]) -> int:
    """Count the vectors that a call returns beside its header."""
    num = BESIDE.get(method, 0)
    return int(arguments[0]) if num < 0 else num


@dataclass(frozen=True, slots=True)
class Done:
    """A call has ended: with a header and handles, with an error, or with its actor.

    `started_s`, `ended_s`: when the actor was busy with it, seconds since the epoch. `away`: the actor has been silent
    for as long as it may be, whatever process of it is to come.
    """

    ticket: int
    actor: str
    value: Any = None
    beside: tuple[Handle, ...] = ()
    error: HierflError | None = None
    crashed: str | None = None
    started_s: float = 0.0
    ended_s: float = 0.0
    away: bool = False


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker and the device that it serves; workers of one device share it."""

    worker: str
    device: Device


class Driver(Protocol):
    """Carries calls to actors and brings back what came of them."""

    kind: str

    @property
    def link(self) -> Link | None:
        """Give the way to what leases devices to the run, once it has started; None where all are its own."""

    def start(self, spec: WorkerSpec, num_hubs: int) -> tuple[Seat, ...]:
        """Start the workers, and room for the hubs; return the workers. Errors: RuntimeUnavailable."""

    def grow(self) -> tuple[Seat, ...]:
        """Start workers on devices that have come since, and return them."""

    def enter(self, epoch: int) -> None:
        """Call members of this epoch's tree from now on; who has left and comes no more may be let go."""

    def start_hub(self, spec: HubSpec, post: Post) -> None:
        """Make a replica of a hub's aggregator (`replica_of`), or a fresh one in its place."""

    def processes(self) -> Mapping[str, Sequence[str]]:
        """List the processes of hubs that may fall silent, each with the replicas that it serves."""

    def ping(self, process: str) -> int:
        """Ask such a process for a sign of life, past all that it is at work on; returns the call's ticket."""

    def machine(self, actor: str) -> str:
        """Name the machine on which a replica is."""

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        """Call a method; handles among the arguments arrive as their values. Returns the call's ticket."""

    def aside(self, worker: str, method: str, *arguments: Any) -> int:
        """Call a method of a worker past what it is at work on, which must not be about the same."""

    def take_back(self, worker: str, tickets: Sequence[int]) -> int:
        """Take back those of a worker's calls that have not begun; the reply's value is their tickets.

        They will not be done, and are never heard of again.
        """

    def wait(self, timeout_s: float) -> Iterable[Done]:
        """Wait until at least one call has ended, or the time is over; give all that have, once. What is called while
        they are gone through, and ends at once, may be among them.
        """

    def restart(self, actor: str, *, silent: bool = False) -> tuple[str, ...]:
        """Replace a lost actor's process; return all actors that were lost with it.

        `silent`: nothing was heard of it for too long, so that its machine may be gone.
        """

    def put(self, value: Any) -> Handle:
        """Store a vector for all actors."""

    def get(self, handle: Handle) -> Any:
        """Fetch a vector."""

    def close(self) -> None:
        """End every actor and leave nothing behind."""
