"""A round's compute plan before it runs, by hand, and that it is what a run then does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import config_of, go, hub, site
from typer.testing import CliRunner

from hierfl.cli import app
from hierfl.monitor.records import RoundClosed
from hierfl.trajectory import Way, draw_ways, ways
from hierfl.tree import survey

INNER = hub("in", "a", "b", "c", rounds=2, topology={"kind": "cyclic", "order": "shuffled"})
TURNS = {"kind": "cyclic", "order": "by_size"}


def planned(folder: Path, root: dict[str, Any], *args: Any) -> dict[str, Way]:
    config = config_of(folder, root, *args)
    return ways(config, survey(config))


def test_a_star_trains_all_and_mixes_them(tmp_path: Path) -> None:
    [way] = planned(tmp_path, hub("world", "a", "b")).values()
    assert way.record()["steps"] == [
        {"train": "a", "from": "."},
        {"train": "b", "from": "."},
        {"mix": ["a", "b"], "at": "."},
    ]


def test_by_size_follows_what_the_task_counts(tmp_path: Path) -> None:
    task = {"kind": "synthetic", "num_samples_min": 8, "num_samples_max": 99}
    root = hub("world", *"abcde", topology=TURNS)
    config = config_of(tmp_path, root, task)
    nodes = survey(config)
    sizes = [nodes[f"world/{name}"].num_train or 0 for name in ways(config, nodes)["world"].plan.trained]
    assert sizes == sorted(sizes) and len(set(sizes)) > 2


@pytest.mark.parametrize("participation", ["all", {"kind": "sample", "count": 4}])
@pytest.mark.parametrize("seed", [2, 3])
def test_what_is_planned_is_what_the_first_round_does(seed: int, participation: Any, tmp_path: Path) -> None:
    inner = hub("in", *"abcefghi", topology={"kind": "cyclic", "order": "shuffled"}, participation=participation)
    root = hub("world", inner, "d", rounds=1, topology="cyclic")
    config = config_of(tmp_path, root, seed=seed)
    found = ways(config, survey(config))
    closed = {(r.node, r.round_number): r for r in go(tmp_path, root, seed=seed).monitor.of(RoundClosed)}
    for path, way in found.items():
        assert way.plan.trained == closed[path, 1].members
        assert way.skipped == closed[path, 1].missing


def test_what_is_drawn_by_samples_is_planned_so_whatever_members_weigh(tmp_path: Path) -> None:
    task = {"kind": "synthetic", "num_samples_min": 1, "num_samples_max": 999}
    policy = {"kind": "sample", "count": 3, "by": "samples"}

    def drawn(weights: str, seed: int) -> tuple[str, ...]:
        root = hub("world", *"abcdefgh", participation=policy, strategy={"kind": "fedavg", "weights": weights})
        config = config_of(tmp_path, root, task, seed=seed)
        return ways(config, survey(config))["world"].plan.trained

    assert all(drawn("uniform", seed) == drawn("samples", seed) for seed in range(8))


def test_who_has_nothing_to_train_on_is_not_in_it(tmp_path: Path) -> None:
    watching = {**site("w"), "role": "evaluation"}
    [way] = planned(tmp_path, hub("world", "a", watching, "b", topology="cyclic")).values()
    assert way.plan.trained == ("a", "b") and list(way.skipped) == ["w"]


def test_the_drawing_by_hand(tmp_path: Path) -> None:
    inner = {**INNER, "topology": "cyclic", "participation": {"kind": "sample", "count": 2}}
    found = planned(tmp_path, hub("world", inner, "d"))
    one, two = found["world/in"].plan.trained
    [out] = found["world/in"].skipped
    assert draw_ways(found).plain.splitlines() == [
        "world  star",
        "    1  train  in, d, from the hub's model",
        "    2  mix    in, d, at the hub",
        "world/in  cyclic",
        f"    1  train  {one}, from the hub's model",
        f"    2  mix    {one} alone, at the hub",
        f"    3  train  {two}, from the hub's model",
        f"    4  mix    {two} alone, at the hub",
        f"       1 not in it: {out}",
    ]


def test_who_joins_later_is_not_in_the_first_round(tmp_path: Path) -> None:
    late = {"name": "c", "joins_at": 2}
    found = planned(tmp_path, hub("world", "a", {"name": "b", "leaves_at": 2}, late, {**hub("h", "d"), "joins_at": 2}))
    assert draw_ways(found).plain.splitlines() == [
        "world  star",
        "    1  train  a, b, from the hub's model",
        "    2  mix    a, b, at the hub",
    ]


def test_a_large_hub_is_drawn_in_few_lines(tmp_path: Path) -> None:
    names = [f"s{i}" for i in range(1000)]
    star, cycle = planned(tmp_path / "star", hub("world", *names)), planned(tmp_path, hub("w", *names, topology=TURNS))
    assert "s7 and 992 more" in draw_ways(star).plain and len(draw_ways(star).plain.splitlines()) == 3
    assert draw_ways(cycle).plain.splitlines()[-1].strip() == "1976 more steps"


def test_the_command_draws_it_and_tells_machines(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    task = {"kind": "synthetic", "num_samples_min": 8}
    path.write_text(yaml.safe_dump({"task": task, "federation": hub("world", INNER, "d")}))
    plain = CliRunner().invoke(app, ["tree", str(path), "--plan"]).stdout
    assert "mix    in, d, at the hub" in plain and "cyclic (order=shuffled)" in plain
    assert "mix" not in CliRunner().invoke(app, ["tree", str(path)]).stdout
    plans = json.loads(CliRunner().invoke(app, ["tree", str(path), "--plan", "--json"]).stdout)["plans"]
    assert list(plans) == ["world", "world/in"] and len(plans["world/in"]["steps"]) == 6
