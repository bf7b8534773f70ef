"""What did not count whole is told over links, too: a member keeps as much of it as its hub has counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from link_inside import Inside, several_runs  # noqa: F401
from small_runs import config_of, hub, site

from hierfl import checkpoint
from hierfl.lifecycle import run

LINK = {"address": "hub.example.org:8443"}


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize("quorum", [0.5, 1.0], ids=["goes on", "gives up"])
def test_a_round_that_a_hub_gives_up_counts_for_none_of_its_sites(tmp_path: Path, quorum: float) -> None:
    """A ward fails in the first round; with it goes what the others of its hub had sent."""
    flag = tmp_path / "flag"
    north = hub("north", {**site("a"), "link": LINK}, site("b", n=20, fault="raise"), quorum=quorum)
    settings = {"strategy": "scaffold", "on_failure": "continue", "quorum": 0.3, "rounds": 4}
    root = hub("world", north, {**site("c"), "link": LINK}, **settings)
    config = config_of(tmp_path / "runs", root, {"kind": "ward_tasks:Stumbles", "flag": str(flag)})
    flag.touch()
    simulated = run(config)
    assert not flag.exists()
    flag.touch()
    assert Inside(config, tmp_path / "linked").go()["model_digest"] == simulated["model_digest"]
    newest = checkpoint.latest(Path(simulated["run_dir"]))
    assert newest is not None
    saved = checkpoint.load(newest)
    samples = {"world/north/a": 12, "world/north/b": 20, "world/c": 12}
    mean = sum(n / 44 * saved.sites[path]["control"] for path, n in samples.items())
    assert np.abs(saved.states["world"]["control"] - mean).max() < 1e-5 * np.abs(mean).max()


@pytest.mark.usefixtures("several_runs")
def test_a_member_hears_of_hubs_further_up_where_its_own_counts_all(tmp_path: Path) -> None:
    """In the first round `north` gives up, since `bad` below it does; what `low` has handed up does not count."""
    flag = tmp_path / "flag"
    low = hub("low", {**site("a"), "link": LINK}, on_failure="stop")
    north = hub("north", low, hub("bad", site("b", n=20, fault="raise")), quorum=1.0)
    settings = {"strategy": "scaffold", "on_failure": "continue", "quorum": 0.3, "rounds": 4}
    root = hub("world", north, {**site("c"), "link": LINK}, **settings)
    config = config_of(tmp_path / "runs", root, {"kind": "ward_tasks:Stumbles", "flag": str(flag)})
    flag.touch()
    simulated = run(config)
    flag.touch()
    assert Inside(config, tmp_path / "linked").go()["model_digest"] == simulated["model_digest"]
    assert not flag.exists()
