"""Which files of a folder are read: none that a program has put aside, and none is left out in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from hierfl.errors import DataError
from hierfl.tasks import _site_files
from hierfl.tasks.parquet import Parquet

TASK = Parquet(features=["age"], label="sick", standardise="none", test_fraction=0)


def write(file: Path, *ages: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(pa.table({"age": ages, "sick": [0] * len(ages)}), file)


def ages(folder: Path) -> list[float]:
    return TASK.data("north", path=str(folder)).train.tensors[0][:, 0].tolist()  # type: ignore[attr-defined]


@pytest.mark.parametrize("aside", [".ipynb_checkpoints", "_temporary", "_delta_log/old"])
def test_what_a_program_has_put_aside_is_no_record_of_the_site(tmp_path, aside):
    write(tmp_path / "_site" / "a.parquet", 1)
    write(tmp_path / "_site" / "year=2020" / "b.parquet", 2)
    write(tmp_path / "_site" / aside / "a-checkpoint.parquet", 1)
    assert ages(tmp_path / "_site") == [1, 2]


def test_folders_behind_links_are_read(tmp_path):
    write(tmp_path / "disk" / "old" / "b.parquet", 2)
    write(tmp_path / "site" / "a.parquet", 1)
    (tmp_path / "site" / "more").symlink_to(tmp_path / "disk")
    assert ages(tmp_path / "site") == [1, 2]


def test_a_link_to_what_is_not_there_is_told(tmp_path):
    write(tmp_path / "site" / "a.parquet", 1)
    (tmp_path / "site" / "b.parquet").symlink_to(tmp_path / "unmounted" / "b.parquet")
    with pytest.raises(DataError, match=r"site 'north': .*site/b\.parquet: is a link to what is not there"):
        ages(tmp_path / "site")


@pytest.mark.parametrize("to", ["site", "", "site/one/two"])
def test_a_folder_that_lies_in_itself_is_told(tmp_path, to):
    write(tmp_path / "site" / "one" / "two" / "a.parquet", 1)
    (tmp_path / "site" / "one" / "two" / "self").symlink_to(tmp_path / to)
    with pytest.raises(DataError, match="self: is a link to a folder that it lies in; remove it"):
        ages(tmp_path / "site")


def test_a_folder_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    write(tmp_path / "site" / "a.parquet", 1)
    write(tmp_path / "site" / "ward" / "b.parquet", 2)
    listed = os.scandir

    def refused(path):
        if os.fspath(path).endswith("ward"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return listed(path)

    monkeypatch.setattr(_site_files.os, "scandir", refused)  # root may read all
    with pytest.raises(DataError, match=r"site 'north': .*site/ward: cannot be read: Permission denied"):
        ages(tmp_path / "site")


def test_a_path_that_may_not_be_looked_at_is_told(tmp_path):
    with pytest.raises(DataError, match=r"site 'north': .*: cannot be read: .*name too long"):
        ages(tmp_path / ("x" * 300))


def test_columns_that_are_not_wanted_may_have_one_name(tmp_path):
    names = ["age", "note", "note", "sick"]
    table = pa.Table.from_arrays([pa.array([1, 0]) for _ in names], names=names)
    (tmp_path / "site").mkdir()
    pa.parquet.write_table(table, tmp_path / "site" / "a.parquet")
    assert ages(tmp_path / "site") == [1, 0]
    with pytest.raises(DataError, match="has several columns of one name"):
        TASK.records(str(tmp_path / "site" / "a.parquet"))
