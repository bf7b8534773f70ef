"""Columns of numbers that are none: which value, in which row, and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from hierfl.errors import DataError
from hierfl.tasks.parquet import Parquet


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (["", "", "", ""], r"column 'age' is empty in all 4 rows; say what stands for it \(fill: \{age: 0.0\}, say\)"),
        (
            ["1", "zw", "", "4"],
            r"1 value that is no number; needed: .*categories.*\n  in detail: 'zw' in row 2 is the first",
        ),
        (
            ["1", "-", "-", "4"],
            r"2 values that are no numbers; needed: numbers, or an empty cell.*\n.*'-' in row 2 is the",
        ),
        (["a", "b", "c", "4"], r"of type string; needed: integers, floats or booleans, or its values \(categories"),
        (
            ["1", "inf", "3", "4"],
            r"has 1 values that are NaN or Inf; mend them, or leave them empty \(fill is for gaps",
        ),
        (["1", "2", "", "4"], r"has 1 null in 4 rows; fill them \(fill: \{age: median\}\) or drop them"),
    ],
)
def test_what_is_wrong_with_numbers_says_where_and_the_way_out(tmp_path: Path, cells: list[str], says: str) -> None:
    (tmp_path / "north.csv").write_text(
        "age,sick\n" + "".join(f"{cell},{place % 2}\n" for place, cell in enumerate(cells))
    )
    with pytest.raises(DataError, match=says):
        Parquet(["age"], "sick").data("north", path=str(tmp_path / "north.csv"))


def test_a_row_of_another_length_is_told_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "north.csv").write_text("age,sick\n" + "1,0\n" * 8 + "1\n" + "1,1\n" * 5)
    with pytest.raises(DataError, match=r"Row #10: Expected 2 columns, got 1$"):
        Parquet(["age"], "sick").data("north", path=str(tmp_path / "north.csv"))
