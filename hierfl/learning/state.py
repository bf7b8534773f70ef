"""A model as two flat vectors and a small layout: what travels through the tree, free of torch.

All floating-point tensors stand one after another in one vector `floats`, all integer and boolean ones in `ints`
(int64). `floats` is float32; float16 and bfloat16 tensors are widened into it exactly; if any tensor of the model is
float64, the whole vector is float64. One contiguous buffer is zero-copy from an object store, a tensor is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import UpdateRefused

__all__ = ["FLOAT_DTYPES", "INT_DTYPES", "Layout", "ModelState", "TensorSpec"]

FLOAT_DTYPES = ("float32", "float64", "float16", "bfloat16")
"""Floating-point dtypes a model may hold (torch's names)."""

INT_DTYPES = ("int64", "int32", "int16", "int8", "uint8", "bool")
"""Integer dtypes a model's buffers may hold (torch's names)."""

CHANNEL = "channel "
"""Before the name of a vector that travels behind a model."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor's name, shape and dtype, and where it starts in its vector (in elements)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int

    @property
    def is_float(self) -> bool:
        """Whether the tensor lies in `floats`."""
        return self.dtype in FLOAT_DTYPES

    @property
    def size(self) -> int:
        """Count the tensor's elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """Where each tensor of a model lies; `aliases` maps further names of shared tensors to the one that is stored.

    `buffers`: floating-point tensors that no optimizer moves, and channels; they are no part of what a layout is.
    `base`: the digest of what the model has beside, which does not travel; empty where all does.
    """

    tensors: tuple[TensorSpec, ...]
    aliases: tuple[tuple[str, str], ...] = ()
    buffers: tuple[str, ...] = ()
    base: str = ""

    @classmethod
    def of(
        cls,
        shapes: Mapping[str, tuple[tuple[int, ...], str]],
        aliases: Mapping[str, str] | None = None,
        buffers: Sequence[str] = (),
    ) -> Layout:
        """Lay out tensors given as {name: (shape, dtype)} in their order.

        Errors: UpdateRefused for a dtype that has no place in a sum (complex, quantised).
        """
        specs: list[TensorSpec] = []
        offsets = {True: 0, False: 0}
        for name, (shape, dtype) in shapes.items():
            if dtype not in FLOAT_DTYPES + INT_DTYPES:
                allowed = ", ".join(FLOAT_DTYPES + INT_DTYPES)
                raise UpdateRefused(f"tensor {name!r} has dtype {dtype}; a model's state may hold {allowed}")
            spec = TensorSpec(name, tuple(shape), dtype, offsets[dtype in FLOAT_DTYPES])
            offsets[spec.is_float] += spec.size
            specs.append(spec)
        return cls(tuple(specs), tuple((aliases or {}).items()), tuple(buffers))

    @cached_property
    def float_dtype(self) -> np.dtype[Any]:
        """Give the dtype of `floats`: float64 if any tensor is, else float32."""
        return np.dtype(np.float64 if any(spec.dtype == "float64" for spec in self.tensors) else np.float32)

    @cached_property
    def num_floats(self) -> int:
        """Count the elements of `floats`."""
        return sum(spec.size for spec in self.tensors if spec.is_float)

    @cached_property
    def num_ints(self) -> int:
        """Count the elements of `ints`."""
        return sum(spec.size for spec in self.tensors if not spec.is_float)

    @cached_property
    def names(self) -> Mapping[str, Sequence[str]]:
        """Give every name that each stored tensor has in the model, the one that it is stored under first."""
        found = {spec.name: [spec.name] for spec in self.tensors}
        for alias, name in self.aliases:
            found[name].append(alias)
        return found

    @cached_property
    def digest(self) -> str:
        """Give the SHA-256 of the layout; equal for equal models, whoever built them."""
        told = {name: value for name, value in asdict(self).items() if name != "buffers" and (name != "base" or value)}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @cached_property
    def buffers_mask(self) -> NDArray[np.bool_]:
        """Mark the elements of `floats` that lie in `buffers`, shape (P,)."""
        mask = np.zeros(self.num_floats, np.bool_)
        for spec in self.tensors:
            if spec.is_float and spec.name in self.buffers:
                mask[spec.offset : spec.offset + spec.size] = True
        return mask

    def is_buffer(self, index: int) -> bool:
        """Say whether element `index` of `floats` follows the data, and no optimizer: it lies in a module's buffer."""
        return any(
            spec.name in self.buffers and not spec.name.startswith(CHANNEL)
            for spec in self.tensors
            if spec.is_float and spec.offset <= index < spec.offset + spec.size
        )

    def with_channels(self, channels: Mapping[str, int]) -> Layout:
        """Lay further vectors out behind the floats, as they travel with a model under a local rule."""
        if not channels:
            return self
        specs, offset, names = list(self.tensors), self.num_floats, [f"{CHANNEL}{name}" for name in channels]
        for name, size in zip(names, channels.values(), strict=True):
            specs.append(TensorSpec(name, (size,), str(self.float_dtype), offset))
            offset += size
        return Layout(tuple(specs), self.aliases, (*self.buffers, *names), self.base)

    def locate(self, index: int, *, is_float: bool) -> str:
        """Name the tensor that holds element `index` of a vector, with the index inside it."""
        for spec in self.tensors:
            if spec.is_float == is_float and spec.offset <= index < spec.offset + spec.size:
                where = np.unravel_index(index - spec.offset, spec.shape) if spec.shape else ()
                return f"{spec.name}[{', '.join(str(int(i)) for i in where)}]" if where else spec.name
        raise IndexError(index)

    def difference(self, other: Layout) -> str:
        """Say in words where another model's layout departs from this one; empty if it does not."""
        mine = {spec.name: (spec.shape, spec.dtype) for spec in self.tensors}
        theirs = {spec.name: (spec.shape, spec.dtype) for spec in other.tensors}
        said = [f"tensor {name!r} is missing" for name in mine if name not in theirs]
        said += [f"tensor {name!r} is not in the federation's model" for name in theirs if name not in mine]
        said += [
            f"tensor {name!r} has shape {list(theirs[name][0])} {theirs[name][1]},"
            f" the federation's model {list(mine[name][0])} {mine[name][1]}"
            for name in mine
            if name in theirs and mine[name] != theirs[name]
        ]
        if self.base and other.base and self.base != other.base:
            said.append(f"the base that adapters change is another (sha256 {other.base[:12]}, not {self.base[:12]})")
        return "; ".join(said[:3]) + (f" and {len(said) - 3} more" if len(said) > 3 else "")


@dataclass(frozen=True, slots=True)
class ModelState:
    """The values of a model: `floats` of shape (P,) and `ints` of shape (Q,), under some layout."""

    floats: NDArray[Any]
    ints: NDArray[np.int64]

    @property
    def num_bytes(self) -> int:
        """Count the bytes of both vectors."""
        return int(self.floats.nbytes + self.ints.nbytes)

    def digest(self, layout: Layout) -> str:
        """Give the model's SHA-256: of its layout and of its bits."""
        total = hashlib.sha256(layout.digest.encode())
        total.update(np.ascontiguousarray(self.floats).data)
        total.update(np.ascontiguousarray(self.ints).data)
        return total.hexdigest()

    def tensors(self, layout: Layout) -> Iterator[tuple[TensorSpec, NDArray[Any]]]:
        """Walk the tensors as views of their shape, float16 and bfloat16 ones as float32."""
        for spec in layout.tensors:
            vector = self.floats if spec.is_float else self.ints
            yield spec, vector[spec.offset : spec.offset + spec.size].reshape(spec.shape)
