"""What does not go with masked sums is told before anything starts, by name, with the way out."""

from __future__ import annotations

from typing import Any

import pytest

from hierfl.config import from_mapping
from hierfl.errors import ConfigError
from hierfl.link.cohort import cohort, fewest, masks

LINK = {"address": "hub.example.org:8443"}


def mapping(members: list[dict[str, Any]] | None = None, **world: Any) -> dict[str, Any]:
    found = [{"name": name, "link": LINK} for name in ("cleveland", "long_beach", "budapest")]
    return {
        "task": {"kind": "heart_disease"},
        "federation": {
            "name": "world",
            "secure_aggregation": "masks",
            "members": members if members is not None else found,
            **world,
        },
    }


def linked(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "link": LINK, **more} for name in names]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "two": (mapping(linked("cleveland", "budapest")), "of two each one would know the other's update"),
    "no_training": (
        mapping([*linked("cleveland", "budapest"), *linked("long_beach", role="evaluation")]),
        "'world' has 2 that train",
    ),
    "no_link": (
        mapping([*linked("cleveland", "budapest"), {"name": "long_beach"}]),
        "long_beach of 'world' has no link",
    ),
    "topology": (mapping(topology="cyclic"), "cyclic is none; topology: star"),
    "peer": (mapping(topology="peer"), "peer is none; topology: star"),
    "krum": (mapping(strategy="median"), "median looks at each member's update by itself"),
    "participation": (
        mapping(participation={"kind": "deadline", "after_s": 60}),
        "participation: deadline may close a round before",
    ),
    "sample": (mapping(participation={"kind": "sample", "fraction": 0.9}), "participation: sample"),
    "leaves": (
        mapping([*linked("cleveland", "budapest"), *linked("long_beach", leaves_at=2)], rounds=3),
        "long_beach joins or leaves in the midst of it",
    ),
    "many": (
        mapping({"count": 301, "name": "site-{i:03d}", "link": LINK}),  # type: ignore[arg-type]
        "'world' has 301 that train, more than 300; put hubs between",
    ),
    "word": (mapping(secure_aggregation="mask"), "did you mean 'masks'?"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_go_with_masks_is_told(name: str) -> None:
    given, said = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        from_mapping(given)
    told = [problem for problem in caught.value.problems if problem.path == "federation.secure_aggregation"]
    assert any(said in problem.message for problem in told), caught.value


def test_a_sum_takes_as_many_members_as_rounds_may_not_lose_and_three() -> None:
    names = ("cleveland", "long_beach", "budapest", "zurich_basel")
    north = {"name": "north", "secure_aggregation": "masks", "members": linked(*names)}
    for above, least in (
        ({}, 4),
        ({"quorum": 0.5}, 4),
        ({"on_failure": "continue"}, 3),
        ({"on_failure": "continue", "quorum": 0.8}, 4),
        ({"on_failure": "continue", "quorum": 0.1}, 3),
    ):
        config = from_mapping(mapping([north], secure_aggregation="none", **above))
        assert fewest(config, "world/north") == least
    assert cohort(config, "world") == () and cohort(config, "world/north") == tuple(f"world/north/{n}" for n in names)
    assert masks(config, "world/north/cleveland") and not masks(config, "world/north") and not masks(config, "world")


def test_who_does_not_train_has_no_part_in_the_sum() -> None:
    given = mapping([*linked("cleveland", "budapest", "zurich_basel"), *linked("long_beach", role="evaluation")])
    assert cohort(from_mapping(given), "world") == ("world/cleveland", "world/budapest", "world/zurich_basel")
