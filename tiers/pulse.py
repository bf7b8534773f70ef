"""Which processes have been silent for too long: each is asked for a sign of life again and again.

A process that computes for long still answers, in a thread of its own; one that was stopped, or whose machine is
gone, does not. What is said here is a guess and no more (Chandra & Toueg 1996 call it an unreliable failure detector):
it costs a process when it is wrong, and never a bit. After each guess the patience doubles, until the process has
answered for ten times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["START_S", "Attention", "Pulse"]

START_S = 60.0
"""How long a process may take to begin, at least: to start one takes seconds, on a busy machine half a minute."""

CALM = 10
"""So many leases of answers, one after the other, and a process is trusted like any other."""


@dataclass
class _Process:
    lease_s: float
    started_s: float
    heard_s: float | None = None
    doublings: int = 0


@dataclass
class Pulse:
    """The processes that are asked, by name; all times in seconds after some fixed moment."""

    _processes: dict[str, _Process] = field(default_factory=dict)

    def start(self, name: str, lease_s: float, now: float) -> None:
        """A process begins, in the place of an earlier one of this name if there was one."""
        before = self._processes.get(name)
        self._processes[name] = _Process(lease_s, now, doublings=before.doublings if before else 0)

    def narrow(self, name: str, lease_s: float) -> None:
        """A process serves somebody with another lease, too: the shortest counts."""
        one = self._processes[name]
        one.lease_s = min(one.lease_s, lease_s)

    def beat(self, name: str, now: float) -> bool:
        """A process has given a sign of life; say whether it is its first."""
        one = self._processes[name]
        first, one.heard_s = one.heard_s is None, now
        if now - one.started_s > CALM * one.lease_s * 2**one.doublings:
            one.doublings = 0
        return first

    def silent(self, now: float) -> Mapping[str, float]:
        """List those that have been silent for too long, with the seconds; each is named once, until it begins anew."""
        found = {}
        for name, one in self._processes.items():
            limit_s = one.lease_s * 2**one.doublings
            since_s = now - (one.started_s if one.heard_s is None else one.heard_s)
            if since_s > (max(limit_s, START_S) if one.heard_s is None else limit_s):
                found[name] = since_s
        for name in found:
            one = self._processes[name]
            one.doublings += 1
            one.started_s, one.heard_s = now, None
        return found


@dataclass
class Attention:
    """A clock that runs only while somebody looks: who did not look cannot say that others were silent."""

    step_s: float
    now: float = 0.0
    _looked_s: float | None = None

    def look(self, clock_s: float) -> float:
        """Look at a clock, and give the seconds of attention so far; at most `step_s` since the last look count."""
        if self._looked_s is not None:
            self.now += min(max(clock_s - self._looked_s, 0.0), self.step_s)
        self._looked_s = clock_s
        return self.now
