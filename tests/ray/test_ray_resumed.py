"""A run on Ray that is killed goes on from its journal, on a Ray or in threads, and trains nobody again."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray_runs import Watcher, run, write_config
from small_runs import copied_live

from hierfl import checkpoint
from hierfl.journal import LocalStore, Writer
from hierfl.lifecycle import resume
from hierfl.monitor.records import Record, RoundClosed, SiteTrained
from tiers.journal import Told, join
from tiers.messages import Arrived

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]

RAY = ("runtime.kind=ray", "runtime.num_workers=2")


def journalled(folder: Path) -> set[tuple[str, int]]:
    saved = checkpoint.known(folder)
    told = [
        entry.record for entry in join(LocalStore(folder / "journal").read(saved.rounds_done if saved else 0)).entries
    ]
    return {
        (f"{record.hub}/{share.member}", record.event.update.round_number + 1)
        for record in told
        if isinstance(record, Told) and isinstance(record.event, Arrived) and record.vectors
        for share in record.event.update.shares
    }


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedadam", "scaffold"])
def test_what_a_killed_run_on_ray_leaves_goes_on_there_and_in_threads(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, copies, writers = write_config(tmp_path), [], []
    begin = Writer.begin
    monkeypatch.setattr(Writer, "begin", lambda self, *said: (writers.append(self), begin(self, *said)))

    class Copier(Watcher):
        def on(self, record: Record) -> None:
            super().on(record)
            if isinstance(record, RoundClosed) and record.round_number > 1:
                writers[-1].flush()
                [folder] = (tmp_path / "runs").iterdir()
                copies.append(copied_live(folder, tmp_path / f"copy-{len(copies)}"))

    digest = run(config, *RAY, f"federation.strategy={strategy}", watcher=Copier())["model_digest"]
    full = [folder for folder in copies if journalled(folder)]
    assert len(full) > 2
    for folder, override in zip(full[1::2], (*RAY[:1], "runtime.kind=local"), strict=False):
        before, monitor = journalled(folder), Watcher()
        assert resume(folder, [override], [monitor])["model_digest"] == digest
        trained = [(one.node, one.round_number) for one in monitor.records if isinstance(one, SiteTrained)]
        assert not before & set(trained) and len(trained) == len(set(trained))
