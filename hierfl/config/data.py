"""Checks `data:` of every node against what the task's `data` method takes, as far as its signature says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from hierfl.config.places import join
from hierfl.config.section import Report
from hierfl.config.tree import Node
from hierfl.config.values import Wrong, convert, evaluated
from hierfl.kinds import nearest

__all__ = ["check_data"]

_MOST_LACKING = 20
"""Sites without a mandatory key that are named one by one; the rest is counted."""

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class _Takes:
    """The keywords of a task's `data` with their types; `mandatory` ones; `site`, what it calls the site's key."""

    types: Mapping[str, Any]
    mandatory: tuple[str, ...]
    site: str
    anything: bool

    @classmethod
    def of(cls, task: type) -> _Takes:
        """Read a task's signature. Errors: ValueError or TypeError where it has no room for the site."""
        method = task.data  # type: ignore[attr-defined]
        parameters = list(inspect.signature(method).parameters.values())
        if not isinstance(inspect.getattr_static(task, "data"), staticmethod | classmethod):
            parameters = parameters[1:]
        site, *rest = parameters
        if site.kind not in (*_NAMED[:1], inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL):
            raise ValueError("its first argument must be the site")
        named = [parameter for parameter in rest if parameter.kind in _NAMED]
        return cls(
            {one.name: evaluated(one.name, one.annotation, method.__module__) for one in named},
            tuple(one.name for one in named if one.default is inspect.Parameter.empty),
            site.name if site.kind in _NAMED else "",
            any(one.kind is inspect.Parameter.VAR_KEYWORD for one in rest),
        )


def check_data(task: type, root: Node, report: Report) -> None:
    """Report the keys that the task's `data` does not take, values of a wrong type, and sites that lack a key.

    What is taken is put in place converted: "3" as 3 where the task's signature says int.
    """
    try:
        takes = _Takes.of(task)
    except (TypeError, ValueError):
        report("task.kind", f"{task.__name__}.data must take the site as its first argument: def data(self, site, ...)")
        return
    if "key" in takes.types:
        way = "in the YAML data: {key: ...} is the site itself, and not handed on; give that argument another name"
        report("task.kind", f"{task.__name__}.data takes 'key': {way}")
        return
    lacking: dict[str, str] = {}
    seen: set[str] = set()
    stack: list[tuple[Node, frozenset[str]]] = [(root, frozenset())]
    while stack:
        node, above = stack.pop()
        place = join(node.place, "data")
        node.data = _checked(takes, node, _Once(place, report, seen))
        has = above.union(node.data)
        if node.members is None:
            lacking.update({join(place, name): name for name in takes.mandatory if name not in has})
        stack.extend((member, has) for member in reversed(node.members or ()))
    for at, name in islice(lacking.items(), _MOST_LACKING):
        report(at, f"is missing: {task.__name__}.data needs it, data: {{{name}: ...}}")
    if len(lacking) > _MOST_LACKING:
        report("federation", f"and {len(lacking) - _MOST_LACKING} more sites whose data lack a key")


@dataclass(frozen=True, slots=True)
class _Once:
    """Reports below a node's `data`; what holds for all members of a template once."""

    place: str
    report: Report
    seen: set[str]

    def __call__(self, message: str, *at: str | int) -> None:
        place = join(self.place, *at)
        if place not in self.seen:
            self.seen.add(place)
            self.report(place, message)


def _checked(takes: _Takes, node: Node, tell: _Once) -> Mapping[str, Any]:
    """Check a node's own `data`, and give it converted; `key`, the site's own, is no keyword."""
    good = {}
    for name, value in node.data.items():
        good[name] = value
        if name == "key":
            continue
        if name in takes.types:
            try:
                good[name] = convert(value, takes.types[name])
            except Wrong as wrong:
                tell(str(wrong), name, *wrong.at)
        elif name == takes.site:
            tell("is the site's key, which every site has by its name: data: {key: ...} gives another", name)
        elif not takes.anything:
            allowed = [*takes.types, *(["key"] if node.members is None else [])]
            tell(f"unknown key{nearest(name, allowed) or '; the task takes none'}", name)
    return good
