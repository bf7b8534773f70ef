"""One rule in two ways, to the bit: NumPy says it, machine code does it; and neither leaves a trace of a refusal."""

from __future__ import annotations

import mmap
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from hierfl.learning import blocks, native, quantise
from hierfl.learning.ring import Grid, PartialSum, decode

KINDS = [("float32", "int32"), ("float32", "int64"), ("float64", "int64")]
CLIP = 8.0

each_kind = pytest.mark.parametrize(("real", "unit"), KINDS, ids=["-".join(kind) for kind in KINDS])


def loop_of(real: str, unit: str) -> native.Add:
    found = native.adder(np.dtype(real), np.dtype(unit))
    assert found is not None, "pip install 'hierfl[dev]' brings llvmlite"
    return found


@st.composite
def cases(draw: st.DrawFn, real: str, unit: str, beyond: bool = False) -> dict[str, Any]:
    """Sums, changes and a scale as a grid might have; `beyond`: any float at all among the changes."""
    size, width = draw(st.integers(0, 70)), np.dtype(real).itemsize * 8
    limits = {} if beyond else {"min_value": -CLIP / 2, "max_value": CLIP / 2}
    numbers = st.floats(width=width, **limits)
    spare = 30 if unit == "int32" else 50
    return {
        "into": draw(arrays.arrays(unit, size)),
        "local": draw(arrays.arrays(real, size, elements=numbers)),
        "start": draw(st.none() | arrays.arrays(real, size, elements=numbers)),
        "factor": draw(st.floats(0, 2.0**spare / CLIP, allow_subnormal=False)),
        "multiple": 1 if unit == "int32" else draw(st.integers(1, 4000)),
        "clip": CLIP,
    }


def copied(case: dict[str, Any]) -> dict[str, Any]:
    return {**case, "into": case["into"].copy()}


@each_kind
@settings(max_examples=60)
@given(data=st.data())
def test_machine_code_has_the_bits_of_numpy(real: str, unit: str, data: st.DataObject) -> None:
    case = data.draw(cases(real, unit))
    ours, theirs = copied(case), copied(case)
    assert loop_of(real, unit)(**ours) and quantise.by_numpy(**theirs)
    assert ours["into"].tobytes() == theirs["into"].tobytes()


@each_kind
@settings(max_examples=60)
@given(data=st.data())
def test_both_are_the_rule_in_exact_numbers(real: str, unit: str, data: st.DataObject) -> None:
    case = data.draw(cases(real, unit))
    change = case["local"] if case["start"] is None else case["local"] - case["start"]
    expected = []
    for before, moved in zip(case["into"].tolist(), change.tolist(), strict=True):
        whole = round(Fraction(float(np.float64(moved) * case["factor"])))
        bits = np.dtype(unit).itemsize * 8
        expected.append((before + case["multiple"] * whole + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1))
    assert quantise.add(**case)
    assert case["into"].tolist() == expected


@pytest.mark.parametrize("way", ["machine code", "numpy"])
@each_kind
@settings(max_examples=40)
@given(data=st.data(), block=st.integers(1, 9))
def test_what_is_refused_leaves_no_trace(way: str, real: str, unit: str, data: st.DataObject, block: int) -> None:
    case = data.draw(cases(real, unit, beyond=True))
    before, start = case["into"].copy(), case["start"]
    with np.errstate(all="ignore"):
        change = case["local"] if start is None else case["local"] - start
    fits = bool((np.abs(change.astype(np.float64)) <= CLIP).all())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        if way == "numpy":
            patch.setattr(native, "adder", lambda *_: None)
        assert quantise.add(**case) == fits
        if not fits:
            assert case["into"].tobytes() == before.tobytes()
            index, moved = quantise.first_outside(case["local"], start, CLIP)
            assert not abs(float(moved)) <= CLIP and (np.abs(change[:index].astype(np.float64)) <= CLIP).all()


@each_kind
def test_arrays_that_machine_code_cannot_walk_go_to_numpy(real: str, unit: str) -> None:
    """Every second element, an odd place in memory, a start of another dtype: the same sums."""
    change = np.linspace(-4, 4, 37).astype(real)
    expected = np.zeros(37, unit)
    assert quantise.by_numpy(expected, change, None, 1000.0, 1, CLIP)

    odd = np.frombuffer(b"x" + change.tobytes(), real, offset=1)
    wide = np.repeat(change, 2)[::2]
    assert not odd.flags.aligned and not wide.flags.c_contiguous
    for local, start in ((odd, None), (wide, None), (change, np.zeros(37, np.float16))):
        into = np.zeros(37, unit)
        assert quantise.add(into, local, start, 1000.0, 1, CLIP)
        assert into.tolist() == expected.tolist()
    with pytest.raises(ValueError, match="broadcast"):  # and not a read beyond its end
        quantise.add(np.zeros(37, unit), change, np.zeros(5, real), 1.0, 1, CLIP)


@each_kind
@settings(max_examples=60)
@given(data=st.data(), value=st.floats(2.0**-80, 2.0**40))
def test_sums_become_the_numbers_that_numpy_makes_of_them(
    real: str, unit: str, data: st.DataObject, value: float
) -> None:
    """Apart from their sums, and where they are as wide in their place."""
    sums = data.draw(arrays.arrays(unit, st.integers(0, 70)))
    expected = (sums.astype(np.float64) * value).astype(real)
    loop_of(real, unit)
    scale = native.scaler(np.dtype(real), np.dtype(unit))
    assert scale is not None
    apart, before = np.empty(sums.shape, real), sums.tobytes()
    scale(apart, sums, value)
    assert apart.tobytes() == expected.tobytes() and sums.tobytes() == before
    if apart.itemsize == sums.itemsize:
        scale(sums.view(real), sums, value)
        assert sums.tobytes() == expected.tobytes()


@pytest.mark.parametrize("way", ["machine code", "numpy"])
@pytest.mark.parametrize("consume", [False, True])
@pytest.mark.parametrize(("width", "dtype"), [(32, "float32"), (64, "float32"), (64, "float64"), (32, "float64")])
def test_a_sum_is_decoded_to_the_same_bits_in_any_place(
    width: int, dtype: str, consume: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop_of(*KINDS[0])
    monkeypatch.setattr(blocks, "BLOCK", 7)
    if way == "numpy":
        monkeypatch.setattr(native, "scaler", lambda *_: None)
    grid = Grid(width, 8.0, 100, dtype)
    sums = np.random.default_rng(0).integers(-(2**30), 2**30, 61).astype(grid.integer)
    expected = (sums.astype(np.float64) * grid.unit(40)).astype(dtype)
    odd = np.frombuffer(bytearray(b"x" + sums.tobytes()), sums.dtype, offset=1)
    wide = np.repeat(sums, 2)[::2]
    for each in (sums, odd) if consume else (sums, odd, wide):
        mean, _ = decode(PartialSum(each, np.zeros(0, np.int64), 40), grid, consume=consume)
        assert mean.tobytes() == expected.tobytes()


def test_halves_go_to_the_even_neighbour() -> None:
    into = np.zeros(6, np.int32)
    assert loop_of("float32", "int32")(into, np.float32([0.5, 1.5, 2.5, -0.5, -1.5, -2.5]), None, 1.0, 1, CLIP)
    assert into.tolist() == [0, 2, 2, 0, -2, -2]


def test_many_threads_make_it_once_and_use_it_at_once() -> None:
    native._loops.cache_clear()
    change = np.full(5000, 0.25, np.float32)

    def work(_: int) -> int:
        into = np.zeros(5000, np.int32)
        assert all(quantise.add(into, change, None, 4.0, 1, CLIP) for _ in range(100))
        return int(into.sum())

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(16))) == {500_000}
    assert native._loops.cache_info().misses == 1


@pytest.mark.usefixtures("anew")
def test_where_no_machine_code_may_be_made_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> mmap.mmap:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(native.sys, "platform", "linux")
    monkeypatch.setattr(native.mmap, "mmap", refuse)
    assert native.adder(np.dtype(np.float32), np.dtype(np.int32)) is None
    into = np.zeros(1, np.int32)
    assert quantise.add(into, np.float32([1]), None, 3.0, 1, CLIP) and into.tolist() == [3]


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("version", ["0.44.0", "0.9.1rc1", None])
def test_without_a_package_that_is_new_enough_numpy_does_it(
    monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    def installed(name: str) -> str:
        if version is None:
            raise native.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(native.metadata, "version", installed)
    assert native.adder(np.dtype(np.float32), np.dtype(np.int32)) is None


def test_what_there_is_machine_code_for_numpy_does_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise AssertionError("by NumPy")

    monkeypatch.setattr(quantise, "by_numpy", refuse)
    for real, unit in KINDS:
        into = np.zeros(3, unit)
        assert quantise.add(into, np.ones(3, real), np.zeros(3, real), 5.0, 1, CLIP) and into.tolist() == [5, 5, 5]

    done, scaler = list[str](), native.scaler

    def note(*kinds: np.dtype[Any]) -> native.Scale:
        found = scaler(*kinds)
        assert found is not None

        def scale(mean: NDArray[Any], sums: NDArray[Any], value: float) -> None:
            done.append("-".join(kind.name for kind in kinds))
            found(mean, sums, value)

        return scale

    monkeypatch.setattr(native, "scaler", note)
    for width, dtype in ((32, "float32"), (64, "float64")):
        grid = Grid(width, 8.0, 1, dtype)
        decode(PartialSum(np.ones(3, grid.integer), np.zeros(0, np.int64), 1), grid)
    assert done == ["float32-int32", "float64-int64"]


@pytest.mark.usefixtures("anew")
def test_a_hub_alone_makes_no_machine_code() -> None:
    grid = Grid(32, 8.0, 1)
    decode(PartialSum(np.ones(3, grid.integer), np.zeros(0, np.int64), 1), grid)
    assert not native._loops.cache_info().currsize


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("version", ["0+unknown", "1", "0.45.0"])
def test_a_broken_package_is_told_once_and_numpy_does_it(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(native.metadata, "version", lambda _: version)
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    with pytest.warns(RuntimeWarning, match="llvmlite makes no code .*; NumPy quantises, to the same bits"):
        assert native.adder(np.dtype(np.float32), np.dtype(np.int32)) is None
    assert native.adder(np.dtype(np.float32), np.dtype(np.int32)) is None


def test_nothing_is_written_into_what_may_not_be() -> None:
    into = np.zeros(3, np.int32)
    into.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        quantise.add(into, np.ones(3, np.float32), None, 1.0, 1, CLIP)
    assert not into.any()


def test_a_fork_while_it_is_made_leaves_the_child_free() -> None:
    with native._LOCK:
        child = os.fork()
        if not child:
            os._exit(0 if native.adder(np.dtype(np.float32), np.dtype(np.int32)) is not None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
