"""The user's code as it is run: what goes wrong at a site is told in words, and ends neither the worker nor the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from hierfl.errors import ConfigError, HierflError
from hierfl.frames import spelt
from hierfl.learning.alike import Form
from hierfl.learning.metrics import Tally
from hierfl.runtime.baton import Interrupted
from hierfl.runtime.jobs import Evaluated
from hierfl.runtime.threads import Ended
from hierfl.runtime.watched import Crashed

__all__ = ["guarded", "measured"]

T = TypeVar("T")


def measured(
    hub: str, sites: Sequence[str], measure: Callable[[str], Tally], *, with_curves: bool = False
) -> Evaluated:
    """Measure sites one after the other; what goes wrong at one is told, not raised. `with_curves`: each one's
    scores are looked at.
    """
    tallies: dict[str, Tally] = {}
    durations: dict[str, float] = {}
    errors: dict[str, str] = {}
    for site in sites:
        started = time.perf_counter()
        outcome = guarded(lambda site=site: measure(site))  # type: ignore[misc]
        if isinstance(outcome, str):
            errors[site] = outcome
        else:
            tallies[site] = outcome
        durations[site] = time.perf_counter() - started
    scalars = {site: tally.scalars() for site, tally in tallies.items()}
    curves = {site: tally.told_apart for site, tally in tallies.items() if with_curves}
    forms = {site: Form.of(tally) for site, tally in tallies.items()}
    alike = {form: [site for site, one in forms.items() if one == form] for form in forms.values()}
    totals = {form: Tally.total(tallies[site] for site in sites) for form, sites in alike.items()}
    clusters = {site: tally.clusters for site, tally in tallies.items() if tally.clusters is not None}
    return Evaluated(hub, totals, forms, scalars, durations, errors, curves, clusters)


def guarded(work: Callable[[], T], short_of_memory: list[BaseException] | None = None) -> T | str:
    """Run the user's code; return what it gave, or why it failed: one line of ours, or their traceback.

    `short_of_memory` takes the error if it was one of too little memory. Errors: ConfigError passes, since it is not
    one site's.
    """
    try:
        return work()
    except ConfigError:
        raise
    except HierflError as error:
        return str(error)
    except BaseException as error:
        if not isinstance(error, Exception | SystemExit) and not _is_the_tasks(error):
            raise
        if short_of_memory is not None and isinstance(error, torch.OutOfMemoryError | MemoryError):
            short_of_memory.append(error.with_traceback(None))
        return spelt(error)


def _is_the_tasks(error: BaseException) -> bool:
    """Say whether the task's code has raised what is no Exception: in the main thread it would be a stop, and with
    others of ours a thread is told to leave off, or to begin anew, or a worker's death is rehearsed.
    """
    is_main = threading.current_thread() is threading.main_thread()
    return not is_main and not isinstance(error, Ended | Interrupted | Crashed)
