"""Long vectors are shared out among threads: every element once, the bits of one thread, an error of any is told."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from hierfl.learning import blocks
from hierfl.learning.blocks import each_block
from hierfl.learning.ring import Accumulator, Grid, PartialSum, decode
from hierfl.learning.state import Layout

SIZE = blocks.BLOCK * blocks.LONG + 3


@pytest.mark.parametrize("num_threads", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [0, 1, 999, blocks.BLOCK, SIZE])
def test_every_element_is_in_one_block(size: int, num_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "THREADS", num_threads)
    seen = np.zeros(size, np.int64)

    def count(cuts: list[slice]) -> None:
        for cut in cuts:
            seen[cut] += 1

    each_block(count, size)
    assert (seen == 1).all()


def test_a_long_vector_has_several_threads_and_a_short_one_the_caller_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "THREADS", 2)
    blocks.threads.cache_clear()  # those of a machine with one core are one
    both = threading.Barrier(2, timeout=30)
    found = []

    def meet(cuts: list[slice]) -> None:
        both.wait()

    each_block(meet, SIZE)  # each thread waits for the other
    each_block(lambda cuts: found.append(threading.current_thread()), SIZE // 2)
    assert found == [threading.current_thread()]


@pytest.mark.parametrize("failing", [0, SIZE])
def test_an_error_in_a_thread_is_the_caller_s_once_all_are_done(failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "THREADS", 2)
    has_failed, done = threading.Event(), []

    def fail(cuts: list[slice]) -> None:
        if failing in (cuts[0].start, cuts[-1].stop):
            has_failed.set()
            raise MemoryError("one of the blocks")
        assert has_failed.wait(30)
        time.sleep(0.05)
        done.append(cuts)

    with pytest.raises(MemoryError, match="one of the blocks"):
        each_block(fail, SIZE)
    assert len(done) == 1


@pytest.mark.parametrize("num_parts", [1, 2, 11])
def test_threads_change_no_bit_of_a_sum_and_its_mean(num_parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, grid = Layout.of({"w": ((SIZE,), "float32")}), Grid(32, 8.0, 32 * num_parts)
    draw, none = np.random.default_rng(0), np.zeros(0, np.int64)
    parts = [PartialSum(draw.integers(-(2**20), 2**20, SIZE, np.int32), none, 32) for _ in range(num_parts)]
    found = []
    for num_threads in (1, 3):
        monkeypatch.setattr(blocks, "THREADS", num_threads)
        total = Accumulator(grid, layout)
        for part in parts:
            total.add_sum(part)
        found.append((total.total().floats.tobytes(), decode(total.total(), grid)[0].tobytes()))
    assert found[0] == found[1]
    assert np.array_equal(np.frombuffer(found[0][0], np.int32), np.sum([part.floats for part in parts], axis=0))
