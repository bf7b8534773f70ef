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


def test_what_waits_behind_a_site_that_hangs_is_done_elsewhere_and_once(tmp_path: Path) -> None:
    """a, always the first, answers for four rounds and hangs for two more; no other is late for their hub's deadline.

    Two sites do not go in one chunk and one is over soon, also where the machine is busy: so one waits behind a.
    """
    policy = {"kind": "deadline", "after_s": 9.0, "quorum": 0.5, "weight": 0.5, "staleness": 1000}
    sites = [{"name": name} for name in "abcdef"]
    tree = {"name": "world", "rounds": 8, "participation": policy, "members": sites}
    task = {"kind": "faulty_task:FaultyTask", "folder": str(tmp_path), "takes_s": 0.55 * CHUNK_MAX_S / STEPS}
    config = write_config(tmp_path, tree, task=task)
    (tmp_path / "hold-a").write_text(str(4 * STEPS))
    watcher = Watcher([(committed(6), (tmp_path / "hold-a").unlink)])
    overrides = ("runtime.num_workers=2", "runtime.policy={kind: fifo}", "evaluation.every=0")
    ran = run(config, *overrides, watcher=watcher)
    assert ran["status"] == "finished" and not watcher.strikes
    closed = [record for record in watcher.records if isinstance(record, RoundClosed)]
    assert [record.late for record in closed[4:6]] == [("a",), ("a",)]
    assert all(set(record.members) >= set("bcdef") for record in closed)
    assert any("waited behind work that should have been over" in notice.message for notice in watcher.notices("info"))
    asked = Counter(node for record in watcher.records if isinstance(record, NodesChanged) for node in record.nodes)
    trained = Counter(record.node for record in watcher.records if isinstance(record, SiteTrained))
    for name in "bcdef":
        assert trained[f"world/{name}"] == asked[f"world/{name}"] == 8
        assert len((tmp_path / f"steps-{name}").read_text().splitlines()) == 8 * STEPS, "nothing is trained twice"
