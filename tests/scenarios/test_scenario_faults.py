"""Faults that a configuration asks for, in whole runs: they happen, they are told, and the bits stay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import Listener, Ran, config_of, events, go, hub

from hierfl.fault import HUB_STEPS, RUN_STEPS, SITE_STEPS
from hierfl.faults.lie import WHAT as LIES
from hierfl.lifecycle import resume
from hierfl.monitor.records import FaultInjected, Notice, ReplicaReplaced, SiteTrained
from hierfl.monitor.report import write_report

SUPPORT = Path(__file__).parents[1] / "support"
TREE = hub("world", hub("up", "north", "south", rounds=2), hub("low", "a", "b"), "east", rounds=3, strategy="fedadam")
MEDIAN = hub("world", hub("up", "north", "south", "east", strategy="median"), "a", rounds=3)
FEW = hub("world", hub("up", "north", "south", rounds=2), hub("low", "a", "b"), rounds=2)


def struck(ran: Ran) -> list[tuple[str, str, str, int]]:
    return [(r.kind, r.node, r.step, r.round_number) for r in ran.monitor.of(FaultInjected)]


def trained(monitor: Listener) -> Counter[tuple[str, int]]:
    return Counter((record.node, record.round_number) for record in monitor.of(SiteTrained))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return go(tmp_path_factory.mktemp("whole"), TREE)


@pytest.mark.parametrize("node", ["world", "world/up", "world/low"])
def test_an_aggregator_killed_at_each_step_of_its_rounds_leaves_the_bits_and_nobody_trains_again(
    node: str, whole: Ran, tmp_path: Path
) -> None:
    last = 2 if node == "world/up" else 1  # the round in which its result is due
    rounds = {step: last * (1 + number % 3) for number, step in enumerate(HUB_STEPS)}
    ran = go(tmp_path, TREE, faults=[{"kind": "kill", "node": node, "step": s, "round": r} for s, r in rounds.items()])
    assert sorted(struck(ran)) == sorted(("kill", node, step, number) for step, number in rounds.items())
    assert ran.digest == whole.digest
    assert trained(ran.monitor) == trained(whole.monitor)
    deaths = [n for n in ran.monitor.of(Notice) if "aggregator died" in n.message]
    assert [notice.node for notice in deaths] == [node] * len(HUB_STEPS)


def test_a_hub_beside_one_without_a_centre_is_struck_in_its_own_rounds(tmp_path: Path) -> None:
    """Members' places hear of the faults through a hub that their process serves, and have rounds of their own hub."""
    tree = hub("world", hub("up", "north", "south", rounds=2, topology="peer"), "east", rounds=8, strategy="fedadam")
    faults = [{"kind": "kill", "node": "world", "step": s, "round": r} for r, s in enumerate(HUB_STEPS, 1)]
    last = {"kind": "kill", "node": "world/up/north", "step": "exchange", "round": 16}
    ran = go(tmp_path, tree, faults=[*faults, last])
    planned = [("kill", "world", fault["step"], fault["round"]) for fault in faults]
    assert struck(ran) == [*planned[:-1], ("kill", "world/up/north", "exchange", 16), planned[-1]]


def test_aggregators_killed_at_each_update_again_and_again(whole: Ran, tmp_path: Path) -> None:
    faults = [{"kind": "kill", "node": "world*", "step": "after_accept", "nth": n, "times": 2} for n in (1, 2)]
    ran = go(tmp_path, TREE, faults=faults)
    assert ran.digest == whole.digest and trained(ran.monitor) == trained(whole.monitor)
    assert Counter(node for _, node, _, _ in struck(ran)) == {"world": 12, "world/up": 12, "world/low": 6}


@pytest.mark.parametrize("step", SITE_STEPS)
def test_a_worker_killed_at_each_step_of_a_site_costs_that_site_s_work_alone(
    step: str, whole: Ran, tmp_path: Path
) -> None:
    ran = go(tmp_path, TREE, faults=[{"kind": "kill", "node": "world/up/south", "step": step, "round": 2}])
    assert struck(ran) == [("kill", "world/up/south", step, 2)]
    assert ran.digest == whole.digest
    again = trained(ran.monitor) - trained(whole.monitor)
    [died] = [notice.message for notice in ran.monitor.of(Notice) if "is being replaced" in notice.message]
    num_again = int(died.rpartition("; ")[2].split()[0])
    assert set(again.values()) <= {1} and again.total() <= num_again <= 4, "of five what its worker had not handed up"


def test_a_delay_changes_no_bits(whole: Ran, tmp_path: Path) -> None:
    faults = [{"kind": "delay", "node": node, "round": 1, "after_s": 0.05} for node in ("run", "world", "world/east")]
    ran = go(tmp_path, TREE, faults=faults)
    assert {node for _, node, _, _ in struck(ran)} == {"run", "world", "world/east"}
    assert ran.digest == whole.digest


@pytest.mark.parametrize("tree", ["plain", "median", "compressed"])
def test_an_update_that_is_handed_over_again_and_again_counts_once(tree: str, tmp_path: Path) -> None:
    root = {"plain": TREE, "median": MEDIAN, "compressed": {**TREE, "compression": "top_k"}}[tree]
    faults = [{"kind": "duplicate", "node": "world*", "nth": n, "copies": 3} for n in (1, 2)]
    whole, ran = go(tmp_path / "whole", root), go(tmp_path / "faulty", root, faults=faults)
    assert len(struck(ran)) >= 6
    assert ran.digest == whole.digest and trained(ran.monitor) == trained(whole.monitor)


def test_a_copy_that_comes_late_counts_no_more(tmp_path: Path) -> None:
    root = hub("world", "north", "south", "east", rounds=4, participation={"kind": "buffered", "goal": 3})
    faults = [{"kind": "duplicate", "node": "world", "nth": 3, "copies": 2}]
    assert go(tmp_path / "faulty", root, faults=faults).digest == go(tmp_path / "whole", root).digest


@pytest.mark.parametrize("bit", [0, 31, 12345])
@pytest.mark.parametrize("tree", ["plain", "compressed"])
def test_an_update_that_changes_on_its_way_is_refused_and_sent_again(tree: str, bit: int, tmp_path: Path) -> None:
    root = {"plain": TREE, "compressed": {**TREE, "compression": "top_k"}}[tree]
    faults = [{"kind": "corrupt", "node": node, "round": 2, "bit": bit} for node in ("world", "world/up", "world/low")]
    whole, ran = go(tmp_path / "whole", root), go(tmp_path / "faulty", root, faults=faults)
    assert ran.digest == whole.digest and trained(ran.monitor) == trained(whole.monitor)
    replaced = [(record.node, record.cause) for record in ran.monitor.of(ReplicaReplaced)]
    assert sorted(replaced) == [(node, "damaged") for node in ("world", "world/low", "world/up")]


def test_a_hub_that_is_not_heard_for_a_while_is_heard_in_order(whole: Ran, tmp_path: Path) -> None:
    faults = [{"kind": "partition", "node": node, "round": 2, "after_s": 0.2} for node in ("world", "world/up")]
    ran = go(tmp_path, TREE, faults=faults)
    assert {node for _, node, _, _ in struck(ran)} == {"world", "world/up"}
    assert ran.digest == whole.digest and trained(ran.monitor) == trained(whole.monitor)


@pytest.mark.parametrize("what", LIES)
@pytest.mark.parametrize("node", ["world", "world/up", "world/low"])
def test_a_lie_moves_the_bits_unless_replicas_vote(what: str, node: str, whole: Ran, tmp_path: Path) -> None:
    faults = [{"kind": "lie", "node": node, "what": what, "round": 2}]
    alone = go(tmp_path / "alone", TREE, faults=faults)
    assert len(struck(alone)) == 1 and alone.digest != whole.digest
    votes = go(tmp_path / "votes", TREE, faults=faults, redundancy={"replicas": 3, "mode": "vote"})
    assert len(struck(votes)) == 1 and votes.digest == whole.digest
    replaced = [(record.node, record.cause) for record in votes.monitor.of(ReplicaReplaced)]
    assert replaced == [(node, "outvoted")]


def test_one_replica_alone_is_struck(whole: Ran, tmp_path: Path) -> None:
    faults = [{"kind": "kill", "node": "world", "step": "mid_aggregate", "replica": 2}]
    ran = go(tmp_path, TREE, faults=faults, redundancy={"replicas": 2})
    assert len(struck(ran)) == 3 and ran.digest == whole.digest
    assert {(record.node, record.replica) for record in ran.monitor.of(ReplicaReplaced)} == {("world", 2)}


def test_what_is_drawn_follows_the_seed(tmp_path: Path) -> None:
    faults = [{"kind": "kill", "node": "world*", "step": "before_close", "probability": 0.4}]
    first, again = (go(tmp_path / name, TREE, faults=faults) for name in ("first", "again"))
    other = go(tmp_path / "other", TREE, faults=faults, seed=1)
    drawn, anew, others = (sorted(struck(ran)) for ran in (first, again, other))  # two hubs' rounds go side by side
    assert drawn == anew != others
    assert 0 < len(drawn) < 12


def test_nobody_takes_a_run_with_faults_for_another(whole: Ran, tmp_path: Path) -> None:
    ran = go(tmp_path, TREE, faults=[{"kind": "kill", "node": "world", "round": 1}])
    assert ran.folder.name.startswith("trial-faults-")
    [said] = [n for n in ran.monitor.of(Notice) if "THIS RUN INJECTS FAULTS" in n.message]
    assert said.level == "warning" and "kill of world at before_accept of update 1 in round 1" in said.message
    summary = json.loads((ran.folder / "summary.json").read_text())
    assert summary["faults"]["planned"] == ["kill of world at before_accept of update 1 in round 1"]
    [happened] = summary["faults"]["injected"]
    assert (happened["kind"], happened["node"], happened["round"]) == ("kill", "world", 1)
    [event] = [event for event in events(ran.folder) if event["event"] == "fault_injected"]
    assert (event["node"], event["step"], event["round_number"]) == ("world", "before_accept", 1)
    page = write_report(ran.folder).read_text()
    assert "A rehearsal, and no production run" in page and "Struck 1 time so far" in page
    assert "faults" not in whole.summary and not whole.monitor.of(FaultInjected)
    assert not (whole.folder / "faults.jsonl").exists()


def test_a_fault_that_was_never_reached_is_named(tmp_path: Path) -> None:
    faults = [{"kind": "kill", "node": "world", "step": "after_accept", "nth": 40}]
    ran = go(tmp_path, FEW, faults=faults)
    assert any("never reached: kill of world" in notice.message for notice in ran.monitor.of(Notice))


def cli(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{SUPPORT}:{Path(__file__).parents[2]}"}
    command = [sys.executable, "-m", "hierfl", *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_the_run_killed_by_a_file_of_faults_is_resumed_and_not_killed_by_the_same_again(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole", FEW)
    resolved: dict[str, Any] = dict(config_of(tmp_path / "runs", FEW).resolved)
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(resolved))
    (tmp_path / "faults.yaml").write_text(
        yaml.safe_dump({"faults": [{"kind": "kill", "node": "run", "step": "after_checkpoint", "round": 1}]})
    )
    ran = cli("run", "trial.yaml", "--faults", "faults.yaml", "--plain", cwd=tmp_path)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert "THIS RUN INJECTS FAULTS" in ran.stdout + ran.stderr
    [folder] = (tmp_path / "runs").iterdir()
    told = [event for event in events(folder) if event["event"] == "fault_injected"]
    assert [(event["node"], event["step"]) for event in told] == [("run", "after_checkpoint")]
    monitor = Listener()
    assert resume(folder, (), [monitor])["model_digest"] == whole.digest
    assert not monitor.of(FaultInjected)
    assert any("struck by faults on purpose, 1 time" in notice.message for notice in monitor.of(Notice))


@pytest.mark.slow
def test_the_run_killed_at_each_step_in_turn(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole", TREE)
    faults = [{"kind": "kill", "node": "run", "step": step, "round": 2} for step in RUN_STEPS]
    resolved = dict(config_of(tmp_path / "runs", TREE, faults=faults).resolved)
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(resolved))
    ended = [cli("run", "trial.yaml", cwd=tmp_path).returncode]
    [folder] = (tmp_path / "runs").iterdir()
    while ended[-1]:
        ended.append(cli("resume", str(folder), cwd=tmp_path).returncode)
        assert len(ended) < 20
    assert ended == [-signal.SIGKILL] * (len(ended) - 1) + [0]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["model_digest"] == whole.digest
    assert sorted(one["step"] for one in summary["faults"]["injected"]) == sorted(RUN_STEPS)
