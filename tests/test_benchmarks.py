"""The benchmarks run, and their table says what was measured; the figures themselves are not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common import Case, Row, Sample, Size, Work, measure
from benchmarks.contenders.in_turns import InTurns
from benchmarks.contenders.setting import Setting
from benchmarks.processes import Failed, contend, watch
from benchmarks.w1 import works
from hierfl.monitor.records import RoundCommitted

ROOT = Path(__file__).parents[1]


def test_quick_run_measures_kernels_and_writes_json(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "aggregation", "--json", str(found)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads(found.read_text())
    assert content["quick"] is True
    rows = {(row["work"], row["contender"]): row for row in content["rows"]}
    assert {work for work, _ in rows} == {"aggregation, 8 x 100 MB", "encoding, 100 MB"}
    assert all(row["seconds"] > 0 and row["ratio"] > 0 for row in rows.values())
    exact = rows["aggregation, 8 x 100 MB", "hierfl"]
    assert exact["limits"] == {"seconds": 0.06, "ratio of seconds": pytest.approx(1.5)}
    assert exact["held"] is (exact["seconds"] <= 0.06 or exact["ratio"] <= 1.5)
    assert done.stdout.count("| hierfl") == 5


def test_unknown_work_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks", "--only", "w9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "w9" in done.stderr


def test_cases_take_turns_and_ratios_are_taken_turn_by_turn() -> None:
    turns: list[str] = []

    def runner(name: str, seconds: list[float]) -> Case:
        left = iter(seconds)

        def run(memory: bool) -> Sample:
            turns.append(name)
            return Sample(peak_bytes=7) if memory else Sample(next(left))

        return Case(name, run, limit_ratio=2.0 if name == "b" else None, memory=name == "b")

    # The machine is ten times as slow in the second turn: the ratios stay what they are.
    work = Work("w", "s", [runner("a", [1.0, 10.0, 1.0]), runner("b", [3.0, 30.0, 3.0])])
    first, second = measure(work, 3, lambda said: None)
    assert turns == ["a", "b", "a", "b", "a", "b", "b"]
    assert (first.seconds, first.ratio, first.held, first.peak_bytes) == (1.0, 1.0, None, None)
    assert (second.seconds, second.ratio, second.held, second.peak_bytes) == (3.0, 3.0, False, 7)


def test_what_took_turns_with_the_first_tells_its_ratio_itself() -> None:
    first = Case("a", lambda memory: Sample(1.0))
    other = Case("b", lambda memory: Sample(3.0, ratio=1.4), limit_ratio=1.5)
    _, row = measure(Work("w", "s", [first, other]), 3, lambda said: None)
    assert (row.seconds, row.ratio, row.held) == (3.0, 1.4, True)


def test_turns_in_one_process_are_compared_with_those_of_the_loop_around_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds of 2, 4, 6 ... seconds in turns of two; the loop's turns take no time, and tell 1, 2, 3 ... seconds."""
    now, told = iter(range(1000)), iter(range(1, 100))
    ends = {number: float(number * (number + 1)) for number in range(100)}
    monkeypatch.setattr("time.perf_counter", lambda: ends[next(now)])
    turns = InTurns(2, lambda: float(next(told)))
    committed = RoundCommitted(0.0, 1, 1, 0.0, 0.0, None, 0.0, 1.0, 0.0, {}, {})
    for _ in range(9):
        turns.on(committed)
    # times 0 2 6 | 12 20 30 | 42 56 72 | 90 ...: the clock is read once more where a turn of the loop ends
    assert turns.beside == [1.0, 2.0, 3.0, 4.0] and turns.own == [3.0, 9.0, 15.0, 21.0]
    assert turns.ratios() == [15.0 / 2.5, 21.0 / 3.5]


def test_a_local_run_and_the_raw_loop_take_turns_in_one_process() -> None:
    setting = Setting(2, 5000, rounds=9, network="mlp", num_workers=2, turn=2)
    said = contend("in_turns", setting)
    assert len(said["seconds"]) == len(said["ratios"]) == 2 and said["ratio"] > 0
    assert said["digest"] == contend("engine", setting)["digest"]


def test_the_rows_of_w1_that_are_to_be_near_the_raw_loop_have_that_limit() -> None:
    for work in works(Size()):
        limits = {case.contender: case.limit_ratio for case in work.cases if case.limit_ratio is not None}
        assert limits == {"hierfl, local": 1.5, "hierfl, local, 1 thread": 1.5}


def test_every_limit_of_a_row_must_hold() -> None:
    held = Row("w", "s", "c", 1.0, 1.0, 100, {"seconds": 1.0, "peak_bytes": 100})
    lost = Row("w", "s", "c", 1.0, 1.0, 101, {"seconds": 1.0, "peak_bytes": 100})
    assert held.held is True and lost.held is False


@pytest.mark.parametrize(
    ("seconds", "ratio", "peak_bytes", "held", "as_ratio"),
    [(5.0, 9.0, 1, True, False), (6.0, 1.5, 1, True, True), (6.0, 1.6, 1, False, False), (6.0, 1.5, 3, False, True)],
)
def test_on_a_slower_machine_seconds_count_as_the_ratio_that_they_were(
    seconds: float, ratio: float, peak_bytes: int, held: bool, as_ratio: bool
) -> None:
    row = Row("w", "s", "c", seconds, ratio, peak_bytes, {"seconds": 5.0, "ratio of seconds": 1.5, "peak_bytes": 2})
    assert (row.held, row.held_as_ratio) == (held, as_ratio)


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux' smaps_rollup")
def test_memory_counts_the_whole_process_tree() -> None:
    inner = "import time; kept = bytearray(60_000_000); time.sleep(1.0)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], check=True)"
    _, peak_bytes, wall_s = watch([sys.executable, "-c", outer], memory=True)
    assert 60_000_000 < peak_bytes < 120_000_000
    assert wall_s >= 1.0


def test_a_failing_contender_is_told_with_its_own_words() -> None:
    with pytest.raises(Failed, match="out of paper"):
        watch([sys.executable, "-c", "raise SystemExit('out of paper')"])
