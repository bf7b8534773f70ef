"""`hierfl drill` on a small federation: every fault is rehearsed, and what is not as expected makes it fail."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import config_of, hub
from typer.testing import CliRunner

from hierfl.cli import app
from hierfl.drill import Row, cases, drill
from hierfl.drill.cases import in_round
from hierfl.errors import RuntimeUnavailable
from hierfl.learning.strategies.fedavgm import FedAvgM
from hierfl.runtime.hubs import Hubs
from hierfl.runtime.jobs import HubSpec, Post
from hierfl.runtime.local import LocalDriver

SUPPORT = Path(__file__).parents[1] / "support"
TREE = hub("world", hub("up", "north", "south"), "east", rounds=9, strategy="fedavgm")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(SUPPORT), str(Path(__file__).parents[2]))))
    path = tmp_path / "trial.yaml"
    path.write_text(yaml.safe_dump(dict(config_of(tmp_path / "runs", TREE).resolved)))
    return path


def drilled(config: Path, *words: str) -> tuple[int, dict[str, Any]]:
    ran = CliRunner().invoke(app, ["drill", str(config), "--json", *words])
    assert ran.exit_code in (0, 1), ran.output
    return ran.exit_code, json.loads(ran.stdout)


@pytest.mark.slow
def test_every_fault_is_rehearsed_and_the_run_is_resumed(config: Path, tmp_path: Path) -> None:
    code, found = drilled(config, "--out", str(tmp_path / "out"))
    rows = found["rows"]
    assert code == 0 and found["passed"], rows
    there = [row for row in rows if row["passed"] is not None]
    assert all(row["digest_equal"] and row["recovery_s"] is not None for row in there)
    assert {row["seen"] for row in rows if row["passed"] is None} <= {
        "needs a process of its own: --runtime ray",
        "not tolerated without redundancy.mode: vote",
    }
    assert {row["node"] for row in there} >= {"world", "world/up", "world/up/north", "run"}
    assert (tmp_path / "out" / "together").is_dir() and not (tmp_path / "runs").exists()


def test_one_kind_alone_and_nothing_is_left(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "temp"
    kept.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(kept))
    code, found = drilled(config, "--only", "delay", "--rounds", "1")
    [row] = found["rows"]
    assert (code, row["fault"], row["passed"], row["digest_equal"]) == (0, "delay", True, True)
    assert list(kept.glob("hierfl-drill-*")) == []


@pytest.mark.parametrize("num_runs", [0, 1])
def test_a_drill_that_ends_before_its_time_leaves_no_empty_folder_and_names_another(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_runs: int
) -> None:
    kept = tmp_path / "temp"
    kept.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(kept))

    def ends(command: Any, folder: Path, *_: object) -> Any:
        for number in range(num_runs):
            (folder / f"run-{number}").mkdir()
        raise RuntimeUnavailable("it ends here")

    monkeypatch.setattr("hierfl.drilling._rows", ends)
    ran = CliRunner().invoke(app, ["drill", str(config)])
    assert ran.exit_code != 0 and "it ends here" in ran.output
    left = list(kept.glob("hierfl-drill-*"))
    assert len(left) == num_runs and all(f"the runs are in {folder}" in ran.output for folder in left)


def test_what_is_not_as_expected_is_said(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that is not replaced ends the run; one that is another after its death has other bits."""

    def first() -> Row:
        folder = tmp_path / f"drill-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return next(iter(drill([str(config)], folder, "kill", 1)))

    monkeypatch.setattr(Hubs, "replace", gone)
    assert first().said == "the run failed: world is gone: it was lost on purpose" and first().passed is False
    monkeypatch.undo()
    assert first().passed
    made = LocalDriver.start_hub

    def makes_another(self: LocalDriver, spec: HubSpec, post: Post) -> None:
        starts = vars(self).setdefault("starts", Counter[str]())
        starts[spec.path] += 1
        made(self, spec if starts[spec.path] == 1 else replace(spec, strategy=FedAvgM(lr=0.5)), post)

    monkeypatch.setattr(LocalDriver, "start_hub", makes_another)
    found = first()
    assert (found.passed, found.digest_equal) == (False, False)


def gone(self: Hubs, actor: str, reason: str, cause: str = "died") -> Any:
    raise RuntimeUnavailable(f"{actor} is gone: {reason}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "kil"], "--only kil: no fault of the drill (did you mean 'kill'?"),
        (["faults=[{kind: kill, node: world}]"], "the drill brings its own"),
        (["training.lr=fast"], "training.lr"),
    ],
)
def test_mistakes_are_told_before_anything_starts(config: Path, words: list[str], message: str) -> None:
    ran = CliRunner().invoke(app, ["drill", str(config), *words])
    assert ran.exit_code == 2 and message in ran.output


def test_what_is_rehearsed_strikes_each_step_of_the_root_and_some_of_the_largest_hub(tmp_path: Path) -> None:
    found = cases(config_of(tmp_path, TREE))
    assert {case.node for case in found} == {"world", "world/up", "world and world/up", "world/up/north", "run"}
    alone = cases(config_of(tmp_path, hub("world", "north", "south")))
    assert {case.node for case in alone} == {"world", "world/north", "run"}


def test_members_that_exchange_are_struck_as_they_do(tmp_path: Path) -> None:
    below = hub("world", "east", hub("up", "north", rounds=2), rounds=3, topology="peer")
    low = hub("up", hub("low", "a", rounds=4), "b", rounds=2, topology="allreduce")
    for tree, node, number in ((below, "world/east", 2), (hub("world", low, rounds=3), "world/up/low", 3)):
        config = config_of(tmp_path, tree)
        [case] = [case for case in cases(config) if case.step == "exchange"]
        assert (case.node, case.hub) == (node, node.rpartition("/")[0])
        assert in_round(case, config, 2)[0]["round"] == number, "of the hub whose members exchange"
    swarm = cases(config_of(tmp_path, hub("world", "a", "b", topology="swarm")))
    assert "exchange" not in {case.step for case in swarm}, "only the leader of a round has a part in it"
