"""What a report reads of a run of weeks: as much as its pictures show, and each last figure."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import monitor_script as script
import pytest

from hierfl.monitor import pictures
from hierfl.monitor.files import METRICS, JsonLines, Raw, as_json, read_raw
from hierfl.monitor.run_record import read_run
from hierfl.monitor.thin import thinned

NODES = ("world", "world/a", 'world/"b\\')


def rows(num_rounds: int, every: int = 1) -> list[dict]:
    table = [[3, 1], [0, 4]]
    return [
        {"round": number, "node": node, "num_test": 8, "accuracy": number / 1000, "own": 1.0, "confusion": table}
        for number in range(every, num_rounds + 1, every)
        for node in NODES
    ]


def write(run_dir: Path, found: list[dict], dumps=as_json) -> Path:
    (run_dir / METRICS).write_text("".join(dumps(row) + "\n" for row in found))
    return run_dir / METRICS


@pytest.mark.parametrize("dumps", [as_json, json.dumps])
@pytest.mark.parametrize("num_rounds", [1, 9, 10, 11, 12, 99, 100, 137])
def test_rounds_are_thinned_out_evenly_and_the_last_is_kept(tmp_path, monkeypatch, num_rounds, dumps) -> None:
    monkeypatch.setattr("hierfl.monitor.thin.MOST_ROUNDS", 10)
    monkeypatch.setattr("hierfl.monitor.thin.LEAST_ROUNDS", 2)
    found = thinned(read_raw(write(tmp_path, rows(5 * num_rounds, every=5), dumps)))
    kept = list(dict.fromkeys(row["round"] for row in found.rows))
    assert kept[0] == 5 and kept[-1] == 5 * num_rounds and len(kept) <= 11
    assert {b - a for a, b in itertools.pairwise(kept[:-1])} <= {5 * found.every}
    assert found.every == 1 or len(kept) > 5, "no coarser than it must be"
    assert [row["node"] for row in found.rows] == list(NODES) * len(kept)
    assert {key for row in found.rows for key in row} == {"round", "node", "accuracy", "own"}, "what curves are of"
    assert found.last == {
        node: {k: row[k] for k in row if k not in ("round", "node")}
        for node, row in zip(NODES, rows(5 * num_rounds, every=5)[-3:], strict=True)
    }


def test_lines_of_rounds_that_are_left_out_are_not_parsed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("hierfl.monitor.thin.MOST_ROUNDS", 16)
    monkeypatch.setattr("hierfl.monitor.thin.LEAST_ROUNDS", 2)
    path, parsed = write(tmp_path, rows(2000)), []
    whole = Raw.value
    monkeypatch.setattr(Raw, "value", lambda line: parsed.append(line) or whole(line))
    assert thinned(read_raw(path)).every == 128 and len(parsed) < 3 * 16 * 8


def test_of_a_large_tree_fewer_rounds_are_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("hierfl.monitor.thin.MOST_ROWS", 90)
    monkeypatch.setattr("hierfl.monitor.thin.LEAST_ROUNDS", 2)
    assert len(thinned(read_raw(write(tmp_path, rows(400)))).rows) <= 93


def test_the_timeline_of_a_long_run_is_of_its_last_rounds_and_says_so(tmp_path, monkeypatch) -> None:
    federation = script.heart()
    lines = JsonLines(tmp_path)
    for record in script.run(federation):
        lines.on(record)
    lines.close()
    whole = read_run(tmp_path)
    assert not whole.tape.is_cut and len(whole.tape.commits) == 15
    monkeypatch.setattr("hierfl.monitor.run_record.MOST_BARS", 60)
    late = read_run(tmp_path)
    assert late.tape.is_cut and len(late.tape.bars) <= 60
    assert list(late.tape.bars) == list(whole.tape.bars)[-len(late.tape.bars) :]
    assert late.tape.devices == whole.tape.devices
    assert list(late.tape.commits) == list(whole.tape.commits)[-len(late.tape.commits) :]
    said = [text.get_text() for text in pictures.timeline(late.tape).texts]
    assert any(text == f"Timeline of the last {len(late.tape.commits)} rounds" for text in said), said


def test_curves_say_which_rounds_they_are_drawn_of() -> None:
    said = [text.get_text() for text in pictures.curves(rows(9), ["accuracy"], every=64).texts]
    assert any("after one round of 64, and the last" in text for text in said)
