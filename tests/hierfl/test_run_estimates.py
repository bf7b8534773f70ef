"""What a run has learned outlives it, however it ends; what it cannot do by that is refused before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_runs import Listener, config_of, go, hub, site

from hierfl.errors import ConfigError, RoundFailed, SiteFailed
from hierfl.lifecycle import run
from hierfl.monitor.records import RoundCommitted, SiteTrained
from hierfl.runtime.estimates import Estimates
from hierfl.runtime.worker import SiteWorker

ROOT = hub("world", "a", "b")
KIND = "ward_tasks:Wards"


def runtime(path: Path, **settings: Any) -> dict[str, Any]:
    return {"kind": "local", "num_workers": 1, "estimates": str(path), **settings}


@pytest.mark.parametrize("until", [(RoundCommitted, 1), (SiteTrained, 1)])
def test_an_interrupted_run_keeps_what_it_learned(tmp_path: Path, until: tuple[type, int]) -> None:
    path = tmp_path / "estimates.json"
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, ROOT, until=until, runtime=runtime(path))
    assert Estimates.open(KIND, path).predict("train", "world/a", 1.0) is not None


def test_sites_that_no_device_holds_are_named_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "estimates.json"
    estimates = Estimates(KIND, path)
    estimates.learn_memory(4, 4 * 2**30, 0, "default")
    estimates.save()
    devices = [{"name": "gpu", "count": 2, "memory_gib": 1}]
    config = config_of(tmp_path, ROOT, runtime=runtime(path, num_workers=None, devices=devices))
    with pytest.raises(ConfigError, match=r"no device can train world/a, world/b: each needs 4\.72 GB.*remove .*json"):
        run(config)


@pytest.mark.parametrize("on_failure", ["stop", "continue"])
def test_a_need_that_outgrows_every_device_on_the_way_fails_its_site_and_hangs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_failure: str
) -> None:
    """All sites are measured to need more than there is; the first round, of which nothing was known, stands."""
    monkeypatch.setattr("hierfl.runtime.engine.LOOK_S", 0.0)
    monkeypatch.setattr(SiteWorker, "_peak_bytes", lambda worker: 4 * 2**30)
    root = hub("world", "a", site("b", training={"batch_size": 1}), on_failure=on_failure, quorum=0.5)
    devices = [{"name": "gpu", "memory_gib": 3}]
    config = config_of(tmp_path, root, runtime={"kind": "local", "devices": devices})
    monitor = Listener()
    with pytest.raises(
        SiteFailed if on_failure == "stop" else RoundFailed, match=r"no device can take it: needs 4\.72"
    ):
        run(config, [monitor])
    assert [record.round_number for record in monitor.of(RoundCommitted)] == [1]
