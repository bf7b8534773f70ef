"""A process that hangs anywhere, is succeeded, and goes on when its successor is done: nothing of it counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from link_inside import several_runs  # noqa: F401
from small_runs import Listener, config_of, go, hub

from hierfl import checkpoint, rounds
from hierfl.checkpoint import Checkpoint
from hierfl.errors import Fenced, Overtaken
from hierfl.journal import LocalStore
from hierfl.lifecycle import resume, run
from hierfl.monitor.records import Evaluated, Record, RoundClosed, RoundCommitted, RunEnded, RunStarted, SiteTrained
from hierfl.runtime import engine
from tiers.lease import FINISHED, Lease

TREE = hub("world", hub("up", "north", "south", rounds=2), "east", rounds=3, strategy="fedadam")
WORK = (RunStarted, SiteTrained, RoundClosed, Evaluated, RoundCommitted)
OUTPUT = {"keep": 1}


class Hangs(Listener):
    """Hangs at the n-th record of work, until a successor has ended the run."""

    def __init__(self, nth: int, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self.left, self.meanwhile = nth, meanwhile

    def on(self, record: Record) -> None:
        super().on(record)
        if isinstance(record, WORK):
            self.left -= 1
            if self.left == 0:
                self.meanwhile()


def contents(folder: Path) -> dict[str, bytes]:
    """All that a run leaves, but for its journal, in which each process has files of its own."""
    found = (file for file in folder.rglob("*") if file.is_file() and "journal" not in file.relative_to(folder).parts)
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


class Succeeded:
    """Ends the one run of a folder in the place of the process that began it, and keeps what it leaves."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.digest = ""
        self.left: dict[str, bytes] = {}

    @property
    def folder(self) -> Path:
        [folder] = self.runs.iterdir()
        return folder

    def __call__(self) -> None:
        self.digest = resume(self.folder)["model_digest"]
        self.left = contents(self.folder)


def rounds_of(folder: Path) -> Iterator[tuple[int, str]]:
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row: dict[str, Any] = json.loads(line)
        yield row["round"], row["node"]


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize(("every", "look_s"), [(1, 3.0), (2, 3.0), (1, 0.0)])
def test_wherever_it_hangs_its_successor_alone_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, look_s: float
) -> None:
    """Also where it has hung for so long that it would write at once what it has to tell."""
    monkeypatch.setattr(engine, "LOOK_S", look_s)
    output = {**OUTPUT, "checkpoint_every": every}
    whole = go(tmp_path / "whole", TREE)
    moments = sum(isinstance(record, WORK) for record in whole.monitor.heard)
    assert moments > 20
    for nth in range(1, moments, 3):
        runs = tmp_path / f"hangs-{nth}"
        succeeded = Succeeded(runs)
        monitor = Hangs(nth, succeeded)
        with pytest.raises(Fenced, match="another process has taken this run up meanwhile"):
            run(config_of(runs, TREE, output={**output, "dir": str(runs), "tensorboard": False}), [monitor])
        assert succeeded.digest == whole.digest, nth
        assert contents(succeeded.folder) == succeeded.left, nth
        assert json.loads(succeeded.left["summary.json"])["status"] == "finished"
        assert [one.status for one in monitor.of(RunEnded)] == ["fenced"]
        rows = list(rounds_of(succeeded.folder))
        assert len(rows) == len(set(rows)) and {number for number, _ in rows} == {1, 2, 3}


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize("place", ["put_in_place", "_write", "complete", "save"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_one_that_hangs_while_it_writes_a_checkpoint_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, nth: int
) -> None:
    """Before its files are there, before they have their name, and before the older ones go."""
    whole = go(tmp_path / "whole", TREE)
    runs, calls = tmp_path / "runs", [0]
    succeeded = Succeeded(runs)
    real = getattr(checkpoint, place)
    hangs = False

    def hanging(*arguments: Any, **named: Any) -> Any:
        nonlocal hangs
        calls[0] += 1
        if calls[0] == nth and not hangs:
            hangs = True
            succeeded()
        return real(*arguments, **named)

    monkeypatch.setattr(checkpoint, place, hanging)
    with pytest.raises(Fenced):
        run(config_of(runs, TREE, output={**OUTPUT, "dir": str(runs), "tensorboard": False}))
    assert succeeded.digest == whole.digest
    assert contents(succeeded.folder).items() >= succeeded.left.items()
    newest, _ = checkpoint.newest(succeeded.folder)
    assert newest is not None and newest.rounds_done == 3
    store = LocalStore(succeeded.folder / "journal")
    assert store.epoch() == 2 and Lease.read(store.lease(2) or b"").state == FINISHED


@pytest.mark.usefixtures("several_runs")
def test_what_one_adds_that_was_succeeded_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The successor goes on from round 1 and is killed in round 2; the first then adds a checkpoint of round 2."""
    whole = go(tmp_path / "whole", TREE)
    runs, real, hung = tmp_path / "runs", checkpoint.save, []

    def hanging(run_dir: Path, saved: Checkpoint, *arguments: Any, **named: Any) -> Path:
        if saved.rounds_done == 2 and not hung:
            hung.append(run_dir)
            with pytest.raises(KeyboardInterrupt):
                resume(run_dir, (), [Listener(until=(Evaluated, 2))])  # trained or found in the journal
        return real(run_dir, saved, *arguments, **named)

    monkeypatch.setattr(checkpoint, "save", hanging)
    with pytest.raises(Fenced):
        run(config_of(runs, TREE, output={"dir": str(runs), "tensorboard": False}))
    [folder] = runs.iterdir()
    assert (folder / "checkpoints" / "round-000002").exists()
    assert checkpoint.load(folder / "checkpoints" / "round-000002").writer == 1
    with pytest.raises(Overtaken, match="take it up once more"):
        resume(folder)
    assert resume(folder)["model_digest"] == whole.digest
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["fenced-round-000002", "round-000002", "round-000003"]


@pytest.mark.usefixtures("several_runs")
def test_one_that_was_succeeded_puts_no_older_model_in_the_place_of_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs in round 1, whose model is the best yet; its successor finds a better one in round 3."""
    runs, real, hung = tmp_path / "runs", rounds.advance, []
    succeeded = Succeeded(runs)

    def hanging(*arguments: Any) -> Any:
        if not hung:
            hung.append(True)
            succeeded()
        return real(*arguments)

    monkeypatch.setattr(rounds, "advance", hanging)
    tree = hub("world", "north", "south", rounds=3)
    with pytest.raises(Fenced):
        run(
            config_of(
                runs, tree, stopping={"metric": "loss", "patience": 9}, output={"dir": str(runs), "tensorboard": False}
            )
        )
    assert json.loads(succeeded.left["summary.json"])["best"]["round"] == 3
    assert contents(succeeded.folder)["best.safetensors"] == succeeded.left["best.safetensors"]
