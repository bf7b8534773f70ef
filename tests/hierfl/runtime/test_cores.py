"""Who is called wakes at the caller's core, and may run anywhere again."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_runs import config_of, hub

from hierfl.lifecycle import run
from hierfl.runtime import cores
from hierfl.runtime.cores import Sleeper
from hierfl.runtime.threads import WorkerThread

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="it takes two cores to choose"
)

CALL_S = 30.0


def _free() -> set[int]:
    return os.sched_getaffinity(0)


def test_who_is_called_may_run_at_the_callers_core_alone_until_it_is_awake() -> None:
    sleeper, begun, woken = Sleeper(), threading.Event(), threading.Event()
    seen: list[set[int]] = []

    def sleep() -> None:
        with sleeper.asleep():
            begun.set()
            woken.wait(CALL_S)
            seen.append(_free())
        seen.append(_free())

    thread = threading.Thread(target=sleep)
    thread.start()
    assert begun.wait(CALL_S)
    sleeper.call()
    assert len(os.sched_getaffinity(thread.native_id or 0)) == 1
    woken.set()
    thread.join(CALL_S)
    assert len(seen[0]) == 1
    assert seen[1] == _free()


def test_who_is_awake_is_left_where_it_is() -> None:
    sleeper = Sleeper()
    sleeper.call()
    with sleeper.asleep():
        pass
    sleeper.call()
    assert len(_free()) > 1


def test_a_choice_of_cores_that_was_made_before_is_kept() -> None:
    sleeper, first = Sleeper(), _free()
    own = set(sorted(first)[:2])
    os.sched_setaffinity(0, own)
    try:
        with sleeper.asleep():
            sleeper.call()
            sleeper.call()
        assert _free() == own
    finally:
        os.sched_setaffinity(0, first)


def test_a_caller_outside_the_sleepers_cores_does_not_move_it() -> None:
    sleeper, begun, woken, first = Sleeper(), threading.Event(), threading.Event(), _free()
    callers, *others = sorted(first)
    theirs = set(others[:2]) if len(others) > 1 else set(others)

    def sleep() -> None:
        os.sched_setaffinity(0, theirs)
        with sleeper.asleep():
            begun.set()
            woken.wait(CALL_S)

    thread = threading.Thread(target=sleep)
    thread.start()
    assert begun.wait(CALL_S)
    os.sched_setaffinity(0, {callers})
    try:
        sleeper.call()
        assert os.sched_getaffinity(thread.native_id or 0) == theirs
    finally:
        os.sched_setaffinity(0, first)
        woken.set()
        thread.join(CALL_S)


def test_a_stop_as_it_wakes_leaves_nobody_at_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper, first, move = Sleeper(), _free(), os.sched_setaffinity

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def wake() -> None:
        with sleeper.asleep():
            sleeper.call()
            monkeypatch.setattr(os, "sched_setaffinity", stop)

    with pytest.raises(KeyboardInterrupt):
        wake()
    monkeypatch.setattr(os, "sched_setaffinity", move)
    assert len(_free()) == 1
    sleeper.free()
    assert _free() == first
    sleeper.free()


def test_a_system_that_forbids_it_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    sleeper = Sleeper()
    with sleeper.asleep():
        sleeper.call()


def test_a_system_without_it_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    cores._core_of.cache_clear()
    try:
        with Sleeper().asleep():
            Sleeper().call()
    finally:
        cores._core_of.cache_clear()


@contextmanager
def _worker(over: Callable[[], None], waits: Sleeper) -> Iterator[WorkerThread]:
    worker = WorkerThread("worker", over, waits)
    try:
        yield worker
    finally:
        worker.end()
        assert worker.join(CALL_S)


def test_a_worker_and_who_waits_for_it_are_free_while_they_work() -> None:
    waits, told = Sleeper(), queue.SimpleQueue[set[int]]()
    during: list[set[int]] = []
    with _worker(lambda: told.put(during[-1]), waits) as worker:
        for _ in range(200):
            worker.submit(lambda: during.append(_free()), near=True)
            with waits.asleep():
                told.get(timeout=CALL_S)
            assert _free() == during[-1]
    assert len(set(map(frozenset, during))) == 1
    assert during[0] == _free()


def test_a_local_run_calls_its_worker_and_its_supervisor_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers: list[bool] = []
    call = Sleeper.call

    def note(sleeper: Sleeper) -> None:
        callers.append(threading.current_thread() is threading.main_thread())
        call(sleeper)

    monkeypatch.setattr(Sleeper, "call", note)
    run(config_of(tmp_path, hub("world", "a", "b", rounds=3), runtime={"kind": "local", "num_workers": 1}))
    assert min(callers.count(True), callers.count(False)) >= 3
