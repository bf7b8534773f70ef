"""Tensors as the bytes of a safetensors file, without a copy: the pieces of a large model are its own memory.

The safetensors package, which reads such files here, copies all tensors three times to write them; this gives byte for
byte what it would. The format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BFLOAT16", "content"]

BFLOAT16 = "BF16"
"""The type of tensors that NumPy has no type for: given as int16, bit for bit."""

_TYPES = {
    "int64": "I64",
    "float64": "F64",
    "float32": "F32",
    "int32": "I32",
    BFLOAT16: BFLOAT16,
    "float16": "F16",
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
    Errors: KeyError for a type that is none of the format's.
    """
    assert sys.byteorder == "little", "the format is little-endian, and so must be the machine"
    known = {name: (types or {}).get(name) or _TYPES[str(tensor.dtype)] for name, tensor in tensors.items()}
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    pieces: list[bytes | memoryview] = []
    end = 0
    for name in sorted(tensors, key=lambda name: (_ORDER[known[name]], name)):
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": known[name], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        if tensor.nbytes:
            pieces.append(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)
    said = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    said += b" " * (-len(said) % _ALIGNED)
    return [len(said).to_bytes(8, "little") + said, *pieces]
