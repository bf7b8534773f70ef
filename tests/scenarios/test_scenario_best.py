"""The best model by early stopping: whenever a run is killed, the file is the model that the summary names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from small_runs import Copied, Listener, Ran, config_of, go, hub

from hierfl.lifecycle import resume, run
from hierfl.monitor.records import Evaluated, Notice, Record, RoundCommitted

TREE = hub("world", hub("up", "north", "south"), "east", rounds=8)
STOPPING = {"metric": "loss", "patience": 50, "min_delta": 1e-3}
"""At a learning rate of 0.1 every round is better than the one before, at one of 1e-7 none is."""
STANDS = ["training.lr=1e-7"]


def output(folder: Path) -> dict[str, Any]:
    return {"dir": str(folder), "checkpoint_every": 4, "tensorboard": False}


def model_after(rounds: int, folder: Path) -> bytes:
    ran = go(folder, {**TREE, "rounds": rounds})
    return (ran.folder / "model.safetensors").read_bytes()


def best(folder: Path) -> bytes:
    return (folder / "best.safetensors").read_bytes()


def killed(tmp_path: Path, kind: type, number: int) -> tuple[Ran, Path]:
    """A whole run, and what is left of one that was killed at a round's record."""

    def is_there(record: Record) -> bool:
        return isinstance(record, kind) and record.round_number == number  # type: ignore[attr-defined]

    monitor = Copied(tmp_path / "runs", is_there)
    summary = run(config_of(tmp_path / "runs", TREE, stopping=STOPPING, output=output(tmp_path / "runs")), [monitor])
    return Ran(summary, monitor), monitor.copy


@pytest.mark.parametrize("number", [6, 8])
def test_a_better_round_that_is_lost_and_taken_another_way_is_not_the_best(number: int, tmp_path: Path) -> None:
    _, folder = killed(tmp_path, Evaluated, number)
    first = model_after(4, tmp_path / "first")
    assert best(folder) == first, "of the newest checkpoint"
    assert len([*(folder / "checkpoints").glob(".best*")]) == 2, "of a round and the one before it, and of no more"
    summary = resume(folder, STANDS)
    assert summary["best"]["round"] == 4 and summary["rounds"] == 8
    assert best(folder) == first
    assert not [path.name for path in (folder / "checkpoints").glob(".best*")]


@pytest.mark.parametrize(("kind", "number"), [(Evaluated, 3), (Evaluated, 4), (RoundCommitted, 4), (Evaluated, 8)])
def test_a_run_that_goes_on_has_the_best_model_of_the_unbroken_one(kind: type, number: int, tmp_path: Path) -> None:
    whole, folder = killed(tmp_path, kind, number)
    assert resume(folder)["best"] == whole.summary["best"]
    assert best(folder) == best(whole.folder) == (whole.folder / "model.safetensors").read_bytes()


def test_a_round_that_is_stopped_before_its_end_leaves_the_best_of_those_before(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "runs", TREE, until=(Evaluated, 6), stopping=STOPPING, output=output(tmp_path / "runs"))
    [folder] = (tmp_path / "runs").iterdir()
    assert best(folder) == model_after(5, tmp_path / "five")
    assert resume(folder, STANDS)["best"]["round"] == 5
    assert best(folder) == model_after(5, tmp_path / "again")


def test_a_disk_without_links_keeps_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    _, folder = killed(tmp_path, Evaluated, 6)
    resume(folder, STANDS)
    assert best(folder) == model_after(4, tmp_path / "first")


@pytest.mark.parametrize(
    ("override", "has_best"), [("stopping=null", False), ("stopping.metric=accuracy", True), ("training.lr=0.2", True)]
)
def test_what_was_best_by_another_metric_is_put_aside(override: str, has_best: bool, tmp_path: Path) -> None:
    ran = go(tmp_path, {**TREE, "rounds": 2}, stopping=STOPPING)
    before, monitor = best(ran.folder), Listener()
    summary = resume(ran.folder, [override, "federation.rounds=3"], [monitor])
    aside = ran.folder / "earlier-best.safetensors"
    told = [notice.message for notice in monitor.of(Notice) if notice.message.startswith("best.safetensors")]
    assert ("best" in summary, (ran.folder / "best.safetensors").exists()) == (has_best, has_best)
    if override.startswith("stopping"):
        assert aside.read_bytes() == before and len(told) == 1 and aside.name in told[0]
    else:
        assert not aside.exists() and not told


@pytest.mark.parametrize(
    ("override", "has_best"), [("federation.rounds=10", True), ("stopping.metric=accuracy", False)]
)
def test_a_folder_of_an_earlier_version_goes_on_as_any(override: str, has_best: bool, tmp_path: Path) -> None:
    """Its checkpoints neither say what the run was to stop by nor keep the best model."""
    top = {"stopping": STOPPING, "output": {**output(tmp_path), "checkpoint_every": 2}}
    ran = go(tmp_path, TREE, **top)
    for folder in (ran.folder / "checkpoints").iterdir():
        said = json.loads((folder / "checkpoint.json").read_text())
        del said["goal"]
        (folder / "checkpoint.json").write_text(json.dumps(said))
        (folder / "best.safetensors").unlink(missing_ok=True)
    before = best(ran.folder)
    summary = resume(ran.folder, [override, "federation.rounds=10", *STANDS])
    if has_best:
        assert summary["best"] == ran.summary["best"] and best(ran.folder) == before
    else:
        assert summary["best"]["round"] > 8
        assert (ran.folder / "earlier-best.safetensors").read_bytes() == before
