"""Interpolations, by OmegaConf and its resolvers: `${training.lr}`, `${oc.env:DATA_DIR,data}`.

OmegaConf is imported, and mirrors the configuration, only where a string holds one: a large tree without one pays
nothing. Resolvers of the user's own are those that the module of the own task registers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any, TypeAlias

from hierfl.config.places import join
from hierfl.errors import ConfigError, Problem
from hierfl.kinds import nearest

__all__ = ["escape", "resolve"]

_MISSING = "???"
_RESOLVERS = ("oc.env", "oc.decode", "oc.select", "oc.create", "oc.dict.keys", "oc.dict.values", "oc.deprecated")
_Found: TypeAlias = "tuple[str, tuple[Any, ...], Any, Any]"
"""Place, keys from the top, the collection that holds the string, and its key there."""


def resolve(config: dict[str, Any]) -> list[Problem]:
    """Put its value in place of every interpolation of a plain configuration, and give what failed.

    What failed is taken out of the configuration, so that no second mistake is found there.
    """
    problems = []
    waiting = []
    for found in _strings(config):
        place, _, holder, key = found
        if holder[key] == _MISSING:
            problems.append(Problem(place, f"is mandatory (???): write a value, or override it with {place}=..."))
            _drop(holder, key)
        else:
            waiting.append(found)
    if waiting:
        try:
            problems += _resolve(config, waiting)
        except RecursionError:
            raise ConfigError("the tree is too deep for interpolations (${...}): write the values out") from None
    return problems


def escape(value: Any) -> Any:
    """Write a resolved value so that reading it again gives it back: `${` is escaped."""
    if isinstance(value, str):
        return value.replace("${", "\\${")
    if isinstance(value, dict):
        return {key: escape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [escape(inner) for inner in value]
    return value


def _resolve(config: dict[str, Any], waiting: list[_Found]) -> list[Problem]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _register_own(config)
    problems = []
    readable = []
    for found in waiting:
        place, _, holder, key = found
        try:
            OmegaConf.create({"text": holder[key]})
            readable.append(found)
        except OmegaConfBaseException as error:
            problems.append(Problem(place, f"{holder[key]!r} cannot be read: {str(error).splitlines()[0]}"))
            _drop(holder, key)
    mirror: Any = OmegaConf.create(config)
    for place, keys, holder, key in readable:
        try:
            value = mirror
            for step in keys:
                value = value[step]
            holder[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except (OmegaConfBaseException, KeyError, IndexError, TypeError) as error:
            problems.append(Problem(place, f"{holder[key]!r} cannot be resolved: {_reason(str(error), config)}"))
            _drop(holder, key)
    return problems


def _register_own(config: dict[str, Any]) -> None:
    """Import the module of the user's own task, which may register resolvers; what is wrong with it is told later."""
    task = config.get("task")
    kind = task.get("kind") if isinstance(task, dict) else task
    module, colon, _ = kind.partition(":") if isinstance(kind, str) else ("", "", "")
    if colon and "${" not in module:
        with suppress(Exception, SystemExit):
            import_module(module)


def _reason(said: str, config: dict[str, Any]) -> str:
    """Say in our words why OmegaConf cannot resolve an interpolation, with the nearest word that it could have been."""
    line = said.splitlines()[0]
    if found := re.search(r"Unsupported interpolation type (\S+)", line):
        own = "; one of your own is registered in the module of your own task"
        return f"there is no resolver {found[1]!r}{nearest(found[1], _RESOLVERS)}{own}"
    if found := re.search(r"Environment variable '(.+)' not found", line):
        return f"the environment has no {found[1]}; a default goes behind a comma, ${{oc.env:{found[1]},default}}"
    if found := re.search(r"Interpolation key '(.+)' not found", line):
        holder: Any = config
        for step in found[1].split("."):
            if not isinstance(holder, dict) or step not in holder:
                words = [str(key) for key in holder if not str(key).startswith(" ")] if isinstance(holder, dict) else []
                return f"there is no {found[1]}{nearest(step, words)}"
            holder = holder[step]
    return line


def _drop(holder: Any, key: Any) -> None:
    """Take a failed value out; in a list something must keep its place."""
    if isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = None


def _strings(config: dict[str, Any]) -> Iterator[_Found]:
    """Find the strings that OmegaConf has to see, each collection once, without recursion."""
    seen: set[int] = set()
    stack: list[tuple[str, tuple[Any, ...], Any]] = [("", (), config)]
    while stack:
        place, keys, holder = stack.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if isinstance(value, str) and ("${" in value or value == _MISSING):
                yield join(place, key if isinstance(key, int) else str(key)), (*keys, key), holder, key
            elif isinstance(value, dict | list):
                stack.append((_place(place, key, value), (*keys, key), value))


def _place(place: str, key: Any, value: Any) -> str:
    """Name a collection's place: a member by its name, all else by its key."""
    if isinstance(key, int) and isinstance(value, dict) and isinstance(value.get("name"), str):
        return join(place, value["name"])
    return join(place, key if isinstance(key, int) else str(key))
