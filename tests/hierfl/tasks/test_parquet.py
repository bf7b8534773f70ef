import subprocess
import sys
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch

from hierfl.errors import ConfigError, DataError
from hierfl.learning.task import KnowsSites, Standardised, Task
from hierfl.tasks.parquet import Parquet

WRITERS = {
    "parquet": pa.parquet.write_table,
    "feather": pa.feather.write_feather,
    "arrow": pa.feather.write_feather,
    "csv": pa.csv.write_csv,
}


def columns(n=10, **other):
    base = {
        "age": pa.array(range(n), pa.int16()),
        "dose": pa.array(np.linspace(0, 1, n)),
        "smokes": pa.array([i % 2 == 0 for i in range(n)]),
        "sick": pa.array([i % 3 == 0 for i in range(n)]).cast(pa.int8()),
        "use": pa.array(["test" if i % 5 == 0 else "train" for i in range(n)]),
    }
    return pa.table(base | other)


def task(**fields):
    return Parquet(**({"features": ["dose", "age"], "label": "sick", "standardise": "none"} | fields))


@pytest.fixture
def path(tmp_path):
    pa.parquet.write_table(columns(), tmp_path / "north.parquet")
    return str(tmp_path / "north.parquet")


@pytest.mark.parametrize("ending", WRITERS)
def test_reads_every_format_by_its_ending(ending, tmp_path):
    path = tmp_path / f"north.{ending}"
    WRITERS[ending](columns(), path)
    data = task(split="use").data("north", path=str(path))
    assert data.train.tensors[0][:, 1].tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    assert data.test.tensors[0][:, 1].tolist() == [0, 5]
    assert data.train.tensors[0].dtype == torch.float32
    assert data.train.tensors[1].tolist() == [int(i % 3 == 0) for i in (1, 2, 3, 4, 6, 7, 8, 9)]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    for i, name in ((1, "b"), (0, "a")):
        pa.parquet.write_table(columns(4, age=pa.array([10 * i] * 4, pa.int16())), tmp_path / f"{name}.parquet")
    (tmp_path / "_SUCCESS").touch()
    data = task(test_fraction=0.0).data("north", path=str(tmp_path))
    assert data.train.tensors[0][:, 1].tolist() == [0] * 4 + [10] * 4
    assert len(data.test) == 0


def test_relative_to_the_current_folder(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert task().num_samples("north", path="north.parquet") == (8, 2)


def test_counts_agree_with_the_data(path):
    assert isinstance(task(), Task)
    assert isinstance(task(), Standardised)
    assert not isinstance(task(), KnowsSites)
    for some in (task(), task(split="use"), task(test_fraction=0.0), task(test_fraction=0.5, seed=7)):
        data = some.data("north", path=path)
        assert some.num_samples("north", path=path) == (len(data.train), len(data.test))


def test_test_rows_are_drawn_by_seed_and_site(path):
    def drawn(site, seed):
        return task(seed=seed, test_fraction=0.5).data(site, path=path).test.tensors[0][:, 1].tolist()

    assert drawn("north", 0) == drawn("north", 0)
    assert len({tuple(drawn(site, seed)) for site in ("north", "south") for seed in range(3)}) > 3


def test_booleans_and_own_standardisation(path):
    data = task(features=["smokes", "age"], standardise="site").data("north", path=path)
    x = data.train.tensors[0]
    assert x.mean(dim=0).abs().max() < 1e-6
    assert x.std(dim=0, correction=0).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(("num_classes", "network"), [(2, "logistic"), (2, "mlp"), (3, "logistic"), (3, "mlp")])
def test_trains_and_predicts(num_classes, network, tmp_path):
    pa.parquet.write_table(columns(30, sick=pa.array([i % num_classes for i in range(30)])), tmp_path / "x.parquet")
    some = task(num_classes=num_classes, network=network, standardise="site")
    batch = some.data("north", path=str(tmp_path / "x.parquet")).train[:]
    model = some.model()
    some.loss(model, batch).backward()
    scores = some.predict(model, batch).scores
    assert scores.shape == ((24,) if num_classes == 2 else (24, 3))


def test_one_class_and_no_rows_are_allowed(tmp_path):
    pa.parquet.write_table(columns(3, sick=pa.array([1, 1, 1])), tmp_path / "one.parquet")
    assert task().data("north", path=str(tmp_path / "one.parquet")).train.tensors[1].unique().tolist() == [1]
    pa.parquet.write_table(columns(3).slice(0, 0), tmp_path / "none.parquet")
    for some in (task(), task(split="use"), task(standardise="site")):
        assert len(some.data("north", path=str(tmp_path / "none.parquet")).train) == 0


@pytest.mark.parametrize(
    ("other", "fields", "message"),
    [
        ({}, {"features": ["dos"]}, r"has no column 'dos' \(did you mean 'dose'\?"),
        ({}, {"label": "sik"}, r"has no column 'sik' \(did you mean 'sick'\?"),
        ({}, {"split": "us"}, r"has no column 'us' \(did you mean 'use'\?"),
        ({}, {"features": ["use"]}, "column 'use' is of type string; needed: integers, floats or booleans"),
        ({"age": pa.array([1, None, None] + [4] * 7)}, {}, "column 'age' has 2 nulls in 10 rows"),
        ({"dose": pa.array([1.0, float("nan")] * 5)}, {}, "column 'dose' has 5 values that are NaN or Inf"),
        ({"dose": pa.array([1.0, 1e300] * 5)}, {}, "column 'dose' has 5 values that are beyond float32"),
        (
            {"sick": pa.array([2**62, 1] * 5)},
            {},
            r"(?s)label column 'sick' has 5 values that are no class .*in detail: 4\.6\S+ is the first$",
        ),
        ({"sick": pa.array([0, 1, 2, 3, 1] * 2)}, {}, r"(?s)4 values that are no class \(allowed: 0 to 1;.*: 2 is"),
        ({"sick": pa.array([0.5] * 10)}, {}, r"(?s)label column 'sick' has 10 values that are no class.*: 0\.5 is"),
        ({"use": pa.array(["val"] * 10)}, {"split": "use"}, r"(?s)10 values that are neither train nor test.*'val'"),
        (
            {"use": pa.array([None] * 10)},
            {"split": "use"},
            r"(?s)'use' has 10 values that are neither.*None is the first",
        ),
    ],
)
def test_wrong_columns_are_named(other, fields, message, tmp_path):
    path = tmp_path / "north.parquet"
    pa.parquet.write_table(columns(**other), path)
    with pytest.raises(DataError, match=message) as caught:
        task(**fields).data("north", path=str(path))
    assert str(caught.value).startswith(f"site 'north': {path}: ")


def test_missing_corrupt_and_mixed_files_are_named(path, tmp_path):
    def message(source):
        with pytest.raises(DataError) as caught:
            task().data("north", **source)
        return str(caught.value)

    assert "/nowhere.parquet: does not exist" in message({"path": str(tmp_path / "nowhere.parquet")})
    assert "(d/x.csv counts from the folder in which the run was started)" in message({"path": "d/x.csv"})
    assert "data.path is empty; name a file" in message({"path": ""})
    (tmp_path / "empty").mkdir()
    assert "is a folder without files" in message({"path": str(tmp_path / "empty")})
    for name, content in (("cut.parquet", b"PAR1 and nothing"), ("zero.parquet", b""), ("cut.arrow", b"ARROW1")):
        (tmp_path / name).write_bytes(content)
        assert f"{name}: cannot be read: " in message({"path": str(tmp_path / name)})
    (tmp_path / "x.csv").write_text("age,dose,sick\n1,2\n")
    assert "x.csv: cannot be read: " in message({"path": str(tmp_path / "x.csv")})
    assert "holds several kinds of files: .arrow, .csv, .parquet" in message({"path": str(tmp_path)})
    (tmp_path / "x.xlsx").touch()
    assert "ends in '.xlsx' (allowed: .parquet, .arrow" in message({"path": str(tmp_path / "x.xlsx")})


def test_a_flipped_bit_is_found_where_the_file_has_checksums(tmp_path):
    bare = {"write_page_checksum": True, "compression": "none", "use_dictionary": False}
    pa.parquet.write_table(columns(100), tmp_path / "flipped.parquet", **bare)
    content = bytearray((tmp_path / "flipped.parquet").read_bytes())
    content[200] ^= 1
    (tmp_path / "flipped.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"flipped.parquet: cannot be read: .* checksum"):
        task().data("north", path=str(tmp_path / "flipped.parquet"))


def test_wrong_fields_are_named():
    with pytest.raises(ConfigError) as caught:
        task(features=[], num_classes=1, network="cnn", test_fraction=1.5, standardise="yes")
    assert [problem.path for problem in caught.value.problems] == [
        *("features", "num_classes", "network", "test_fraction", "standardise")
    ]
    with pytest.raises(ConfigError, match="label: 'sick' is among the features, too"):
        task(features=["sick"])
    with pytest.raises(ConfigError, match="features: columns are used twice: age"):
        task(features=["age", "age"])


def test_counting_needs_no_torch(path):
    code = (
        "import sys; from hierfl.tasks.parquet import Parquet;"
        f"assert Parquet(['age'], 'sick').num_samples('north', path={path!r}) == (8, 2);"
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


GAPS = pa.array([1, None, 3, 4, 100, 6, None, 8, 9, 9], pa.int16())  # rows 0 and 5 are for the test
SEX = pa.array(["f", "m", None, "f", "f", "x", "m", "f", "f", "f"])


def read(tmp_path, other, **fields):
    path = tmp_path / "north.parquet"
    pa.parquet.write_table(columns(**other), path)
    some = task(split="use", **fields)
    data = some.data("north", path=str(path))
    assert len(some.inputs) == data.train.tensors[0].shape[1] == next(some.model().parameters()).shape[1]
    both = [*zip((1, 2, 3, 4, 6, 7, 8, 9), data.train.tensors[0].tolist(), strict=True)]
    both += zip((0, 5), data.test.tensors[0].tolist(), strict=True)
    return some, [row for _, row in sorted(both)]


@pytest.mark.parametrize(
    ("how", "value"), [("median", 8.5), ("mean", 133 / 6), ("most_frequent", 9), (240, 240), (0.5, 0.5)]
)
def test_gaps_are_filled_by_the_training_rows_or_an_agreed_number(how, value, tmp_path):
    _, rows = read(tmp_path, {"age": GAPS}, fill={"age": how})
    filled = [value if one is None else one for one in GAPS.to_pylist()]
    assert [row[1] for row in rows] == pytest.approx(filled)
    some, rows = read(tmp_path, {"age": GAPS}, fill={"*": how}, flag_gaps=True)
    assert some.inputs == ["dose", "age", "dose is missing", "age is missing"]
    assert [row[3] for row in rows] == [float(one is None) for one in GAPS.to_pylist()]
    assert not any(row[2] for row in rows)


def test_nan_is_a_gap_as_null_is_and_infinity_is_none(tmp_path):
    dose = pa.array([1.0, float("nan"), *[3.0] * 8])
    assert read(tmp_path, {"dose": dose}, fill={"dose": 7})[1][1][0] == 7
    with pytest.raises(DataError, match="column 'dose' has 1 values that are NaN or Inf"):
        read(tmp_path, {"dose": pa.array([1.0, float("inf"), *[3.0] * 8])}, fill={"dose": 7})


def test_categories_are_features_of_0_and_1(tmp_path):
    fields = {"features": ["sex", "age", "code", "smokes"], "categories": {"sex": ["m", "f", "*"], "code": [1, 2]}}
    fields["categories"]["smokes"] = [False, True]
    some, rows = read(tmp_path, {"sex": SEX, "code": pa.array([1.0, 2.0] * 5)}, **fields)
    assert some.inputs == ["sex=m", "sex=f", "sex=*", "age", "code=1", "code=2", "smokes=false", "smokes=true"]
    places = {"m": 0, "f": 1, None: 2, "x": 2}
    for n, (row, word) in enumerate(zip(rows, SEX.to_pylist(), strict=True)):
        assert row[:3] == [float(places[word] == place) for place in range(3)]
        assert row[3:] == [n, float(n % 2 == 0), float(n % 2), float(n % 2), float(n % 2 == 0)]


def test_a_gap_among_categories_is_filled_where_that_is_asked(tmp_path):
    fields = {"features": ["sex"], "categories": {"sex": ["f", "m", "x"]}}
    _, rows = read(tmp_path, {"sex": SEX}, **fields, fill={"*": "median"}, flag_gaps=True)
    assert rows[2] == [1, 0, 0, 1] and rows[1] == [0, 1, 0, 0]
    assert read(tmp_path, {"sex": SEX}, **fields, fill={"sex": "m"})[1][2] == [0, 1, 0]
    more_men = pa.array(["m", "f", "f", "f", "f", "m", None, "m", "m", "m"])  # but for the two that are for the test
    assert read(tmp_path, {"sex": more_men}, **fields, fill={"*": "median"})[1][6] == [1, 0, 0]


def test_an_empty_word_is_a_gap_in_every_format(tmp_path):
    fields = {"features": ["sex"], "categories": {"sex": ["f", "m"]}, "flag_gaps": True, "standardise": "none"}
    some = task(**fields, fill={"sex": "most_frequent"}, test_fraction=0)
    (tmp_path / "a.csv").write_text("sex,sick\nf,0\n,1\nm,0\nf,1\n", encoding="utf-8")
    pa.parquet.write_table(pa.table({"sex": ["f", "", "m", "f"], "sick": [0, 1, 0, 1]}), tmp_path / "b.parquet")
    for path in (tmp_path / "a.csv", tmp_path / "b.parquet"):
        rows = some.data("north", path=str(path)).train.tensors[0].tolist()
        assert rows == [[1, 0, 0], [1, 0, 1], [0, 1, 0], [1, 0, 0]]


def test_a_number_for_all_gaps_is_none_for_words(tmp_path):
    fields = {"features": ["age", "sex"], "categories": {"sex": ["f", "m", "x"]}, "flag_gaps": True}
    assert task(**fields, fill={"*": 240}).inputs == ["age", "sex=f", "sex=m", "sex=x", "age is missing"]
    with pytest.raises(DataError, match="column 'sex' has 1 gaps in 10 rows; fill them"):
        read(tmp_path, {"sex": SEX}, **fields, fill={"*": 240})


def test_values_of_any_type_are_words(tmp_path):
    stamp = pa.array([1_000_000_000_000_000_001] * 10, pa.timestamp("ns"))
    code = pa.array([Decimal(f"{n % 2}.00") for n in range(10)])
    fields = {"features": ["stamp", "code"], "categories": {"stamp": ["2001", "*"], "code": [0, 1]}}
    _, rows = read(tmp_path, {"stamp": stamp, "code": code}, **fields)
    assert rows[:2] == [[0, 1, 1, 0], [0, 1, 0, 1]]


@pytest.mark.parametrize(("early", "late"), [("1", "1.5"), ("", "2")])
def test_the_type_of_a_csv_s_column_is_that_of_all_its_rows(early, late, tmp_path):
    rows = [f"{early},0"] * 600_000 + [f"{late},1"]  # more than pyarrow looks at for the types of a dataset
    (tmp_path / "a.csv").write_text("\n".join(["age,sick", *rows]) + "\n", encoding="utf-8")
    data = task(features=["age"], fill={"age": 7}, test_fraction=0).data("north", path=str(tmp_path / "a.csv"))
    assert data.train.tensors[0][[0, -1], 0].tolist() == [float(early or 7), float(late)]


def test_rows_of_a_folder_are_counted(tmp_path):
    for ending in ("csv", "parquet"):
        (tmp_path / ending).mkdir()
        for name in "ab":
            WRITERS[ending](columns(10), tmp_path / ending / f"{name}.{ending}")
        assert task().num_samples("north", path=str(tmp_path / ending)) == (16, 4)


@pytest.mark.parametrize("first", [pa.bool_(), pa.int64()])
def test_booleans_among_the_files_of_a_folder_are_numbers(first, tmp_path):
    for n, kind in enumerate((first, pa.bool_(), pa.int64())):
        WRITERS["parquet"](columns(4, sick=pa.array([0, 1, 1, 0]).cast(kind)), tmp_path / f"{n}.parquet")
    assert task(test_fraction=0).data("north", path=str(tmp_path)).train.tensors[1].tolist() == [0, 1, 1, 0] * 3
    words = task(features=["sick"], label="age", categories={"sick": [0, 1]}, num_classes=9, test_fraction=0)
    assert words.data("north", path=str(tmp_path)).train.tensors[0].tolist() == [[1, 0], [0, 1], [0, 1], [1, 0]] * 3


def test_a_column_that_a_file_has_twice_is_named(tmp_path):
    for name, more in (("a", "code"), ("b", "age")):
        table = columns(4).append_column(more, [[1] * 4])
        WRITERS["parquet"](table, tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=r"b.parquet: has several columns 'age'; rename or drop all but one"):
        task().data("north", path=str(tmp_path))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_files_of_a_folder_may_differ_in_type_and_order(ending, tmp_path):
    tables = [
        pa.table({"age": [1, 2], "stage": pa.array([1, 2]), "sick": [0, 1]}),
        pa.table({"sick": [1, 0], "stage": ["2", "x"], "age": [1.5, None]}),
        pa.table({"stage": ["1"], "sick": [0], "age": pa.nulls(1)}),
    ]
    for n, table in enumerate(tables):
        WRITERS[ending](table, tmp_path / f"{n}.{ending}")
    fields = {"features": ["age", "stage"], "categories": {"stage": [1, 2, "x"]}, "fill": {"age": 9}}
    rows = task(**fields, test_fraction=0).data("north", path=str(tmp_path)).train.tensors[0].tolist()
    assert rows == [[1, 1, 0, 0], [2, 0, 1, 0], [1.5, 0, 1, 0], [9, 0, 0, 1], [9, 1, 0, 0]]


def test_a_file_of_a_folder_that_lacks_a_column_is_named(tmp_path):
    WRITERS["csv"](columns(4), tmp_path / "a.csv")
    WRITERS["csv"](columns(4).rename_columns(["Age", "dose", "smokes", "sick", "use"]), tmp_path / "b.csv")
    with pytest.raises(DataError, match=r"(?s)b.csv: has no column 'age'.* \(did you mean 'Age'\?"):
        task(fill={"age": "median"}).data("north", path=str(tmp_path))


@pytest.mark.parametrize(
    ("other", "fields", "message"),
    [
        ({"age": GAPS}, {}, r"column 'age' has 2 nulls in 10 rows; fill them \(fill: \{age: median\}\) or drop them"),
        ({"age": GAPS}, {"fill": {"dose": "mean"}}, "column 'age' has 2 nulls"),
        (
            {"age": pa.array([5, *[None] * 9], pa.int8())},
            {"fill": {"age": "median"}},
            "column 'age' has gaps and no value in the training rows, .* give a number: fill: {age: ...}",
        ),
        ({"age": pa.nulls(10)}, {"fill": {"age": "median"}}, "column 'age' has gaps and no value in the training rows"),
        ({"sex": SEX}, {"features": ["sex"], "categories": {"sex": ["f", "m", "x"]}}, "column 'sex' has 1 gaps in 10"),
        (
            {"sex": SEX},
            {"features": ["sex"], "categories": {"sex": ["f", "m"]}, "fill": {"sex": "f"}},
            r"(?s)column 'sex' has 1 values that are no category of it.*'x' is the first \(allowed: f, m\)$",
        ),
    ],
)
def test_gaps_and_values_without_a_rule_are_named(other, fields, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read(tmp_path, other, **fields)


@pytest.mark.parametrize(
    ("fields", "where", "message"),
    [
        ({"fill": {"aeg": "median"}}, "fill", r"'aeg' is no feature \(did you mean 'age'\?"),
        ({"fill": {"age": "modus"}}, "fill", r"age is 'modus' \(allowed: median, mean, most_frequent, or a number\)"),
        ({"fill": {"age": True}}, "fill", "age is True"),
        ({"categories": {"sick": [0, 1]}}, "categories", "'sick' is no feature"),
        ({"categories": {"*": [0, 1]}}, "categories", r"'\*' is no feature"),
        ({"categories": {"age": []}}, "categories", "age needs at least one value, each once"),
        ({"categories": {"age": [1, 1.0]}}, "categories", "age needs at least one value, each once"),
        ({"categories": {"age": [1, None]}}, "categories", r"age has an empty value, which is a gap; let fill say"),
        ({"fill": {"age": 1e39}}, "fill", r"age is 1e\+39"),
        ({"categories": {"age": [1, 2, "*"]}, "fill": {"age": "median"}}, "fill", "age is 'median'"),
        ({"target": "numbers"}, "target", "unknown 'numbers'"),
    ],
)
def test_rules_that_contradict_themselves_are_refused(fields, where, message):
    with pytest.raises(ConfigError, match=message) as caught:
        task(**fields)
    assert [problem.path for problem in caught.value.problems] == [where]


def test_a_number_is_learned_by_least_squares(tmp_path):
    path = tmp_path / "north.parquet"
    pa.parquet.write_table(columns(40, days=pa.array([3.0 * n + 2 for n in range(40)])), path)
    some = task(features=["age"], label="days", target="number", test_fraction=0.25)
    data = some.data("north", path=str(path))
    model = some.model()
    assert data.train.tensors[1].dtype == torch.float32 and isinstance(model, torch.nn.Linear)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.bias.fill_(1.0)
    assert some.loss(model, data.train[:]).item() == 1.0
    found = some.predict(model, data.test[:]).own
    assert found["absolute_error"].tolist() == [1.0] * 10 and found["squared_error"].tolist() == [1.0] * 10
    assert some.metrics() == {"absolute_error": "min", "squared_error": "min"}
    pa.parquet.write_table(pa.table({"age": [1, 2], "days": [1.0, None]}), path)
    with pytest.raises(DataError, match="column 'days' has 1 null in 2 rows; fill or drop them"):
        some.data("north", path=str(path))
