"""What a member keeps of runs that are over or were left."""

from __future__ import annotations

import os
from pathlib import Path

from hierfl.link.kept import forget_all_before


def test_the_runs_that_were_served_last_stay_whenever_they_were_begun(tmp_path: Path) -> None:
    at_s = {"first": 100, "second": 200, "third": 300, "now": 600}
    for run, begun_s in at_s.items():
        (tmp_path / run / "checkpoints").mkdir(parents=True)
        for place in (tmp_path / run / "checkpoints", tmp_path / run):
            os.utime(place, (begun_s, begun_s))
    os.utime(tmp_path / "first" / "checkpoints", (500, 500))  # it was gone on with, after the others
    forget_all_before(tmp_path, "now")
    assert {path.name for path in tmp_path.iterdir()} == {"first", "third", "now"}
