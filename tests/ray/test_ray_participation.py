"""Late members on a real Ray: they outlive processes, and the run does not outlive them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray_runs import Drivers, Watcher, committed, run, write_config

from hierfl.monitor.records import Assigned, NodesChanged, RoundClosed, SiteTrained

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]

LATE = "world/us/c"


def federation(rounds: int, late: str = "carry", topology: str = "star") -> dict[str, object]:
    """Site c waits while its order lies in the folder; all others are fast."""
    policy = {"kind": "deadline", "after_s": 0.2, "quorum": 0.6, "weight": 0.6, "staleness": 1000, "late": late}
    us = {"name": "us", "participation": policy, "topology": topology, "members": [{"name": name} for name in "abc"]}
    members = [us, {"name": "d"}]
    return {"name": "world", "rounds": rounds, "strategy": {"kind": "fedadam"}, "members": members}


def rounds(watcher: Watcher) -> list[RoundClosed]:
    return [record for record in watcher.records if isinstance(record, RoundClosed) and record.node == "world/us"]


@pytest.mark.slow
def test_a_late_update_counts_whatever_has_died_since(tmp_path: Path, drivers: Drivers) -> None:
    config = write_config(tmp_path, federation(40))
    (tmp_path / "hold-c").write_text("0")
    watcher = Watcher()

    def worker_of_c() -> str:
        return [one.worker for one in watcher.records if isinstance(one, Assigned) and LATE in one.sites][-1]

    watcher.strikes = [
        (committed(2), lambda: drivers.kill("world/us")),
        (committed(4), lambda: drivers.kill(worker_of_c())),
        (committed(6), (tmp_path / "hold-c").unlink),
    ]
    ran = run(config, "runtime.num_workers=3", "evaluation.every=0", watcher=watcher)
    assert ran["status"] == "finished" and not watcher.strikes
    closed = rounds(watcher)
    assert all(record.late == ("c",) for record in closed[:6])
    carried = [record for record in closed if record.carried]
    assert carried and carried[0].round_number > 6
    assert carried[0].carried["c"].startswith(f"late by {carried[0].round_number - 1} rounds")
    counted = sum(("c" in record.members) + ("c" in record.carried) for record in closed)
    trained = sum(isinstance(record, SiteTrained) and record.node == LATE for record in watcher.records)
    asked = sum(isinstance(record, NodesChanged) and LATE in record.nodes for record in watcher.records)
    assert trained - 1 <= counted <= trained <= asked
    died = [notice.message for notice in watcher.notices("warning")]
    assert any("its aggregator died" in message for message in died)
    assert any("is being replaced; 1 sites are done again" in message for message in died)


@pytest.mark.parametrize(
    ("late", "topology"), [("carry", "star"), pytest.param("refuse", "swarm", marks=pytest.mark.slow)]
)
def test_a_run_ends_though_a_site_never_answers(late: str, topology: str, tmp_path: Path, drivers: Drivers) -> None:
    config = write_config(tmp_path, federation(3, late, topology))
    (tmp_path / "hold-c").write_text("0")
    watcher = Watcher()
    ran = run(config, "runtime.num_workers=3", "evaluation.every=0", watcher=watcher)
    assert ran["status"] == "finished" and ran["rounds"] == 3
    assert [record.late for record in rounds(watcher)] == [("c",)] * 3
    said = "the run ends while these are still at work: c (since round 1)"
    assert said in [notice.message for notice in watcher.notices("info")]
