"""Laws of a model as two flat vectors: layouts and digests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.errors import UpdateRefused
from hierfl.learning.state import FLOAT_DTYPES, INT_DTYPES, Layout, ModelState

shapes = st.dictionaries(
    st.text("abc.", min_size=1, max_size=4),
    st.tuples(st.lists(st.integers(0, 3), max_size=3).map(tuple), st.sampled_from(FLOAT_DTYPES + INT_DTYPES)),
    min_size=1,
    max_size=6,
)
FEW = settings(max_examples=50)
LAYOUT = Layout.of({"w": ((2, 2), "float32"), "seen": ((), "int64"), "b": ((2,), "float32")})


def filled(layout: Layout) -> ModelState:
    floats = np.arange(layout.num_floats, dtype=layout.float_dtype) + 0.5
    return ModelState(floats, np.arange(layout.num_ints, dtype=np.int64) - 3)


@FEW
@given(shapes)
def test_every_element_has_one_place_and_one_name(tensors: dict[str, tuple[tuple[int, ...], str]]) -> None:
    layout = Layout.of(tensors)
    state = filled(layout)
    seen = {True: 0, False: 0}
    for spec, values in state.tensors(layout):
        assert (values.shape, spec.dtype) == tensors[spec.name]
        vector = state.floats if spec.is_float else state.ints
        assert values.size == 0 or np.shares_memory(values, vector)
        for place in np.ndindex(values.shape):
            index = seen[spec.is_float]
            assert values[place] == vector[index]
            where = f"[{', '.join(map(str, place))}]" if place else ""
            assert layout.locate(index, is_float=spec.is_float) == spec.name + where
            seen[spec.is_float] += 1
    assert (seen[True], seen[False]) == (layout.num_floats, layout.num_ints)
    with pytest.raises(IndexError):
        layout.locate(layout.num_floats, is_float=True)


@FEW
@given(shapes)
def test_equal_layouts_have_equal_digests(tensors: dict[str, tuple[tuple[int, ...], str]]) -> None:
    one, two = Layout.of(tensors), Layout.of(dict(tensors))
    assert one.digest == two.digest and one.difference(two) == ""
    assert filled(one).digest(one) == filled(two).digest(two)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"w": ((2, 2), "float32"), "seen": ((), "int64")}, "tensor 'b' is missing"),
        ({"w": ((4,), "float32"), "seen": ((), "int64"), "b": ((2,), "float32")}, "'w' has shape [4] float32"),
        ({"w": ((2, 2), "float16"), "seen": ((), "int64"), "b": ((2,), "float32")}, "'w' has shape [2, 2] float16"),
        ({"w": ((2, 2), "float32"), "n": ((), "int64"), "b": ((2,), "float32")}, "'n' is not in the federation's"),
    ],
)
def test_another_layout_is_told_apart_in_words_and_by_digest(other: dict[str, tuple], says: str) -> None:
    theirs = Layout.of(other)
    assert says in LAYOUT.difference(theirs)
    assert theirs.digest != LAYOUT.digest


def test_a_dtype_that_cannot_be_summed_is_refused_by_name() -> None:
    with pytest.raises(UpdateRefused, match="tensor 'spectrum' has dtype complex64; a model's state may hold float32"):
        Layout.of({"spectrum": ((2,), "complex64")})


@FEW
@given(st.integers(0, 6 * 32 + 64 - 1))
def test_one_flipped_bit_is_another_digest(bit: int) -> None:
    state = filled(LAYOUT)
    raw = bytearray(state.floats.tobytes() + state.ints.tobytes())
    raw[bit // 8] ^= 1 << bit % 8
    flipped = ModelState(np.frombuffer(raw[:24], np.float32), np.frombuffer(raw[24:], np.int64))
    assert flipped.digest(LAYOUT) != state.digest(LAYOUT)


def test_a_digest_is_of_bits_not_of_memory() -> None:
    state = filled(LAYOUT)
    strided = ModelState(np.repeat(state.floats, 2)[::2], np.repeat(state.ints, 3)[::3])
    strided.floats.setflags(write=False)
    assert strided.digest(LAYOUT) == state.digest(LAYOUT)
    zero, minus = np.zeros(6, np.float32), np.full(6, -0.0, np.float32)
    assert ModelState(zero, state.ints).digest(LAYOUT) != ModelState(minus, state.ints).digest(LAYOUT)
    assert state.num_bytes == 6 * 4 + 8


def test_a_digest_is_of_the_layout_too() -> None:
    renamed = Layout.of({"v": ((2, 2), "float32"), "seen": ((), "int64"), "b": ((2,), "float32")})
    assert filled(renamed).digest(renamed) != filled(LAYOUT).digest(LAYOUT)


def test_one_float64_tensor_makes_the_whole_vector_float64() -> None:
    assert Layout.of({"w": ((1,), "float32"), "x": ((1,), "float64")}).float_dtype == np.float64
    assert Layout.of({"w": ((1,), "float16"), "x": ((1,), "bfloat16")}).float_dtype == np.float32
