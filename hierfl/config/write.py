"""Writes a configuration as YAML: `RunConfig.resolved`, the configuration as it was understood."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]

from hierfl.config.read import Loader

__all__ = ["write"]


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Plain YAML; what is shared by two places is written twice, and a string that anybody's YAML 1.1 would take for a
    number or a date (0417, 2024-01-01) is quoted.
    """

    def ignore_aliases(self, data: Any) -> bool:
        """Write no anchors."""
        return True


_OURS, _OTHERS = Loader.yaml_implicit_resolvers, yaml.SafeLoader.yaml_implicit_resolvers
_Dumper.yaml_implicit_resolvers = {
    first: [*_OURS.get(first, ()), *_OTHERS.get(first, ())] for first in {**_OURS, **_OTHERS}
}


def write(resolved: Mapping[str, Any]) -> str:
    """Write a resolved configuration as YAML that loads to the same RunConfig, however deep its tree is."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 1_000 + 20 * _depth(resolved)))
    try:
        text: str = yaml.dump(dict(resolved), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    finally:
        sys.setrecursionlimit(limit)
    return text


def _depth(value: Any) -> int:
    """Count the collections within collections."""
    deepest, stack = 0, [(value, 1)]
    while stack:
        current, depth = stack.pop()
        if isinstance(current, dict | list):
            deepest = max(deepest, depth)
            stack.extend((inner, depth + 1) for inner in (current.values() if isinstance(current, dict) else current))
    return deepest
