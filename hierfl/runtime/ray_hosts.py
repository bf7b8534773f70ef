"""The processes of the Ray runtime, as actors: those that serve hubs and places, and those that hold a worker."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from hierfl.errors import HierflError
from hierfl.runtime.convener import serve
from hierfl.runtime.driver import BESIDE, replica_of
from hierfl.runtime.jobs import HubSpec, Post
from hierfl.runtime.places import PLACE, Place
from hierfl.runtime.turns import Turns
from hierfl.runtime.witness import witnessed

__all__ = ["ASIDE", "HubProcess", "WorkerProcess"]

ASIDE = "aside"
"""The thread of a process that goes past the other one."""


class HubProcess:
    """An actor that serves one hub, or a few, and places of members; it needs no torch.

    `code_dirs`: where the run finds the user's code.
    """

    def __init__(self, code_dirs: Sequence[str]) -> None:
        _import_from(code_dirs)
        self._hubs: dict[str, Any] = {}
        self._place = Place()
        self._failed: dict[str, Exception] = {}

    def start_hub(self, spec: HubSpec, post: Post) -> None:
        """Make a replica of what serves a hub, or a fresh one in its place."""
        actor = replica_of(spec.path, post.replica)
        try:
            self._hubs[actor] = witnessed(spec, post, serve(spec))
            self._place.points = spec.points
            self._failed.pop(actor, None)
        except Exception as error:  # nobody waits for this call: the next one tells
            self._failed[actor] = error

    @ray.method(concurrency_group=ASIDE)
    def ping(self) -> Any:
        """Give a sign of life, whatever the process is at work on: the Ray node that it is on."""
        return ray.get_runtime_context().get_node_id(), time.time(), time.time()

    def call(self, actor: str, method: str, *arguments: Any) -> Any:
        """Run a method of one hub or place. Errors: why there is no such hub, if it could not be made."""
        if actor.startswith(PLACE):
            self._place.reached(actor, arguments)
            return _timed(getattr(self._place, method), arguments)
        if actor in self._failed:
            raise self._failed[actor]
        return _timed(getattr(self._hubs[actor], method), arguments)


class WorkerProcess:
    """An actor that holds one worker, on one device slot; one thread does the work, one what goes past it.

    `code_dirs`: where the run finds the user's code; `folder`: where it was started, for the relative paths of sites;
    `spec`: a list with the reference to a WorkerSpec, which can be read only where its task can be imported.
    """

    def __init__(self, code_dirs: Sequence[str], folder: str, spec: Sequence[Any]) -> None:
        with contextlib.suppress(OSError):  # a node that has not this folder has other paths
            os.chdir(folder)
        _import_from(code_dirs)
        from hierfl.runtime.worker import SiteWorker

        self._turns = Turns()
        self._failed: HierflError | None = None
        try:
            self._worker = SiteWorker(ray.get(spec[0]))
        except HierflError as error:  # an actor whose constructor raises looks like one that was killed
            self._failed = error

    def call(self, ticket: int, after: int, method: str, *arguments: Any) -> Any:
        """Run a method of the worker, unless it was taken back. Errors: why there is no worker, if there is none."""
        if not self._turns.begin(ticket, after):
            nothing = (None, 0.0, 0.0)
            return (nothing, *(None,) * BESIDE[method]) if method in BESIDE else nothing
        return self._run(method, arguments)

    @ray.method(concurrency_group=ASIDE)
    def aside(self, ticket: int, method: str, *arguments: Any) -> Any:
        """Run a method past what the worker is at work on. Errors: as `call`."""
        try:
            return self._run(method, arguments)
        finally:
            self._turns.passed(ticket)

    @ray.method(concurrency_group=ASIDE)
    def take_back(self, ticket: int, tickets: Sequence[int]) -> Any:
        """Take back what has not begun."""
        found = _timed(self._turns.take_back, (tickets,))
        self._turns.passed(ticket)
        return found

    def _run(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if self._failed is not None:
            raise self._failed
        return _timed(getattr(self._worker, method), arguments)


def _import_from(code_dirs: Sequence[str]) -> None:
    """Let the user's own modules be imported as they are in the run's own process, where the folders are there."""
    sys.path[:0] = [folder for folder in code_dirs if folder not in sys.path and Path(folder).is_dir()]


def _timed(method: Any, arguments: tuple[Any, ...]) -> Any:
    """Run a method; return (header, started, ended), and what travels beside it."""
    started = time.time()
    result = method(*arguments)
    if method.__name__ in BESIDE:
        return (result[0], started, time.time()), *result[1:]
    return result, started, time.time()
