"""Standing by: a process that watches a run which another one leads, and says when it is to lead it itself.

What it sees of the leader is the run's journal alone: the newest number that was claimed, and the lease of its holder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hierfl.errors import ConfigError
from hierfl.journal import Store
from tiers.lease import WAIT, Lease, Seen, Verdict, Watch

__all__ = ["Standby", "see", "watched"]

LOOKS = 6
"""So often a lease is looked at in its time."""


def watched(store: Store | None) -> Store:
    """Give the journal through which a run is watched. Errors: ConfigError for a run that keeps none."""
    if store is None:
        raise ConfigError(
            "--standby watches the run's journal, and this run keeps none: redundancy.journal is none, or members"
            " exchange among themselves"
        )
    return store


def see(store: Store, callers: int = 0) -> Seen | None:
    """Look at a run's journal; None if it cannot be read."""
    try:
        epoch = store.epoch()
        content = store.lease(epoch) if epoch else None
    except OSError:
        return None
    try:
        return Seen(epoch, Lease.read(content) if content is not None else None, callers)
    except ValueError:  # half of one: the next look finds it whole
        return Seen(epoch, None, callers)


class Standby:
    """Watches the run that `choose` names, which may be another one from look to look, or none yet.

    `open_store` gives a run's journal; `lease_s`, `takes_any`, `patience_s` and `anew` are as of `Watch`; `callers`
    counts members that call here; `tell` hears what is new.
    """

    def __init__(
        self,
        choose: Callable[[], Path | None],
        open_store: Callable[[Path], Store],
        lease_s: float,
        tell: Callable[[str], None],
        *,
        takes_any: bool = True,
        callers: Callable[[], int] = lambda: 0,
        patience_s: float = float("inf"),
        anew: bool = False,
    ) -> None:
        self._choose = choose
        self._open_store = open_store
        self._lease_s = lease_s
        self._tell = tell
        self._takes_any = takes_any
        self._callers = callers
        self._patience_s = patience_s
        self._anew = anew

    def wait(
        self, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> tuple[Path, Verdict]:
        """Wait until a run is to be led, or has ended; give its folder and the verdict. Errors: HierflError."""
        run_dir, store, watch, said = None, None, None, ""
        while True:
            chosen = self._choose()
            if chosen != run_dir or watch is None:
                run_dir = chosen
                store = self._open_store(run_dir) if run_dir is not None else None
                watch = Watch(self._lease_s, self._takes_any, self._patience_s, self._anew)
            verdict = Verdict(WAIT, "there is no run yet")
            if run_dir is not None and store is not None:
                verdict = watch.look(now(), see(store, self._callers()))
                if verdict.what != WAIT:
                    return run_dir, verdict
            what = f"{run_dir}: {verdict.reason}" if run_dir is not None else verdict.reason
            if what != said:
                self._tell(f"stands by; {what}")
                said = what
            sleep(self._lease_s / LOOKS)
