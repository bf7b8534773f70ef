"""Columns of numbers that are none: which value, in which row, and the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from torch.utils.data import TensorDataset

from hierfl.errors import DataError
from hierfl.learning.standardise import Moments, apply, feature_matrix
from hierfl.learning.task import SiteData
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


AGES = np.arange(67)
"""Sixty-seven of them."""


def ages(folder: Path, since: int | float, n: int = 200, kind: str = "csv", label: str = "sick") -> str:
    """A file of n ages, counted from somewhere."""
    number = AGES[np.arange(n) % len(AGES)] + since
    table = pa.table({"age": number, label: np.arange(n) % 2})
    write = {"csv": pa.csv.write_csv, "parquet": pa.parquet.write_table}[kind]
    write(table, folder / f"north.{kind}")
    return str(folder / f"north.{kind}")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("since", [0, 1_600_000_000, 1_600_000_000.5, 2**40])
@pytest.mark.parametrize("standardise", ["site", "federated"])
def test_what_is_scaled_keeps_its_digits(standardise: str, since: float, kind: str, tmp_path: Path) -> None:
    task = Parquet(["age"], "sick", standardise=standardise, test_fraction=0.0)
    data = task.data("north", path=ages(tmp_path, since, kind=kind))
    if standardise == "federated":
        data = apply(data, *Moments.of(feature_matrix(data), wide=True).mean_and_std())
    x = data.train.tensors[0].float()  # type: ignore[attr-defined]
    assert len(x.unique()) == 67
    plain = AGES[np.arange(200) % 67]
    assert x[:, 0].numpy() == pytest.approx((plain - plain.mean()) / plain.std(), abs=1e-5)
    task.loss(task.model(), data.train[:]).backward()  # type: ignore[no-untyped-call, index]


def test_numbers_that_single_precision_holds_are_scaled_as_if_they_came_in_it(tmp_path: Path) -> None:
    task = Parquet(["age"], "sick", test_fraction=0.0)
    data = task.data("north", path=ages(tmp_path, 0))
    narrow = SiteData(*(TensorDataset(part.tensors[0].float()) for part in (data.train, data.test)))  # type: ignore[attr-defined]
    moments = Moments.of(feature_matrix(data), wide=True)
    assert moments == Moments.of(feature_matrix(narrow))
    wide, plain = (apply(one, *moments.mean_and_std()).train.tensors[0] for one in (data, narrow))  # type: ignore[attr-defined]
    assert wide.float().numpy().tobytes() == plain.numpy().tobytes()


@pytest.mark.parametrize(
    ("since", "fields", "says"),
    [
        (
            1_600_000_000,
            {"standardise": "none"},
            r"'age' has 67 distinct values, of which float32 tells 2 apart; standardise: federated \(or site\) ",
        ),
        (2**62, {}, r"'age' has 67 distinct values, of which float64 tells 1 apart; subtract a constant from it"),
        (-(2**62), {"standardise": "none"}, r"'age' has 67 distinct values, of which float32 tells 1 apart"),
        (
            1_600_000_000,
            {"features": ["sick"], "label": "age", "target": "number"},
            r"'age' has 67 distinct values, of which float32 tells 2 apart; subtract a constant from it",
        ),
    ],
)
def test_numbers_that_would_run_into_each_other_are_named(
    since: int, fields: dict[str, Any], says: str, tmp_path: Path
) -> None:
    task = Parquet(**{"features": ["age"], "label": "sick", "test_fraction": 0.0, **fields})
    with pytest.raises(DataError, match=rf"^site 'north': .*north.csv: column {says}"):
        task.data("north", path=ages(tmp_path, since))


@pytest.mark.parametrize("values", [[2**62] * 200, [1.0e9 * place + 0.1 for place in range(200)], [None, 2**60] * 100])
def test_numbers_that_are_rounded_a_little_are_taken(values: list[Any], tmp_path: Path) -> None:
    table = pa.table({"age": values, "sick": np.arange(200) % 2})
    pa.parquet.write_table(table, tmp_path / "north.parquet")
    task = Parquet(["age"], "sick", standardise="none", fill={"age": 0.0}, test_fraction=0.0)
    assert len(task.data("north", path=str(tmp_path / "north.parquet")).train) == 200  # type: ignore[arg-type]
