"""Leading a run: the number that a process has claimed, and the lease that it renews for whoever stands by.

A process that has lost its run hears of it at its next renewal, and asks before all that others would see of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from hierfl.errors import DataError, Fenced, Overtaken, RoundFailed, SiteFailed, UpdateRefused
from hierfl.journal.store import Store
from tiers.lease import FAILED, FINISHED, LEADS, LEFT, Lease

__all__ = ["Lead", "leading"]

PARTS = 3
"""So many renewals fit into a lease."""

OF_THE_FEDERATION = (DataError, RoundFailed, SiteFailed, UpdateRefused)
"""What ends a run wherever it is led."""


class Lead:
    """One process's hold on a run. `store`: None where no journal is kept, and nobody else can know of it.

    `epoch`: the number that it has claimed, 0 for none. `failure`: why none could be claimed; the run goes on as one
    without a journal does. `before`: who had led the run and did not say that it had ended; empty if nobody had.
    `holds`: is asked before and after a number is claimed, and raises where the run is not to be gone on with. `lost`:
    is called, in a thread of its own, once another process is known to lead.
    """

    def __init__(self, store: Store | None = None, epoch: int = 0, lease_s: float = 1.0, failure: str = "") -> None:
        self.store = store
        self.epoch = epoch
        self.failure = failure
        self.tells: Callable[[], Mapping[str, Any]] = dict
        self.holds: Callable[[], None] = lambda: None
        self.lost: Callable[[], None] = lambda: None
        self.before = ""
        self._lease = Lease(epoch, f"{socket.gethostname()}:{os.getpid()}", lease_s=lease_s)
        self._lease_s = lease_s
        self._renewed_s = time.monotonic()
        self._is_lost = False
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def take(cls, store: Store | None, lease_s: float) -> Lead:
        """Claim the next number of a run, and begin to renew its lease. Errors: as of `claim`."""
        lead = cls(store, 0, lease_s)
        lead.claim()
        return lead

    @property
    def is_taken(self) -> bool:
        """Whether the run is this process's already, as far as there is anything to claim."""
        return self.store is None or bool(self.epoch or self.failure)

    def claim(self) -> None:
        """Claim the next number of the run, unless one was, and begin to renew its lease.

        From now on whoever led the run is fenced: all that can be refused is refused before. Errors: Overtaken if
        another process just did, and those of `holds`.
        """
        if self.is_taken:
            return
        assert self.store is not None
        self.holds()
        self.before = self.other()
        try:
            epoch = self.store.epoch() + 1
            self.store.claim(epoch)
        except FileExistsError as error:
            raise Overtaken("another process has taken this run up at the same time; this one ends") from error
        except OSError as error:
            self.failure = str(error.strerror or error)
        else:
            self.epoch = epoch
            self._lease = replace(self._lease, epoch=epoch)
            self._renew()
            self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
            self._thread.start()
        self.holds()

    def other(self) -> str:
        """Name who has claimed the run last and says that it leads; empty if this process has, or none says so."""
        if self.store is None:
            return ""
        try:
            newest = self.store.epoch()
            content = self.store.lease(newest) if newest != self.epoch else None
            lease = Lease.read(content or b"")
        except (OSError, ValueError):  # there is none, or half of it
            return ""
        return f"{lease.holder}, number {lease.epoch}" if lease.state == LEADS else ""

    def heed(self) -> None:
        """Errors: Fenced if it is known that another process leads now; one that has hung asks before it goes on."""
        if self._thread is None:
            return
        if not self._is_lost and time.monotonic() - self._renewed_s > self._lease_s:
            self._renew()
        if self._is_lost:
            raise self._fenced()

    def leads(self) -> bool:
        """Say whether, as far as is known, this process leads; as `heed` finds it."""
        try:
            self.heed()
        except Fenced:
            return False
        return True

    def check(self) -> None:
        """Ask, once the run is claimed. Errors: Fenced if another process leads now; OSError if nobody can tell."""
        if self.store is not None and self.epoch and not self.failure and self.store.epoch() > self.epoch:
            self._is_lost = True
            raise self._fenced()

    def close(self, state: str = "", reason: str = "") -> None:
        """Renew the lease no more; `state`: what is left in it."""
        self._ends.set()
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        if state and not self._is_lost and self.store is not None:
            with contextlib.suppress(OSError):  # whoever stands by waits for the lease's end, then
                self.store.put_lease(self.epoch, self._next(state=state, reason=reason).write())

    def _run(self) -> None:
        """Renew until the end."""
        while not self._is_lost and not self._ends.wait(self._lease_s / PARTS):
            self._renew()
        if self._is_lost:
            self.lost()

    def _renew(self) -> None:
        """Write the lease, unless another process leads; what cannot be written now is written the next time."""
        assert self.store is not None
        with contextlib.suppress(OSError):
            if self.store.epoch() > self.epoch:
                self._is_lost = True
                return
            self._renewed_s = time.monotonic()
            self.store.put_lease(self.epoch, self._next().write())

    def _next(self, **changes: Any) -> Lease:
        self._lease = self._lease.next(**self.tells(), **changes)
        return self._lease

    def _fenced(self) -> Fenced:
        said = f"another process has taken this run up meanwhile: this one, number {self.epoch}, ends, and what it does"
        other = self.other()
        return Fenced(f"{said} counts no more" + (f"; {other}, goes on with it" if other else ""))


@contextlib.contextmanager
def leading(
    store: Store | None,
    lease_s: float,
    goes_on: type[BaseException],
    *,
    at_once: bool = True,
    holds: Callable[[Lead], None] = lambda lead: None,
) -> Iterator[Lead]:
    """Lead a run, and leave in its lease how that ended; `goes_on`: ends it only for this process to lead it anew.

    `at_once`: claim it now, else it is claimed by whoever needs it first; `holds`: as of `Lead`. Errors: Fenced,
    Overtaken.
    """
    lead = Lead(store, 0, lease_s)
    lead.holds = lambda: holds(lead)
    try:
        if at_once:
            lead.claim()
        yield lead
    except (Fenced, goes_on):
        lead.close()
        raise
    except OF_THE_FEDERATION as error:
        lead.close(FAILED, str(error).splitlines()[0])
        raise
    except BaseException as error:
        lead.close(LEFT, _why(error))
        raise
    else:
        lead.close(FINISHED, "the run has ended")


def _why(error: BaseException) -> str:
    """Say in a line why a process leaves its run."""
    said = str(error).splitlines()
    return said[0] if said else "it was stopped" if isinstance(error, KeyboardInterrupt) else type(error).__name__
