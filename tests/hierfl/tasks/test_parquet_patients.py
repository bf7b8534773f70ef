"""Rows of one patient go together: none is trained on who is in the test."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from hierfl.errors import ConfigError, DataError
from hierfl.tasks.parquet import Parquet

NUM_ROWS = 400


def table(**other):
    random = np.random.RandomState(0)
    base = {
        "row": pa.array(np.arange(NUM_ROWS, dtype=np.float64)),
        "sick": pa.array(random.randint(0, 2, NUM_ROWS)),
        "pid": pa.array([f"p{number:03d}" for number in random.randint(0, 120, NUM_ROWS)]),
    }
    return pa.table(base | other)


def written(folder, rows, name="north.parquet"):
    path = folder / name
    (pa.csv.write_csv if path.suffix == ".csv" else pa.parquet.write_table)(rows, path)
    return str(path)


def task(**fields):
    return Parquet(**({"features": ["row"], "label": "sick", "patient": "pid", "standardise": "none"} | fields))


def sides(path, rows, some):
    """Whose rows are trained on, and whose are in the test."""
    data, owners = some.data("north", path=path), np.array(rows["pid"].to_pylist())
    return tuple({*owners[part.tensors[0][:, 0].long().numpy()]} for part in (data.train, data.test))


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.2, 0.5, 0.9])
def test_no_patient_is_on_both_sides(tmp_path, fraction):
    rows = table()
    path = written(tmp_path, rows)
    some = task(test_fraction=fraction)
    train, test = sides(path, rows, some)
    assert not train & test and len(train | test) == len(set(rows["pid"].to_pylist()))
    counts = some.num_samples("north", path=path)
    assert sum(counts) == NUM_ROWS and counts[0] > 0
    assert abs(counts[1] - fraction * NUM_ROWS) <= 5  # a patient has at most 10 rows
    alone = task(test_fraction=fraction, patient=None)
    assert not fraction or len(set.intersection(*sides(path, rows, alone))) > 5


def test_who_is_in_the_test_hangs_on_the_patients_alone_and_not_on_how_they_are_written(tmp_path):
    """The order of the rows, the file's type, and the column's."""
    number = pa.array([int(name[1:]) for name in table()["pid"].to_pylist()])
    rows = table(pid=number)
    order = np.random.RandomState(1).permutation(NUM_ROWS)
    written_as = [
        (written(tmp_path, rows), rows),
        (written(tmp_path, rows.take(order), "other.parquet"), rows),
        (written(tmp_path, table(pid=number.dictionary_encode()), "coded.parquet"), rows),
        (written(tmp_path, table(pid=number.cast(pa.string())), "words.parquet"), rows),
        (written(tmp_path, rows, "north.csv"), rows),
    ]
    found = [sides(path, of, task()) for path, of in written_as]
    assert all(one == found[0] for one in found)
    assert sides(*written_as[0], task(seed=1)) != found[0]


def test_a_given_split_is_held_against_the_patients(tmp_path):
    rows = table(pid=pa.array([str(row // 2) for row in range(NUM_ROWS)]))
    whole = ["test" if row // 2 % 4 == 0 else "train" for row in range(NUM_ROWS)]
    path = written(tmp_path, rows.append_column("use", pa.array(whole)))
    train, test = sides(path, rows, task(split="use"))
    assert len(test) == 50 and not train & test
    torn = ["test" if row in (1, 7) else "train" for row in range(NUM_ROWS)]
    path = written(tmp_path, rows.append_column("use", pa.array(torn)))
    for ask in (task(split="use").data, task(split="use").num_samples):
        with pytest.raises(DataError, match=r"north.*'use' has rows of 2 patients \(column 'pid'\) both in"):
            ask("north", path=path)


def test_rows_to_predict_need_not_name_their_patients(tmp_path):
    rows = table()
    path = written(tmp_path, rows.set_column(0, "row", pa.array([None, *range(1, NUM_ROWS)], pa.float64())))
    new = written(tmp_path, pa.table({"row": pa.array([None, 3.0])}), "new.parquet")
    _, filled = task(fill={"row": "mean"}).records(new, "north", path)
    x = task(fill={"row": "mean"}).data("north", path=path).train.tensors[0][:, 0]
    assert filled[1, 0] == 3 and filled[0, 0] == pytest.approx(float(x.mean()), rel=0.01)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([None, *["a"] * (NUM_ROWS - 1)]), "'pid' has gaps in 1 of 400 rows"),
        (pa.array([None, "", " ", *["a"] * (NUM_ROWS - 3)]), "'pid' has gaps in 3 of 400 rows"),
        (pa.array([np.nan, np.nan, *[1.0] * (NUM_ROWS - 2)]), r"'pid' has gaps \(nan\) in 2 of 400 rows"),
        (pa.array(["nan", " NaN", "None", "<NA>", *["a"] * (NUM_ROWS - 4)]), r"gaps \(<NA>, NaN, None, nan\) in 4 of"),
        (
            pa.array([2.0**53 + 2, *[1.0] * (NUM_ROWS - 1)]),
            "'pid' is of type double, in which numbers .* run into each",
        ),
        (pa.array([2.0**24 + 2, *[1.0] * (NUM_ROWS - 1)], pa.float32()), "'pid' is of type float, in which numbers"),
        (pa.array([[1]] * NUM_ROWS), "'pid' is of type list.*needed: words or integers"),
    ],
    ids=["gap", "blanks", "nan", "words for gaps", "double", "float", "list"],
)
def test_a_column_that_does_not_say_whose_rows_are_is_refused(tmp_path, column, said):
    path = written(tmp_path, table(pid=column))
    with pytest.raises(DataError, match=said):
        task().data("north", path=path)


def test_a_patient_is_no_feature():
    with pytest.raises(ConfigError, match="used twice: row"):
        task(patient="row")


def test_few_patients_leave_somebody_to_train_on(tmp_path):
    for names in (["a"] * NUM_ROWS, ["a"] * (NUM_ROWS - 1) + ["b"]):
        rows = table(pid=pa.array(names))
        train, _ = sides(written(tmp_path, rows), rows, task(test_fraction=0.5))
        assert train
