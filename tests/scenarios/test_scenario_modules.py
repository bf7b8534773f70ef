"""Whole runs with modules that keep something beside their state, or are made once: whose turn it is has no say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_runs import Ran, go, hub

WARDS = ("north", "south", "east", "west")


def counted(folder: Path, num_workers: int, wards: tuple[str, ...] = WARDS, **task: Any) -> Ran:
    runtime = {"kind": "local", "num_workers": num_workers}
    evaluation = {"fine_tune": {"steps": 2, "at": "every"}}
    return go(
        folder, hub("world", *wards), {"kind": "odd_task:Counted", **task}, runtime=runtime, evaluation=evaluation
    )


def found(ran: Ran) -> dict[str, Any]:
    return {path: {**node, "duration_s": 0} for path, node in ran.summary["nodes"].items()}


def test_a_modules_own_count_begins_anew_at_each_site_whoever_was_there_before(tmp_path: Path) -> None:
    alone = counted(tmp_path / "alone", 1)
    others = [
        counted(tmp_path / "many", 3),
        counted(tmp_path / "reverse", 1, WARDS[::-1]),
        counted(tmp_path / "once", 3, once=True),
        counted(tmp_path / "again", 1, once=True),
    ]
    for other in others:
        assert other.summary["model_digest"] == alone.summary["model_digest"]
        assert found(other) == found(alone)
