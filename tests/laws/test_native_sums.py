"""Sums of many vectors in machine code: the bits of NumPy's, in any place, and no code for what is over without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from hierfl.learning import blocks, native
from hierfl.learning.ring import Accumulator, Grid, PartialSum
from hierfl.learning.state import Layout

UNITS = ("int32", "int64")
NO_INTS = np.zeros(0, np.int64)
SIZE = 61


def made() -> None:
    assert native.adder(np.dtype(np.float32), np.dtype(np.int32)) is not None, "pip install 'hierfl[dev]' has llvmlite"


def loop_of(unit: str) -> native.Sum:
    made()
    found = native.summer(np.dtype(unit), 1)
    assert found is not None
    return found


@pytest.mark.parametrize("unit", UNITS)
@settings(max_examples=60)
@given(data=st.data())
def test_vectors_add_up_as_in_numpy_whatever_overflows(unit: str, data: st.DataObject) -> None:
    """Over a vector apart and over the first of them; the others stay as they are."""
    num, size = data.draw(st.integers(2, 20)), data.draw(st.integers(0, 70))
    vectors = [data.draw(arrays.arrays(unit, size)) for _ in range(num)]
    expected = np.add.reduce(np.stack(vectors), axis=0, dtype=unit).tobytes()
    apart, before = np.empty(size, unit), [vector.tobytes() for vector in vectors]
    loop_of(unit)(apart, vectors)
    assert apart.tobytes() == expected and [vector.tobytes() for vector in vectors] == before
    loop_of(unit)(vectors[0], vectors)
    assert vectors[0].tobytes() == expected and [vector.tobytes() for vector in vectors[1:]] == before[1:]


def summed(vectors: Sequence[NDArray[Any]], width: int, dtype: str) -> bytes:
    """Add vectors up as a hub does, more than it lets wait at once."""
    total = Accumulator(Grid(width, 8.0, len(vectors), dtype), Layout.of({"w": ((SIZE,), dtype)}))
    for vector in vectors:
        total.add_sum(PartialSum(vector, NO_INTS, 1))
    return total.total().floats.tobytes()


@pytest.mark.parametrize("num", [1, 2, 3, 8, 9, 21])
@pytest.mark.parametrize(("width", "dtype"), [(32, "float32"), (64, "float64")])
def test_a_hub_adds_up_to_the_same_bits_wherever_the_vectors_lie(
    num: int, width: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made()
    monkeypatch.setattr(blocks, "BLOCK", 7)
    random, unit = np.random.default_rng(num), np.dtype(f"int{width}")
    vectors = [random.integers(-(2**20), 2**20, SIZE).astype(unit) for _ in range(num)]
    odd = [np.frombuffer(b"x" + vector.tobytes(), unit, offset=1) for vector in vectors]
    wide = [np.repeat(vector, 2)[::2] for vector in vectors]
    expected = np.add.reduce(np.stack(vectors), axis=0, dtype=unit).tobytes()
    kept = [vector.tobytes() for vector in vectors]
    assert {summed(each, width, dtype) for each in (vectors, odd, wide)} == {expected}
    assert [vector.tobytes() for vector in vectors] == kept
    monkeypatch.setattr(native, "summer", lambda *_: None)
    assert summed(vectors, width, dtype) == expected


def test_a_hub_adds_by_machine_code_where_that_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made()
    done, summer = list[int](), native.summer

    def note(unit: np.dtype[Any], size: int) -> native.Sum:
        found = summer(unit, size)
        assert found is not None

        def add(into: NDArray[Any], vectors: Sequence[NDArray[Any]]) -> None:
            done.append(len(vectors))
            found(into, vectors)

        return add

    monkeypatch.setattr(native, "summer", note)
    summed([np.ones(SIZE, np.int32)] * 10, 32, "float32")
    assert done == [8, 3], "eight at once, then what has come since onto their sum"


@pytest.mark.usefixtures("anew")
def test_sums_alone_make_machine_code_for_long_vectors_only(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = [np.ones(SIZE, np.int32)] * 3
    monkeypatch.setattr(native, "LARGE", SIZE + 1)
    summed(vectors, 32, "float32")
    assert not native._loops.cache_info().currsize
    monkeypatch.setattr(native, "LARGE", SIZE)
    summed(vectors, 32, "float32")
    assert native._loops.cache_info().currsize
