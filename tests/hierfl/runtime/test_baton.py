"""The baton: who does not move loses it to who waits, and nobody else does."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hierfl.runtime.baton import USED_S, Baton, Interrupted
from hierfl.runtime.threads import WorkerThread


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Steps:
    """Computes a little and stands still, again and again, each time until it is told to go on."""

    def __init__(self, number: int) -> None:
        self.stands = [threading.Semaphore(0) for _ in range(number)]
        self.goes_on = [threading.Semaphore(0) for _ in range(number)]

    def __call__(self) -> str:
        for stand, go_on in zip(self.stands, self.goes_on, strict=True):
            until_s = time.thread_time() + 2 * USED_S
            while time.thread_time() < until_s:
                pass
            stand.release()
            go_on.acquire(timeout=60)
        return "done"


def at(baton: Baton, steps: Steps, place: int, clock: Clock, now_s: float) -> None:
    """Look at that time, the thread standing at that place."""
    assert place < 0 or steps.stands[place].acquire(timeout=60)
    clock.now_s = now_s
    with baton.changed:
        baton.look()


def with_it(baton: Baton, steps: Steps) -> str:
    hold = baton.take(30.0)
    assert hold is not None
    try:
        found = steps()
    except Interrupted:
        return "interrupted"
    baton.give_back(hold)
    return found


def test_who_moves_keeps_it_for_as_long_as_it_takes() -> None:
    clock, steps = Clock(), Steps(2)
    baton = Baton(now=clock)
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(with_it, baton, steps)
        at(baton, steps, 0, clock, 1.0)
        at(baton, steps, -1, clock, 30.0)
        steps.goes_on[0].release()
        at(baton, steps, 1, clock, 40.0)  # at the same line again
        assert not baton.is_free
        steps.goes_on[1].release()
        assert end.result(60) == "done" and baton.is_free


def test_who_stands_still_for_too_long_loses_it_and_is_interrupted_once_it_goes_on() -> None:
    clock, steps = Clock(), Steps(1)
    baton = Baton(now=clock)
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(with_it, baton, steps)
        at(baton, steps, 0, clock, 1.0)
        at(baton, steps, -1, clock, 30.9)
        assert not baton.is_free
        at(baton, steps, -1, clock, 31.0)
        assert baton.is_free and baton.take(30.0) is not None
        steps.goes_on[0].release()
        assert end.result(60) == "interrupted" and not baton.is_free


@pytest.mark.parametrize("is_stuck", [True, False])
def test_a_thread_that_is_at_work_leaves_off_and_one_that_hangs_is_left_behind(is_stuck: bool) -> None:
    began, goes_on = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        while not goes_on.wait(60 if is_stuck else 0.001):
            pass

    thread = WorkerThread("worker-0")
    first, second = thread.submit(work), thread.submit(work)
    assert began.wait(60)
    thread.end()
    assert thread.join(0.05 if is_stuck else 60) is not is_stuck
    assert not first.done() and not second.running()
    goes_on.set()
    assert thread.join(60) and not first.done() and not second.done()


def test_what_joins_is_told_together_and_what_is_cancelled_holds_nothing_up() -> None:
    told: list[tuple[str, ...]] = []
    done: list[str] = []
    goes_on = [threading.Event() for _ in range(3)]

    def over() -> None:
        told.append(tuple(done))
        done.clear()

    def work(name: str, may: threading.Event) -> None:
        assert may.wait(60)
        done.append(name)

    thread = WorkerThread("worker-0", over)
    first = thread.submit(work, "a", goes_on[0])
    thread.submit(work, "b", goes_on[0], joins=True)
    thread.submit(work, "c", goes_on[1])
    taken_back = thread.submit(work, "d", goes_on[1], joins=True)
    last = thread.submit(work, "e", goes_on[2])
    goes_on[0].set()
    first.result(60)
    assert taken_back.cancel()
    goes_on[1].set()
    goes_on[2].set()
    last.result(60)
    thread.end()
    assert thread.join(60)
    assert [one for one in told if one] == [("a", "b"), ("c",), ("e",)]
