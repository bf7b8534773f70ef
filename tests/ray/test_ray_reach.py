"""Two hundred SIGKILLs over all steps, on a cluster of several nodes: no round is lost, nobody counts twice."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ray_runs import Watcher, committed, run, tree, write_config

from hierfl.drill import absolute, recoveries
from hierfl.fault import HUB_STEPS
from hierfl.monitor.files import read_events
from hierfl.monitor.records import FaultInjected, RoundClosed, RoundCommitted, SiteTrained

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEPS = list(HUB_STEPS)


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


@pytest.mark.parametrize(("rounds", "replicas"), [(100, 1), (30, 2)])
def test_rounds_with_aggregators_killed_in_each_end_with_the_bits_of_an_undisturbed_run(
    rounds: int, replicas: int, cluster: Any, tmp_path: Path
) -> None:
    nodes = [cluster.add_node(num_cpus=1)]
    digest = run(write_config(tmp_path, tree(rounds=rounds)), "runtime.kind=local")["model_digest"]
    faults = strikes(rounds)

    def replace_node() -> None:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        nodes.append(cluster.add_node(num_cpus=1))

    watcher = Watcher([(committed(10), replace_node), (committed(25), replace_node)])
    config = write_config(tmp_path, tree(rounds=rounds), faults=faults, redundancy={"replicas": replicas})
    summary = run(config, f"runtime.address={cluster.address}", watcher=watcher)

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
    found = sorted(each for each in recoveries(absolute(read_events(Path(summary["run_dir"])))) if each is not None)
    p99 = found[int(0.99 * len(found))]
    print(f"\n{len(injected)} kills, {again} trained again after {lost_workers} workers' deaths; recovery", end=" ")
    print(f"p50 {statistics.median(found):.2f} s, p99 {p99:.2f} s, most {found[-1]:.2f} s")
