"""Sites unlike the others: predictions that are no numbers, one class, one sample, a task that breaks the rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from small_runs import Ran, go, hub, site

from hierfl.monitor.records import Notice


def odd_run(folder: Path, south: Any, norm: bool = False, num_workers: int = 1, **odds: str) -> Ran:
    """Run two wards, of which south is odd."""
    task = {"kind": "odd_task:Odd", "odds": odds, "norm": norm}
    return go(folder, hub("world", "north", south), task, runtime={"kind": "local", "num_workers": num_workers})


def test_a_site_whose_predictions_are_no_numbers_is_named_once_and_left_out_above(tmp_path: Path) -> None:
    task = {"kind": "odd_task:Odd", "odds": {"predict": "nan"}}
    ran = go(tmp_path, hub("world", hub("up", "north", site("south", odd="mark")), "east"), task)
    told = [(notice.node, notice.message) for notice in ran.monitor.of(Notice) if notice.level == "warning"]
    assert [node for node, _ in told] == ["world/up/south"]
    assert told[0][1].startswith("its predictions are not finite: 6 of 6 samples; ")
    nodes = ran.summary["nodes"]
    assert nodes["world/up/south"]["accuracy"] is None
    for path, num_test in (("world/up", 12), ("world", 18)):
        assert nodes[path]["num_test"] == num_test and nodes[path]["num_left_out"] == 6
    assert nodes["world/up"]["accuracy"] == nodes["world/up/north"]["accuracy"]
    assert "num_left_out" not in nodes["world/east"]


def test_counts_of_right_and_wrong_add_up_the_tree(tmp_path: Path) -> None:
    ran = go(tmp_path, hub("world", hub("up", "north", "south"), "east"))
    kinds = ("true_positives", "false_positives", "true_negatives", "false_negatives")
    nodes = ran.summary["nodes"]
    assert sum(nodes["world"][kind] for kind in kinds) == 18
    for kind in kinds:
        assert nodes["world"][kind] == sum(nodes[path][kind] for path in ("world/up", "world/east"))
    row = json.loads((ran.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert [row[kind] for kind in kinds] == [nodes[row["node"]][kind] for kind in kinds]
