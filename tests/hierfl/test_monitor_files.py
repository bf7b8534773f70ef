from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monitor_script as script
import numpy as np
import pytest

from hierfl.errors import OutputError
from hierfl.monitor import files, parts
from hierfl.monitor.files import EVENTS, METRICS, TOGETHER, JsonLines, as_json, read_events, read_metrics
from hierfl.monitor.records import Evaluated, FaultInjected, Leased, Notice, RunEnded, RunStarted, SiteTrained


def write(run_dir: Path, records) -> None:
    with contextlib.closing(JsonLines(run_dir)) as lines:
        for record in records:
            lines.on(record)


def test_every_record_is_one_line_in_order(tmp_path):
    records = script.run(script.heart())
    write(tmp_path, records)
    events = list(read_events(tmp_path))
    assert len(events) == len(records)
    assert [event["event"] for event in events[3:7]] == ["phase", "run_started", "nodes_changed", "phase"]
    assert [event["time_s"] for event in events] == [record.time_s for record in records]
    trained = next(event for event in events if event["event"] == "site_trained")
    assert trained["node"] == "world/us/cleveland"
    assert trained["num_steps"] == 100


def test_who_leads_the_run_no_more_writes_no_more(tmp_path):
    leads = True
    lines = JsonLines(tmp_path, lambda: leads)
    lines.on(Notice(0.0, "info", "", "flushed"))
    lines.on(trained := SiteTrained(1.0, "w/a", 1, "worker-0", 0.1, 3, 1, 0.5))
    leads = False
    lines.on(Notice(2.0, "info", "", "flushed, too"))
    leads = True  # what it hears afterwards makes no difference
    for record in [trained] * (TOGETHER + 1):
        lines.on(record)
    lines.close()
    assert [event["time_s"] for event in read_events(tmp_path)] == [0.0]


def test_one_line_of_metrics_per_node_and_round(tmp_path):
    federation = script.heart()
    write(tmp_path, script.run(federation))
    rows = list(read_metrics(tmp_path))
    places = [(row["round"], row["node"]) for row in rows]
    assert places == [(number, node) for number in range(1, 16) for node in federation.nodes]
    assert list(rows[0])[:6] == ["round", "node", "num_test", "accuracy", "auc", "loss"]
    undefined = {row["node"] for row in rows if row["auc"] is None}
    assert undefined == {"world/switzerland", "world/switzerland/zurich_basel"}


def test_undefined_metrics_are_null_even_where_a_monitor_gets_nan(tmp_path):
    trained = SiteTrained(1.0, "w/a", 1, "worker-0", 0.1, 3, 1, math.nan)
    write(tmp_path, [trained, Evaluated(1.0, 1, {"w": {"auc": math.nan, "loss": math.inf}})])
    assert "NaN" not in (tmp_path / EVENTS).read_text() + (tmp_path / METRICS).read_text()
    assert next(read_events(tmp_path))["loss"] is None
    row = {"round": 1, "node": "w", "num_test": None, "accuracy": None, "auc": None, "loss": None}
    assert list(read_metrics(tmp_path)) == [row]


def test_numpy_and_paths_become_plain_json():
    value = {
        "a": np.float32(0.5),
        "b": np.int64(3),
        "c": np.array([1.0, np.nan]),
        "d": Path("x/y"),
        "e": frozenset("z"),
    }
    assert json.loads(as_json(value)) == {"a": 0.5, "b": 3, "c": [1.0, None], "d": "x/y", "e": ["z"]}


@pytest.mark.parametrize("num_sites", [0, 1, 999])
def test_a_torn_last_line_is_left_out_and_cut_off_on_resume(tmp_path, num_sites):
    write(tmp_path, script.run(script.heart(), until=2))
    whole = len(list(read_events(tmp_path)))
    with (tmp_path / EVENTS).open("a") as file:
        file.write('{"event":"run_star' + "world/site," * num_sites)
    assert len(list(read_events(tmp_path))) == whole
    write(tmp_path, [Notice(0.0, "info", "", "resumed")])
    assert [event["event"] for event in read_events(tmp_path)][-1] == "notice"
    assert len(list(read_events(tmp_path))) == whole + 1


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    (tmp_path / EVENTS).write_text('{"event":"notice"}\nrubbish\n{"event":"notice"}\n')
    with pytest.raises(OutputError, match=r"events\.jsonl is damaged at line 2"):
        list(read_events(tmp_path))


def test_no_files_give_no_events(tmp_path):
    assert list(read_events(tmp_path)) == []
    assert list(read_metrics(tmp_path)) == []


def test_a_resumed_run_has_each_round_once_in_the_metrics(tmp_path):
    federation = script.heart()
    write(tmp_path, script.run(federation, until=5))  # the last checkpoint was of round 3
    write(tmp_path, script.run(federation, first=4))
    rows = list(read_metrics(tmp_path))
    assert [(r["round"], r["node"]) for r in rows] == [(n, node) for n in range(1, 16) for node in federation.nodes]
    starts = [event["first_round"] for event in read_events(tmp_path) if event["event"] == "run_started"]
    assert starts == [1, 4]


@pytest.mark.parametrize("first", [*range(42), 100])
def test_a_run_of_weeks_is_taken_up_without_reading_all_its_metrics(tmp_path, monkeypatch, first):
    """Rounds from 1 to 40, of lines of many lengths; those before `first` stay, whatever there is of others."""
    rounds = [number for number in range(1, 41) for _ in range(1 + number % 3)]
    rows = [{"round": number, "node": "w" * (place * 7 % 50)} for place, number in enumerate(rounds)]
    (tmp_path / METRICS).write_text("".join(as_json(row) + "\n" for row in rows))
    parsed, whole = [], json.loads
    monkeypatch.setattr("hierfl.monitor.files.json.loads", lambda text: parsed.append(text) or whole(text))
    lines = JsonLines(tmp_path)
    lines.on(RunStarted(0.0, "run", "", "local", (), 50, first, 1, {}))
    lines.close()
    assert len(parsed) <= 14, "of 80 lines so many as halving looks at"
    monkeypatch.undo()
    assert list(read_metrics(tmp_path)) == [row for row in rows if row["round"] < first]


def test_a_file_that_grows_for_weeks_is_packed_in_parts_and_nothing_is_lost(tmp_path, monkeypatch):
    federation = script.heart()
    write(tmp_path / "whole", script.run(federation))
    monkeypatch.setattr("hierfl.monitor.parts.PART_BYTES", 2000)
    write(tmp_path / "parts", script.run(federation))
    for read in (read_events, read_metrics):
        assert list(read(tmp_path / "parts")) == list(read(tmp_path / "whole"))
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    events = [name for name in names if name.startswith("events-")]
    assert len(events) > 5 and {name.endswith(".gz") for name in events[:-2]} == {True} and EVENTS in names
    assert not [name for name in names if "partial" in name]
    write(tmp_path / "parts", script.run(federation, first=9))  # the last checkpoint was of round 8
    again = list(read_metrics(tmp_path / "parts"))
    assert again == list(read_metrics(tmp_path / "whole")), "rounds from 9 on were dropped, from packed parts too"
    assert [event["event"] for event in read_events(tmp_path / "parts")].count("run_started") == 2


def test_a_part_that_is_there_twice_counts_once(tmp_path, monkeypatch):
    """A process was killed between packing a part and dropping what it was."""
    monkeypatch.setattr("hierfl.monitor.parts.PART_BYTES", 2000)
    write(tmp_path, script.run(script.heart()))
    events = list(read_events(tmp_path))
    for packed in tmp_path.glob("events-*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    assert list(read_events(tmp_path)) == events
    write(tmp_path, [Notice(0.0, "info", "", "x" * 2000)])
    assert not [part for part in tmp_path.glob("events-*.jsonl") if part.with_name(f"{part.name}.gz").exists()]


def test_parts_are_packed_while_the_run_goes_on_and_take_less_room(tmp_path, monkeypatch):
    monkeypatch.setattr("hierfl.monitor.parts.PART_BYTES", 2000)
    lines = JsonLines(tmp_path)
    for number in range(60):
        lines.on(Notice(float(number), "info", "", "all is well, and goes on"))
        if lines._events._packing is not None:
            lines._events._packing.join()
    packed = list(tmp_path.glob("events-*.gz"))
    assert len(packed) == len(list(tmp_path.glob("events-*"))) - 1 > 0
    assert all(part.stat().st_size < 1000 for part in packed)
    lines.close()


def numbered(path: Path) -> Path:
    """Write a file of one line and two parts: lines 0, 1 and 2."""
    for number in range(3):
        if number:
            parts.put_aside(path)
        path.write_bytes(b"%d\n" % number)
    return path


@pytest.mark.parametrize("late", [False, True])
def test_what_becomes_a_part_and_is_packed_while_it_is_read_counts_once(tmp_path, monkeypatch, late):
    """Just before, or just after, a reader of the file has looked which parts there are."""
    path, find = numbered(tmp_path / "x.jsonl"), parts._parts

    def grown(own: Path) -> dict[int, Path]:
        monkeypatch.setattr("hierfl.monitor.parts._parts", find)
        found = find(own)
        parts.put_aside(own)
        own.write_bytes(b"3\n")
        parts.pack(own).join()
        return found if late else find(own)

    monkeypatch.setattr("hierfl.monitor.parts._parts", grown)
    assert [line for _, lines in parts.opened(path) for line in lines] == [b"0\n", b"1\n", b"2\n"]
    assert [line for _, lines in parts.opened(path) for line in lines] == [b"0\n", b"1\n", b"2\n", b"3\n"]


def mortal(left: list[int], done: Callable[..., Any]) -> Callable[..., Any]:
    """Let a call be made until so many are, and none after that."""

    def one(*args: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("killed")
        return done(*args, **more)

    return one


def test_wherever_taking_up_is_killed_each_round_is_there_once_the_next_time(tmp_path, monkeypatch):
    monkeypatch.setattr("hierfl.monitor.parts.PART_BYTES", 2000)
    federation = script.heart()
    write(tmp_path / "run", script.run(federation))
    rows = list(read_metrics(tmp_path / "run"))
    again = next(record for record in script.run(federation, first=9) if isinstance(record, RunStarted))
    for num in range(100):
        folder, left = tmp_path / str(num), [num]
        shutil.copytree(tmp_path / "run", folder)
        dead = JsonLines(folder)
        with monkeypatch.context() as dying, contextlib.suppress(OutputError):
            for name in ("rename", "replace", "unlink"):
                dying.setattr(os, name, mortal(left, getattr(os, name)))
            dead.on(again)
        dead.let_go()
        dead.close()
        write(folder, [again])
        assert list(read_metrics(folder)) == [row for row in rows if row["round"] < 9], f"killed at {num}"
        if left[0] >= 0:
            break
    assert num > 6, "several parts were taken back"


def test_a_part_that_cannot_be_put_aside_ends_the_run_and_its_end_is_told_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("hierfl.monitor.parts.PART_BYTES", 2000)
    lines = JsonLines(tmp_path)
    with monkeypatch.context() as locked:
        locked.setattr(os, "rename", mortal([0], os.rename))
        with pytest.raises(OutputError, match=r"cannot write .*events\.jsonl"):
            lines.on(Notice(0.0, "info", "", "x" * 2000))
    lines.on(RunEnded(1.0, "failed"))
    lines.close()
    assert [event["event"] for event in read_events(tmp_path)] == ["notice", "run_ended"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_part_that_cannot_be_packed_stays_as_it_is(tmp_path, monkeypatch):
    """A disk that is full, say; what an earlier process had packed half is dropped."""
    monkeypatch.setattr("hierfl.monitor.parts.PART_BYTES", 2000)
    (tmp_path / ".events-000001.jsonl.gz.1.partial").write_bytes(b"half")
    with monkeypatch.context() as full:
        full.setattr("hierfl.monitor.parts.os.fsync", lambda handle: os.write(os.open("/dev/full", os.O_WRONLY), b"0"))
        write(tmp_path, script.run(script.heart(), until=5))
    assert not list(tmp_path.glob("*.gz")) and not list(tmp_path.glob(".*.partial"))
    write(tmp_path, script.run(script.heart(), first=6))
    assert list(tmp_path.glob("events-000001.jsonl.gz")) and not list(tmp_path.glob("events-000001.jsonl"))
    assert {row["round"] for row in read_metrics(tmp_path)} == set(range(1, 16))


@pytest.mark.parametrize("damaged", [lambda whole: whole[:-20], lambda whole: b"x" + whole, lambda whole: whole[:20]])
def test_a_damaged_part_is_named(tmp_path, monkeypatch, damaged):
    monkeypatch.setattr("hierfl.monitor.parts.PART_BYTES", 2000)
    write(tmp_path, script.run(script.heart()))
    for packed in tmp_path.glob("*.gz"):
        packed.write_bytes(damaged(packed.read_bytes()))
    with pytest.raises(OutputError, match=r"cannot read .*events\.jsonl"):
        list(read_events(tmp_path))
    with pytest.raises(OutputError, match=r"metrics-\d+\.jsonl\.gz is damaged: .*; delete it to go on without"):
        write(tmp_path, script.run(script.heart(), first=1))


def test_each_round_is_on_disk_when_it_is_committed(tmp_path):
    lines = JsonLines(tmp_path)
    for record in script.run(script.heart(), until=2):
        lines.on(record)
    events = list(read_events(tmp_path))
    assert events[-1]["event"] == "round_committed"
    assert {row["round"] for row in read_metrics(tmp_path)} == {1, 2}
    lines.close()
    lines.close()


def test_a_round_without_a_checkpoint_waits_a_moment_for_the_next_and_one_with_it_does_not(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(files.time, "monotonic", lambda: now)
    lines = JsonLines(tmp_path)
    seen = []
    for number, (at_s, checkpoint) in enumerate([(0.0, None), (0.01, None), (0.02, "here"), (0.03, None), (0.3, None)]):
        now = at_s
        lines.on(files.RoundCommitted(at_s, number, 5, 0.01, 1.0, checkpoint))
        seen.append(len(list(read_events(tmp_path))))
    lines.close()
    assert seen == [1, 1, 3, 3, 5]


def test_what_one_waits_for_or_a_process_may_not_outlive_can_be_read_at_once(tmp_path):
    lines = JsonLines(tmp_path)
    lines.on(Leased(1.0, "gpu-0", "one", "recalled", "other wants it"))
    assert [event["change"] for event in read_events(tmp_path)] == ["recalled"]
    lines.on(FaultInjected(1.0, "kill", "world", "before_checkpoint", 1))
    assert [event["event"] for event in read_events(tmp_path)][1:] == ["fault_injected"]
    lines.close()


def test_what_waits_is_written_when_it_is_much_and_at_the_end_unless_another_process_writes_now(tmp_path):
    trained = [record for record in script.run(script.heart()) if isinstance(record, SiteTrained)]
    lines = JsonLines(tmp_path / "long")
    for _ in range(5 * TOGETHER // len(trained)):
        for record in trained:
            lines.on(record)
    seen = len(list(read_events(tmp_path / "long")))
    assert seen >= 3 * TOGETHER, "a round of ten thousand sites does not wait in memory for its end"
    lines.close()
    assert len(list(read_events(tmp_path / "long"))) == 5 * TOGETHER // len(trained) * len(trained) > seen
    lines = JsonLines(tmp_path / "left")
    lines.on(trained[0])
    lines.let_go()
    lines.close()
    assert not list(read_events(tmp_path / "left"))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 1.0])
def test_a_stop_while_lines_are_made_loses_none(share, tmp_path, monkeypatch):
    """Of a round's events, which wait for its commit, and of its rows in the metrics."""
    records = [record for record in script.run(script.heart(), until=2) if not isinstance(record, Notice)]
    made = []
    lines = {name: JsonLines(tmp_path / name) for name in ("whole", "stopped")}
    for file in lines.values():
        for record in records[:-1]:
            file.on(record)

    def counted(value):
        made.append(value)
        return as_json(value)

    with monkeypatch.context() as counting:
        counting.setattr("hierfl.monitor.files.as_json", counted)
        lines["whole"].on(records[-1])
    assert len(made) > 30, "a round waits for its commit"
    left = [1 + int(share * (len(made) - 1))]

    def stopped(value):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return as_json(value)

    with monkeypatch.context() as stopping:
        stopping.setattr("hierfl.monitor.files.as_json", stopped)
        with pytest.raises(KeyboardInterrupt):
            lines["stopped"].on(records[-1])
    for file in lines.values():
        file.close()
    for name in (EVENTS, METRICS):
        assert (tmp_path / "stopped" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_thousands_of_sites_cost_a_line_each_and_no_table_twice(tmp_path):
    federation = script.wide(20, 100, rounds=2)
    records = script.run(federation)
    lines = JsonLines(tmp_path)
    for record in records:
        lines.on(record)
    lines.close()
    sizes = {}
    with (tmp_path / EVENTS).open() as file:
        for line in file:
            event = json.loads(line)["event"]
            sizes[event] = max(sizes.get(event, 0), len(line))
    assert sizes["site_trained"] < 250
    assert sizes["evaluated"] < 300  # not 2,021 nodes: metrics.jsonl holds them
    with (tmp_path / METRICS).open() as file:
        assert sum(1 for _ in file) == 2 * len(federation.nodes)
    with (tmp_path / EVENTS).open() as file:
        long = [len(line) for line in file if len(line) > 20_000]
    assert len(long) == sum(isinstance(record, RunStarted | RunEnded) for record in records)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*file.*output\.dir"):
        JsonLines(tmp_path / "file" / "run")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / EVENTS).symlink_to("/dev/full")
    lines = JsonLines(tmp_path)
    with pytest.raises(OutputError, match=r"events\.jsonl: No space left"):
        lines.on(Notice(0.0, "info", "", "x"))
    with pytest.raises(OutputError):
        lines.close()
