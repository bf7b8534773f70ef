"""What may not change when a run is taken up again, and where its relative paths lead."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from hierfl.reopen import lasting
from hierfl.rundir import Origin

RUN: dict[str, Any] = {
    "name": "trial",
    "seed": 0,
    "task": {"kind": "heart_disease", "seed": 3, "hidden": 4},
    "training": {"lr": 0.1},
    "federation": {
        "name": "world",
        "rounds": 2,
        "strategy": {"kind": "fedadam", "lr": 0.01},
        "members": [
            {"name": "us", "rounds": 1, "members": [{"name": "a"}, {"name": "b", "split": 2}]},
            {"name": "c", "data": {"path": "c.csv"}},
        ],
    },
    "arithmetic": {"width": 32, "clip": 8.0},
    "runtime": {"kind": "local"},
    "output": {"dir": "runs", "keep": 2},
}


def changed(place: str, value: Any) -> dict[str, Any]:
    now = copy.deepcopy(RUN)
    holder: Any = now
    *way, last = place.split(".")
    for part in way:
        holder = holder[int(part)] if part.isdigit() else holder.setdefault(part, {})
    holder[int(last) if last.isdigit() else last] = value
    return now


@pytest.mark.parametrize(
    ("place", "value", "named", "says"),
    [
        ("seed", 4, "seed", "is 4, of the run 0; a run keeps it to its end"),
        ("arithmetic.clip", 4.0, "arithmetic.clip", "is 4.0, of the run 8.0"),
        ("arithmetic.width", 64, "arithmetic.width", "is 64"),
        ("task.kind", "digits", "task.kind", "is digits, of the run heart_disease"),
        ("task.seed", 4, "task.seed", "is 4"),
        ("output.dir", "elsewhere", "output.dir", "is elsewhere"),
        ("federation.strategy", {"kind": "fedavg"}, "world: strategy.kind", "is fedavg, of the run fedadam"),
        ("federation.members.0.members.1.split", 3, "world/us/b: split", "is 3, of the run 2"),
        ("federation.members.0.members.0.name", "z", "federation", "the run has a node 'world/us/a'"),
        ("federation.members.0.members.2", {"name": "z"}, "federation", "the run has no node 'world/us/z'"),
        ("federation.members.1.members", [], "world/c: being a hub", "is True, of the run False"),
    ],
)
def test_what_would_make_the_checkpoint_something_else_is_refused_by_name(
    place: str, value: Any, named: str, says: str
) -> None:
    now = changed(place, value) if place != "federation.members.0.members.2" else copy.deepcopy(RUN)
    if place == "federation.members.0.members.2":
        now["federation"]["members"][0]["members"].append(value)
    problem, *_ = lasting(RUN, now, rounds_done=1)
    assert problem.path == named
    assert says in problem.message


@pytest.mark.parametrize(
    ("kind", "key", "old", "new", "may"),
    [
        ("fedper", "personal", ["head.*"], ["head.bias"], False),
        ("fedrep", "personal", ["head.*"], ["head.bias"], False),
        ("fedrep", "head_steps", 10, 5, True),
        ("fedper", "weights", "samples", "uniform", True),
        ("scaffold", "weights", "samples", "uniform", False),
        ("feddyn", "weights", "samples", "uniform", False),
        ("feddyn", "alpha", 0.1, 0.2, True),
        ("ditto", "lam", 0.1, 0.2, True),
        ("centered_clipping", "radius", 1.0, 2.0, True),
    ],
)
@pytest.mark.parametrize("place", ["federation", "federation.members.0"])
def test_what_sites_and_hubs_keep_stays_what_it_is(
    place: str, kind: str, key: str, old: Any, new: Any, may: bool
) -> None:
    before, now = (changed(f"{place}.strategy", {"kind": kind, key: value}) for value in (old, new))
    path = "world" if place == "federation" else "world/us"
    told = [(problem.path, problem.message) for problem in lasting(before, now)]
    said = (
        f"is {new}, of the run {old}; a run keeps it to its end; for another, start a run of its own with `hierfl run`"
    )
    assert told == ([] if may else [(f"{path}: strategy.{key}", said)])
    assert lasting(before, before) == []


def test_a_task_of_hierfls_own_stays_as_it_was_and_of_others_nobody_knows() -> None:
    [problem] = lasting(RUN, changed("task.hidden", 6))
    assert problem.path == "task.hidden" and "is 6, of the run" in problem.message
    mine = {**RUN, "task": {**RUN["task"], "kind": "wards:Mine"}}
    assert lasting(mine, {**mine, "task": {**mine["task"], "hidden": 6}}) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("federation.rounds", 9),
        ("federation.members.0.rounds", 3),
        ("federation.strategy.lr", 0.1),
        ("federation.members.1.data.path", "moved/c.csv"),
        ("training.lr", 0.5),
        ("runtime.kind", "ray"),
        ("output.keep", 9),
        ("stopping.metric", "auc"),
        ("stopping.mode", "min"),
        ("evaluation.every", 2),
    ],
)
def test_what_may_change_may(place: str, value: Any) -> None:
    assert lasting(RUN, changed(place, value)) == []


def test_all_that_may_not_change_is_told_at_once() -> None:
    now = {**changed("seed", 4), "arithmetic": {"width": 64, "clip": 8.0}}
    assert [problem.path for problem in lasting(RUN, now)] == ["seed", "arithmetic.width"]


def test_a_folder_that_was_moved_takes_the_configurations_folder_along(tmp_path: Path) -> None:
    (tmp_path / "new" / "configs").mkdir(parents=True)
    new = tmp_path / "new"
    started_above = Origin(Path("/old/configs"), Path("/old"))
    assert started_above.moved(new) == Origin(new / "configs", new)
    assert started_above.moved(new / "configs") == Origin(new / "configs", new / "configs")
    assert Origin(Path("/old"), Path("/elsewhere")).moved(new) == Origin(new, new)
