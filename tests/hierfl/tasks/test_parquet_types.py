"""One value in the types that hospitals' programs give it: the same feature at each site, and in a folder's files."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from hierfl.config.learning import Statistics
from hierfl.errors import DataError
from hierfl.learning.statistics import statistics_of
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


@pytest.mark.skipif(not hasattr(pa, "string_view"), reason="this pyarrow has no views")
@pytest.mark.parametrize("how", ["string_view", "runs"])
def test_text_as_newer_programs_write_it_is_text(how, tmp_path):
    plain = pa.array(["f", "f", "m"])
    column = pa.compute.run_end_encode(plain) if how == "runs" else plain.cast(pa.string_view())
    file = tmp_path / "north.feather"
    pa.feather.write_feather(pa.table({"dose": column, "sick": [0] * 3, "more": column}), file)
    task = Parquet(["dose"], "sick", categories={"dose": ["f", "m"]}, standardise="none", test_fraction=0)
    assert task.data("north", path=str(file)).train.tensors[0].tolist() == [[1, 0], [1, 0], [0, 1]]
    told = statistics_of(task.table("north", path=str(file)), Statistics(min_count=1))
    assert told.columns["dose"].values == {"f": 2, "m": 1}
    pa.csv.write_csv(task.records(str(file))[0], tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == '"f",0,"f"'


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"f", b"m"]),
        pa.array([b"f", b"m"], pa.binary(1)),
        pa.array([["f"], ["m"]]),
        pa.array([{"is": "f"}, {"is": "m"}]),
    ],
    ids=lambda column: str(column.type),
)
def test_what_is_no_word_is_none_of_all_others(column, tmp_path):
    with pytest.raises(DataError, match=r"column 'dose' is of type (binary|fixed|list|struct).*; needed: words \(text"):
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


@pytest.mark.parametrize("kind", [pa.int32(), pa.float64()])
def test_a_factor_of_numbers_is_numbers(kind, tmp_path):
    column = pa.array([7, 8, 7]).cast(kind).dictionary_encode()
    pa.feather.write_feather(pa.table({"dose": column, "sick": column}), tmp_path / "north.feather")
    task = Parquet(["dose"], "sick", target="number", standardise="none", test_fraction=0)
    x, y = task.data("north", path=str(tmp_path / "north.feather")).train.tensors
    assert x.tolist() == [[7], [8], [7]] and y.tolist() == [7, 8, 7]


def test_decimals_that_would_run_into_each_other_are_named(tmp_path):
    seconds = pa.array([Decimal(1_600_000_000 + n) for n in range(9)], pa.decimal128(12, 2))
    with pytest.raises(DataError, match=r"'dose' has 9 distinct values, of which float32 tells 1 apart"):
        rows(tmp_path, seconds)


def test_a_site_without_training_rows_cannot_scale_by_them(tmp_path):
    task = Parquet(["dose"], "sick", split="use", standardise="site")
    table = pa.table({"dose": [1, 2, 9], "sick": [0, 1, 1], "use": ["test"] * 3})
    pa.parquet.write_table(table, tmp_path / "north.parquet")
    with pytest.raises(DataError, match=r"site 'north': .*no row is for training, by which standardise: site scales"):
        task.data("north", path=str(tmp_path / "north.parquet"))
    pa.parquet.write_table(table.slice(0, 0), tmp_path / "north.parquet")
    assert not len(task.data("north", path=str(tmp_path / "north.parquet")).test)


def test_whole_numbers_that_no_type_holds_together_are_told(tmp_path):
    with pytest.raises(DataError, match="cannot be read: Integer value 18446744073709551615 not in range"):
        rows(tmp_path, pa.array([2**64 - 1], pa.uint64()), pa.array([-1]))


@pytest.mark.parametrize(
    ("words", "categories"),
    [
        (["True", "False", "not known"], [True, False, "*"]),
        (["TRUE", "FALSE", "not known"], [True, False, "*"]),
        (["TRUE", "FALSE", "never"], ["TRUE", "FALSE", "*"]),
        (["10:00", "15:00", "23:00"], ["10:00", "15:00", "*"]),
        (
            ["2020-01-01 07:00", "2020-01-01 15:00", "2020-01-01 15:00:30"],
            ["2020-01-01 07:00", "2020-01-01 15:00", "*"],
        ),
    ],
)
def test_words_of_a_csv_are_their_categories_whatever_they_look_like(words, categories, tmp_path):
    file = tmp_path / "north.csv"
    file.write_text("dose,sick\n" + "".join(f"{word},0\n" for word in words), encoding="utf-8")
    task = Parquet(["dose"], "sick", categories={"dose": categories}, standardise="none", test_fraction=0)
    assert task.data("north", path=str(file)).train.tensors[0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (
            ["1,020", "310"],
            r"; it has commas: of decimals, .*\{decimal: ','\}, or of thousands: write it without them$",
        ),
        (["1,020.5", "310"], "; it has separators of thousands: write its numbers without them$"),
        (["1 020", "310"], "; it has separators of thousands: write its numbers without them$"),
        (["1,020", "31,5"], r"; it has decimal commas, which is to be told: data: \{decimal: ','\}$"),
    ],
)
def test_separators_of_thousands_are_not_taken_for_decimal_commas(cells, says, tmp_path):
    file = tmp_path / "north.csv"
    file.write_text("dose,sick\n" + "".join(f'"{cell}",0\n' for cell in cells), encoding="utf-8")
    with pytest.raises(DataError, match=says):
        Parquet(["dose"], "sick").data("north", path=str(file))


def test_a_patient_whose_number_is_bytes_is_told_as_well(tmp_path):
    patients = pa.array([b"ab", b"cd", b"ab"], pa.binary(2))
    table = pa.table({"dose": [1, 2, 3], "sick": [0, 1, 0], "who": patients, "use": ["train", "train", "test"]})
    pa.parquet.write_table(table, tmp_path / "north.parquet")
    with pytest.raises(DataError, match=r"(?s)'use' has rows of 1 patient \(column 'who'\) both.*b'ab' is one"):
        Parquet(["dose"], "sick", split="use", patient="who").data("north", path=str(tmp_path / "north.parquet"))


@pytest.mark.parametrize("word", ["F", " f", "f ", "F\u00a0", "Not known", "NOTKNOWN"])
def test_a_word_that_is_a_category_but_for_case_or_blanks_is_none_of_the_others(word: str, tmp_path) -> None:
    """Among these would lie all records of a hospital that writes it otherwise."""
    categories = {"dose": ["f", "m", "not known", "*"]}
    assert rows(tmp_path, pa.array(["x", "ff", None]), categories=categories) == [[0, 0, 0, 1]] * 3
    told = r"'dose' has 2 values that differ from a category of it in case or blanks alone"
    with pytest.raises(DataError, match=told):
        rows(tmp_path, pa.array(["x", word, "m", word]), categories=categories)
    named = {"dose": [*categories["dose"], word]}
    assert rows(tmp_path, pa.array(["x", word]), categories=named) == [[0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
