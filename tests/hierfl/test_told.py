"""What is said of strategies that count on plain steps of SGD where sites take others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_runs import config_of, go, hub, site

from hierfl.monitor.records import Notice
from hierfl.told import doubts
from hierfl.validation import told_of

ADAM = {"optimizer": "adam"}
MOMENTUM = {"optimizer_options": {"momentum": 0.9}}


def found(folder: Path, strategy: str, *members: Any, **training: Any) -> dict[str, str]:
    root = hub("world", *members, strategy=strategy)
    return doubts(config_of(folder, root, training={"lr": 0.1, "batch_size": 4, "local_steps": 2, **training}))


@pytest.mark.parametrize("strategy", ["scaffold", "fednova"])
@pytest.mark.parametrize(("training", "how"), [(ADAM, "adam"), (MOMENTUM, "momentum")], ids=["adam", "momentum"])
def test_other_steps_than_plain_ones_are_warned_of_at_the_hub_of_the_sites(
    tmp_path: Path, strategy: str, training: dict[str, Any], how: str
) -> None:
    members = hub("up", "a", "b"), "c"
    told = found(tmp_path, strategy, *members, **training)
    assert list(told) == ["world/up", "world"]
    assert (
        told["world/up"].startswith(f"{strategy} counts on plain steps")
        and f"with {how} at world/up/a" in (told["world/up"])
    )
    assert found(tmp_path, strategy, *members) == {}
    one = found(tmp_path, strategy, "a", site("b", training=training), site("d", role="evaluation", training=training))
    assert list(one) == ["world"] and f"with {how} at world/b it may" in one["world"]


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "feddyn"])
def test_who_needs_no_plain_steps_is_not_warned_of(tmp_path: Path, strategy: str) -> None:
    assert found(tmp_path, strategy, "a", "b", **ADAM) == {}


def test_it_is_said_by_validate_and_as_the_run_begins(tmp_path: Path) -> None:
    root = hub("world", "a", "b", strategy="scaffold", rounds=1)
    training = {"lr": 0.01, "batch_size": 4, "local_steps": 2, **ADAM}
    [(node, said)] = told_of(config_of(tmp_path, root, training=training))["strategies"].items()
    ran = go(tmp_path, root, training=training)
    notices = [(one.level, one.node, one.message) for one in ran.monitor.of(Notice)]
    assert node == "world" and ("warning", node, said) in notices


def test_two_doubts_of_one_hub_are_both_said(tmp_path: Path) -> None:
    root = hub("world", hub("up", "a", "b", rounds=2), "c", strategy="scaffold", participation={"kind": "all"})
    root |= {"on_failure": "continue"}
    config = config_of(tmp_path, root, training={"lr": 0.1, "batch_size": 4, "local_steps": 2, **ADAM})
    assert "beside the optimum" in doubts(config)["world"] and "; and scaffold counts on" in doubts(config)["world"]
