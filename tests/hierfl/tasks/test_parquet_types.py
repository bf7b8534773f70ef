"""One value in the types that hospitals' programs give it: the same feature at each site, and in a folder's files."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet
import pytest

from hierfl.errors import DataError
from hierfl.tasks.parquet import Parquet

DOSES = [0.1, 250.1, 2, 3.25]
"""The last one is no category."""


def rows(folder, *columns, **fields):
    folder.mkdir(exist_ok=True)
    for number, column in enumerate(columns):
        table = pa.table({"dose": column, "sick": [0] * len(column)})
        pa.parquet.write_table(table, folder / f"{number}.parquet")
    task = Parquet(**({"features": ["dose"], "label": "sick", "standardise": "none", "test_fraction": 0} | fields))
    return task.data("north", path=str(folder)).train.tensors[0].tolist()


@pytest.mark.parametrize(
    "column",
    [
        pa.array(DOSES),
        pa.array(DOSES, pa.float32()),
        pa.array(DOSES, pa.float32()).dictionary_encode(),
        pa.array([Decimal(str(dose)) for dose in DOSES], pa.decimal128(9, 4)),
        pa.array([f"{dose:g}" for dose in DOSES]),
        pa.array([f"{dose:g}" for dose in DOSES], pa.large_string()).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_a_value_is_the_same_category_in_any_type(column, tmp_path):
    found = rows(tmp_path, column, categories={"dose": [0.1, 250.1, 2, "*"]})
    assert found == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    "column", [pa.array([b"f", b"m"]), pa.array([["f"], ["m"]]), pa.array([{"is": "f"}, {"is": "m"}])]
)
def test_what_is_no_word_is_none_of_all_others(column, tmp_path):
    with pytest.raises(DataError, match=r"column 'dose' is of type (binary|list|struct).*; needed: words \(text"):
        rows(tmp_path, column, categories={"dose": ["f", "m", "*"]})


def test_many_digits_of_a_decimal_stay(tmp_path):
    column = pa.array([Decimal("0.12345678901234567890"), Decimal("0.5")], pa.decimal128(20, 20))
    assert rows(tmp_path, column, categories={"dose": ["0.12345678901234567890", "0.5"]}) == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.decimal128(10, 2), pa.int64()),
        (pa.decimal128(5, 2), pa.uint64()),
        (pa.decimal128(10, 2), pa.float64()),
        (pa.int32(), pa.uint64()),
    ],
    ids=str,
)
def test_files_of_a_folder_may_hold_numbers_in_several_types(one, other, tmp_path):
    ones = [Decimal(1), Decimal(2)] if pa.types.is_decimal(one) else [1, 2]
    assert rows(tmp_path, pa.array(ones, one), pa.array([7], other)) == [[1], [2], [7]]


def test_whole_numbers_that_no_type_holds_together_are_told(tmp_path):
    with pytest.raises(DataError, match="cannot be read: Integer value 18446744073709551615 not in range"):
        rows(tmp_path, pa.array([2**64 - 1], pa.uint64()), pa.array([-1]))
