"""What sites have told of their records, as a person sees it."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from hierfl.monitor.statistics import Told


def column(**told: Any) -> dict[str, Any]:
    return {"kind": "category", "count": 10, "missing": 0, **told}


def shown(told: Told, width: int = 200) -> list[str]:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(told.table(width))
    return captured.get().splitlines()


def test_names_and_words_of_others_are_text_whatever_is_in_them() -> None:
    columns = {"[/b]x": column(values={"[red]\x1b[31mA\nB": 10}), "records": column(values={"a": 10})}
    nodes = {"world": {"num_rows": 12, "columns": columns}, "world/[b]": {"num_rows": 12, "columns": {}}}
    assert [line.split() for line in shown(Told(5, nodes))] == [
        ["world", "[b]"],
        ["records", "12", "12"],
        ["[/b]x", "[red]\ufffd[31mA\ufffdB:", "100%"],
        ["'records'", "a:", "100%"],
    ]


def test_a_table_is_as_wide_as_there_is_room_and_names_a_few_that_have_none() -> None:
    columns = {f"c{number}": column(kind="number", mean=1.5, std=2.0) for number in range(5)}
    paths = ["w", *(f"w/s{number:02}" for number in range(40))]
    lines = shown(Told(5, {path: {"num_rows": 10, "columns": columns} for path in paths}), 60)
    assert lines[0].split() == ["w", "s00", "s01", "s02", "s03"] and max(map(len, lines)) <= 60
    assert "no room for s04, s05, s06, s07, s08 and 31 more: statistics.json has all" in " ".join(
        " ".join(lines).split()
    )


def test_words_of_a_site_are_shown_where_others_have_numbers() -> None:
    words, mixed = column(values={"m": 6, "f": 4}), column(kind="mixed")
    nodes = {path: {"num_rows": 10, "columns": {"sex": one}} for path, one in (("w", mixed), ("w/a", words))}
    assert Told(5, nodes).cells()["sex"] == {"w": "not the same everywhere", "w/a": "m: 60%"}


def test_a_share_beside_others_and_a_mean_of_some_say_so() -> None:
    columns = {
        "sex": column(kind="number", values={"1": 6}, others=4),
        "age": column(kind="number", mean=61.0, std=9.0, mean_of=7),
    }
    assert Told(5, {"w": {"num_rows": 10, "columns": columns}}).cells() == {
        "records": {"w": "10"},
        "sex": {"w": "1: ≥60%"},
        "age": {"w": "61 ± 9 of 7"},
    }


def test_of_values_that_are_kept_back_nobody_knows_which_share_is_missing() -> None:
    kept = {"kind": "number", "count": 0, "missing": 40, "num_withheld": 1}
    some = column(kind="number", mean=61.0, std=9.0) | {"missing": 40, "num_withheld": 1}
    assert Told(5, {"w": {"num_rows": 90, "columns": {"age": kept, "crp": some}}}).cells() == {
        "records": {"w": "90"},
        "age": {"w": "- (40 missing)"},
        "crp": {"w": "61 ± 9 (40 missing)"},
    }
