"""Nodes that go, come back and join while a run is under way, on a cluster of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray_runs import Watcher, committed, run, tree, write_config

from hierfl.monitor.records import Assigned, Notice, Record

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def hold(folder: Path) -> None:
    """Let site f wait from its next step on, so that the run does not end before the node is there."""
    (folder / "hold-f").write_text("0")


def let_go(folder: Path) -> None:
    (folder / "hold-f").unlink()


def test_a_node_that_vanishes_and_one_that_comes(cluster: Any, tmp_path: Path) -> None:
    second = cluster.add_node(num_cpus=1)
    config = write_config(tmp_path, tree(rounds=8))
    reference = run(config, "runtime.kind=local")["model_digest"]
    for notes in tmp_path.glob("steps-*"):
        notes.unlink()

    def come() -> None:
        hold(tmp_path)
        cluster.add_node(num_cpus=1)

    watcher = Watcher(
        [
            (committed(1), lambda: cluster.remove_node(second, allow_graceful=False)),
            (committed(3), come),
            (lambda record: isinstance(record, Notice) and record.message == "is back", lambda: let_go(tmp_path)),
        ]
    )
    found = run(config, f"runtime.address={cluster.address}", watcher=watcher)
    assert watcher.strikes == [] and found["model_digest"] == reference
    died = {notice.node for notice in watcher.notices("warning") if "died" in notice.message}
    gone = {node for node in died if node.startswith("worker-")}  # aggregators that were there are replaced too
    assert len(gone) == 1
    assert {notice.node for notice in watcher.notices("info") if notice.message == "is back"} == gone


def test_a_node_that_joins_is_used(cluster: Any, tmp_path: Path) -> None:
    config = write_config(tmp_path, tree(rounds=4))

    def come() -> None:
        hold(tmp_path)
        cluster.add_node(num_cpus=1)

    def on_the_new_one(record: Record) -> bool:
        return isinstance(record, Assigned) and record.worker == "worker-1"

    watcher = Watcher([(committed(1), come), (on_the_new_one, lambda: let_go(tmp_path))])
    run(config, f"runtime.address={cluster.address}", watcher=watcher)
    assert watcher.strikes == [], "the second worker was given work"
