"""Hubs whose rounds are under way at a checkpoint, of a root that closed without them, outlive the run's process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from small_runs import Copied, Listener, config_of, go, hub, site

from hierfl.errors import HierflError
from hierfl.lifecycle import resume, run
from hierfl.monitor.records import Notice, Record, RoundClosed, RoundCommitted, SiteTrained
from hierfl.runtime.chance import SharedChance

AT_ONCE: dict[str, Any] = {"step_s": 0.0}
TOP: dict[str, Any] = {
    "training": {"lr": 0.1, "batch_size": None, "local_steps": 1},
    "runtime": {"kind": "local", "devices": [{"name": "device", "count": 10}]},
    "evaluation": {"every": 0},
}
FIRST = {"kind": "buffered", "goal": 1, "staleness": 9}
HAVE_SENT = {("world/us/b", 1), ("world/us/in/d", 1), ("world/us/deep/e", 1)}


def tree() -> dict[str, Any]:
    """The root goes on as soon as a member has reported: first `a`, as the last site of the other one waits."""
    inner = hub("in", site("d", **AT_ONCE)), hub("deep", site("e", **AT_ONCE), site("slow", gated=True))
    us = hub("us", site("b", **AT_ONCE), *inner, rounds=2, strategy="fedadam")
    return hub("world", site("a", step_s=1.0), us, participation=FIRST, rounds=2)


def killed(runs: Path, gate: Path) -> Copied:
    """Copies the run's folder as the first round is committed, and lets the site that waits go on."""

    def is_first(record: Record) -> bool:
        return isinstance(record, RoundCommitted) and record.round_number == 1

    return Copied(runs, is_first, then=gate.unlink)


@pytest.fixture(scope="module", autouse=True)
def at_once() -> Iterator[None]:
    """A first site that takes its time holds nobody up, also those who were there before it had begun."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hierfl.runtime.chance.FIRST_S", 0.0)
        patch.setattr("hierfl.runtime.chance.SharedChance", partial(SharedChance, look_s=0.02))
        yield


@pytest.fixture(scope="module")
def went(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The digest of a run, and its folder as it was after the first round."""
    folder = tmp_path_factory.mktemp("under-way")
    gate = folder / "gate"
    gate.touch()
    task = {"kind": "late_task:LateTask", "gate": str(gate)}
    go(folder / "warm", hub("world", site("a", **AT_ONCE), rounds=1), task, **TOP)
    monitor = killed(folder / "runs", gate)
    summary = run(config_of(folder / "runs", tree(), task, **TOP), [monitor])
    first, second = (record for record in monitor.of(RoundClosed) if record.node == "world")
    assert first.members == ("a",) and set(second.carried) == {"us"}, (first, second)
    return str(summary["model_digest"]), monitor.copy


def resumed(folder: Path, *overrides: str, until: tuple[type, int] | None = None) -> tuple[str, Listener]:
    monitor = Listener(until=until)
    return str(resume(folder, overrides, [monitor])["model_digest"]), monitor


def trained(monitor: Listener) -> set[tuple[str, int]]:
    return {(record.node, record.round_number) for record in monitor.of(SiteTrained)}


@pytest.mark.parametrize("is_written", [True, False], ids=["with the new segment", "before it"])
def test_who_has_sent_an_update_to_a_hub_under_way_does_not_train_again(
    went: tuple[str, Path], tmp_path: Path, is_written: bool
) -> None:
    digest, copy = went
    folder = Path(shutil.copytree(copy, tmp_path / "run"))
    if not is_written:
        shutil.rmtree(folder / "journal" / "after-000001", ignore_errors=True)
    found, monitor = resumed(folder)
    assert found == digest
    assert not trained(monitor) & HAVE_SENT and ("world/us/deep/slow", 1) in trained(monitor)
    closed = {record.node: record for record in monitor.of(RoundClosed) if record.round_number == 1}
    assert set(closed["world/us"].members) == {"b", "in", "deep"} and "world/us/in" not in closed
    assert any("in the journal, and count" in notice.message for notice in monitor.of(Notice))


def test_nor_when_the_run_is_killed_once_more(went: tuple[str, Path], tmp_path: Path) -> None:
    digest, copy = went
    folder = Path(shutil.copytree(copy, tmp_path / "run"))
    with pytest.raises(KeyboardInterrupt):
        resumed(folder, until=(RoundClosed, 1))  # the hub that was under way has closed its first round
    found, monitor = resumed(folder)
    assert found == digest and not trained(monitor) & {*HAVE_SENT, ("world/us/deep/slow", 1)}


def test_what_cannot_be_read_leaves_the_round_to_begin_anew(went: tuple[str, Path], tmp_path: Path) -> None:
    _, copy = went
    folder = Path(shutil.copytree(copy, tmp_path / "run"))
    [file, *_] = sorted((folder / "checkpoints" / "round-000001" / "under_way").glob("*.records"))
    file.write_bytes(file.read_bytes()[:-1])
    _, monitor = resumed(folder)
    said = [notice.message for notice in monitor.of(Notice)]
    assert any("what was under way at the checkpoint cannot be read" in one for one in said)
    assert not any("in the journal, and count" in one for one in said)
    assert {("world/us/b", 3), ("world/us/in/d", 3), ("world/us/deep/e", 3)} <= trained(monitor), "of the next round"


def test_what_a_checkpoint_cannot_keep_is_told_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise HierflError("its node has died")

    gate = tmp_path / "gate"
    gate.touch()
    monitor = killed(tmp_path / "runs", gate)
    task = {"kind": "late_task:LateTask", "gate": str(gate)}
    with monkeypatch.context() as patch:
        patch.setattr("hierfl.runtime.underway.whole", lost)
        run(config_of(tmp_path / "runs", tree(), task, **TOP), [monitor])
    heard = [record for record in monitor.heard if isinstance(record, Notice | RoundCommitted)]
    told = [number for number, record in enumerate(heard) if "under way" in str(record)]
    committed = next(number for number, record in enumerate(heard) if isinstance(record, RoundCommitted))
    assert len(told) == 1 and told[0] < committed, "once, and before the round is said to be committed"
    [notice] = (heard[number] for number in told)
    assert notice.message == (
        "what is under way at world/us, world/us/deep cannot be kept with the checkpoint: its node has died; the run"
        " goes on; if it is killed before its next checkpoint, what was sent there since does not count"
    )
    _, after = resumed(monitor.copy)
    assert {("world/us/b", 3), ("world/us/in/d", 3), ("world/us/deep/e", 3)} <= trained(after), "of the next round"
    assert not trained(after) & HAVE_SENT


def test_updates_of_other_settings_do_not_count_where_the_settings_before_come_back(
    went: tuple[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(went[1], tmp_path / "run"))
    with pytest.raises(KeyboardInterrupt):
        resumed(folder, "training.lr=0.5", until=(RoundClosed, 3))  # of a hub that has begun anew
    _, monitor = resumed(folder, "training.lr=0.1")
    assert any("the settings have changed" in said.message for said in monitor.of(Notice))
    assert {("world/us/b", 3), ("world/us/in/d", 3), ("world/us/deep/e", 3)} <= trained(monitor)


def test_without_a_journal_nothing_is_taken_along(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    monitor = killed(tmp_path / "runs", gate)
    task = {"kind": "late_task:LateTask", "gate": str(gate)}
    summary = run(config_of(tmp_path / "runs", tree(), task, **TOP, redundancy={"journal": "none"}), [monitor])
    assert summary["status"] == "finished" and len(monitor.of(RoundCommitted)) == 2
    assert (monitor.copy / "checkpoints" / "round-000001").exists()
    assert not list(monitor.copy.glob("checkpoints/*/under_way"))
