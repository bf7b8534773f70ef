"""Two hundred SIGKILLs over all steps, on a cluster of several nodes: no round is lost, nobody counts twice."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ray_runs import PATIENCE_S, Watcher, committed, run, tree, write_config

from hierfl.drill import absolute, recoveries
from hierfl.fault import HUB_STEPS
from hierfl.monitor.files import read_events
from hierfl.monitor.records import FaultInjected, RoundClosed, RoundCommitted, SiteTrained

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEPS = list(HUB_STEPS)
LOOK_S = 30.0
"""How long after a node's end the run is looked at for pauses: Ray itself misses a node after a quarter of a minute."""


def kill(node: str, step: str, round_number: int) -> dict[str, Any]:
    return {"kind": "kill", "node": node, "step": step, "round": round_number}


def strikes(rounds: int) -> list[dict[str, Any]]:
    """In every round a kill of the aggregators of the root and of an inner hub with two rounds; some of workers."""
    found = []
    for number in range(1, rounds + 1):
        step = STEPS[number % len(STEPS)]
        other = STEPS[(number + 3) % len(STEPS)]
        found.append(kill("world", step, number))
        found.append(kill("world/us", other, 2 * number - (number % 2 if "publish" not in other else 0)))
    return [*found, *(kill("world/us/b", "training", 2 * number) for number in range(6, rounds, 20))]


class Node:
    """The second node of a cluster; the run hears nothing when it is replaced, and goes on meanwhile.

    A node's processes end with the thread that has started them.
    """

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.node = cluster.add_node(num_cpus=1)
        self.gone_s: list[float] = []
        self.replaced: list[threading.Event] = []
        self.over = threading.Event()

    def replace(self) -> None:
        self.wait()
        self.replaced.append(threading.Event())
        threading.Thread(target=self._replace, daemon=True).start()

    def _replace(self) -> None:
        self.gone_s.append(time.time())
        self.cluster.remove_node(self.node, allow_graceful=False)
        self.node = self.cluster.add_node(num_cpus=1)
        self.replaced[-1].set()
        self.over.wait()

    def wait(self) -> None:
        for one in self.replaced:
            assert one.wait(PATIENCE_S)


def pauses(told: list[dict[str, Any]], since_s: list[float]) -> list[float]:
    """Give the longest time without any aggregator's answer after each of these moments, in seconds."""
    ends = sorted(one["end_s"] for one in told if one["event"] == "phase" and one["phase"] == "aggregate")
    return [
        max(after - max(before, began_s) for before, after in pairwise(ends) if began_s < after < began_s + LOOK_S)
        for began_s in since_s
    ]


@pytest.mark.parametrize(("rounds", "replicas"), [(100, 1), (30, 2)])
def test_rounds_with_aggregators_killed_in_each_end_with_the_bits_of_an_undisturbed_run(
    rounds: int, replicas: int, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray._private.utils.set_sigterm_handler", lambda handler: None)  # nodes come in a thread
    node = Node(cluster)
    digest = run(write_config(tmp_path, tree(rounds=rounds)), "runtime.kind=local")["model_digest"]
    faults = strikes(rounds)
    watcher = Watcher([(committed(10), node.replace), (committed(25), node.replace)])
    redundancy = {"replicas": replicas, "lease_s": 1.0}
    config = write_config(tmp_path, tree(rounds=rounds), faults=faults, redundancy=redundancy)
    summary = run(config, f"runtime.address={cluster.address}", watcher=watcher)
    node.wait()

    injected = [record for record in watcher.records if isinstance(record, FaultInjected)]
    assert watcher.strikes == [] and len(injected) == len(faults)
    assert {record.step for record in injected} >= set(STEPS)
    done = [record.round_number for record in watcher.records if isinstance(record, RoundCommitted)]
    assert done == list(range(1, rounds + 1)), "a round was lost"
    for closed in (record for record in watcher.records if isinstance(record, RoundClosed)):
        assert len(set(closed.members)) == len(closed.members) and not closed.missing
    closings = Counter((r.node, r.round_number) for r in watcher.records if isinstance(r, RoundClosed))
    assert set(closings.values()) == {1} and len(closings) == rounds * 4
    assert summary["model_digest"] == digest
    trained = Counter((r.node, r.round_number) for r in watcher.records if isinstance(r, SiteTrained))
    again = sum(trained.values()) - len(trained)
    lost_workers = sum(notice.node.startswith("worker-") for notice in watcher.deaths())
    assert again <= 6 * lost_workers, "trained again though no worker was lost"
    told = list(absolute(read_events(Path(summary["run_dir"]))))
    found = sorted(each for each in recoveries(told) if each is not None)
    p99, ends = found[int(0.99 * len(found))], ", ".join(f"{pause:.2f} s" for pause in pauses(told, node.gone_s))
    print(f"\n{len(injected)} kills, {again} trained again after {lost_workers} workers' deaths; recovery", end=" ")
    print(f"p50 {statistics.median(found):.2f} s, p99 {p99:.2f} s, most {found[-1]:.2f} s; a node's end {ends}")
