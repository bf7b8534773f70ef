"""Mistakes of one kind are told in the order of the YAML, whatever the tree."""

from __future__ import annotations

import pytest

from hierfl.config import from_mapping
from hierfl.errors import ConfigError


def test_mistakes_come_in_the_order_of_the_yaml() -> None:
    limit = {"site_timeout_s": 3}
    inner = {"name": "up", **limit, "members": [{"name": "b", **limit}, {"name": "c", **limit}]}
    members = [{"name": "a", **limit}, inner, {"name": "d", **limit}]
    mapping = {
        "name": "order",
        "task": {"kind": "synthetic"},
        "federation": {"name": "world", "members": members},
        "runtime": {"kind": "local"},
    }
    with pytest.raises(ConfigError) as caught:
        from_mapping(mapping)
    places = [problem.path.removeprefix("federation.") for problem in caught.value.problems]
    assert places == [f"members.{path}.site_timeout_s" for path in ("a", "up", "up.members.b", "up.members.c", "d")]
