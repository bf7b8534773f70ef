"""Nodes that go, come back and join while a run is under way, on a cluster of several."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_runs import SUPPORT, Watcher, run, tree, wait_gone, write_config

from hierfl.monitor.records import Assigned, Notice, Record, RoundCommitted
from hierfl.runtime.ray_cluster import patient

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def committed(number: int) -> Callable[[Record], bool]:
    return lambda record: isinstance(record, RoundCommitted) and record.round_number == number


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import ray
    from ray.cluster_utils import Cluster

    folder = Path(tempfile.mkdtemp(prefix="hfl-", dir="/tmp"))
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    head = {"num_cpus": 1, "temp_dir": str(folder), "include_dashboard": False}
    with patient():
        made = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        wait_gone(folder, 60)
        shutil.rmtree(folder, ignore_errors=True)


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
