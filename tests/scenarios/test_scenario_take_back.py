"""A site that hangs in a thread keeps nobody's work behind it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ray_runs import Watcher, run, write_config

from hierfl.monitor.records import RoundClosed, RoundCommitted, SiteTrained

STEPS = 3


def test_what_waits_behind_a_site_that_hangs_is_done_by_another_thread_and_once(tmp_path: Path) -> None:
    """a, always the first, answers for three rounds and then hangs until the fifth has begun."""
    policy = {"kind": "deadline", "after_s": 1.5, "quorum": 0.5, "weight": 0.5, "staleness": 1000}
    sites = [{"name": name} for name in "abcdef"]
    config = write_config(tmp_path, {"name": "world", "rounds": 6, "participation": policy, "members": sites})
    (tmp_path / "hold-a").write_text(str(3 * STEPS))
    over = lambda record: isinstance(record, RoundCommitted) and record.round_number == 4  # noqa: E731
    watcher = Watcher([(over, (tmp_path / "hold-a").unlink)])
    overrides = ("runtime={kind: local, num_workers: 2, policy: {kind: fifo}}", "evaluation.every=0")
    assert run(config, *overrides, watcher=watcher)["status"] == "finished" and not watcher.strikes
    closed = [record for record in watcher.records if isinstance(record, RoundClosed)]
    assert closed[3].late == ("a",)
    assert all(set(record.members) >= set("bcdef") for record in closed)
    trained = Counter(record.node for record in watcher.records if isinstance(record, SiteTrained))
    for name in "bcdef":
        assert trained[f"world/{name}"] == 6
        assert len((tmp_path / f"steps-{name}").read_text().splitlines()) == 6 * STEPS, "nothing is trained twice"
