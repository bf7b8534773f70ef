"""What a run runs on, opened: the driver that the configuration names, and the workers under the dispatch policy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from hierfl.config.schema import RunConfig
from hierfl.errors import OutputError
from hierfl.held import held_policy
from hierfl.journal import Lead, Store, open_store
from hierfl.monitor.records import Record
from hierfl.runtime.crew import Crew
from hierfl.runtime.driver import Driver, Seat
from hierfl.runtime.estimates import Estimates
from hierfl.runtime.gate import gate_of
from hierfl.runtime.seats import declared_devices

__all__ = ["Opened", "closing", "crew_of", "open_driver", "store_of"]

Opened: TypeAlias = Callable[[RunConfig, Path, Lead], Driver]
"""Opens the runtime of a run, given its folder and this process's hold on it."""

JOURNAL = "journal"
"""The folder within a run's own."""

RAY_SKIPS, REHEARSED = "RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed while executing"
"""What Ray leaves out of what it prints, and what that is where faults are rehearsed: hierfl tells of each itself. Ray
reads it when it is first imported."""


def open_driver(config: RunConfig, run_dir: Path, lead: Lead | None = None) -> Driver:
    """Open the runtime that the configuration names; it leaves nothing in the run's folder."""
    runtime = config.runtime
    if runtime.kind == "local":
        from hierfl.runtime.local import LocalDriver

        return LocalDriver(runtime)
    if config.faults:
        os.environ.setdefault(RAY_SKIPS, REHEARSED)
    from hierfl.runtime.ray_actors import RayDriver

    code_dirs = dict.fromkeys(map(str, filter(None, (config.folder, Path.cwd()))))
    replicas = max(hub.redundancy.replicas for hub in config.hubs.values())
    return RayDriver(runtime, config.name, tuple(code_dirs), replicas)


@contextlib.contextmanager
def closing(driver: Driver) -> Iterator[Driver]:
    """Close the driver whatever happens."""
    try:
        yield driver
    finally:
        driver.close()


def crew_of(
    config: RunConfig, driver: Driver, seats: Sequence[Seat], emit: Callable[[Record], None], started_s: float = 0.0
) -> Crew:
    """Gather the workers under the dispatch policy; the longest chain goes first by default."""
    from scheduler.policies.chain_first import ChainFirst

    runtime = config.runtime
    estimates = Estimates.open(config.task_kind, Path(runtime.estimates).expanduser() if runtime.estimates else None)
    return Crew(
        *(driver, seats, held_policy(runtime.policy or ChainFirst())),
        preaggregate=runtime.preaggregate,
        sites=config.sites,
        estimates=estimates,
        declared=declared_devices(runtime),
        gate=gate_of(driver.link, emit, started_s, estimates.trains),
    )


def store_of(config: RunConfig, run_dir: Path) -> Store | None:
    """Open the place of a run's journal.

    None where none is wanted, or members exchange vectors that the run's supervisor is never handed. Errors:
    OutputError.
    """
    place = config.redundancy.journal
    if place == "none" or config.federation.without_centre:
        return None
    where = str(run_dir / JOURNAL) if place is None else f"{os.path.expanduser(place.rstrip('/'))}/{run_dir.name}"
    try:
        return open_store(where)
    except (OSError, ValueError) as error:
        raise OutputError(f"redundancy.journal: {where} cannot be reached: {error}") from error
