"""What has happened to hospitals' federations, as they told it in public, must not happen here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import Listener, config_of, copied_live, go, hub, site

from hierfl.errors import RoundFailed, SiteFailed
from hierfl.journal import Writer
from hierfl.lifecycle import resume, run
from hierfl.monitor.records import NodesChanged, Record, RoundClosed, SiteTrained

HOSPITALS = [f"hospital-{number}" for number in range(8)]


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    """The writer of the run that is under way: what was told is durable once it is flushed."""
    found: list[Writer] = []
    begin = Writer.begin

    def kept(self: Writer, *said: Any) -> None:
        found.append(self)
        begin(self, *said)

    monkeypatch.setattr(Writer, "begin", kept)
    return found


class Copier(Listener):
    """Copies the run's folder when the root's round closes: its model is nowhere but in the aggregator."""

    def __init__(self, folder: Path, number: int, writers: list[Writer]) -> None:
        super().__init__()
        self.folder, self.number, self.writers = folder, number, writers

    def on(self, record: Record) -> None:
        super().on(record)
        if isinstance(record, RoundClosed) and (record.node, record.round_number) == ("world", self.number):
            self.writers[-1].flush()
            [run_dir] = (self.folder / "runs").iterdir()
            copied_live(run_dir, self.folder / "left")


def test_a_cut_of_minutes_does_not_end_a_run_of_hours(tmp_path: Path, writers: list[Writer]) -> None:
    """A VPN was down for six minutes, and a run of fifteen hours was over."""
    tree = hub("world", *HOSPITALS[:3], rounds=5)
    whole = go(tmp_path / "whole", tree)
    run(config_of(tmp_path / "runs", tree), [Copier(tmp_path, 4, writers)])
    monitor = Listener()
    assert resume(tmp_path / "left", (), [monitor])["model_digest"] == whole.digest
    assert {record.round_number for record in monitor.of(SiteTrained)} == {5}, "four rounds of work are not done again"


def test_the_newest_model_is_not_stranded_with_the_aggregator(tmp_path: Path, writers: list[Writer]) -> None:
    """The aggregator crashed after the last round, and the model that all had trained was lost with it."""
    tree = hub("world", *HOSPITALS[:3], rounds=2)
    whole = run(config_of(tmp_path / "runs", tree), [Copier(tmp_path, 2, writers)])
    monitor = Listener()
    assert resume(tmp_path / "left", (), [monitor])["model_digest"] == whole["model_digest"]
    assert not monitor.of(SiteTrained), "no hospital trains again"
    assert (tmp_path / "left" / "model.safetensors").exists()


def test_a_dead_site_does_not_cost_its_time_limit_in_every_round(tmp_path: Path) -> None:
    """A site was gone, and each later round waited for it for an hour."""
    dead = site("dead", fault="raise")
    asks = {"kind": "deadline", "after_s": 600.0, "quorum": 0.5, "weight": 0.5, "probe_after": 2}
    tree = hub("world", "north", "south", "east", dead, rounds=8, on_failure="continue", participation=asks)
    ran = go(tmp_path, tree)
    failed = [
        one.round_number
        for one in ran.monitor.of(NodesChanged)
        if (one.nodes, one.state) == (("world/dead",), "failed")
    ]
    assert failed == [1, 2, 4, 8], "after two failures it is asked in the second round from there, then in the fourth"
    assert ran.summary["status"] == "finished"


@pytest.mark.parametrize(
    ("settings", "error"), [({}, SiteFailed), ({"on_failure": "continue", "quorum": 1.0}, RoundFailed)]
)
def test_a_round_of_seven_sites_does_not_pass_for_one_of_eight(
    settings: dict[str, object], error: type[Exception], tmp_path: Path
) -> None:
    """All eight sites were wanted; seven were added up, and success was reported."""
    tree = hub("world", *HOSPITALS[:7], site(HOSPITALS[7], fault="raise"), **settings)
    with pytest.raises(error, match="hospital-7"):
        go(tmp_path, tree)
    [folder] = tmp_path.iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["rounds"]) == ("failed", 0) and "hospital-7" in summary["error"]
