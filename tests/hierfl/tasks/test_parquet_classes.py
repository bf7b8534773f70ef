"""Labels that are words, in the order of the classes that the task names."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from hierfl.errors import ConfigError, DataError
from hierfl.tasks.parquet import Parquet

WRITERS = {"parquet": pa.parquet.write_table, "feather": pa.feather.write_feather, "csv": pa.csv.write_csv}


def columns(sick):
    use = ["test" if i % 5 == 0 else "train" for i in range(10)]
    return pa.table({"age": list(range(10)), "dose": np.linspace(0, 1, 10), "sick": pa.array(sick), "use": use})


def task(**fields):
    return Parquet(**({"features": ["dose", "age"], "label": "sick", "standardise": "none"} | fields))


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize(
    ("values", "classes"),
    [(["no", "yes"], ["no", "yes"]), ([False, True], [False, True]), (["01", "02"], ["01", "02"]), ([1, 2], [1, 2])],
    ids=["words", "truth", "codes", "numbers"],
)
def test_labels_may_be_words_in_an_agreed_order(ending, values, classes, tmp_path):
    """Also where a site has one of them alone, and a CSV file would be read as something else."""
    for name, used in (("both", values), ("one", values[1:])):
        path = tmp_path / f"{name}.{ending}"
        WRITERS[ending](columns([used[i % 3 % len(used)] for i in range(10)]), path)
        labels = [values.index(used[i % 3 % len(used)]) for i in range(10) if i % 5]
        data = task(split="use", classes=classes).data(name, path=str(path))
        assert data.train.tensors[1].tolist() == labels
    swapped = task(split="use", classes=classes[::-1]).data("both", path=str(tmp_path / f"both.{ending}"))
    assert swapped.train.tensors[1].tolist() == [1 - (i % 3 % 2) for i in range(10) if i % 5]


def test_words_decide_how_many_classes_there_are():
    three = task(classes=["low", "high", "none"])
    assert three.model().weight.shape == (3, 2) and "sensitivity" not in three.metrics()
    assert task(classes=["low", "high", "none"], num_classes=3).model().weight.shape == (3, 2)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["benign", "benigne"] * 5, r"column 'sick' has 5 values that are no category of it; classes names all"),
        (["benign", None] * 5, "column 'sick' has 5 gaps in 10 rows; drop these rows"),
    ],
)
def test_a_label_that_is_none_of_the_words_is_told(labels, said, tmp_path):
    pa.parquet.write_table(columns(labels), tmp_path / "north.parquet")
    with pytest.raises(DataError, match=said):
        task(classes=["benign", "malignant"]).data("north", path=str(tmp_path / "north.parquet"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"classes": ["sick"]}, "classes: needs two values at least"),
        ({"classes": ["sick", "*"]}, "each by its name"),
        ({"classes": ["sick", "sick"]}, "classes: sick needs at least one value, each once"),
        ({"classes": [False, "maybe"]}, "classes: sick has true or false among its words"),
        ({"classes": ["a", "b", "c"], "num_classes": 4}, "num_classes: is 4, and classes names 3"),
        ({"classes": ["a", "b"], "target": "number"}, "leave them out with target: number"),
    ],
)
def test_words_that_contradict_themselves_are_refused(fields, said):
    with pytest.raises(ConfigError, match=said.replace("*", r"\*")):
        task(**fields)


def test_words_in_a_column_of_numbers_have_a_way_out(tmp_path):
    pa.parquet.write_table(columns(["no", "yes"] * 5), tmp_path / "north.parquet")
    with pytest.raises(DataError, match=r"needed: integers, floats or booleans, or the words in it \(classes"):
        task().data("north", path=str(tmp_path / "north.parquet"))
