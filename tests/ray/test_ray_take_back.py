"""A site that hangs on a real Ray keeps nobody's work behind it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from ray_runs import Watcher, committed, run, write_config

from hierfl.monitor.records import NodesChanged, RoundClosed, SiteTrained
from scheduler.dispatch import CHUNK_MAX_S

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]

STEPS = 3
ANSWERS = 8
"""Rounds after which what a site takes is known well enough, whatever the first took, for work to wait behind it."""


def test_what_waits_behind_a_site_that_hangs_is_done_elsewhere_and_once(tmp_path: Path) -> None:
    """a, always the first, answers for some rounds and hangs for two more; no other is late for their hub's deadline.

    Two sites do not go in one chunk and one is over soon, also where the machine is busy: so one waits behind a.
    """
    policy = {"kind": "deadline", "after_s": 9.0, "quorum": 0.5, "weight": 0.5, "staleness": 1000}
    sites = [{"name": name} for name in "abcdef"]
    tree = {"name": "world", "rounds": ANSWERS + 4, "participation": policy, "members": sites}
    task = {"kind": "faulty_task:FaultyTask", "folder": str(tmp_path), "takes_s": 0.55 * CHUNK_MAX_S / STEPS}
    config = write_config(tmp_path, tree, task=task)
    (tmp_path / "hold-a").write_text(str(ANSWERS * STEPS))
    watcher = Watcher([(committed(ANSWERS + 2), (tmp_path / "hold-a").unlink)])
    overrides = ("runtime.num_workers=2", "runtime.policy={kind: fifo}", "evaluation.every=0")
    ran = run(config, *overrides, watcher=watcher)
    assert ran["status"] == "finished" and not watcher.strikes
    closed = [record for record in watcher.records if isinstance(record, RoundClosed)]
    assert [record.late for record in closed[ANSWERS : ANSWERS + 2]] == [("a",), ("a",)]
    assert all(set(record.members) >= set("bcdef") for record in closed)
    assert any("waited behind work that should have been over" in notice.message for notice in watcher.notices("info"))
    asked = Counter(node for record in watcher.records if isinstance(record, NodesChanged) for node in record.nodes)
    trained = Counter(record.node for record in watcher.records if isinstance(record, SiteTrained))
    for name in "bcdef":
        assert trained[f"world/{name}"] == asked[f"world/{name}"] == ANSWERS + 4
        assert len((tmp_path / f"steps-{name}").read_text().splitlines()) == (ANSWERS + 4) * STEPS, (
            "nothing is trained twice"
        )
