"""Sums that a hub learns without any of their parts: its side of `masks`, for the lanes of all members of a cohort.

Once all members have trained, an attempt begins: each is asked for a key, then for its update under the masks of all
these keys, and once every masked update has come they are added up, the masks cancel, and one lane hands up the sum, as
a worker does that has trained several sites. So what the hub's machine, its replicas and the run's journal see is the
sum, and either all of it or nothing: a run that is taken up again goes on after the round, or asks all members once
more.

A member whose process has died, or that has stayed away too long, has forgotten its key: the attempt is dropped, with
all that has come of it, and another one begins once the member is back. A round has no sum without it: nothing is ever
added up of fewer members than the cohort.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hierfl.config.schema import RunConfig
from hierfl.errors import HierflError, LinkError, UpdateRefused
from hierfl.learning.ring import Accumulator, PartialSum
from hierfl.learning.state import Layout
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.answers import limit_of
from hierfl.link.cohort import cohort, masks
from hierfl.link.masks import ATTEMPT_BYTES
from hierfl.link.served import num_sites
from hierfl.runtime.hub import grid_of
from hierfl.runtime.jobs import TrainJob
from tiers.messages import Share, Update

__all__ = ["KEY", "MASK", "TAKE", "WAIT", "MaskedSums", "Over", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """What comes next of a member; `attempt`: in which that is; `keys`: with which it masks, where that is asked."""

    what: str
    attempt: bytes = b""
    keys: tuple[wire.MemberKey, ...] = ()


WAIT, KEY, MASK, TAKE = "wait", "key", "mask", "take"
"""KEY and MASK are asked, by these words in an `Ask`."""


@dataclass(frozen=True, slots=True)
class Over:
    """A sum is there, for one of its members' lanes to hand up, or there is none; `error`: why that ends the run."""

    header: Update | None = None
    part: PartialSum | None = None
    error: HierflError | None = None


@dataclass
class _Sum:
    """One round's; see `MaskedSums`. Weights, keys and masked updates are by member's path."""

    members: tuple[str, ...]
    weights: dict[str, int] = field(default_factory=dict)
    attempt: bytes = b""
    keys: dict[str, wire.MemberKey] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    came: dict[str, PartialSum] = field(default_factory=dict)
    over: Over | None = None

    def restart(self) -> None:
        self.attempt = b""
        self.keys.clear()
        self.told.clear()
        self.came.clear()


class MaskedSums:
    """The masked sums of a process's hubs; safe among threads, and calls nobody but `wake`: lanes ask what comes next.

    `config`: the whole federation's; `wake`: lets all lanes ask anew, by another thread than the one that calls it;
    `spool`: where updates come, among which nobody knows of the masked ones that an earlier process has left.
    """

    def __init__(self, config: RunConfig, wake: Callable[[], None], spool: Path | None = None) -> None:
        self._config = config
        self._wake = wake
        self._lock = threading.Lock()
        self._sums: dict[tuple[str, str], _Sum] = {}
        for left in [] if spool is None else spool.glob("*.masked*"):
            left.unlink(missing_ok=True)

    def of(self, path: str) -> MaskedSums | None:
        """Give itself for the lane of a member that masks its updates; else None."""
        return self if masks(self._config, path) else None

    def misfit(self, job: TrainJob) -> str:
        """Say why the members of an order cannot have a masked sum; empty if they can."""
        wanted = cohort(self._config, job.hub)
        missing = [path for path in wanted if path not in job.cohort]
        if not missing and len(job.cohort) == len(wanted):
            return ""
        who = ", ".join(missing) or "others than its members"
        return (
            f"{job.hub} masks updates (secure_aggregation), and its round is asked without {who}: a masked sum is of"
            f" all {len(wanted)} members; one that has nothing to train on is left out of the YAML, or has the role"
            " evaluation"
        )

    def next(self, job: TrainJob, path: str, weight: int) -> Step | Over:
        """Say what comes next of a member that has trained, with an update of this weight."""
        with self._lock:
            found = self._sum(job)
            if found.over is not None:
                if path != found.members[0]:
                    return Over()
                over, found.over = found.over, Over()  # nobody else needs it
                return over
            found.weights[path] = weight
            if len(found.weights) < len(found.members):
                return Step(WAIT)
            if not found.attempt:
                found.attempt = secrets.token_bytes(ATTEMPT_BYTES)
                self._wake()
            attempt, done = found.attempt, len(found.keys) == len(found.members)
            if path not in found.keys:
                return Step(KEY, attempt)
            if done and path not in found.told:
                return Step(MASK, attempt, tuple(found.keys[one] for one in found.members))
            return Step(TAKE if done and path not in found.came else WAIT, attempt)

    def keyed(self, job: TrainJob, path: str, attempt: bytes, key: wire.MemberKey) -> None:
        """A member has given its key for an attempt."""
        with self._lock:
            found = self._sum(job)
            if attempt == found.attempt:
                found.keys[path] = key
                if len(found.keys) == len(found.members):
                    self._wake()

    def told(self, job: TrainJob, path: str, attempt: bytes) -> None:
        """A member's masked update of an attempt is ready."""
        with self._lock:
            found = self._sum(job)
            if attempt == found.attempt:
                found.told.add(path)

    def came(self, job: TrainJob, path: str, attempt: bytes, part: PartialSum, layout: Layout) -> None:
        """A member's masked update of an attempt has come; the last one makes the sum. `layout`: of an update."""
        with self._lock:
            found = self._sum(job)
            if attempt != found.attempt:
                return
            found.came[path] = part
            if len(found.came) == len(found.members):
                found.over = self._added(found, job, layout)
                found.restart()
                self._wake()

    def restart(self, job: TrainJob) -> None:
        """A member has forgotten its key: all begin anew."""
        with self._lock:
            self._sum(job).restart()
            self._wake()

    def left(self, path: str) -> None:
        """A member is away, and is asked to train once more when it is back: what it takes part in waits for it."""
        with self._lock:
            for found in self._sums.values():
                if found.over is None and found.weights.pop(path, None) is not None:
                    found.restart()

    def void(self, job: TrainJob) -> None:
        """There will be no sum: a member has failed, or nobody asks for it any more."""
        with self._lock:
            found = self._sum(job)
            found.over = found.over or Over()
            found.restart()
            self._wake()

    def _sum(self, job: TrainJob) -> _Sum:
        """Give the sum of an order; earlier ones of its hub are over, and forgotten but for the last."""
        key = job.hub, job.order
        if key not in self._sums:
            earlier = [one for one in self._sums if one[0] == job.hub]
            for one in earlier[:-1]:
                del self._sums[one]
            self._sums[key] = _Sum(cohort(self._config, job.hub))
        return self._sums[key]

    def _added(self, found: _Sum, job: TrainJob, layout: Layout) -> Over:
        """Add up what has come: the masks cancel."""
        grid = grid_of(job.opening)
        total, names = Accumulator(grid, layout), ", ".join(found.members)
        try:
            for path in found.members:
                total.add_sum(found.came[path])
        except UpdateRefused as error:
            return Over(error=LinkError(f"the masked updates of {names} cannot be added up: {error}"))
        part = total.total()
        most = limit_of(grid, part.weight, sum(num_sites(self._config, path) for path in found.members))
        if part.floats.size and not (int(part.floats.max()) <= most and int(part.floats.min()) >= -most):
            said = "one of them has sent what no update may be, or not masked it as the others did"
            return Over(
                error=LinkError(f"the masked updates of {names} add up to more than their round allows: {said}")
            )
        shares = tuple(Share(path.rpartition("/")[2], found.weights[path]) for path in found.members)
        header = Update(job.hub, job.round_number, shares, part.num_bytes * len(shares))
        return Over(header, part)
