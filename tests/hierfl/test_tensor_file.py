"""Tensors as a safetensors file: byte for byte the library's, and without a copy."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load, save
from safetensors.torch import save as save_torch

from hierfl.errors import OutputError
from hierfl.tensor_file import BFLOAT16, content

DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", ">f4", ">i8"),
)


def drawn(shape: list[int], dtype: str) -> NDArray[Any]:
    return (np.arange(int(np.prod(shape))) % 2).astype(dtype).reshape(shape)


@pytest.mark.skipif(tuple(map(int, version("safetensors").split(".")[:2])) < (0, 8), reason="its head was another one")
@given(
    st.dictionaries(
        st.text(max_size=12).filter(lambda name: name != "__metadata__"),
        st.tuples(st.lists(st.integers(0, 4), max_size=3), st.sampled_from(DTYPES)),
        max_size=8,
    ),
    st.one_of(st.none(), st.dictionaries(st.text(min_size=1), st.text(), min_size=1, max_size=1)),
)
def test_the_bytes_are_those_of_the_library(
    shapes: dict[str, tuple[list[int], str]], metadata: dict[str, str] | None
) -> None:
    tensors = {name: drawn(*one) for name, one in shapes.items()}
    ours = b"".join(content(tensors, metadata))
    assert ours == save(tensors, metadata)
    read = load(ours)
    assert all(
        np.array_equal(read[name], tensor) and read[name].dtype.name == tensor.dtype.name
        for name, tensor in tensors.items()
    )


def test_bfloat16_stands_where_the_library_puts_it() -> None:
    tensors = {
        "b": torch.randn(3, 2),
        "a": torch.randn(5).to(torch.bfloat16),
        "h": torch.randn(2).half(),
        "n": torch.arange(3, dtype=torch.int32),
    }
    own = {
        name: (one.view(torch.int16) if one.dtype == torch.bfloat16 else one).numpy() for name, one in tensors.items()
    }
    assert b"".join(content(own, {"format": "pt"}, {"a": BFLOAT16})) == save_torch(tensors, {"format": "pt"})


def test_nothing_is_copied_and_what_is_not_contiguous_is_as_it_looks() -> None:
    vector = np.arange(12, dtype=np.float32)
    _, piece = content({"w": vector.reshape(3, 4)})
    assert isinstance(piece, memoryview) and np.shares_memory(np.frombuffer(piece, np.uint8), vector)
    turned = vector.reshape(3, 4).T
    assert np.array_equal(load(b"".join(content({"w": turned})))["w"], turned)


def test_a_type_that_the_format_does_not_have_is_an_error() -> None:
    with pytest.raises(OutputError, match=r"world:own is of .*, which a safetensors file does not have; allowed: bool"):
        content({"world:own": np.zeros(2, np.longdouble)})
