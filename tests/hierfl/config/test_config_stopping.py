"""Early stopping by what is not measured is found before anything starts, where the task says what it measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ward_tasks

from hierfl.config import from_mapping
from hierfl.errors import ConfigError


def config(task: Any, **stopping: Any) -> dict[str, Any]:
    return {
        "task": task,
        "federation": {"name": "world", "members": [{"name": "site-0"}, {"name": "site-1"}]},
        "stopping": {"patience": 2, **stopping},
    }


@pytest.mark.parametrize(
    ("task", "stopping", "words"),
    [
        ("synthetic", {"metric": "absolute_error", "mode": "min"}, "this task does not measure .allowed: .*dice, loss"),
        ("digits", {"metric": "sensitivity"}, "is 'sensitivity', which this task does not measure"),
        ({"kind": "ward_tasks:NamedDoses"}, {"metric": "auc"}, "does not measure .allowed: absolute_error, loss"),
        ({"kind": "ward_tasks:NamedDoses"}, {"metric": "absolut_error"}, "did you mean 'absolute_error'"),
        (
            {"kind": "ward_tasks:NamedDoses"},
            {"metric": "absolute_error", "mode": "max"},
            "lower absolute_error is better",
        ),
    ],
)
def test_what_a_task_does_not_measure_is_told_at_once(task: Any, stopping: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as told:
        from_mapping(config(task, **stopping))
    assert len(told.value.problems) == 1 and told.value.problems[0].path.startswith("stopping.")


def test_which_way_a_metric_gets_better_the_task_says_or_the_yaml() -> None:
    named, unnamed = ({"kind": f"ward_tasks:{name}"} for name in ("NamedDoses", "Doses"))
    assert from_mapping(config(named, metric="absolute_error")).better == {"absolute_error": "min"}
    assert from_mapping(config(unnamed, metric="dose", mode="max")).better == {"dose": "max"}
    assert from_mapping(config("digits", metric="auc")).better == {}
    with pytest.raises(ConfigError, match=r"needs stopping\.mode beside it"):
        from_mapping(config(unnamed, metric="dose"))


@pytest.mark.parametrize(
    ("gives", "words"),
    [
        (lambda _: ["absolute_error"], "task: cannot name its metrics, {name: min or max}: AttributeError"),
        (lambda _: {"Error": "min"}, "names a metric 'Error'; needed: one of hierfl's, or up to 64 small letters"),
        (lambda _: {"days": "down"}, "says that days gets better by 'down'; needed: min or max"),
        (lambda _: {"auc": "min"}, "says that auc gets better by 'min'; needed: max"),
        (lambda _: {f"m{i}": "min" for i in range(33)}, "names 33 metrics; at most 32 of its own"),
    ],
)
def test_a_task_that_names_no_metrics_is_told_so(
    monkeypatch: pytest.MonkeyPatch, gives: Callable[[Any], Any], words: str
) -> None:
    monkeypatch.setattr(ward_tasks.NamedDoses, "metrics", gives)
    with pytest.raises(ConfigError) as told:
        from_mapping(config({"kind": "ward_tasks:NamedDoses"}, metric="loss"))
    assert words in str(told.value)


def test_a_field_of_that_name_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ward_tasks.NamedDoses, "metrics", ["dose"])
    assert from_mapping(config({"kind": "ward_tasks:NamedDoses"}, metric="dose", mode="max")).better == {"dose": "max"}
