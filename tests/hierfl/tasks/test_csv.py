"""CSV files as hospitals of many countries write them: read as told, and where nothing is told, a hint that helps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import config_of, hub, site

from hierfl.errors import ConfigError, DataError, told_above
from hierfl.tasks._csv import Csv
from hierfl.tasks.parquet import Parquet

ROWS = [("Köln", "1.5", 0), ("Bonn", "-2.25", 1), ("Köln", "", 1), ("Ulm", "3", 0)]
TASK = Parquet(
    ["stadt", "größe"], "krank", categories={"stadt": ["Köln", "Bonn", "*"]}, fill={"größe": 0.5}, test_fraction=0.0
)
GERMAN = {"delimiter": ";", "decimal": ",", "encoding": "latin-1"}


def written(folder: Path, delimiter: str = ",", decimal: str = ".", encoding: str = "utf-8", end: str = "\n") -> str:
    lines = [delimiter.join(["stadt", "größe", "krank"])]
    lines += [delimiter.join([town, size.replace(".", decimal), str(ill)]) for town, size, ill in ROWS]
    file = folder / "daten.csv"
    file.write_bytes("".join(line + end for line in lines).encode(encoding))
    return str(file)


@pytest.mark.parametrize(
    "how",
    [
        {},
        GERMAN,
        {"delimiter": "\t", "encoding": "utf-16"},
        {"delimiter": "|", "decimal": ",", "encoding": "cp1252", "end": "\r\n"},
        {"encoding": "utf-8-sig"},
    ],
    ids=["plain", "german", "excel", "windows", "bom"],
)
def test_a_file_is_read_as_it_is_told_to_be_written(how: dict[str, str], tmp_path: Path) -> None:
    file = written(tmp_path, **how)
    told = {key: value for key, value in how.items() if key != "end"}
    if told.get("delimiter") == "\t":
        told["delimiter"] = "tab"
    x, y = TASK.data("s", file, **told).train.tensors  # type: ignore[attr-defined, arg-type]
    assert x.tolist() == [[1, 0, 0, 1.5], [0, 1, 0, -2.25], [1, 0, 0, 0.5], [0, 0, 1, 3]]
    assert y.tolist() == [ill for *_, ill in ROWS]
    assert TASK.num_samples("s", file, **told) == (4, 0)
    assert TASK.table("s", file, **told).column_names == ["stadt", "größe", "krank"]
    assert TASK.records(file, **told)[1].tolist() == x.tolist()


@pytest.mark.parametrize(
    ("written_as", "told", "says"),
    [
        ({"delimiter": ";"}, {}, r"first line has 2 times ';' and 0 times ',', so tell .* data: {delimiter: ';'}$"),
        ({"delimiter": ";", "decimal": ","}, {}, r"Expected 1 columns, got 2; its first.*data: {delimiter: ';'}$"),
        ({"delimiter": "\t"}, {}, r"data: {delimiter: tab}$"),
        ({}, {"delimiter": ";", "decimal": ","}, r"data: {delimiter: ','}$"),
        (
            {"delimiter": ";", "decimal": ","},
            {"delimiter": ";"},
            r"'größe' is of type string.*decimal commas.*{decimal: ','}$",
        ),
        ({"encoding": "latin-1"}, {}, r"is not written in utf-8; .*{encoding: latin-1}, or cp1252, utf-16$"),
        ({"encoding": "utf-16"}, {}, r"written in UTF-16, .*{encoding: utf-16}$"),
        ({"encoding": "utf-16"}, {"encoding": "latin-1"}, r"{encoding: utf-16}$"),
        ({"encoding": "utf-32"}, {}, r"written in UTF-32, .*{encoding: utf-32}$"),
        ({}, {"encoding": "latin-1"}, r"it is written in utf-8, not in latin-1: data: {encoding: utf-8}$"),
        ({"delimiter": ";"}, {"delimiter": ";", "decimal": ","}, r"decimal points, .*{decimal: '.'}$"),
    ],
)
def test_what_was_not_told_is_found_in_the_file(
    written_as: dict[str, str], told: dict[str, Any], says: str, tmp_path: Path
) -> None:
    file = written(tmp_path, **written_as)
    with pytest.raises(DataError, match=rf"^site 's': {re.escape(file)}: .*{says}") as raised:
        TASK.data("s", file, **told)
    assert not any(town in str(raised.value) for town, *_ in ROWS), "a record is for nobody else to read"


def test_text_in_another_encoding_is_told_by_its_column_and_else_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes("stadt,krank,note\nUlm,1,naïve\nBonn,0,x\n".encode("latin-1"))
    used = Parquet(["note"], "krank", categories={"note": ["*"]})
    with pytest.raises(DataError, match=r"column 'note': it is not written in utf-8"):
        used.data("s", str(file))
    unused = Parquet(["stadt"], "krank", categories={"stadt": ["*"]}, test_fraction=0.0)
    assert len(unused.data("s", str(file)).train) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"delimiter": ";;"}, "delimiter is ';;' (allowed: ',', ';', 'tab', "),
        ({"delimiter": ""}, "delimiter is ''"),
        ({"delimiter": '"'}, "delimiter is '\"'"),
        ({"decimal": "."}, ""),
        ({"decimal": "·"}, "decimal is '·' (allowed: '.', ',')"),
        ({"encoding": "latin1"}, ""),
        ({"delimiter": "§"}, "delimiter is '§'"),
        *(
            ({"encoding": bad}, f"encoding is {bad!r}, which is none")
            for bad in ("utf8x", "base64", "rot13", "idna", "a\0b")
        ),
    ],
)
def test_what_a_file_cannot_be_written_in_is_refused(how: dict[str, str], says: str, tmp_path: Path) -> None:
    assert Csv(**how).problem().startswith(says) and bool(Csv(**how).problem()) is bool(says)
    if says:
        with pytest.raises(DataError, match=re.escape(says)):
            TASK.data("s", written(tmp_path), **how)  # type: ignore[arg-type]


def test_a_text_of_several_lines_is_one_value_however_long_the_file(tmp_path: Path) -> None:
    file, num = tmp_path / "notes.csv", 120_000
    file.write_text("x,y,note\n" + "".join(f'{i},{i % 2},"seen\non {i}"\n' for i in range(num)))
    x, _ = Parquet(["x"], "y", test_fraction=0.0).data("s", str(file)).train.tensors  # type: ignore[attr-defined]
    assert np.array_equal(x[:, 0].numpy(), np.arange(num))


def test_codes_that_begin_with_a_zero_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "codes.csv"
    file.write_text("icd,ward,y\n01,3,0\n1,3,1\n010,4,0\n,3,1\n")
    task = Parquet(
        ["icd", "ward"], "y", categories={"icd": ["01", "010", "1", "*"], "ward": ["3", "4"]}, test_fraction=0.0
    )
    x, _ = task.data("s", str(file)).train.tensors  # type: ignore[attr-defined]
    assert x[:, :4].argmax(1).tolist() == [0, 2, 1, 3]
    with pytest.raises(ConfigError, match=r"icd has numbers among codes that are none, such as 01; quote all of them"):
        Parquet(["icd"], "y", categories={"icd": [1, "08"]})


def test_words_that_yaml_takes_for_true_and_false_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"land has true or false among its words; YAML takes no, yes"):
        Parquet(["land"], "y", categories={"land": [False, "se", "dk"]})
    file = tmp_path / "smokes.csv"
    file.write_text("smokes,y\nno,0\nyes,1\n")
    with pytest.raises(DataError, match=r"(?s)no category of it; YAML takes no, yes, on and off.*'no' is the first"):
        Parquet(["smokes"], "y", categories={"smokes": [False, True]}).data("s", str(file))
    file.write_text("smokes,y\nfalse,0\ntrue,1\n")
    made = Parquet(["smokes"], "y", categories={"smokes": [False, True]}, test_fraction=0.0).data("s", str(file))
    assert made.train.tensors[0].tolist() == [[1, 0], [0, 1]]  # type: ignore[attr-defined]


def test_a_hub_says_it_for_all_of_its_hospitals_and_one_for_itself(tmp_path: Path) -> None:
    """Keys are checked before anything starts, with the nearest word."""
    written(tmp_path)
    here = str(tmp_path / "daten.csv")
    north = hub("north", site("a", path=here), site("b", path=here, delimiter="tab"))
    north["data"] = {"delimiter": ";", "decimal": ","}
    task = {"kind": "parquet", "features": ["x"], "label": "y"}
    config = config_of(tmp_path, hub("world", north, site("c", path=here)), task)
    told = {path.rpartition("/")[2]: settings.source for path, settings in config.sites.items()}
    assert told["a"] == {"path": here, "delimiter": ";", "decimal": ","}
    assert told["b"] == {"path": here, "delimiter": "tab", "decimal": ","} and told["c"] == {"path": here}
    with pytest.raises(ConfigError, match=r"data\.delimeter: unknown key.*delimiter"):
        config_of(tmp_path, hub("world", site("a", path=here, delimeter=";")), task)
    with pytest.raises(ConfigError, match=r"data\.delimiter: is ';;' \(.*allowed: ,, ;, tab"):
        config_of(tmp_path, hub("world", site("a", path=here, delimiter=";;")), task)
    with pytest.raises(ConfigError, match=r"data\.decimal: .*'komma'.*"):
        config_of(tmp_path, hub("world", site("a", path=here, decimal="komma")), task)


ODD = {
    "no names": (
        "Mueller Hans,1955,C34,1\nMeier Eva,1960,C50,0\n",
        "no column 'a'; its first line is to name the columns",
    ),
    "excel": ("sep=;\na;b\n1;0\n", "its first line is Excel's sep=, .*: delete that line$"),
    "a stray quote": (
        'a,b,note\n63,1,a\n50,0,"Mueller\n40,1,c\n30,0,d\n',
        "in line 5, .* a quote stands where none can",
    ),
    "two stray quotes": ('a,b,n\n1,1,"Mueller\n2,0,b\n3,1,"c\n4,0,d\n', "in line 4, .* a quote stands where none can"),
    "semicolons among names": ('"a;b;c",b\n1,0\n', "no column 'a'; its first line is to name the columns"),
    "commas and points": (
        'a,b\n1.5,0\n"2,5",1\n',
        "'a' has 1 value that is no number; needed: numbers, or an empty cell, or its",
    ),
    "some commas": ('a,b\n63,0\n"50,5",1\n', "it has decimal commas, .*{decimal: ','}$"),
    "twice": ("a,a,b\n1,2,0\n", "has several columns 'a'"),
    "ragged": ("a,b\n1,0\nMueller,1,7\n", "Expected 2 columns, got 3$"),
    "nothing": ("", "Empty CSV file$"),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_file_is_told_in_a_line_that_holds_none_of_it(odd: str, tmp_path: Path) -> None:
    content, says = ODD[odd]
    file = tmp_path / "odd.csv"
    file.write_text(content)
    with pytest.raises(DataError, match=says) as raised:
        Parquet(["a"], "b", test_fraction=0.0).data("s", str(file))
    above = told_above(str(raised.value))
    assert above is not None and re.search(says, above.partition("; what is wrong there")[0]), above
    assert "Mueller" not in above and str(tmp_path) in str(raised.value)
    assert above.startswith("site 's': odd.csv: "), "where it lies is the site's own affair"


def test_what_is_quoted_where_it_may_be_is_read_as_it_stands(tmp_path: Path) -> None:
    """Inches, quotes within a text, decimal commas in quotes, a row that is longer than a megabyte."""
    file = tmp_path / "a.csv"
    file.write_text('a,b,note\n"1,5",0,5\'11"\n"2,25",1,"she said ""no""\nand left"\n')
    x, y = Parquet(["a"], "b", test_fraction=0.0).data("s", str(file), decimal=",").train.tensors  # type: ignore[attr-defined]
    assert x.tolist() == [[1.5], [2.25]] and y.tolist() == [0, 1]
    genes = [f"gene{number:06d}" for number in range(150_000)]
    file.write_text(",".join([*genes, "a", "b"]) + "\n" + "1," * len(genes) + "3,1\n")
    assert Parquet(["a"], "b", test_fraction=0.0).data("s", str(file)).train.tensors[0].tolist() == [[3]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("codes", "rows", "places"),
    [
        (["250.1", "250.10"], ["250.10", "250.1"], [1, 0]),
        (["100", "1E2"], ["1E2", "100"], [1, 0]),
        (["1", "+1", "0x1"], ["0x1", "1", "+1"], [2, 0, 1]),
        (["TRUE", "true"], ["true", "TRUE"], [1, 0]),
        (["9007199254740992", "9007199254740993"], ["9007199254740993"], [1]),
        ([1, 2], ["1.0", "2.0"], [0, 1]),
        (["1", "2"], ["2", "1"], [1, 0]),
    ],
)
def test_codes_that_a_number_would_make_one_stay_apart(
    codes: list[Any], rows: list[str], places: list[int], tmp_path: Path
) -> None:
    file = tmp_path / "codes.csv"
    file.write_text("code,y\n" + "".join(f"{row},0\n" for row in rows))
    x, _ = Parquet(["code"], "y", categories={"code": codes}, test_fraction=0.0).data("s", str(file)).train.tensors  # type: ignore[attr-defined]
    assert x.argmax(1).tolist() == places


def test_a_file_that_nobody_may_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "a.csv"
    file.write_text("a,b\n1,0\n")
    monkeypatch.setattr(Csv, "read", refuse)
    with pytest.raises(DataError, match=r"a\.csv: cannot be read: Permission denied$"):
        Parquet(["a"], "b").data("s", str(file))
