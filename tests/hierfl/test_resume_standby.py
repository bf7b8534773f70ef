"""`hierfl resume --standby`: it takes up what somebody has left, ends with what has ended, and refuses what it must."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from small_runs import Listener, config_of, go, hub
from typer.testing import CliRunner

from hierfl.cli import app
from hierfl.journal import LocalStore
from hierfl.lifecycle import run
from hierfl.monitor.records import RoundCommitted
from tiers.lease import FAILED, Lease

TREE = hub("world", "a", "b", rounds=3)


def call(*words: str) -> Result:
    return CliRunner().invoke(app, ["resume", *words])


def left(folder: Path) -> Path:
    """Run a federation until its process is stopped after two rounds."""
    monitor = Listener(until=(RoundCommitted, 2))
    with pytest.raises(KeyboardInterrupt):
        run(config_of(folder, TREE), [monitor])
    [run_dir] = folder.iterdir()
    return run_dir


def test_what_was_left_is_taken_up_and_what_has_ended_is_not(tmp_path: Path) -> None:
    run_dir = left(tmp_path / "runs")
    taken = call(str(run_dir), "--standby", "--json")
    assert taken.exit_code == 0, taken.output
    assert "has left: it was stopped" in taken.stderr and f"takes up {run_dir}" in taken.stderr
    said = json.loads(taken.stdout)
    assert said["status"] == "finished" and said["model_digest"] == go(tmp_path / "whole", TREE).digest
    again = call(str(run_dir), "--standby", "--json")
    assert again.exit_code == 0 and f"{run_dir}: the run has ended" in again.stderr
    assert json.loads(again.stdout)["model_digest"] == said["model_digest"]
    assert LocalStore(run_dir / "journal").epoch() == 2


def test_a_run_that_failed_of_itself_ends_its_standby_too(tmp_path: Path) -> None:
    run_dir = left(tmp_path)
    lease = Lease(1, "alpha:7", state=FAILED, reason="world is below its quorum")
    LocalStore(run_dir / "journal").put_lease(1, lease.write())
    ended = call(str(run_dir), "--standby")
    assert ended.exit_code == 1 and "has ended: world is below its quorum" in ended.stderr


def test_a_silent_leader_is_succeeded_after_its_lease(tmp_path: Path) -> None:
    run_dir = left(tmp_path)
    file = run_dir / "config.yaml"
    file.write_text(file.read_text().replace("lease_s: 30.0", "lease_s: 0.2"))
    assert "lease_s: 0.2" in file.read_text()
    LocalStore(run_dir / "journal").put_lease(1, Lease(1, "alpha:7").write())
    taken = call(str(run_dir), "--standby")
    assert taken.exit_code == 0, taken.output
    assert "nothing was heard of alpha:7, number 1, for 0.2" in taken.stderr


def test_overrides_and_runs_without_a_journal_are_refused(tmp_path: Path) -> None:
    run_dir = left(tmp_path)
    refused = call(str(run_dir), "federation.rounds=9", "--standby")
    assert refused.exit_code == 2 and "leave the overrides out" in refused.stderr
    file = run_dir / "config.yaml"
    file.write_text(file.read_text().replace("journal: null", "journal: none"))
    refused = call(str(run_dir), "--standby")
    assert refused.exit_code == 2 and "this run keeps none" in refused.stderr


def test_who_cannot_claim_its_number_leads_nothing_that_others_may_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand such a run goes on without a journal; a standby cannot know that nobody else does."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    run_dir = left(tmp_path / "runs")
    monkeypatch.setattr(LocalStore, "claim", full)
    refused = call(str(run_dir), "--standby")
    assert refused.exit_code == 1 and "No space left on device; others may lead the run" in refused.stderr
    assert call(str(run_dir)).exit_code == 0
