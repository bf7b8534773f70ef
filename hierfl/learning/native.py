"""The loops that every update and every sum go through, in machine code, each in one pass over memory.

`quantise` says the rule of the first in NumPy, which passes over blocks in cache eight times. Here LLVM makes the same
rule into one loop with the vector instructions of the processor at hand: numbers are read once, no memory is needed
beside them, and Python's lock is free meanwhile. The bits are the same: subtract in the model's dtype, multiply once in
float64, round half to even; nothing is fused or put in another order, since no instruction carries a fast-math flag.
The second makes a sum's integers numbers of the model's dtype again, as `ring.decode` says in NumPy. The third adds up
to eight vectors at once: each is read once, and what they come to is written once, where NumPy adds two at a time.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Add", "Scale", "Sum", "adder", "has_place", "scaler", "summer"]

OLDEST = (0, 45)
"""The first llvmlite that takes pointers as they are written here."""

Add: TypeAlias = Callable[[NDArray[Any], NDArray[Any], "NDArray[Any] | None", float, int, float], bool]
"""Adds multiple * round(factor * (local - start)) to (n,) sums where all changes are at most clip; False if one is not:
that one added nothing, the others are in. Arrays must be contiguous; without a start, `local` is the change itself.
"""

Scale: TypeAlias = Callable[[NDArray[Any], NDArray[Any], float], None]
"""Writes float64(sum) * unit over (n,) numbers, rounded once to their dtype. Arrays must be contiguous, and either lie
apart or begin at the same place with elements as wide.
"""

Sum: TypeAlias = Callable[[NDArray[Any], Sequence[NDArray[Any]]], None]
"""Writes the sum of two or more (n,) vectors over one of their dtype. Arrays must be contiguous, and lie apart; but the
one that is written over may be the first of them.
"""

LARGE = 10_000_000
"""Elements of a vector from which on sums alone are reason to make the code: ten of them save what that takes."""

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

_SCALE = """
define void @{name}({pointers}, i64 %size, double %unit) {{
entry:
  %any = icmp sgt i64 %size, 0
  br i1 %any, label %loop, label %done
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %sum.at = getelementptr inbounds {unit}, ptr %sums, i64 %i
  %mean.at = getelementptr inbounds {real}, ptr {mean}, i64 %i
  %sum = load {unit}, ptr %sum.at
  %d = sitofp {unit} %sum to double
  %scaled = fmul double %d, %unit
  {narrow}
  store {real} %value, ptr %mean.at
  %next = add nuw nsw i64 %i, 1
  %again = icmp slt i64 %next, %size
  br i1 %again, label %loop, label %done
done:
  ret void
}}
"""

_APART = {"pointers": "ptr noalias %mean, ptr noalias readonly %sums", "mean": "%mean"}
_IN_PLACE = {"pointers": "ptr %sums", "mean": "%sums"}

_SUM = """
define void @{name}(ptr %into, {pointers}, i64 %size) {{
entry:
  %any = icmp sgt i64 %size, 0
  br i1 %any, label %loop, label %done
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  {sums}
  %into.at = getelementptr inbounds {unit}, ptr %into, i64 %i
  store {unit} {last}, ptr %into.at, !llvm.access.group !{group}
  %next = add nuw nsw i64 %i, 1
  %again = icmp slt i64 %next, %size
  br i1 %again, label %loop, label %done, !llvm.loop !{loop}
done:
  ret void
}}
!{group} = distinct !{{}}
!{loop} = distinct !{{!{loop}, !{{!"llvm.loop.parallel_accesses", !{group}}}}}
"""
"""What is written in one turn is read in no other, though the first vector may be the one that is written over."""

_TERM = """%at.{k} = getelementptr inbounds {unit}, ptr %vector.{k}, i64 %i
  %x.{k} = load {unit}, ptr %at.{k}, !llvm.access.group !{group}"""

_AT_ONCE = (2, 4, 8)
"""So many vectors are added by one loop."""

_FROM_START = """%start.at = getelementptr inbounds {real}, ptr %start, i64 %i
  %first = load {real}, ptr %start.at
  %change = fsub {real} %value, %first"""
_ITSELF = "%change = fadd {real} %value, -0.0"

_LOCK = threading.Lock()
os.register_at_fork(after_in_child=_LOCK._at_fork_reinit)  # type: ignore[attr-defined]


def has_place(into: NDArray[Any], *read: NDArray[Any]) -> bool:
    """Say whether a loop may write over an array and read others: they are contiguous and aligned."""
    return into.flags.writeable and all(each.flags.c_contiguous and each.flags.aligned for each in (into, *read))


def adder(real: np.dtype[Any], unit: np.dtype[Any]) -> Add | None:
    """Give what adds changes of a model's dtype to sums of integers; None where there can be none."""
    with _LOCK:
        return found.add if (found := _loops().get((real, unit))) is not None else None


def scaler(real: np.dtype[Any], unit: np.dtype[Any]) -> Scale | None:
    """Give what makes sums of integers numbers of a model's dtype again; None where there can be none, and where no
    update was added by machine code before: to load the package takes as long as many sums.
    """
    with _LOCK:
        if not _loops.cache_info().currsize:
            return None
        return found.scale if (found := _loops().get((real, unit))) is not None else None


def summer(unit: np.dtype[Any], size: int) -> Sum | None:
    """Give what adds vectors of integers; None where there can be none, and where no code was made before and the
    vectors are not so long that it is worth it.
    """
    with _LOCK:
        if not _loops.cache_info().currsize and size < LARGE:
            return None
        return next((found.sum for (_, one), found in _loops().items() if one == unit), None)


class _Loops(NamedTuple):
    """What is done with one pair of dtypes."""

    add: Add
    scale: Scale
    sum: Sum


@cache
def _loops() -> dict[tuple[np.dtype[Any], np.dtype[Any]], _Loops]:
    """Make the code, once in a process; none where there can be none."""
    try:
        return _made() if _has_package() and _may_make_code() else {}
    except (ImportError, OSError, RuntimeError, ValueError, AttributeError) as error:  # a package that is broken
        warnings.warn(
            f"llvmlite makes no code ({error}); NumPy quantises, to the same bits", RuntimeWarning, stacklevel=2
        )
        return {}


def _made() -> dict[tuple[np.dtype[Any], np.dtype[Any]], _Loops]:
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

    pointer, size = ctypes.c_void_p, ctypes.c_int64

    def sums(unit: np.dtype[Any]) -> _Summer:
        kinds = {num: ctypes.CFUNCTYPE(None, *[pointer] * (num + 1), size) for num in _AT_ONCE}
        found = {num: kind(engine.get_function_address(f"sum_{num}_{unit.name}")) for num, kind in kinds.items()}
        return _Summer(found, engine)

    def loops(real: np.dtype[Any], unit: np.dtype[Any]) -> _Loops:
        units = np.ctypeslib.as_ctypes_type(unit)
        adds = ctypes.CFUNCTYPE(ctypes.c_int32, *[pointer] * 3, size, ctypes.c_double, units, ctypes.c_double)
        apart, in_place = (
            ctypes.CFUNCTYPE(None, *pointers, size, ctypes.c_double) for pointers in ([pointer] * 2, [pointer])
        )
        kinds = {"from_start": adds, "itself": adds, "apart": apart, "in_place": in_place}
        found = {
            name: kind(engine.get_function_address(f"{name}_{real.name}_{unit.name}")) for name, kind in kinds.items()
        }
        return _Loops(
            _Adder(found["from_start"], found["itself"], engine),
            _Scaler(found["apart"], found["in_place"], engine),
            sums(unit),
        )

    return {(real, unit): loops(real, unit) for real, unit in _KINDS}


class _Adder:
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


class _Scaler:
    """The loops of one pair of dtypes, for numbers apart and for such that take their sums' place."""

    def __init__(self, apart: Callable[..., None], in_place: Callable[..., None], engine: Any) -> None:
        self._apart = apart
        self._in_place = in_place
        self._engine = engine

    def __call__(self, mean: NDArray[Any], sums: NDArray[Any], unit: float) -> None:
        """Do it."""
        into, at = mean.ctypes.data, sums.ctypes.data
        if into == at:
            self._in_place(at, sums.size, unit)
        else:
            self._apart(into, at, sums.size, unit)


class _Summer:
    """The loops over vectors of one dtype, by how many they add at once."""

    def __init__(self, loops: Mapping[int, Callable[..., None]], engine: Any) -> None:
        self._loops = loops
        self._engine = engine

    def __call__(self, into: NDArray[Any], vectors: Sequence[NDArray[Any]]) -> None:
        """Do it: as many as there is a loop for, and then what is left onto their sum."""
        written, waiting = into.ctypes.data, [vector.ctypes.data for vector in vectors]
        while len(waiting) > 1:
            num = max(num for num in self._loops if num <= len(waiting))
            self._loops[num](written, *waiting[:num], into.size)
            waiting = [written, *waiting[num:]]


def _text() -> str:
    """Write the loops in LLVM's language."""

    def sums() -> Iterator[str]:
        for place, (name, num) in enumerate(product(("int32", "int64"), _AT_ONCE)):
            unit, group = _WORD[name], 2 * place
            terms = [_TERM.format(k=k, unit=unit, group=group) for k in range(num)]
            added = [f"%sum.{k} = add {unit} {f'%sum.{k - 1}' if k > 1 else '%x.0'}, %x.{k}" for k in range(1, num)]
            yield _SUM.format(
                name=f"sum_{num}_{name}",
                pointers=", ".join(f"ptr readonly %vector.{k}" for k in range(num)),
                sums="\n  ".join([*terms, *added]),
                last=f"%sum.{num - 1}",
                unit=unit,
                group=group,
                loop=group + 1,
            )

    def loops() -> Iterator[str]:
        for real, unit in _KINDS:
            words = {"real": _WORD[real.name], "unit": _WORD[unit.name]}
            is_single = real.itemsize == 4
            wide = "%d = fpext float %change to double" if is_single else "%d = fadd double %change, -0.0"
            for name, change in (("from_start", _FROM_START), ("itself", _ITSELF)):
                yield _LOOP.format(
                    name=f"{name}_{real.name}_{unit.name}", change=change.format(**words), wide=wide, **words
                )
            narrow = "%value = fptrunc double %scaled to float" if is_single else "%value = fadd double %scaled, -0.0"
            for name, where in (("apart", _APART), ("in_place", _IN_PLACE)):
                yield _SCALE.format(name=f"{name}_{real.name}_{unit.name}", narrow=narrow, **where, **words)

    return "\n".join(
        [*loops(), *sums(), "declare double @llvm.fabs.f64(double)", "declare double @llvm.rint.f64(double)"]
    )


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
