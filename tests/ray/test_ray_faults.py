"""Faults that a configuration asks for, on Ray: processes really end and hang, and the bits stay."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ray_runs import HIERFL, SUPPORT, Watcher, digest_in, environment, finish, run, started, tree, write_config

from hierfl.fault import HUB_STEPS, RUN_STEPS
from hierfl.monitor.files import read_events
from hierfl.monitor.records import FaultInjected, SiteTrained

pytestmark = pytest.mark.ray

STEPS = list(HUB_STEPS)


def kill(node: str, step: str, round_number: int, **more: Any) -> dict[str, Any]:
    return {"kind": "kill", "node": node, "step": step, "round": round_number, **more}


def trained(watcher: Watcher) -> Counter[tuple[str, int]]:
    return Counter((record.node, record.round_number) for record in watcher.records if isinstance(record, SiteTrained))


@pytest.mark.usefixtures("shared_ray")
def test_processes_are_killed_and_hang_at_the_steps_that_the_configuration_names(tmp_path: Path) -> None:
    digest = run(write_config(tmp_path), "runtime.kind=local")["model_digest"]
    faults = [
        *(kill("world", step, 1 + at % 3) for at, step in enumerate(STEPS)),
        *(kill("world/us", step, 1 + at % 6) for at, step in enumerate(STEPS[1:6])),
        kill("world/eu", "mid_aggregate", 2),
        kill("world/us/b", "training", 3),
        {"kind": "hang", "node": "world/eu", "round": 1, "after_s": 1.0},
        {"kind": "hang", "node": "world/f", "round": 2, "after_s": 1.0},
        {"kind": "delay", "node": "world/eu/d", "round": 3, "after_s": 0.5},
    ]
    watcher = Watcher()
    summary = run(write_config(tmp_path, faults=faults), "runtime.num_workers=2", watcher=watcher)
    injected = [record for record in watcher.records if isinstance(record, FaultInjected)]
    assert Counter(record.kind for record in injected) == {"kill": 15, "hang": 2, "delay": 1}
    assert summary["model_digest"] == digest
    deaths = Counter(notice.node for notice in watcher.deaths())
    assert (deaths["world"], deaths["world/us"], deaths["world/eu"]) == (8, 5, 1)
    again = {node for (node, _), times in trained(watcher).items() if times > 1}
    assert again <= {"world/us/a", "world/us/b", "world/us/c", "world/f", "world/eu/d", "world/eu/e"}
    assert max(trained(watcher).values()) <= 2


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
