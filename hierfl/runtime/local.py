"""The local runtime: workers are threads of this process, hubs run in the supervisor's own."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from hierfl.config.schema import Runtime
from hierfl.errors import HierflError, RuntimeUnavailable
from hierfl.runtime.convener import serve
from hierfl.runtime.cores import Sleeper
from hierfl.runtime.driver import BESIDE, Done, Handle, Seat, replica_of
from hierfl.runtime.jobs import HubSpec, Post, WorkerSpec
from hierfl.runtime.places import PLACE, Place
from hierfl.runtime.seats import PROCESS, seats
from hierfl.runtime.threads import Ended, WorkerThread
from hierfl.runtime.watched import Crashed
from hierfl.runtime.witness import witnessed
from scheduler import Device

if TYPE_CHECKING:
    from hierfl.runtime.worker import SiteWorker

__all__ = ["LocalDriver"]


ONE_RUN = threading.Lock()
"""Held by the process's one run: torch's global random numbers cannot serve two."""

JOINS = {"collect"}
"""What is done at once behind a worker's work: the supervisor is woken once for both, not twice."""

PARTING_S = 5.0
"""Seconds for which a run's end waits for threads that are still at work."""


class LocalDriver:
    """Carries out calls in threads; a handle is the object itself."""

    kind = "local"
    link = None

    def __init__(self, runtime: Runtime) -> None:
        self.num_workers = runtime.num_workers or min(4, os.cpu_count() or 1)
        self.runtime = runtime
        self._threads: dict[str, WorkerThread] = {}
        self._workers: dict[str, SiteWorker] = {}
        self._kept: dict[str, list[Done]] = {}
        self._hubs: dict[str, Any] = {}
        self._place = Place()
        self._done: queue.SimpleQueue[Sequence[Done]] = queue.SimpleQueue()
        self._at_once: deque[Done] = deque()
        """What has ended in the supervisor's own thread."""
        self._calls: dict[int, Future[None]] = {}
        self._next_ticket = 0
        self._holds = False
        self._put_back: Callable[[], None] = lambda: None
        self._make: Callable[[], SiteWorker] | None = None
        self._lost: dict[str, str] = {}
        self._sleeper = Sleeper()
        self._is_left = False
        """Whether the supervisor's core was left to a worker, since it slept last."""

    def start(self, spec: WorkerSpec, num_hubs: int) -> tuple[Seat, ...]:
        """Start the threads; each makes its worker itself, since torch counts threads by thread.

        They share this process, and with it Python's lock: one device, that runs more than one job at a time where it
        is faster so.

        Errors: RuntimeUnavailable if another run of this process has not ended.
        """
        if not ONE_RUN.acquire(blocking=False):
            raise RuntimeUnavailable(
                "another local run is under way in this process; start each in a process of its own"
            )
        self._holds = True
        from hierfl.runtime.chance import Chance, SharedChance, surroundings
        from hierfl.runtime.worker import SiteWorker

        self._put_back = surroundings()
        chance = SharedChance() if self.num_workers > 1 else Chance()
        found = self._seats()
        self._make = partial(SiteWorker, spec, chance)
        for seat in found:
            self._start_worker(seat.worker)
        return found

    def _seats(self) -> tuple[Seat, ...]:
        """Give the threads: `runtime.devices` as they are declared, for the sake of residency; else all on one."""
        if self.runtime.devices:
            return seats(self.runtime)
        device = Device(PROCESS, PROCESS, places=self.num_workers)
        return tuple(Seat(f"worker-{number}", device) for number in range(self.num_workers))

    def grow(self) -> tuple[Seat, ...]:
        """Nothing comes to a process."""
        return ()

    def enter(self, epoch: int) -> None:
        """Threads do the work of any tree."""

    def _start_worker(self, name: str) -> None:
        """Start a worker's thread, or a fresh one in its place."""
        assert self._make is not None
        kept = self._kept[name] = []
        thread = self._threads[name] = WorkerThread(name, partial(self._tell, kept), self._sleeper)
        self._workers[name] = thread.submit(self._make).result()

    def _tell(self, kept: list[Done]) -> None:
        """Tell what a worker has done."""
        if kept:
            self._done.put(tuple(kept))
            kept.clear()

    def start_hub(self, spec: HubSpec, post: Post) -> None:
        """Make a replica of what serves a hub, or a fresh one in its place."""
        actor = replica_of(spec.path, post.replica)
        self._hubs[actor] = witnessed(spec, post, serve(spec))
        if not post.replica:
            self._place.points = spec.points
        self._lost.pop(actor, None)

    def processes(self) -> Mapping[str, Sequence[str]]:
        """Name none: hubs have no process of their own."""
        return {}

    def ping(self, process: str) -> int:
        """Nothing can be silent by itself."""
        raise AssertionError(f"the local runtime has no process {process}")

    def machine(self, actor: str) -> str:
        """Name this process, where all are."""
        return PROCESS

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        """Run a method of a hub or a member's place at once, a worker's in its thread."""
        ticket = self._next_ticket
        self._next_ticket += 1
        if actor not in self._workers:
            owner = self._place if actor.startswith(PLACE) else self._hubs[actor]
            self._at_once.append(self._run(ticket, actor, getattr(owner, method), arguments))
        else:
            bound, kept = getattr(self._workers[actor], method), self._kept[actor]

            def run() -> None:
                kept.append(self._run(ticket, actor, bound, arguments))

            near, self._is_left = not self._is_left, True
            self._calls[ticket] = self._threads[actor].submit(run, joins=method in JOINS, near=near)
        return ticket

    def aside(self, worker: str, method: str, *arguments: Any) -> int:
        """Run a worker's method at once."""
        ticket = self._next_ticket
        self._next_ticket += 1
        self._at_once.append(self._run(ticket, worker, getattr(self._workers[worker], method), arguments))
        return ticket

    def take_back(self, worker: str, tickets: Sequence[int]) -> int:
        """Cancel the calls that a thread has not begun."""
        ticket = self._next_ticket
        self._next_ticket += 1
        found = tuple(each for each in tickets if each in self._calls and self._calls.pop(each).cancel())
        self._at_once.append(Done(ticket, worker, found))
        return ticket

    def wait(self, timeout_s: float) -> Iterator[Done]:
        """Give all calls that have ended, and those of hubs that are made meanwhile."""
        self._is_left = False
        found: list[Done] = []
        with contextlib.suppress(queue.Empty):
            if not self._at_once:
                with self._sleeper.asleep():
                    found.extend(self._done.get(timeout=timeout_s))
            while True:
                found.extend(self._done.get_nowait())
        for done in found:
            self._calls.pop(done.ticket, None)
        self._at_once.extend(found)
        while self._at_once:
            yield self._at_once.popleft()

    def restart(self, actor: str, *, silent: bool = False) -> tuple[str, ...]:
        """Start a fresh worker in the place of one that was lost on purpose; a hub is made by `start_hub`."""
        lost = self._lost.pop(actor, None)
        assert lost is not None or actor in self._hubs, f"{actor} is a thread: it does not crash alone"
        if actor in self._workers:
            self._threads[actor].end()
            self._start_worker(actor)
        return (actor,)

    def put(self, value: Any) -> Handle:
        """Store nothing: the value is its own handle."""
        return value

    def get(self, handle: Handle) -> Any:
        """Give the value that the handle is."""
        return handle

    def close(self) -> None:
        """Drop the waiting calls and leave off the running ones; what hangs is left, and ends with the process."""
        try:
            for thread in self._threads.values():
                thread.end()
            until_s = time.monotonic() + PARTING_S
            for thread in self._threads.values():
                thread.join(max(0.0, until_s - time.monotonic()))
        finally:  # also where a second Ctrl-C ends the wait
            self._sleeper.free()
            self._workers.clear()
            self._hubs.clear()
            if self._holds:
                self._holds = False
                self._put_back()
                ONE_RUN.release()

    def _run(self, ticket: int, actor: str, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Done:
        """Run one call; give what came of it."""
        started = time.time()
        if actor in self._lost:
            return Done(ticket, actor, crashed=self._lost[actor], started_s=started, ended_s=started)
        try:
            if actor.startswith(PLACE):
                self._place.reached(actor, arguments)
            result = method(*arguments)
        except Crashed as crash:
            self._lost[actor] = str(crash)
            return Done(ticket, actor, crashed=str(crash), started_s=started, ended_s=time.time())
        except HierflError as error:
            return Done(ticket, actor, error=error, started_s=started, ended_s=time.time())
        except Ended:
            raise
        except BaseException as error:  # an error of ours: the supervisor must hear of it, not wait for ever
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                raise
            said = HierflError(f"{actor}: {method.__name__} failed: {error}\n{traceback.format_exc()}")
            return Done(ticket, actor, error=said, started_s=started, ended_s=time.time())
        value, beside = (result[0], tuple(result[1:])) if method.__name__ in BESIDE else (result, ())
        return Done(ticket, actor, value, beside, started_s=started, ended_s=time.time())
