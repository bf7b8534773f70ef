"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hierfl import durable


def test_what_cannot_be_written_leaves_the_file_of_before_and_nothing_beside_it(tmp_path: Path) -> None:
    def half() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    durable.put(tmp_path / "summary.json", "before")
    with pytest.raises(OSError, match="No space left"):
        durable.place(tmp_path / "summary.json", half())
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]
    assert (tmp_path / "summary.json").read_text() == "before"


def test_a_stop_in_the_middle_leaves_nothing_either(tmp_path: Path) -> None:
    def stopped() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        durable.place(tmp_path / "model", stopped())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_gone_is_what_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        durable.put(tmp_path / "gone" / "summary.json", "text")
