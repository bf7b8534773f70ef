"""Sites that hang or run out of memory while a run is under way."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray_runs import Drivers, Watcher, run, tree, write_config

from hierfl.errors import SiteFailed
from hierfl.monitor.records import RoundClosed

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the digest of the run that nothing happens to."""
    return str(run(write_config(tmp_path_factory.mktemp("calm")), "runtime.kind=local")["model_digest"])


@pytest.mark.slow
def test_a_site_that_hangs_is_named_and_left_out(tmp_path: Path) -> None:
    config = write_config(tmp_path, tree(rounds=1, on_failure="continue"))
    (tmp_path / "hold-b").write_text("0")
    watcher = Watcher()
    run(config, "runtime.num_workers=2", "runtime.site_timeout_s=15", watcher=watcher)
    [lost] = {(notice.node, notice.message) for notice in watcher.notices("error")}
    assert lost[0] == "world/us/b" and "no answer within 15 s (site_timeout_s)" in lost[1]
    rounds = [record for record in watcher.records if isinstance(record, RoundClosed) and record.node == "world/us"]
    assert [set(record.members) for record in rounds] == [{"a", "c"}, {"a", "c"}]


@pytest.mark.slow
def test_a_site_that_hangs_ends_a_run_that_wants_all(tmp_path: Path) -> None:
    (tmp_path / "hold-b").write_text("0")
    with pytest.raises(SiteFailed, match=r"world/us/b could not be trained: no answer within 15 s"):
        run(write_config(tmp_path), "runtime.num_workers=2", "runtime.site_timeout_s=15")


@pytest.mark.slow
def test_a_site_that_needs_more_memory_than_there_is_fails_by_name(tmp_path: Path, drivers: Drivers) -> None:
    (tmp_path / "oom-b").write_text("1000")
    with pytest.raises(SiteFailed, match=r"world/us/b could not be trained: OutOfMemoryError: site b was told"):
        run(write_config(tmp_path), "runtime.num_workers=1")
