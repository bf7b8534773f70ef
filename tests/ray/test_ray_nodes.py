"""Nodes that go, come back and join while a run is under way, on a cluster of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray_runs import Watcher, committed, run, tree, write_config

from hierfl.monitor.records import Assigned, Notice, Record, ReplicaPlaced, ReplicaReplaced

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

    hold(tmp_path)
    at_work: set[str] = set()

    def both_are_at_work(record: Record) -> bool:
        at_work.update([record.worker] if isinstance(record, Assigned) else [])
        return at_work >= {"worker-0", "worker-1"}

    def come() -> None:
        hold(tmp_path)
        cluster.add_node(num_cpus=1)

    def is_at_work(record: Record) -> bool:
        """Whether the new node has a worker: who was lost, or one more where the lost node was still counted."""
        is_back = isinstance(record, Notice) and record.message == "is back"
        return is_back or (isinstance(record, Assigned) and record.worker == "worker-2")

    watcher = Watcher(
        [
            (both_are_at_work, lambda: let_go(tmp_path)),
            (committed(1), lambda: cluster.remove_node(second, allow_graceful=False)),
            (committed(3), come),
            (is_at_work, lambda: let_go(tmp_path)),
        ]
    )
    found = run(config, f"runtime.address={cluster.address}", watcher=watcher)
    assert watcher.strikes == [] and found["model_digest"] == reference
    died = {notice.node for notice in watcher.notices("warning") if "died" in notice.message}
    gone = {node for node in died if node.startswith("worker-")}  # aggregators that were there are replaced too
    assert len(gone) == 1
    back = {notice.node for notice in watcher.notices("info") if notice.message == "is back"}
    assert back <= gone and (
        back or any(isinstance(one, Assigned) and one.worker == "worker-2" for one in watcher.records)
    )


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


@pytest.mark.parametrize("redundancy", [{"replicas": 2}, {"replicas": 3, "mode": "vote"}], ids=str)
def test_a_node_that_vanishes_takes_a_replica_of_each_hub_and_the_others_go_on(
    redundancy: dict[str, Any], cluster: Any, tmp_path: Path
) -> None:
    """On three machines no two replicas of a hub share one; who is replaced comes up on one that is left, by name."""
    others = {node.node_id[:8]: node for node in (cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1))}
    gone: list[str] = []
    members = [{"name": "us", "members": [{"name": "a"}, {"name": "b"}]}, {"name": "f"}]
    federation = {"name": "world", "rounds": 4, "strategy": {"kind": "fedadam"}, "members": members}
    config = write_config(tmp_path, federation, redundancy={**redundancy, "lease_s": 5})
    reference = run(config, "runtime.kind=local")["model_digest"]
    for notes in tmp_path.glob("steps-*"):
        notes.unlink()

    hold(tmp_path)

    def all_are_there(record: Record) -> bool:
        return len(placed(watcher)) == 2 * redundancy["replicas"]

    def vanish() -> None:
        """Take a machine, not the driver's, that has a replica: two of each hub may leave one of three without any."""
        gone.append(next(name for name in others if any(name in machine for machine in placed(watcher).values())))
        cluster.remove_node(others[gone[0]], allow_graceful=False)

    def all_are_back(record: Record) -> bool:
        was_replaced = any(isinstance(one, ReplicaReplaced) for one in watcher.records)
        return was_replaced and all(gone[0] not in machine for machine in placed(watcher).values())

    watcher = Watcher([(all_are_there, vanish), (all_are_back, lambda: let_go(tmp_path))])
    found = run(config, f"runtime.address={cluster.address}", watcher=watcher)
    assert found["model_digest"] == reference and watcher.strikes == []
    lost = {(one.node, one.replica) for one in watcher.records if isinstance(one, ReplicaReplaced)}
    assert lost and len({node for node, _ in lost}) == len(lost), "of no hub more than one was there"
    first = placed(watcher, newest=False)
    for hub in ("world", "world/us"):
        assert len({machine for (node, _), machine in first.items() if node == hub}) == redundancy["replicas"]
    assert {one for one, machine in first.items() if gone[0] in machine} == lost
    up = [one.message for one in watcher.notices("info") if "of its aggregator is up, on" in one.message]
    assert len(up) >= len(lost)


def placed(watcher: Watcher, *, newest: bool = True) -> dict[tuple[str, int], str]:
    """Where each replica is by now, or was at first."""
    told = [one for one in watcher.records if isinstance(one, ReplicaPlaced)]
    return {(one.node, one.replica): one.machine for one in (told if newest else reversed(told))}
