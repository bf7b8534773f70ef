"""Hubs that look at each member, in whole local runs: the same bits whoever did what, and a bad site held off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import Ran, config_of, events, go, hub, site, tensors

from hierfl.errors import ConfigError, RoundFailed
from hierfl.lifecycle import resume
from hierfl.promises import promises

GOOD: list[Any] = [site(f"ward-{i}", n=8 + i) for i in range(5)]
WILD = site("wild", n=12, training={"lr": 6.0})
"""Trains with a rate that throws its model far off."""


def root(kind: str, *members: Any, **fields: Any) -> dict[str, Any]:
    return hub("world", *members, strategy={"kind": kind, **fields})


def weights(ran: Ran) -> Any:
    return np.concatenate([values.ravel() for _, values in sorted(tensors(ran.folder).items())])


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return go(tmp_path_factory.mktemp("trimmed"), root("trimmed_mean", *GOOD, WILD))


@pytest.mark.parametrize("num_workers", [2, 3])
@pytest.mark.parametrize("preaggregate", [True, False])
def test_workers_and_preaggregation_change_no_bit(
    trimmed: Ran, num_workers: int, preaggregate: bool, tmp_path: Path
) -> None:
    runtime = {"kind": "local", "num_workers": num_workers, "preaggregate": preaggregate}
    assert go(tmp_path, root("trimmed_mean", *reversed([*GOOD, WILD])), runtime=runtime).digest == trimmed.digest


def test_a_resumed_run_has_the_bits_of_an_unbroken_one(tmp_path: Path) -> None:
    """With a rule that remembers its last aggregate."""
    tree = root("centered_clipping", *GOOD, radius=0.05)
    whole = go(tmp_path / "whole", {**tree, "rounds": 4})
    half = go(tmp_path / "half", {**tree, "rounds": 2})
    assert resume(half.folder, ["federation.rounds=4"])["model_digest"] == whole.digest


@pytest.mark.parametrize("kind", ["median", "trimmed_mean", "krum", "multi_krum", "geometric_median"])
def test_a_wild_site_moves_the_mean_and_not_the_rule(kind: str, tmp_path: Path) -> None:
    without = weights(go(tmp_path / "without", root(kind, *GOOD)))
    with_it = weights(go(tmp_path / "with", root(kind, *GOOD, WILD)))
    mean = weights(go(tmp_path / "mean", root("fedavg", *GOOD, WILD)))
    assert np.linalg.norm(with_it - without) < 0.25 * np.linalg.norm(mean - without)


def test_members_that_are_hubs_count_as_one_each(tmp_path: Path) -> None:
    """Two of three hubs agree: what the third's wild site does is held off at the root."""
    hubs = [hub("north", *GOOD[:2]), hub("south", *GOOD[2:4]), hub("west", GOOD[4], WILD)]
    clean = [hub("north", *GOOD[:2]), hub("south", *GOOD[2:4]), hub("west", GOOD[4])]
    robust = [weights(go(tmp_path / name, root("median", *tree))) for name, tree in (("a", hubs), ("b", clean))]
    plain = weights(go(tmp_path / "plain", root("fedavg", *hubs)))
    assert np.linalg.norm(robust[0] - robust[1]) < 0.25 * np.linalg.norm(plain - robust[1])


def test_losing_members_below_what_the_rule_takes_fails_the_round_by_name(tmp_path: Path) -> None:
    lost = [site("bad-1", fault="raise"), site("bad-2", fault="raise")]
    tree = {**root("median", *GOOD[:2], *lost, num_byzantine=1), "on_failure": "continue", "quorum": 0.5}
    with pytest.raises(RoundFailed, match=r"world: .*num_byzantine 1 takes at least 3 members, there are 2"):
        go(tmp_path, tree)


def test_too_few_members_are_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_byzantine 2 takes at least 7 members, there are 5"):
        config_of(tmp_path, root("krum", *GOOD, num_byzantine=2))


def test_every_update_is_handed_up_by_itself(trimmed: Ran) -> None:
    handed = [event for event in events(trimmed.folder) if event.get("phase") == "transfer"]
    assert len(handed) >= 2 * 6


def test_what_holds_over_tiers_is_said(tmp_path: Path) -> None:
    hubs = [hub("north", *GOOD[:3], strategy={"kind": "median"}), hub("south", *GOOD[3:]), site("bay")]
    said = promises(config_of(tmp_path, root("trimmed_mean", *hubs)))
    assert "holds out against any 1 of 3 members" in said["world"]
    assert "in south a single bad site makes its hub a bad one" in said["world"]
    assert said["world/north"] == "median: holds out against any 1 of 3 members"
    assert "wherever below it they are: 1 bad site;" in said["world"]


def test_how_many_bad_sites_are_held_off_wherever_they_are_is_counted(tmp_path: Path) -> None:
    """Three hubs of three sites: two bad sites in each of two hubs turn medians at both tiers, so three are held off; a
    hub that averages is turned by one bad site, and it takes two more to turn another.
    """

    def world(*rules: str | None, top: str = "median") -> dict[str, str]:
        hubs = [
            hub(f"hub-{i}", *(site(f"s-{i}-{j}") for j in range(3)), **({"strategy": rule} if rule else {}))
            for i, rule in enumerate(rules)
        ]
        return promises(config_of(tmp_path, root(top, *hubs)))

    held = "held off, wherever below it they are: {}"
    assert held.format("3 bad sites") in world("median", "median", "median")["world"]
    assert held.format("2 bad sites") in world("median", "median", None)["world"]
    assert held.format("1 bad site;") in world("median", None, None)["world"]
    assert "held off" not in world("median", "median", None, top="norm_bounding")["world"]
    assert held.format("1 bad site") in world("median", "median", "median", top="norm_bounding")["world"]
