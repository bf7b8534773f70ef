"""A run that is killed goes on from its journal: the same bits, and no site whose update is there trains again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import Listener, config_of, copied_live, go, hub, site
from ward_tasks import Wards

from hierfl import checkpoint
from hierfl.errors import OutputError, RoundFailed
from hierfl.journal import LocalStore, Writer, open_store
from hierfl.lifecycle import resume, run
from hierfl.monitor.records import Notice, Record, RoundClosed, RoundCommitted, SiteTrained
from hierfl.runtime.local import LocalDriver
from hierfl.runtime.underway import carried
from tiers.journal import Told, join
from tiers.messages import Arrived

SUPPORT = Path(__file__).parents[1] / "support"

TREE = hub("world", hub("up", "north", "south", rounds=2), hub("low", "a", "b"), "east", rounds=4, strategy="fedadam")
TREES: dict[str, dict[str, Any]] = {
    "tiers": TREE,
    "cyclic": hub("world", hub("ring", "north", "south", "a", topology="cyclic"), "east", rounds=3),
    "control": hub("world", "north", "south", "east", rounds=3, strategy="scaffold"),
    "medians": hub("world", hub("up", "north", "south", "east", strategy="median"), "a", rounds=3),
    "compressed": hub("world", hub("up", "north", "south", rounds=2), "east", rounds=3, compression="top_k"),
    "given up": hub(
        *("world", hub("up", "north", site("south", fault="raise"), quorum=1.0), "a"),
        on_failure="continue",
        quorum=0.5,
        rounds=3,
    ),
    "going on": hub("world", hub("up", "north", site("south", fault="code"), on_failure="continue"), "a", rounds=3),
}

WORK = (SiteTrained, RoundClosed, RoundCommitted)


class Copier(Listener):
    """Copies the run's folder at every record of work: what a run that is killed at that moment leaves."""

    def __init__(self, runs: Path, to: Path, *, flush: bool) -> None:
        super().__init__()
        self.runs, self.to, self.flush = runs, to, flush
        self.copies: list[Path] = []

    def on(self, record: Record) -> None:
        super().on(record)
        if isinstance(record, WORK):
            if self.flush:
                Taken.last.flush()
            [folder] = self.runs.iterdir()
            self.copies.append(copied_live(folder, self.to / f"copy-{len(self.copies)}"))


class Taken:
    """What writes the journal of the run that is under way."""

    last: Writer


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for its way to disk, and the disk can be waited for."""
    monkeypatch.setattr(Writer, "delay_s", 0.0)
    begin = Writer.begin

    def kept(self: Writer, *said: Any) -> None:
        Taken.last = self
        begin(self, *said)

    monkeypatch.setattr(Writer, "begin", kept)


def journalled(folder: Path) -> set[tuple[str, int]]:
    """The sites whose updates are in the journal, or the newest checkpoint has of it, each with its hub's round."""
    saved, newest = checkpoint.known(folder), checkpoint.latest(folder)
    found = join(LocalStore(folder / "journal").read(saved.rounds_done if saved else 0)).entries
    if newest is not None and (newest / checkpoint.UNDER_WAY).exists():
        found = (*carried(newest / checkpoint.UNDER_WAY).left, *found)
    return {
        (f"{entry.record.hub}/{share.member}", entry.record.event.update.round_number + 1)
        for entry in found
        if isinstance(entry.record, Told) and isinstance(entry.record.event, Arrived) and entry.record.vectors
        for share in entry.record.event.update.shares
    }


def trained(monitor: Listener) -> Counter[tuple[str, int]]:
    return Counter((record.node, record.round_number) for record in monitor.of(SiteTrained))


def copied(tmp_path: Path, root: dict[str, Any], *, flush: bool = True, **top: Any) -> tuple[Any, Copier]:
    copier = Copier(tmp_path / "runs", tmp_path, flush=flush)
    return run(config_of(tmp_path / "runs", root, **top), [copier]), copier


def goes_on(folder: Path, monitor: Listener) -> str:
    """Resume, and check that no site whose update is in the journal has trained again; give the digest."""
    before = journalled(folder)
    digest = str(resume(folder, (), [monitor])["model_digest"])
    assert not before & set(trained(monitor)), "trained again"
    assert max(trained(monitor).values(), default=1) == 1
    return digest


@pytest.mark.parametrize("most", [3, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TREES)
def test_killed_at_any_moment_a_run_goes_on_to_the_same_bits_and_trains_nobody_again(
    name: str, most: int, tmp_path: Path
) -> None:
    summary, copier = copied(tmp_path, TREES[name])
    full = [folder for folder in copier.copies if journalled(folder)]
    empty = [folder for folder in copier.copies if folder not in full]
    assert len(full) >= 3, "the test sees nothing"
    for folder in [*full[:: -(-len(full) // most)], *empty[:: -(-len(empty) // most)]]:
        assert goes_on(folder, Listener()) == summary["model_digest"], folder


def test_hubs_far_below_one_that_gave_up_are_begun_again_though_the_root_goes_on_before_they_are_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = LocalDriver.wait
    monkeypatch.setattr(
        LocalDriver, "wait", lambda self, _: list(wait(self, 30.0)) or pytest.fail("nothing can happen any more")
    )
    go_on = {"on_failure": "continue"}
    mid = hub("mid", hub("low", site("south", fault="raise")), **go_on)
    root = hub("world", hub("up", mid, **go_on), "a", rounds=2, quorum=0.5, **go_on)
    top = {"evaluation": {"every": 2}}  # nothing between the rounds gives the hubs below time
    summary, copier = copied(tmp_path, root, **top)
    for folder in copier.copies:
        assert goes_on(folder, Listener()) == summary["model_digest"], folder


def test_a_run_that_failed_at_an_inner_hub_asks_those_again_whose_loss_led_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is below its quorum and gives up, and with it the run: its parent does not go on without it."""
    strict = {"on_failure": "continue", "quorum": 1.0}
    root = hub("world", hub("up", "north", "south", **strict), hub("low", "a", "b", **strict), rounds=2)
    whole = run(config_of(tmp_path / "whole", root))
    steps, loss = count(), Wards.loss

    def ill_once(self: Wards, model: Any, batch: Any) -> Any:
        if model.training and next(steps) == 10:
            raise ZeroDivisionError("a power cut")
        return loss(self, model, batch)

    monkeypatch.setattr(Wards, "loss", ill_once)
    with pytest.raises(RoundFailed, match=r"^world/\w+: the round cannot be closed: below the quorum of 2 of 2"):
        run(config_of(tmp_path / "runs", root))
    [folder] = (tmp_path / "runs").iterdir()
    assert journalled(folder)
    assert goes_on(folder, Listener()) == whole["model_digest"]


def test_a_run_that_is_killed_before_its_model_is_written_writes_it(tmp_path: Path) -> None:
    summary, copier = copied(tmp_path, TREE)
    folder = copier.copies[-1]
    ended = resume(folder)
    assert ended["model_digest"] == summary["model_digest"] and (folder / "model.safetensors").exists()
    assert ended["nodes"]["world"]["accuracy"] == summary["nodes"]["world"]["accuracy"]
    with pytest.raises(OutputError, match="has done its 4 rounds"):
        resume(folder)


@pytest.mark.parametrize("name", ["tiers", "given up"])
def test_a_run_that_is_killed_again_and_again_goes_on_from_all_that_each_process_wrote(
    name: str, tmp_path: Path
) -> None:
    summary, copier = copied(tmp_path, TREES[name])
    for number, folder in enumerate(copier.copies[1:11:3]):
        runs = tmp_path / f"second-{number}"
        runs.mkdir()
        second = Copier(runs, tmp_path / f"third-{number}", flush=True)
        assert goes_on(Path(shutil.copytree(folder, runs / "leg")), second) == summary["model_digest"]
        for copy in second.copies[:10:3]:
            before = journalled(copy)
            third = Listener()
            assert goes_on(copy, third) == summary["model_digest"]
            assert before >= journalled(folder) or checkpoint.known(copy) != checkpoint.known(folder)


def test_rounds_between_two_checkpoints_are_told_again_whole(tmp_path: Path) -> None:
    summary, copier = copied(tmp_path, TREE, output={"dir": str(tmp_path / "runs"), "checkpoint_every": 3})
    seen = set()
    for folder in copier.copies[5:-1:12]:
        seen.add(len({number for _, number in journalled(folder)}))
        assert goes_on(folder, Listener()) == summary["model_digest"]
    assert max(seen) > 3, "rounds of an inner hub"


def test_an_interruption_between_two_checkpoints_saves_the_last_round_and_keeps_what_came_after(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole", TREE)
    output = {"dir": str(tmp_path / "runs"), "checkpoint_every": 4, "tensorboard": False}
    for number in range(3, 8):
        monitor = Listener(until=(SiteTrained, number))
        with pytest.raises(KeyboardInterrupt):
            run(
                config_of(
                    tmp_path / f"runs-{number}", TREE, output={**output, "dir": str(tmp_path / f"runs-{number}")}
                ),
                [monitor],
            )
        [folder] = (tmp_path / f"runs-{number}").iterdir()
        assert checkpoint.known(folder).rounds_done == len(monitor.of(RoundCommitted))  # type: ignore[union-attr]
        assert goes_on(folder, Listener()) == whole.digest


def test_what_is_left_of_a_journal_follows_the_settings_of_checkpoints(tmp_path: Path) -> None:
    """Taken up with more checkpoints, the tail of the journal goes over into these."""
    output = {"dir": str(tmp_path / "runs"), "checkpoint_every": 4, "tensorboard": False}
    summary, copier = copied(tmp_path, TREE, output=output)
    folder = copier.copies[-6]
    before = journalled(folder)
    stop = Listener(until=(RoundCommitted, 1))
    with pytest.raises(KeyboardInterrupt):
        resume(folder, ["output.checkpoint_every=1"], [stop])
    assert not stop.of(SiteTrained) and journalled(folder)
    last = Listener()
    assert goes_on(folder, last) == summary["model_digest"]
    assert not before & set(trained(last))


def test_a_journal_that_has_grown_asks_for_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = hub("world", "north", "east", rounds=5)
    [first, *_] = go(tmp_path / "whole", tree).monitor.of(RoundClosed)
    monkeypatch.setattr("hierfl.runtime.recorder.FULL_BYTES", 2 * first.bytes_up)
    output = {"dir": str(tmp_path / "runs"), "checkpoint_every": 100, "tensorboard": False, "keep": 9}
    folder = go(tmp_path, tree, output=output).folder
    found = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert found == ["round-000002", "round-000004", "round-000005"]


def test_a_torn_tail_is_cut_off_and_told(tmp_path: Path) -> None:
    summary, copier = copied(tmp_path, TREE)
    folder = next(copy for copy in copier.copies if len(journalled(copy)) > 2)
    [file] = folder.glob("journal/after-*/writer-0001.journal")
    file.write_bytes(file.read_bytes()[:-5])
    monitor = Listener()
    assert goes_on(folder, monitor) == summary["model_digest"]
    assert any(
        "the journal ends before its end: of writer 1: a record is cut short" in n.message for n in monitor.of(Notice)
    )


def test_other_settings_make_no_use_of_the_journal(tmp_path: Path) -> None:
    _, copier = copied(tmp_path, TREE)
    folder = next(copy for copy in copier.copies if len(journalled(copy)) > 2)
    monitor = Listener()
    resume(folder, ["training.lr=0.2"], [monitor])
    assert any("settings have changed" in notice.message for notice in monitor.of(Notice))
    assert journalled(folder) == set()


def test_other_settings_of_what_changes_no_bits_keep_it(tmp_path: Path) -> None:
    summary, copier = copied(tmp_path, TREE)
    folder = next(copy for copy in copier.copies if len(journalled(copy)) > 2)
    before, monitor = journalled(folder), Listener()
    assert (
        resume(folder, ["runtime.num_workers=2", "evaluation.every=0"], [monitor])["model_digest"]
        == summary["model_digest"]
    )
    assert not before & set(trained(monitor))
    assert any("are in the journal, and count" in notice.message for notice in monitor.of(Notice))


def test_a_journal_that_cannot_be_written_is_told_once_a_round_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go(tmp_path / "whole", TREE)
    monkeypatch.setattr(LocalStore, "open", full)
    other = go(tmp_path / "full", TREE)
    assert other.digest == whole.digest
    told = [notice.message for notice in other.monitor.of(Notice) if "journal" in notice.message]
    assert told and len(told) <= 4 and all("No space left on device; the run goes on" in said for said in told)


def full(*_: Any) -> Any:
    raise OSError(28, os.strerror(28))


def test_a_process_whose_run_was_taken_up_elsewhere_publishes_nothing_more(tmp_path: Path) -> None:
    class Elsewhere(Listener):
        def on(self, record: Record) -> None:
            super().on(record)
            if isinstance(record, RoundCommitted) and record.round_number == 2:
                [self.folder] = (tmp_path / "runs").iterdir()
                LocalStore(self.folder / "journal").claim(2)

    monitor = Elsewhere()
    with pytest.raises(OutputError, match="another process has taken this run up meanwhile"):
        run(config_of(tmp_path / "runs", TREE), [monitor])
    assert checkpoint.known(monitor.folder).rounds_done == 2  # type: ignore[union-attr]
    assert resume(monitor.folder)["model_digest"] == go(tmp_path / "whole", TREE).digest


def test_without_a_journal_sites_train_again_and_the_bits_are_the_same(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole", TREE)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "runs", TREE, until=(RoundClosed, 2), redundancy={"journal": "none"})
    [folder] = (tmp_path / "runs").iterdir()
    assert not (folder / "journal").exists()
    assert resume(folder)["model_digest"] == whole.digest


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_journal_may_lie_elsewhere(scheme: str, tmp_path: Path) -> None:
    place = f"{scheme}{tmp_path / 'journals'}"
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "runs", TREE, until=(RoundClosed, 3), redundancy={"journal": place})
    [folder] = (tmp_path / "runs").iterdir()
    store = open_store(f"{place}/{folder.name}")
    rounds = checkpoint.known(folder).rounds_done  # type: ignore[union-attr]
    members = [entry for entry in join(store.read(rounds)).entries if isinstance(entry.record, Told)]
    assert members and not (folder / "journal").exists()
    monitor = Listener()
    assert resume(folder, (), [monitor])["model_digest"] == go(tmp_path / "whole", TREE).digest
    assert any("are in the journal, and count" in notice.message for notice in monitor.of(Notice))
    assert store.read(4) == {} and store.epoch() == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from small_runs import Listener
from hierfl.config import load
from hierfl.journal.writer import Writer
from hierfl.lifecycle import resume, run
from hierfl.monitor.records import RoundClosed, RoundCommitted, SiteTrained

class Killer(Listener):
    left = int(sys.argv[3])
    def on(self, record):
        super().on(record)
        if isinstance(record, SiteTrained | RoundClosed | RoundCommitted):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

Writer.delay_s = 0.0
if sys.argv[1] == "run":
    run(load(Path(sys.argv[2])), [Killer()])
else:
    resume(Path(sys.argv[2]), (), [Killer()])
"""


def killed(how: str, path: Path, number: int) -> int:
    """Run or resume in a process that ends itself at its n-th record of work; give its return code."""
    command = [sys.executable, "-c", KILLED, how, str(path), str(number)]
    env = {**os.environ, "PYTHONPATH": f"{SUPPORT}:{Path(__file__).parents[2]}"}
    return subprocess.run(command, env=env, capture_output=True, timeout=120, check=False).returncode


def test_a_real_kill_of_the_process_and_another_one_of_its_successor(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole", TREE)
    path = tmp_path / "trial.yaml"
    path.write_text(yaml.safe_dump(dict(config_of(tmp_path / "runs", TREE).resolved)))
    assert killed("run", path, 12) == -signal.SIGKILL
    [folder] = (tmp_path / "runs").iterdir()
    assert killed("resume", folder, 7) == -signal.SIGKILL
    assert goes_on(folder, Listener()) == whole.digest
