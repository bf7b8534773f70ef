"""Tensors as the bytes of a safetensors file, without a copy: the pieces of a large model are its own memory.

The safetensors package, which reads such files here, copies all tensors three times to write them; this gives byte for
byte what it would. The format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import OutputError

__all__ = ["BFLOAT16", "content", "metadata_of"]

BFLOAT16 = "BF16"
"""The type of tensors that NumPy has no type for: given as int16, bit for bit."""

_TYPES = {
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "complex64": "C64",
    "float32": "F32",
    "uint32": "U32",
    "int32": "I32",
    BFLOAT16: BFLOAT16,
    "float16": "F16",
    "uint16": "U16",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""By NumPy's name, in the order in which tensors of them follow one another."""

_ORDER = {name: number for number, name in enumerate(_TYPES.values())}
_ALIGNED = 8


def content(
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
    types: Mapping[str, str] | None = None,
) -> list[bytes | memoryview]:
    """Give a file's bytes in pieces, of which all but the first are the tensors' own memory if these are contiguous.

    `types`: of tensors that stand for ones of another type, `BFLOAT16`.
    Errors: OutputError for a type that is none of the format's.
    """
    assert sys.byteorder == "little", "the format is little-endian, and so must be the machine"
    known = {name: (types or {}).get(name) or _type(name, tensor) for name, tensor in tensors.items()}
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    pieces: list[bytes | memoryview] = []
    end = 0
    for name in sorted(tensors, key=lambda name: (_ORDER[known[name]], name)):
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": known[name], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        if tensor.nbytes:
            little = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
            pieces.append(little.reshape(-1).view(np.uint8).data)
    said = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    said += b" " * (-len(said) % _ALIGNED)
    return [len(said).to_bytes(8, "little") + said, *pieces]


def metadata_of(file: Path) -> Mapping[str, str]:
    """Read what a file says beside its tensors. Errors: OutputError for one that is not there, or no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with file.open("rb"), safe_open(file, "np") as opened:  # which calls whatever cannot be opened not there
            return opened.metadata() or {}
    except FileNotFoundError:
        raise OutputError(f"there is no file {file}; give one that `hierfl export` wrote").misnamed() from None
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise OutputError(
            f"{file} cannot be read as safetensors: {why}; give one that `hierfl export` wrote"
        ) from error


def _type(name: str, tensor: NDArray[Any]) -> str:
    """Give a tensor's type in the format's words. Errors: OutputError."""
    found = _TYPES.get(tensor.dtype.name)
    if found is None:
        allowed = ", ".join(sorted(set(_TYPES) - {BFLOAT16}))
        raise OutputError(f"{name} is of {tensor.dtype}, which a safetensors file does not have; allowed: {allowed}")
    return found
