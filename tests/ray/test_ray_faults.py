"""Faults that a configuration asks for, on Ray: processes really end and hang, and the bits stay."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray_runs import HIERFL, SUPPORT, Watcher, digest_in, environment, finish, run, started, tree, write_config

from hierfl.fault import HUB_STEPS, RUN_STEPS
from hierfl.faults.lie import WHAT as LIES
from hierfl.monitor.files import read_events
from hierfl.monitor.records import FaultInjected, ReplicaReplaced, SiteTrained

pytestmark = pytest.mark.ray

STEPS = list(HUB_STEPS)


def kill(node: str, step: str, round_number: int, **more: Any) -> dict[str, Any]:
    return {"kind": "kill", "node": node, "step": step, "round": round_number, **more}


def trained(watcher: Watcher) -> Counter[tuple[str, int]]:
    return Counter((record.node, record.round_number) for record in watcher.records if isinstance(record, SiteTrained))


def each() -> list[dict[str, Any]]:
    """Every kind that strikes a process or an update, at every step."""
    return [
        *(kill("world", step, 1 + at % 3) for at, step in enumerate(STEPS)),
        *(kill("world/us", step, 1 + at % 6) for at, step in enumerate(STEPS[1:6])),
        kill("world/eu", "mid_aggregate", 2),
        kill("world/us/b", "training", 3),
        {"kind": "hang", "node": "world/eu", "round": 1, "after_s": 1.0},
        {"kind": "hang", "node": "world/f", "round": 2, "after_s": 1.0},
        {"kind": "delay", "node": "world/eu/d", "round": 3, "after_s": 0.5},
        {"kind": "duplicate", "node": "world*", "nth": 1, "copies": 5},
        {"kind": "corrupt", "node": "world", "nth": 2, "round": 1, "bit": 77},
        {"kind": "partition", "node": "world/us", "round": 3, "after_s": 1.0},
    ]


def some() -> list[dict[str, Any]]:
    return [fault for fault in each() if fault["kind"] != "kill" or fault["step"] in ("after_accept", "training")]


@pytest.mark.usefixtures("shared_ray")
@pytest.mark.slow
@pytest.mark.parametrize("faults", [some, each])
def test_processes_are_killed_and_hang_and_updates_are_struck_as_the_configuration_says(
    faults: Callable[[], list[dict[str, Any]]], tmp_path: Path
) -> None:
    digest = run(write_config(tmp_path), "runtime.kind=local")["model_digest"]
    listed, watcher = faults(), Watcher()
    summary = run(write_config(tmp_path, faults=listed), "runtime.num_workers=2", watcher=watcher)
    injected = [record for record in watcher.records if isinstance(record, FaultInjected)]
    kills = Counter(fault["node"] for fault in listed if fault["kind"] == "kill")
    assert Counter(record.node for record in injected if record.kind == "kill") == kills
    kinds = {"hang": 2, "delay": 1, "corrupt": 1, "partition": 1, "duplicate": 3 + 6 + 3}
    assert Counter(record.kind for record in injected) == {"kill": kills.total(), **kinds}
    assert summary["model_digest"] == digest
    replaced = Counter((r.node, r.cause) for r in watcher.records if isinstance(r, ReplicaReplaced))
    hubs = {(node, "died"): times for node, times in kills.items() if node != "world/us/b"}
    assert replaced == {**hubs, ("world", "damaged"): 1}
    again = {node for (node, _), times in trained(watcher).items() if times > 1}
    assert len(again) <= 6 and max(trained(watcher).values()) <= 2, "what the killed worker had not handed up"


@pytest.mark.slow
@pytest.mark.usefixtures("shared_ray")
def test_a_replica_that_lies_is_outvoted_in_its_round_and_one_that_is_cut_off_moves_no_bit(tmp_path: Path) -> None:
    lies = [{"kind": "lie", "node": "world", "what": what, "round": number} for number, what in enumerate(LIES, 1)]
    digest = run(write_config(tmp_path, tree(rounds=len(lies))), "runtime.kind=local")["model_digest"]
    cut = {"kind": "partition", "node": "world/eu", "replica": 2, "round": 2, "after_s": 20.0}
    redundancy = {"replicas": 3, "mode": "vote", "lease_s": 1.0}
    watcher = Watcher()
    config = write_config(tmp_path, tree(rounds=len(lies)), faults=[*lies, cut], redundancy=redundancy)
    assert run(config, "runtime.num_workers=2", "runtime.num_aggregators=9", watcher=watcher)["model_digest"] == digest
    replaced = Counter((r.node, r.cause) for r in watcher.records if isinstance(r, ReplicaReplaced))
    assert replaced["world", "outvoted"] == len(LIES)


@pytest.mark.slow
def test_the_run_itself_is_killed_at_each_step_and_resumed(tmp_path: Path, ray_temp: Path) -> None:
    digest = run(write_config(tmp_path), "runtime.kind=local")["model_digest"]
    faults = [kill("run", step, 1 + at % 3) for at, step in enumerate(RUN_STEPS)]
    for notes in (tmp_path / "runs").iterdir():
        notes.rename(tmp_path / "whole")
    config = write_config(tmp_path, tree(), faults=faults, runtime={"kind": "ray", "num_workers": 2, "num_cpus": 2})
    env = environment(ray_temp, PYTHONPATH=os.pathsep.join((str(SUPPORT), str(Path(__file__).parents[2]))))
    words, codes = ["run", str(config)], list[int]()
    while not codes or codes[-1]:
        with started([*HIERFL, *words], tmp_path, env) as process:
            code, _, said = finish(process)
        codes.append(code)
        assert code in (0, -signal.SIGKILL), said
        [folder] = (tmp_path / "runs").iterdir()
        words = ["resume", str(folder)]
    assert codes == [-signal.SIGKILL] * len(RUN_STEPS) + [0]
    assert digest_in(folder) == digest
    told = [event["step"] for event in read_events(folder) if event["event"] == "fault_injected"]
    assert sorted(told) == sorted(RUN_STEPS)
