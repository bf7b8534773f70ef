"""What a report reads of a run of weeks: as much as its pictures show, and each last figure."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import monitor_script as script
import pytest

from hierfl.monitor import pictures
from hierfl.monitor.files import EVENTS, METRICS, JsonLines, Raw, as_json, read_raw
from hierfl.monitor.records import (
    Assigned,
    FaultInjected,
    LogOpened,
    Phase,
    Record,
    RoundCommitted,
    RunStarted,
    SiteTrained,
)
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


def test_of_a_node_that_has_left_the_last_figures_stay(tmp_path) -> None:
    found = [row for row in rows(9) if row["node"] != "world/a" or row["round"] < 4]
    assert thinned(read_raw(write(tmp_path, found))).last["world/a"]["accuracy"] == 0.003


def test_of_a_tree_of_thousands_some_rounds_are_kept_all_the_same(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("hierfl.monitor.thin.MOST_ROWS", 6)
    monkeypatch.setattr("hierfl.monitor.thin.LEAST_ROUNDS", 8)
    assert len({row["round"] for row in thinned(read_raw(write(tmp_path, rows(16)))).rows}) == 9


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


def told(run_dir: Path, *processes: list[Record]) -> Path:
    """Write what processes of a run told, one after the other."""
    for records in processes:
        with contextlib.closing(JsonLines(run_dir)) as lines:
            for record in (LogOpened(0.0, 0.0), *records):
                lines.on(record)
    return run_dir


def test_a_clock_that_is_set_back_makes_no_other_process(tmp_path) -> None:
    """What was told after that stands where the clock says; what another process adds comes after all."""
    first, again = in_time(script.run(script.heart(), until=5)), in_time(script.run(script.heart(), first=6))
    half = len(first) // 2
    back = [dataclasses.replace(record, time_s=record.time_s - 0.5) for record in first[half:]]
    found = read_run(told(tmp_path, [*first[:half], *back], again))
    reached_s = max(record.time_s for record in [*first[:half], *back])
    told_s = [one.time_s for one in (*first[:half], *back) if isinstance(one, RoundCommitted)]
    told_s += [reached_s + one.time_s for one in again if isinstance(one, RoundCommitted)]
    assert [time_s for _, time_s in found.tape.commits] == pytest.approx(told_s)
    assert found.sessions == 2


def test_times_of_a_run_that_was_taken_up_are_strung_together(tmp_path) -> None:
    first, again = in_time(script.run(script.heart(), until=5)), in_time(script.run(script.heart(), first=4))
    first.insert(-9, FaultInjected(1.0, "kill", "world", "before_checkpoint", 1))  # told once it was heard of
    found = read_run(told(tmp_path, first, again))
    begun_s = max(record.time_s for record in first)
    expected = [one.start_s for one in first if isinstance(one, Phase)]
    expected += [begun_s + one.start_s for one in again if isinstance(one, Phase)]
    assert [bar.start_s for bar in found.tape.bars] == pytest.approx(expected)
    assert [number for number, _ in found.tape.commits] == list(range(1, 16)) and found.sessions == 2


def test_a_process_whose_first_word_is_late_is_known_by_its_start(tmp_path) -> None:
    """Its clock is ahead of where the one before was cut off."""
    starts = [RunStarted(time_s, "heart", "", "local", ("x",), 9, 1, 14, {}) for time_s in (0.1, 2.0)]
    busy = [Phase(time_s, "x", "train", time_s - 0.1, time_s, ["w/a"], 1) for time_s in (0.9, 2.5)]
    found = read_run(told(tmp_path, [starts[0], busy[0]], [starts[1], busy[1]]))
    assert [bar.end_s for bar in found.tape.bars] == pytest.approx([0.9, 0.9 + 2.5])


def test_what_is_left_unparsed_changes_nothing_in_what_is_found(tmp_path, monkeypatch) -> None:
    """Nor does JSON that is written otherwise."""
    again = [record for one in script.run(script.heart(), first=4) for record in with_devices(one)]
    fault = FaultInjected(1.0, "kill", "world", "before_checkpoint", 1)
    told(tmp_path, in_time(script.run(script.heart(), until=5)), [*in_time(again[:-1]), fault, again[-1]])
    found = read_run(tmp_path)
    assert found.tape.devices == {"worker-0": "other-card", "worker-1": "worker-1"} and len(found.tape.bars) > 100
    monkeypatch.setattr("hierfl.monitor.run_record._EVENT", re.compile(rb"(?!)"))
    assert read_run(tmp_path) == found
    monkeypatch.undo()
    events = [json.loads(line) for line in (tmp_path / EVENTS).read_text().splitlines()]
    (tmp_path / EVENTS).write_text("".join(json.dumps(event) + "\n" for event in events))
    assert read_run(tmp_path) == found


def in_time(records: list[Record]) -> list[Record]:
    """As a run tells them: at the moment, and none before the last."""
    reached = itertools.accumulate((record.time_s for record in records), max)
    return [dataclasses.replace(record, time_s=time_s) for record, time_s in zip(records, reached, strict=True)]


def with_devices(record: Record) -> Iterator[Record]:
    """Say after each training where it was, and in round 9 that the worker has another device."""
    yield record
    if isinstance(record, SiteTrained) and record.worker == "worker-0":
        device = "card" if record.round_number < 9 else "other-card"
        yield Assigned(record.time_s, record.worker, device, "cpu", "world/us", [record.node], 1, "it is free")


def test_curves_say_which_rounds_they_are_drawn_of() -> None:
    said = [text.get_text() for text in pictures.curves(rows(9), ["accuracy"], every=64).texts]
    assert any("after one round of 64, and the last" in text for text in said)


def test_a_legend_of_long_names_lies_within_the_picture() -> None:
    hubs = [f"world/Universitätsklinikum Hamburg-Eppendorf, Kardiologie, Haus {number}" for number in range(7)]
    nodes = ["world", *hubs, *(f"{hub}/site" for hub in hubs)]
    made = pictures.curves([{"round": 1, "node": node, "accuracy": 0.5} for node in nodes], ["accuracy"])
    pictures.png(made)  # draws it, which places the legend
    (legend,), width = made.legends, made.get_size_inches()[0] * made.dpi
    assert legend.get_window_extent().x1 <= width
    assert "Universitätskl…logie, Haus 6" in [text.get_text() for text in legend.get_texts()]
