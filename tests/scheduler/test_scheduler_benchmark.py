"""The scheduler's benchmark runs, holds every contender against interleaved FIFO, and says what was lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import scheduler as benchmark


def test_the_table_has_the_floor_beside_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "found.json"
    scenarios = ["--scenario", "lidc", "--scenario", "fets-23-two"]
    assert benchmark.main(["--seeds", "1", "--sites", "64", "--devices", "8", "--json", str(found), *scenarios]) == 0
    said = json.loads(found.read_text())
    rows = {(row["scenario"], row["policy"]): row for row in said["rows"]}
    assert {policy for scenario, policy in rows if scenario == "lidc"} == set(benchmark.CONTENDERS)
    assert {policy for scenario, policy in rows if scenario != "lidc"} == {*benchmark.CONTENDERS, *benchmark.SEQUENCES}
    for row in rows.values():
        assert row["floor"] <= row["idle"] + 1e-9 and row["idle"] - row["floor"] <= row["avoidable"] + 1e-9
        assert row["efficiency"][0] == pytest.approx(row["worst"]), "one seed"
    assert rows["lidc", "fifo"]["ratio"] == [1.0, 1.0, 1.0]
    assert rows["fets-23-two", "fifo, in sequence"]["ratio"][0] > 1.2
    assert rows["lidc", "chain_first"]["faster"] is None
    ours = rows["fets-23-two", "chain_first"]
    assert 1.5 < ours["faster"][0] <= ours["limit"] and rows["fets-23-two", "fifo, in sequence"]["faster"][0] == 1.0
    assert {row["policy"] for row in said["stress"]} == set(benchmark.STRESS)
    assert said["plan"]["plan_s"] > 0 and "64 sites on 8 devices: planned in" in capsys.readouterr().out


def test_what_was_lost_is_named() -> None:
    given = ("s", "chain_first", 0.0, 0.0, 0.0, (1.0, 1.0, 1.0), 1.0, (1.05, 1.0, 1.1))
    (line,) = benchmark.lost([benchmark.Row(*given, [1.0, 1.1])])
    assert line == "s, chain_first: slower than FIFO in 1 of 2 seeds, at most 1.100 x; on average 1.050 x"
    assert benchmark.lost([benchmark.Row(*given, [0.9, 1.0])]) == []


def test_the_interval_of_a_mean_holds_it_and_shrinks_with_the_spread() -> None:
    mean, low, high = benchmark.interval([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5 and 1.0 <= low < 2.5 < high <= 4.0
    assert benchmark.interval([2.0, 2.0]) == (2.0, 2.0, 2.0)
