"""What every compression keeps; the folder is listed, so a new one is tested without an edit here."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hierfl.errors import ConfigError, UpdateRefused
from hierfl.kinds import load, names
from hierfl.learning.compression import Compression, Packed, as_sum, pack
from hierfl.learning.ring import Accumulator, Grid, decode
from hierfl.learning.state import Layout, ModelState

KINDS = names("compression")
SIZE = 5000

each_kind = pytest.mark.parametrize("kind", KINDS)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def layout(dtype: str = "float32") -> Layout:
    """Weights, a running mean, and a counter."""
    shapes = {"w": ((SIZE - 20,), dtype), "mean": ((20,), dtype), "count": ((1,), "int64")}
    return Layout.of(shapes, buffers=["mean"])


def drawn(dtype: str = "float32", seed: int = 0) -> NDArray[Any]:
    vector = (0.1 * np.random.default_rng(seed).standard_normal(SIZE)).astype(dtype)
    vector[::7] = 0
    return vector


def packed(kind: str | Compression, change: NDArray[Any], residual: Any = None, **given: Any) -> Any:
    """Pack a change by members of weight 3, with a seed of 5."""
    compression = load("compression", kind)() if isinstance(kind, str) else kind
    start = ModelState(np.zeros_like(change), np.zeros(1, np.int64))
    asked = {"layout": layout(str(change.dtype)), "weight": 3, "clip": 8.0, "seed": 5, **given}
    return pack(compression, ModelState(change, np.ones(1, np.int64)), start, residual, **asked)


def restored(part: Packed) -> NDArray[Any]:
    values, places = part.change()
    if places is None:
        return values
    whole = np.zeros(part.size, values.dtype)
    whole[places] = values
    return whole


@each_kind
def test_a_compression_holds_parameters_and_never_progress(kind: str) -> None:
    compression = load("compression", kind)()
    assert isinstance(compression, Compression) and type(compression).__dataclass_params__.frozen
    before = dataclasses.asdict(compression)
    packed(kind, drawn())
    assert dataclasses.asdict(compression) == before


@each_kind
@each_dtype
def test_what_is_restored_has_the_same_bits_wherever_it_went(kind: str, dtype: str) -> None:
    part, _ = packed(kind, drawn(dtype))
    again, _ = packed(kind, drawn(dtype))
    moved = pickle.loads(pickle.dumps(part, protocol=5))
    assert restored(part).dtype == np.dtype(dtype)
    assert restored(part).tobytes() == restored(again).tobytes() == restored(moved).tobytes()


@each_kind
def test_it_says_how_many_bytes_travel_and_no_more_do(kind: str) -> None:
    part, _ = packed(kind, drawn())
    beside = part.whole.nbytes + part.runs.nbytes + part.ints.nbytes
    code = part.num_bytes - beside
    assert 0 < code <= part.compression.num_bytes(SIZE, 4)
    assert sum(vector.nbytes for vector in part.code.values()) == code
    assert len(pickle.dumps(part, protocol=5)) < part.num_bytes + 2000
    assert part.spared_bytes(4) == 4 * SIZE + part.ints.nbytes - part.num_bytes
    if kind != "none":
        assert part.num_bytes < 0.3 * 4 * SIZE


@each_kind
@each_dtype
def test_buffers_and_counters_travel_whole(kind: str, dtype: str) -> None:
    change = drawn(dtype)
    part, left_out = packed(kind, change)
    assert restored(part)[-20:].tobytes() == change[-20:].tobytes() and part.ints.tolist() == [1]
    assert left_out is None or left_out.shape == (SIZE - 20,)


def test_what_travels_whole_may_lie_between() -> None:
    """Buffers at the first, at some and at the last places: what is restored lies where it was."""
    names = [("a", 2), ("w", 3), ("b", 1), ("c", 1), ("v", 4), ("d", 1)]
    odd = Layout.of({name: ((size,), "float32") for name, size in names}, buffers=["a", "b", "c", "d"])
    change = np.arange(1, 13, dtype=np.float32) / 8
    for kind in (load("compression", "top_k")(fraction=1.0), load("compression", "none")()):
        start = ModelState(np.zeros_like(change), np.zeros(0, np.int64))
        part, _ = pack(kind, ModelState(change, start.ints), start, None, odd, 1, 8.0, 0)
        assert restored(part).tolist() == change.tolist()
        bad = np.array(change)
        bad[9] = 9.0
        with pytest.raises(UpdateRefused, match=r"detail: v\[2\] changed by 9"):
            pack(kind, ModelState(bad, start.ints), start, None, odd, 1, 8.0, 0)


@each_kind
@each_dtype
def test_with_what_is_left_out_nothing_is_lost(kind: str, dtype: str) -> None:
    """p = change + e, and what is sent and what is left out of it add up to p, to a rounding."""
    change, residual = drawn(dtype), drawn(dtype, seed=1)[:-20]
    part, left_out = packed(kind, change, residual)
    if part.compression.error_feedback:
        np.testing.assert_allclose(restored(part)[:-20] + left_out, change[:-20] + residual, atol=1e-7)
        assert left_out.dtype == np.dtype(dtype) and left_out.any()
    else:
        assert left_out is None


@each_kind
@pytest.mark.parametrize("width", [32, 64])
def test_sums_are_exact_in_any_order_and_grouping(kind: str, width: int) -> None:
    """Packed one by one into a sum, or each on the grid first and then added in pairs: the same integers."""
    grid, members = Grid(width, 8.0, 12), [drawn(seed=seed) for seed in range(4)]
    parts = [packed(kind, member, seed=number)[0] for number, member in enumerate(members)]
    one, two = Accumulator(grid, layout()), Accumulator(grid, layout())
    for part in parts:
        part.add_to(one)
    two.add_sum(as_sum(parts[3], grid))
    parts[1].add_to(two)
    pair = Accumulator(grid, layout())
    for number in (2, 0):
        pair.add_sum(as_sum(parts[number], grid))
    two.add_sum(pair.total())
    first, second = one.total(), two.total()
    assert first.floats.tobytes() == second.floats.tobytes() and first.weight == second.weight == 12
    expected = np.mean([restored(part).astype(np.float64) for part in parts], axis=0)
    np.testing.assert_allclose(decode(first, grid)[0], expected, atol=1e-7)
    assert first.ints.tolist() == [12]


@each_kind
def test_nothing_is_made_of_nothing(kind: str) -> None:
    part, left_out = packed(kind, np.zeros(SIZE, np.float32))
    assert not restored(part).any() and (left_out is None or not left_out.any())


@each_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf, 8.5])
def test_a_change_without_a_place_on_the_grid_is_refused_by_name(kind: str, bad: float) -> None:
    change = drawn()
    change[17] = bad
    with pytest.raises(UpdateRefused, match=r"over the clip of 8; .*\n  in detail: w\[17\] changed by"):
        packed(kind, change)


@each_kind
def test_what_was_left_out_counts_against_the_clip(kind: str) -> None:
    if not load("compression", kind)().error_feedback:
        pytest.skip("leaves nothing to its next change")
    change = drawn()
    change[17] = 5.0
    with pytest.raises(UpdateRefused, match=r"with what compression left out before"):
        packed(kind, change, residual=change[:-20])


def test_places_outside_the_model_are_refused() -> None:
    total = Accumulator(Grid(32, 8.0, 3), layout())
    one = np.ones(1, np.float32), np.zeros(1, np.int64)
    with pytest.raises(UpdateRefused, match="outside"):
        total.add_change(*one, 3, np.array([SIZE], np.uint32))
    with pytest.raises(UpdateRefused, match=r"w\[1\] changed by 9"):
        total.add_change(9 * one[0], one[1], 3, np.array([1], np.uint32))
    assert not total.total().floats.any()


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        ("quantize", {"bits": 3}, "bits is 3; one of 2, 4, 8"),
        ("quantize", {"bucket": 0}, "bucket is 0"),
        ("quantize", {"error_feedback": True}, "stochastic must be false"),
        ("one_bit", {"bucket": 0}, "bucket is 0"),
        ("top_k", {"fraction": 0.0}, "fraction is 0.0; above 0, at most 1"),
        ("top_k", {"fraction": 1.5}, "fraction is 1.5"),
    ],
)
def test_a_parameter_outside_its_range_is_refused_by_name(kind: str, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load("compression", kind)(**wrong)


def test_quantize_rounds_without_a_bias() -> None:
    """Over many draws the mean is the change, as nearest rounding at two bits is not."""
    change = np.tile(np.array([1.0, 0.25, -0.5, 0.0], np.float32), 2000)
    random = np.random.default_rng(0)
    for stochastic, expected in ((True, [1.0, 0.25, -0.5, 0.0]), (False, [1.0, 0.0, 0.0, 0.0])):
        compression = load("compression", "quantize")(bits=2, bucket=4, stochastic=stochastic)
        values, _ = compression.restore(compression.compress(change, random), change.size, change.dtype)
        np.testing.assert_allclose(values.reshape(-1, 4).mean(axis=0), expected, atol=0.05)


def test_top_k_takes_the_first_of_equal_ones_and_no_zeros() -> None:
    code = load("compression", "top_k")(fraction=0.5).compress(
        np.array([1.0, -2.0, 2.0, 1.0, 0.0, 1.0], np.float32), np.random.default_rng(0)
    )
    assert code["places"].tolist() == [0, 1, 2] and code["values"].tolist() == [1.0, -2.0, 2.0]
    sparse = load("compression", "top_k")(fraction=1.0).compress(
        np.array([0.0, 3.0, 0.0], np.float32), np.random.default_rng(0)
    )
    assert sparse["places"].tolist() == [1]
