"""Overrides of the command line: `training.lr=0.1 federation.members.us.rounds=2`, as OmegaConf's dotlists.

A member is addressed by its name or its index, also one that a template makes (then the template is written out), and
`members.+={name: trieste}` adds one; the value is YAML. The configuration handed in is never changed: what an override
touches is copied.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hierfl.config.generate import is_template, spread
from hierfl.config.interpolate import escape
from hierfl.config.keys import KIND_KEYS, TEMPLATE_KEYS
from hierfl.config.places import join, split
from hierfl.config.read import NAMING, parse
from hierfl.config.rules import MOST_NAME_BYTES
from hierfl.errors import ConfigError, Problem
from hierfl.kinds import nearest

__all__ = ["NotYet", "Override", "apply", "parse_override", "renaming"]


APPEND = "+"
"""In the place of a member's name: one more."""


@dataclass(frozen=True, slots=True)
class Override:
    """One override: where, and the plain value to put there."""

    text: str
    parts: tuple[str, ...]
    value: Any


class NotYet(Exception):
    """The way leads through an interpolation (`${...}`) that is still to be resolved."""


def parse_override(text: str) -> Override:
    """Read `key=value`. Errors: ConfigError whose path is the override."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError([Problem(text, "an override reads key=value, as training.lr=0.1")])
    try:
        parts, found = tuple(split(key.strip())), parse(value)
        names = parts[-1] in NAMING and isinstance(found, int | float) and not isinstance(found, bool)
        return Override(text, parts, value.strip() if names else found)
    except ValueError as error:
        raise ConfigError([Problem(text, f"the key {key!r} cannot be read: {error}")]) from None
    except ConfigError as error:
        quoted = "" if set(value) & set("'\"{[") else f"; as a text it stands in quotes of its own: {key}=\"'{value}'\""
        raise ConfigError([Problem(text, f"the value {value!r} is not YAML: {error}{quoted}")]) from None


def apply(config: dict[str, Any], override: Override) -> dict[str, Any]:
    """Give the configuration with one override put in.

    Errors: ConfigError where there is no such member, or no keys below a value; NotYet.
    """
    changed = dict(config)
    here: Any = changed
    place, hub = "", ""
    *way, last = override.parts
    for depth, part in enumerate(way):
        key = _find(here, part, place, hub, override)
        place = join(place, part)
        hub = str(here.get("name", "")) if isinstance(here, dict) else hub
        here[key] = _opened(here[key] if key != part or part in here else None, part, place, hub, override, depth)
        here = here[key]
    if isinstance(here, list) and last == APPEND:
        here.append(override.value)
        return changed
    key = _find(here, last, place, hub, override)
    if isinstance(here, list) and override.value is None and override.parts[-2] == "members":
        at = join(place, last)
        told = f"let it leave, {at}.leaves_at=ROUND, or take it out of the file before the run begins"
        raise ConfigError([Problem(at, f"null takes no member away; {told}")])
    here[key] = override.value
    return changed


def _find(here: Any, part: str, place: str, hub: str, override: Override) -> Any:
    """Name the key or index under which `part` stands in a copied collection; templates in a list are written out."""
    if isinstance(here, dict):
        return part
    for attempt in ("as written", "written out"):
        names = [str(entry["name"]) if isinstance(entry, dict) and "name" in entry else "" for entry in here]
        if part in names:
            return names.index(part)
        if part.removeprefix("-").isdecimal() and -len(here) <= int(part) < len(here):
            return int(part)
        if attempt == "as written" and any(is_template(entry) for entry in here):
            here[:] = _spread(here, hub, place, override)
    if any("${" in name for name in names):
        raise NotYet
    dotted = next(
        (join(place, name) for name in names if name.startswith(part) and any(mark in name for mark in ".[]=")), ""
    )
    way = f"; a name that holds a dot or the like stands in brackets, {dotted}" if dotted else ""
    told = f"there is no {part!r} here{nearest(part, filter(None, names))}{way}"
    raise ConfigError([Problem(join(place, part), told)])


def _opened(child: Any, part: str, place: str, hub: str, override: Override, depth: int) -> Any:
    """Copy what stands under `part` so that the next part can be put into it."""
    following = override.parts[depth + 1]
    if child is None:
        return {}
    if isinstance(child, str) and "${" in child:
        raise NotYet
    if isinstance(child, str) and part in KIND_KEYS:
        return {"kind": child}
    if part == "members" and is_template(child) and following not in TEMPLATE_KEYS:
        return _spread(child, hub, place, override)
    if isinstance(child, dict):
        return dict(child)
    if isinstance(child, list):
        return list(child)
    raise ConfigError([Problem(join(place, following), f"{place} is {child!r}; it has no keys below it")])


def _spread(members: Any, hub: str, place: str, override: Override) -> list[Any]:
    """Write templates out; wait where a count or a name is an interpolation."""
    entries: Sequence[Any] = members if isinstance(members, list) else [members]
    if any("${" in str(entry.get(key)) for entry in entries if is_template(entry) for key in ("count", "name")):
        raise NotYet
    try:
        return spread(members, hub)
    except ValueError as error:
        raise ConfigError([Problem(place, f"{override.text!r} needs the members written out: {error}")]) from None


def renaming(name: str) -> str:
    """Write the override that names a run so; a name that is too long is cut in its middle: both ends tell apart."""
    said = name.encode()
    if len(said) > MOST_NAME_BYTES:
        half = MOST_NAME_BYTES // 2 - 2
        name = f"{said[:half].decode(errors='ignore')}…{said[-half:].decode(errors='ignore')}"
    return f"name={json.dumps(escape(name), ensure_ascii=False)}"
