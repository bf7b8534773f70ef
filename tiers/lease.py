"""A lease: what the process that leads a run writes down again and again, and who watches it takes for its life.

A watcher holds no clock against another machine's. It sees whether the record has changed since it last looked, and how
long by its own clock it has not (Gray & Cheriton 1989 give a lease a term; here nobody trusts one: a process that was
taken for dead in error is fenced by the number of its successor, and safety rests on that alone).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

__all__ = ["END", "FAILED", "FINISHED", "LEAD", "LEADS", "LEFT", "WAIT", "Lease", "Seen", "Verdict", "Watch"]

LEADS, LEFT, FINISHED, FAILED = "leads", "left", "finished", "failed"
"""How the leader stands: at work; gone, the run is anybody's; done; ended by the federation itself, a quorum missed."""

WAIT, LEAD, END = "wait", "lead", "end"
"""What a watcher is to do."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The record of the process that has claimed `epoch`; `beat` rises each time that it is written.

    `holder`: who it is, for people; `lease_s`: how long it may be silent; `address`: where it listens for members;
    `members`: how many of them it is in touch with, -1 before it listens; `reason`: why it ended.
    """

    epoch: int
    holder: str
    beat: int = 0
    lease_s: float = 0.0
    address: str = ""
    members: int = -1
    state: str = LEADS
    reason: str = ""

    def next(self, **changes: object) -> Lease:
        """Give the record that is written next."""
        return replace(self, beat=self.beat + 1, **changes)  # type: ignore[arg-type]

    def write(self) -> bytes:
        """Give the record's bytes."""
        return (json.dumps(asdict(self)) + "\n").encode()

    @classmethod
    def read(cls, content: bytes) -> Lease:
        """Read a record. Errors: ValueError for what is none, or only a part of one."""
        try:
            found = cls(**json.loads(content))
        except (ValueError, TypeError) as error:
            raise ValueError(f"that is no lease: {error}") from error
        return found


@dataclass(frozen=True, slots=True)
class Seen:
    """What a watcher sees: the newest number that was claimed, 0 for none, its lease if there is one, and how many
    members try to reach the watcher.
    """

    epoch: int
    lease: Lease | None = None
    callers: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, and why; `failed`: the run has ended, and not well."""

    what: str
    reason: str
    failed: bool = False


@dataclass(slots=True)
class Watch:
    """Watches one run's lease. Times are the watcher's own, in seconds, and never go back.

    `lease_s`: how long a leader may be silent, unless it says that it may be for longer. `takes_any`: takes up a run
    that it has never seen led, too. `patience_s`: how long more members must call here than are in touch with the
    leader before it is taken for cut off from them. `anew`: what is led is not one run but one after the other, so that
    what nobody has led yet, and what had ended before it watched, is led at once.
    """

    lease_s: float
    takes_any: bool = True
    patience_s: float = float("inf")
    anew: bool = False
    _seen: tuple[int, Lease | None] | None = None
    _since_s: float = 0.0
    _led: bool = False
    _called_s: float | None = None

    def look(self, now_s: float, seen: Seen | None) -> Verdict:
        """Judge what is seen now; None: it cannot be seen, which says nothing of the leader."""
        if seen is None:
            self._seen, self._called_s = None, None
            return Verdict(WAIT, "the lease cannot be read")
        lease = seen.lease
        before, self._seen = self._seen, (seen.epoch, lease)
        if before != self._seen:
            self._since_s = now_s
            self._led = self._led or before is not None
        if self.anew and not seen.epoch:
            return Verdict(LEAD, "nobody has led it yet")
        if lease is not None and lease.state != LEADS:
            return self._ended(lease)
        silent_s = now_s - self._since_s
        who = f"{lease.holder}, number {lease.epoch}," if lease is not None else f"number {seen.epoch}"
        if silent_s >= max(self.lease_s, lease.lease_s if lease is not None else 0.0):
            if self._led or self.takes_any:
                return Verdict(LEAD, f"nothing was heard of {who} for {silent_s:.3g} s")
            return Verdict(WAIT, f"nothing is heard of {who}, and nothing was since this process watches")
        return self._called(now_s, seen) or Verdict(WAIT, f"{who} {'leads' if self._led else 'is said to lead'}")

    def _ended(self, lease: Lease) -> Verdict:
        """Judge a leader that has said how it ended."""
        if lease.state == LEFT:
            if self._led or self.takes_any:
                return Verdict(LEAD, f"{lease.holder}, number {lease.epoch}, has left: {lease.reason}")
            return Verdict(WAIT, f"{lease.holder} had left before this process watched")
        if self.anew and not self._led:
            return Verdict(LEAD, f"what {lease.holder}, number {lease.epoch}, led is over: {lease.reason}")
        return Verdict(END, lease.reason, failed=lease.state == FAILED)

    def _called(self, now_s: float, seen: Seen) -> Verdict | None:
        """Judge who reaches whom: a leader that members cannot reach does not lead them."""
        lease = seen.lease
        if lease is None or lease.members < 0 or seen.callers <= lease.members:
            self._called_s = None
            return None
        if self._called_s is None:
            self._called_s = now_s
        if now_s - self._called_s < self.patience_s:
            return None
        said = f"{seen.callers} members call here, {lease.members} are in touch with {lease.holder}"
        return Verdict(LEAD, f"{said}, number {lease.epoch}")
