"""Sums that a hub learns without any of their parts: its side of `masks`, for the lanes of all members of a cohort.

Once each member of an order has an update or is out, an attempt begins for those that have one: each is asked for a
key, then for its update under the masks of all these keys, and once every masked update has come they are added up, the
masks cancel, and one lane hands up the sum, as a worker does that has trained several sites. So what the hub's machine,
its replicas and the run's journal see is the sum, and either all of it or nothing: a run that is taken up again goes on
after the round, or asks once more. Who is out the run's supervisor says (`leave_out`): whose training has failed, or
who has been away for longer than it waits.

A member whose process has died, or that has stayed away too long, has forgotten its key: the attempt is dropped, with
all that has come of it, and another one begins. As long as nobody has been asked to mask, it may be one of other
members. From then on any may have masked, and does so in no other sum of this round: the set stands, a member of it
that is away is waited for, and if it is out in the end there is no sum. A process that has begun since does not know of
that; members say so in the place of a key, and it keeps to the set that they name.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hierfl.config.rules import FEWEST
from hierfl.config.schema import RunConfig
from hierfl.errors import HierflError, LinkError, UpdateRefused
from hierfl.learning.ring import Accumulator, PartialSum
from hierfl.learning.state import Layout
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.answers import limit_of
from hierfl.link.cohort import cohort, fewest, masks, members_in
from hierfl.link.masks import ATTEMPT_BYTES
from hierfl.link.served import num_sites
from hierfl.monitor.words import few
from hierfl.runtime.hub import grid_of
from hierfl.runtime.jobs import LeftOut, TrainJob
from tiers.messages import Share, Update

__all__ = ["KEY", "MASK", "TAKE", "WAIT", "MaskedSums", "Over", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """What comes next of a member; `attempt`: in which that is; `members`: of whom, where a key is asked; `keys`: with
    which it masks, where that is asked.
    """

    what: str
    attempt: bytes = b""
    members: tuple[str, ...] = ()
    keys: tuple[wire.MemberKey, ...] = ()


WAIT, KEY, MASK, TAKE = "wait", "key", "mask", "take"
"""KEY and MASK are asked, by these words in an `Ask`."""

FORGET = "each of them has a file masked/RUN/rounds.json in its --state folder, which it can delete"
"""The way out of what members have noted."""


@dataclass(frozen=True, slots=True)
class Over:
    """A sum is there, for the lane that hears of it first to hand up, or there is none for this member (`LeftOut`), or
    none any more; `error`: why that ends the run.
    """

    header: Update | LeftOut | None = None
    part: PartialSum | None = None
    error: HierflError | None = None


@dataclass
class _Sum:
    """One order's; see `MaskedSums`. Weights, keys and masked updates are by member's path, as is why some are `out`.

    `members`: of the attempt; `stands`: the set that may not change any more, since some may have masked in it.
    """

    members: tuple[str, ...] = ()
    stands: tuple[str, ...] = ()
    weights: dict[str, int] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
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
        self._cohorts: dict[str, tuple[tuple[str, ...], int]] = {}
        self._sums: dict[tuple[str, str], _Sum] = {}
        for left in [] if spool is None else spool.glob("*.masked*"):
            left.unlink(missing_ok=True)

    def of(self, path: str) -> MaskedSums | None:
        """Give itself for the lane of a member that masks its updates; else None."""
        return self if masks(self._config, path) else None

    def may_lose(self, hub: str) -> bool:
        """Say whether a hub's rounds go on without members."""
        return self._config.federation.hubs[hub].keep_going

    def misfit(self, job: TrainJob) -> str:
        """Say why the members of an order cannot have a masked sum; empty if they can."""
        wanted, least = self._cohort(job.hub)
        missing = [path for path in wanted if path not in job.cohort]
        if len(job.cohort) >= least and len(missing) + len(job.cohort) == len(wanted):
            return ""
        who, of = few(missing) or "others than its members", f"all {least} members"
        if least < len(wanted):
            of = f"{least} of {len(wanted)} members at least (quorum, and never fewer than {FEWEST})"
        return (
            f"{job.hub} masks updates (secure_aggregation), and its round is asked without {who}: a masked sum is of"
            f" {of}; one that has nothing to train on is left out of the YAML, or has the role evaluation"
        )

    def next(self, job: TrainJob, path: str, weight: int) -> Step | Over:
        """Say what comes next of a member that has trained, with an update of this weight."""
        with self._lock:
            found = self._sum(job.hub, job.order)
            if found.over is not None and path not in found.out:
                over, found.over = found.over, Over()  # nobody else needs it
                return over
            if path not in found.out:
                found.weights[path] = weight
                if not found.attempt and not found.weights.keys() | found.out.keys() >= {*job.cohort}:
                    return Step(WAIT)
                if not found.attempt:
                    self._begin(found, job.hub)
            if path in found.out:
                return Over(LeftOut({path: found.out[path]}))
            attempt, done = found.attempt, len(found.keys) == len(found.members)
            if path not in found.keys:
                return Step(KEY, attempt, found.members)
            if done and path not in found.told:
                found.stands = found.members
                return Step(MASK, attempt, keys=tuple(found.keys[one] for one in found.members))
            return Step(TAKE if done and path not in found.came else WAIT, attempt)

    def _begin(self, found: _Sum, hub: str) -> None:
        """Begin an attempt for those who are ready, or for the set that stands; who is not in it, is out."""
        cohort, least = self._cohort(hub)
        ready = tuple(path for path in cohort if path in found.weights)
        found.members, why = found.stands or ready, ""
        gone = [path for path in found.members if path not in found.weights]
        if gone:
            why = (
                f"others may have masked this round in the sum of {few(found.members)}, and do so in no other; without"
                f" {few(gone)} there is none, and the run can be resumed once all of them are there"
            )
        elif len(ready) < least:
            why = f"{len(ready)} of {hub}'s {len(cohort)} members have an update, and a masked sum takes {least}"
        if why:
            found.members = ()
        for path in ready:
            if path not in found.members:
                found.out[path] = why or f"the others have masked this round before, in the sum of {few(found.members)}"
                del found.weights[path]
        found.attempt = secrets.token_bytes(ATTEMPT_BYTES) if found.members else b""
        self._wake()

    def noted(self, job: TrainJob, path: str, attempt: bytes, members: tuple[str, ...]) -> None:
        """A member gives no key, since it has masked in the sum of these members: the hub keeps to it.

        Errors: LinkError for a set that cannot be.
        """
        with self._lock:
            found = self._sum(job.hub, job.order)
            if attempt != found.attempt:
                return
            members = members_in(members, *self._cohort(job.hub), path)
            if members == found.members:
                raise LinkError(f"{path} keeps to the sum of those that it was asked to be in the sum of")
            if found.stands:
                found.over = Over(
                    error=LinkError(
                        f"{path} has masked round {job.round_number + 1} in the sum of {few(members)}, and others of"
                        f" {job.hub} in that of {few(found.stands)}: there is no sum of either; {FORGET}"
                    )
                )
            found.stands = members
            found.restart()
            self._wake()

    def leave_out(self, hub: str, order: str, path: str, why: str) -> None:
        """A member is out: its training has failed, or it is waited for no longer."""
        with self._lock:
            found = self._sum(hub, order)
            found.out.setdefault(path, why)
            if found.weights.pop(path, None) is not None and path in found.members:
                found.restart()
            self._wake()

    def keyed(self, job: TrainJob, path: str, attempt: bytes, key: wire.MemberKey) -> None:
        """A member has given its key for an attempt."""
        with self._lock:
            found = self._sum(job.hub, job.order)
            if attempt == found.attempt:
                found.keys[path] = key
                if len(found.keys) == len(found.members):
                    self._wake()

    def told(self, job: TrainJob, path: str, attempt: bytes) -> None:
        """A member's masked update of an attempt is ready."""
        with self._lock:
            found = self._sum(job.hub, job.order)
            if attempt == found.attempt:
                found.told.add(path)

    def came(self, job: TrainJob, path: str, attempt: bytes, part: PartialSum, layout: Layout) -> None:
        """A member's masked update of an attempt has come; the last one makes the sum. `layout`: of an update."""
        with self._lock:
            found = self._sum(job.hub, job.order)
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
            self._sum(job.hub, job.order).restart()
            self._wake()

    def left(self, path: str) -> None:
        """A member is away, and is asked to train once more when it is back: what it takes part in waits for it."""
        with self._lock:
            for found in self._sums.values():
                if found.over is None and found.weights.pop(path, None) is not None:
                    found.restart()

    def void(self, job: TrainJob) -> None:
        """There will be no sum: nobody asks for it any more."""
        with self._lock:
            found = self._sum(job.hub, job.order)
            found.over = found.over or Over()
            found.restart()
            self._wake()

    def _cohort(self, hub: str) -> tuple[tuple[str, ...], int]:
        """Give the members of a hub that mask, and how many a sum takes at least."""
        if hub not in self._cohorts:
            self._cohorts[hub] = cohort(self._config, hub), fewest(self._config, hub)
        return self._cohorts[hub]

    def _sum(self, hub: str, order: str) -> _Sum:
        """Give the sum of an order; earlier ones of its hub are over, and forgotten but for the last."""
        key = hub, order
        if key not in self._sums:
            earlier = [one for one in self._sums if one[0] == hub]
            for one in earlier[:-1]:
                del self._sums[one]
            self._sums[key] = _Sum()
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
