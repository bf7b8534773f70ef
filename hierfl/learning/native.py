"""The one loop that every update goes through, in machine code: quantised and added in one pass over memory.

`quantise` says the rule in NumPy, which passes over blocks in cache eight times. Here LLVM makes the same rule into one
loop with the vector instructions of the processor at hand: numbers are read once, no memory is needed beside them, and
Python's lock is free meanwhile. The bits are the same: subtract in the model's dtype, multiply once in float64, round
half to even; nothing is fused or put in another order, since no instruction carries a fast-math flag.

It takes the package llvmlite, `pip install 'hierfl[native]'`. Where that is missing, or the system lets no process make
machine code, NumPy does all of it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Add", "adder"]

OLDEST = (0, 45)
"""The first llvmlite that takes pointers as they are written here."""

Add: TypeAlias = Callable[[NDArray[Any], NDArray[Any], "NDArray[Any] | None", float, int, float], bool]
"""Adds multiple * round(factor * (local - start)) to (n,) sums where all changes are at most clip; False if one is not:
that one added nothing, the others are in. Arrays must be contiguous; without a start, `local` is the change itself.
"""

_WORD = {"float32": "float", "float64": "double", "int32": "i32", "int64": "i64"}

_KINDS = tuple(
    (np.dtype(real), np.dtype(unit))
    for real, unit in ((np.float32, np.int32), (np.float32, np.int64), (np.float64, np.int64))
)
"""What is summed in what: a grid has no others."""

_LOOP = """
define i32 @{name}(ptr noalias %into, ptr noalias readonly %local, ptr noalias readonly %start,
                   i64 %size, double %factor, {unit} %multiple, double %clip) {{
entry:
  %any = icmp sgt i64 %size, 0
  br i1 %any, label %loop, label %done
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %bad = phi i32 [0, %entry], [%worse, %loop]
  %local.at = getelementptr inbounds {real}, ptr %local, i64 %i
  %sum.at = getelementptr inbounds {unit}, ptr %into, i64 %i
  %value = load {real}, ptr %local.at
  {change}
  {wide}
  %size.of = call double @llvm.fabs.f64(double %d)
  %fits = fcmp ole double %size.of, %clip
  %not = xor i1 %fits, true
  %one = zext i1 %not to i32
  %worse = or i32 %bad, %one
  %kept = select i1 %fits, double %d, double 0.0
  %scaled = fmul double %kept, %factor
  %whole = call double @llvm.rint.f64(double %scaled)
  %q = fptosi double %whole to {unit}
  %weighted = mul {unit} %q, %multiple
  %sum = load {unit}, ptr %sum.at
  %more = add {unit} %sum, %weighted
  store {unit} %more, ptr %sum.at
  %next = add nuw nsw i64 %i, 1
  %again = icmp slt i64 %next, %size
  br i1 %again, label %loop, label %done
done:
  %found = phi i32 [0, %entry], [%worse, %loop]
  ret i32 %found
}}
"""
"""llvm.rint rounds half to even, as the processor is set from its start. What does not fit must not be converted, which
is why it counts as 0.
"""

_FROM_START = """%start.at = getelementptr inbounds {real}, ptr %start, i64 %i
  %first = load {real}, ptr %start.at
  %change = fsub {real} %value, %first"""
_ITSELF = "%change = fadd {real} %value, -0.0"

_LOCK = threading.Lock()
os.register_at_fork(after_in_child=_LOCK._at_fork_reinit)  # type: ignore[attr-defined]


def adder(real: np.dtype[Any], unit: np.dtype[Any]) -> Add | None:
    """Give what adds changes of a model's dtype to sums of integers; None where there can be none."""
    with _LOCK:
        return _adders().get((real, unit))


@cache
def _adders() -> dict[tuple[np.dtype[Any], np.dtype[Any]], Add]:
    """Make the code, once in a process; none where there can be none."""
    try:
        return _made() if _has_package() and _may_make_code() else {}
    except (ImportError, OSError, RuntimeError, ValueError, AttributeError) as error:  # a package that is broken
        warnings.warn(
            f"llvmlite makes no code ({error}); NumPy quantises, to the same bits", RuntimeWarning, stacklevel=2
        )
        return {}


def _made() -> dict[tuple[np.dtype[Any], np.dtype[Any]], Add]:
    """Make the code: a tenth of a second, most of it to load the package."""
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(_text())
    module.verify()
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()

    def pair(real: np.dtype[Any], unit: np.dtype[Any]) -> Add:
        pointers = [ctypes.c_void_p] * 3
        units = np.ctypeslib.as_ctypes_type(unit)
        kind = ctypes.CFUNCTYPE(ctypes.c_int32, *pointers, ctypes.c_int64, ctypes.c_double, units, ctypes.c_double)
        from_start, itself = (
            kind(engine.get_function_address(f"{name}_{real.name}_{unit.name}")) for name in ("from_start", "itself")
        )
        return _Pair(from_start, itself, engine)

    return {(real, unit): pair(real, unit) for real, unit in _KINDS}


class _Pair:
    """The loops of one pair of dtypes, with and without a start; the engine owns their code."""

    def __init__(self, from_start: Callable[..., int], itself: Callable[..., int], engine: Any) -> None:
        self._from_start = from_start
        self._itself = itself
        self._engine = engine

    def __call__(
        self,
        into: NDArray[Any],
        local: NDArray[Any],
        start: NDArray[Any] | None,
        factor: float,
        multiple: int,
        clip: float,
    ) -> bool:
        """Do it."""
        loop, first = (self._itself, None) if start is None else (self._from_start, start.ctypes.data)
        return not loop(into.ctypes.data, local.ctypes.data, first, into.size, factor, multiple, clip)


def _text() -> str:
    """Write the loops in LLVM's language."""

    def loops() -> Iterator[str]:
        for real, unit in _KINDS:
            words = {"real": _WORD[real.name], "unit": _WORD[unit.name]}
            wide = "%d = fpext float %change to double" if real.itemsize == 4 else "%d = fadd double %change, -0.0"
            for name, change in (("from_start", _FROM_START), ("itself", _ITSELF)):
                yield _LOOP.format(
                    name=f"{name}_{real.name}_{unit.name}", change=change.format(**words), wide=wide, **words
                )

    return "\n".join([*loops(), "declare double @llvm.fabs.f64(double)", "declare double @llvm.rint.f64(double)"])


def _has_package() -> bool:
    """Say whether the package is installed, and not one of before; others may have brought it along."""
    try:
        major, minor, *_ = metadata.version("llvmlite").split(".")
    except metadata.PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= OLDEST


def _may_make_code() -> bool:
    """Say whether this process may execute memory that it wrote: a hardened Linux forbids it, and ends who tries."""
    if sys.platform != "linux":
        return True
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError:
        return False
    return True
