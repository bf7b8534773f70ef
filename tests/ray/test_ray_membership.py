"""Members that join and leave on Ray: the bits that the run has in threads, also where it is amended under way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray_runs import run, tree, write_config

from hierfl import lifecycle as runs
from hierfl.amend import amend
from hierfl.config import load
from hierfl.monitor.records import MembershipChanged, Record, RoundCommitted, RunStarted

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]


class Hand:
    """Amends the run after its first round."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.folder = Path()
        self.changes: list[MembershipChanged] = []

    def on(self, record: Record) -> None:
        if isinstance(record, RunStarted):
            self.folder = Path(record.run_dir)
        elif isinstance(record, RoundCommitted) and record.round_number == 1:
            amend(self.folder, self.words)
        elif isinstance(record, MembershipChanged):
            self.changes.append(record)

    def close(self) -> None:
        """Hold nothing."""


@pytest.mark.slow
def test_members_change_on_ray_as_in_threads(tmp_path: Path) -> None:
    federation: dict[str, Any] = {**tree(strategy="scaffold"), "rounds": 4}
    last = federation["members"][-1]
    config = write_config(tmp_path, federation)
    leave = f"federation.members.{last['name']}.leaves_at=3"
    declared = run(config, "runtime.kind=local", leave)
    assert run(config, "runtime.kind=ray", leave)["model_digest"] == declared["model_digest"]
    hand = Hand(leave)
    amended = runs.run(load(config, ["runtime.kind=ray"]), [hand])
    assert amended["model_digest"] == declared["model_digest"]
    assert [one.round_number for one in hand.changes] == [3]
