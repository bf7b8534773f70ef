"""Checks one section of the YAML against its dataclass, every field, and makes the dataclass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hierfl import kinds
from hierfl.config.places import join
from hierfl.config.rules import broken
from hierfl.config.values import Wrong, convert, keys_of, plain, shown
from hierfl.errors import ConfigError, HierflError

__all__ = ["Report", "canonical_kind", "fields_of", "kind", "section"]

Report = Callable[[str, str], None]
"""Takes a place and a message; collects."""


def fields_of(
    cls: type, given: object, place: str, report: Report, *, skip: tuple[str, ...] = (), allowed: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Convert and check the keys that are given; wrong ones are reported and left out. `skip`ped keys are let alone.

    `allowed` are the words for an unknown key, the dataclass' keys if empty.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        report(place, f"must be a mapping ({{key: value}}), not {shown(given)}")
        return {}
    keys, good = keys_of(cls), {}
    for name, value in given.items():
        at = join(place, str(name))
        if name in skip:
            continue
        if name not in keys:
            report(at, f"unknown key{kinds.nearest(str(name), allowed or keys)}")
            continue
        try:
            converted = convert(value, keys[name].type)
        except Wrong as wrong:
            report(join(at, *wrong.at), str(wrong))
            continue
        fault = broken(cls, name, converted)
        if fault is None:
            good[name] = converted
        else:
            report(at, fault)
    return good


def section(cls: type, given: object, place: str, report: Report) -> Any:
    """Make a section whose keys all have defaults; a wrong key keeps its default, and is reported."""
    return cls(**fields_of(cls, given, place, report))


def kind(seam: str, given: object, place: str, report: Report) -> Any:
    """Make the instance of a kind section (`fedavgm`, or `{kind: fedavgm, momentum: 0.9}`); None if it is wrong."""
    fields = {"kind": given} if isinstance(given, str) else given
    if not isinstance(fields, Mapping) or not isinstance(fields.get("kind"), str):
        report(
            place if not isinstance(fields, Mapping) else join(place, "kind"),
            f"must name a {seam}: 'NAME', or {{kind: NAME, ...}}{kinds.nearest('', kinds.names(seam))}",
        )
        return None
    name = fields["kind"]
    try:
        cls = kinds.load(seam, name)
    except ConfigError as error:
        report(join(place, "kind"), str(error))
        return None
    return _instance(seam, cls, name, fields, place, report)


def canonical_kind(name: object, instance: Any) -> dict[str, Any]:
    """Write a kind section with all its fields, from the section as given and its instance."""
    named = name.get("kind") if isinstance(name, Mapping) else name
    return {"kind": named, **plain(instance)}


def _instance(seam: str, cls: type, name: str, given: Mapping[Any, Any], place: str, report: Report) -> Any:
    keys = keys_of(cls)
    complaints: list[str] = []

    def tell(at: str, message: str) -> None:
        complaints.append(at)
        report(at, message)

    lacking = kinds.lacking(seam, cls)
    if lacking:
        report(join(place, "kind"), f"{cls.__name__} is no {seam}: it has no {', '.join(lacking)}")
        return None
    good = fields_of(cls, given, place, tell, skip=("kind",))
    for key in keys.values():
        if key.required and key.name not in given:
            tell(join(place, key.name), f"is missing: {name} needs it")
    if complaints:
        return None
    try:
        return cls(**good)
    except ConfigError as error:
        for problem in error.problems:
            at = f"{place}.{problem.path}" if problem.path else _field(place, problem.message, keys)
            report(at, problem.message)
    except HierflError as error:
        report(place, str(error))
    except Exception as error:  # a user's class may raise anything; what it says is all there is to tell
        message = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        report(_field(place, message, keys), message)
    return None


def _field(place: str, message: str, keys: Mapping[str, Any]) -> str:
    """Point at the field that a message begins with: "momentum is 1.5; ..."."""
    word = message.partition(" ")[0].strip("'\"`:,")
    return join(place, word) if word in keys else place
