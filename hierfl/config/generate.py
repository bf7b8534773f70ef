"""Members made from a template: `members: {count: 1000, name: "site-{i:04d}", training: {lr: 0.1}}`.

`{i}` counts from `start` (default 0) and takes a format (`{i:04d}`), `{parent}` is the hub's name; in strings under
`data:` also `{name}`, the member's own name. All else in the template holds for each member alike; a template with
`members` makes hubs, and these may be generated in turn. A list may mix templates and single members.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from hierfl.config.values import convert

__all__ = ["fill", "fill_data", "is_template", "make", "spread"]

_HOLE = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")
_WIDE = re.compile(r"[1-9]\d\d")
"""In a format a width or a precision of hundreds."""


def is_template(entry: object) -> TypeGuard[Mapping[str, Any]]:
    """Say whether an entry of `members` stands for several."""
    return isinstance(entry, Mapping) and "count" in entry


def make(template: Mapping[str, Any], parent: str) -> Iterator[dict[str, Any]]:
    """Yield the members of a template as single nodes. Errors: ValueError for a wrong count or name."""
    name = convert(template.get("name"), str)
    count, start = convert(template.get("count"), int), convert(template.get("start", 0), int)
    if count < 1 or start < 0:
        raise ValueError(f"count must be at least 1 and start at least 0, not {count} and {start}")
    rest = {key: value for key, value in template.items() if key not in ("count", "start")}
    for index in range(start, start + count):
        own = fill(name, index, parent)
        member = {**rest, "name": own}
        if "data" in rest:
            member["data"] = fill_data(rest["data"], index, parent, own)
        yield member


def spread(members: object, parent: str) -> list[Any]:
    """Write the templates of a hub's members out. Errors: ValueError as `make` raises."""
    entries = members if isinstance(members, list) else [members]
    return [one for entry in entries for one in (make(entry, parent) if is_template(entry) else [entry])]


def fill(text: str, index: int, parent: str) -> str:
    """Fill a name's {i} and {parent}. Errors: ValueError for another word in braces, or a wrong format."""
    words: dict[str, int | str] = {"i": index, "parent": parent}

    def put(match: re.Match[str]) -> str:
        if match[1] not in words:
            raise ValueError(f"{match[0]} in {text!r} is unknown (allowed: {{i}}, {{i:04d}}, {{parent}})")
        return _filled(match, words[match[1]])

    return _HOLE.sub(put, text)


def fill_data(value: Any, index: int, parent: str, name: str) -> Any:
    """Fill {i}, {parent} and {name} in the strings of a `data:` section; other braces stay as they are.

    Errors: ValueError for a wrong format.
    """
    if isinstance(value, str):
        words: dict[str, int | str] = {"i": index, "parent": parent, "name": name}
        return _HOLE.sub(lambda match: _filled(match, words[match[1]]) if match[1] in words else match[0], value)
    if isinstance(value, Mapping):
        return {key: fill_data(inner, index, parent, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill_data(inner, index, parent, name) for inner in value]
    return value


def _filled(hole: re.Match[str], value: int | str) -> str:
    """Write a value in its hole's format. Errors: ValueError where it is none, or makes hundreds of characters."""
    spec = hole[2] or ""
    try:
        if _WIDE.search(spec):
            raise ValueError("it makes hundreds of characters")
        return format(value, spec)
    except ValueError as error:
        raise ValueError(f"{hole[0]} has a wrong format, {error} (allowed: {{i}}, {{i:04d}} and the like)") from None
