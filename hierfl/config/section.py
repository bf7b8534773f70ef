"""Checks one section of the YAML against its dataclass, every field, and makes the dataclass."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from hierfl import kinds
from hierfl.config.places import join
from hierfl.config.rules import broken
from hierfl.config.values import Wrong, convert, keys_of, plain, shown
from hierfl.errors import ConfigError, HierflError

__all__ = ["Made", "Report", "canonical_kind", "fields_of", "kind", "make_kind", "section"]

Report = Callable[[str, str], None]
"""Takes a place and a message; collects."""


def fields_of(
    cls: type,
    given: object,
    place: str,
    report: Report,
    *,
    skip: tuple[str, ...] = (),
    allowed: tuple[str, ...] = (),
    whose: Callable[[str], str] = lambda name: "",
) -> dict[str, Any]:
    """Convert and check the keys that are given; wrong ones are reported and left out. `skip`ped keys are let alone.

    `allowed` are the words for an unknown key, the dataclass' keys if empty; `whose` adds who has such a key.
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
            report(at, f"unknown key{kinds.nearest(str(name), allowed or keys)}{whose(str(name))}")
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


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a kind section.

    `cls`: its class, where there is one; `instance`: one with the sound fields, the others at their defaults, where
    that is possible; `wrong`: the fields that are not sound.
    """

    cls: type | None = None
    instance: Any = None
    wrong: frozenset[str] = frozenset()
    sound: bool = False


def kind(seam: str, given: object, place: str, report: Report) -> Any:
    """Make the instance of a kind section (`fedavgm`, or `{kind: fedavgm, momentum: 0.9}`); None if it is wrong."""
    made = make_kind(seam, given, place, report)
    return made.instance if made.sound else None


def make_kind(seam: str, given: object, place: str, report: Report, *, beside: tuple[str, ...] = ()) -> Made:
    """Make what can be made of a kind section, and report every mistake in it.

    `beside`: keys that may stand there, too, and are not the kind's; they are named to who has mistyped one.
    """
    fields = {"kind": given} if isinstance(given, str) else given
    if given is not None and type(given).__module__ != "builtins" and not isinstance(fields, Mapping):
        what = f"is an instance of {type(given).__qualname__}, which is no dataclass"
        report(place, f"{what}: its fields would be the YAML's keys; write @dataclass(frozen=True) above the class")
        return Made()
    if not isinstance(fields, Mapping) or not isinstance(fields.get("kind"), str):
        report(
            place if not isinstance(fields, Mapping) else join(place, "kind"),
            f"must name a {seam}: 'NAME', or {{kind: NAME, ...}}{kinds.nearest('', kinds.names(seam))}",
        )
        return Made()
    try:
        cls = kinds.load(seam, fields["kind"])
    except ConfigError as error:
        report(join(place, "kind"), str(error))
        return Made()
    lacking = kinds.lacking(seam, cls)
    if lacking:
        report(join(place, "kind"), f"{cls.__name__} is no {seam}: it has no {', '.join(lacking)}")
        return Made()
    return _Maker(seam, cls, fields, place, report, beside).make()


def canonical_kind(name: object, instance: Any) -> dict[str, Any]:
    """Write a kind section with all its fields, from the section as given and its instance."""
    named = name.get("kind") if isinstance(name, Mapping) else name
    return {"kind": named, **plain(instance)}


def _having(seam: str, kind: str, name: str) -> str:
    """Say which other kinds have a key that this one lacks: "; fedavg has no 'mu', fedprox has"."""
    others = [other for other in kinds.names(seam) if other != kind and name in keys_of(kinds.load(seam, other))]
    listed = ", ".join(others[: kinds.MOST_NAMED])
    return f"; {kind} has no {name!r}, {listed} {'has' if len(others) == 1 else 'have'}" if others else ""


class _Maker:
    """Makes the instance of one kind; wrong fields are reported and left at their defaults, so that others are seen."""

    def __init__(
        self, seam: str, cls: type, given: Mapping[Any, Any], place: str, report: Report, beside: tuple[str, ...]
    ) -> None:
        self.cls = cls
        self.keys = keys_of(cls)
        self.place = place
        self.faults = 0
        self._report = report
        self.given = {key: value for key, value in given.items() if key != "kind"}
        allowed, whose = (*beside, *self.keys), partial(_having, seam, given["kind"])
        self.good = fields_of(cls, self.given, place, self.tell, allowed=allowed, whose=whose)
        self.values = {**self._meant(), **self.good}
        for key in self.keys.values():
            if key.required and key.name not in self.given:
                self.tell(join(place, key.name), f"is missing: {given['kind']} needs it")

    def tell(self, at: str, message: str) -> None:
        """Report a mistake, and count it."""
        self.faults += 1
        self._report(at, message)

    def make(self) -> Made:
        """Try until the class takes what is left; each time the fields that it complains of are left out."""
        instance, told_all = None, False
        while all(key.name in self.values for key in self.keys.values() if key.required):
            try:
                instance = self.cls(**self.values)
                break
            except (Exception, SystemExit) as error:  # a user's class may raise anything; its words are all there is
                found, is_whole = self._complaints(error)
            blind = self.faults > 0  # what is said of the whole may come from what is left out
            for name, at, message in found:
                if not told_all and (name in self.good or not blind):
                    self.tell(at, message)
            told_all = told_all or is_whole
            named = {name for name, *_ in found}
            left = {name: value for name, value in self.values.items() if name not in named}
            if len(left) == len(self.values):
                break
            self.values = left
        wrong = frozenset(name for name in self.keys if name in self.given and name not in self.values)
        return Made(self.cls, instance, wrong, sound=not self.faults)

    def _complaints(self, error: BaseException) -> tuple[list[tuple[str, str, str]], bool]:
        """Give (field, place, message) of what a class says of its fields, and whether it has said all."""
        if isinstance(error, ConfigError):
            is_whole = all(problem.path for problem in error.problems)
            return [self._complaint(problem.path, problem.message) for problem in error.problems], is_whole
        is_plain = isinstance(error, ValueError | HierflError)
        return [self._complaint("", str(error) if is_plain else f"{type(error).__name__}: {error}")], False

    def _complaint(self, path: str, message: str) -> tuple[str, str, str]:
        """Find the field that a message is about: by its path, or as it begins ("momentum is 1.5; ...")."""
        if path:
            return re.split(r"[.\[]", path)[0], f"{self.place}.{path}", message
        word = message.partition(" ")[0].strip("'\"`:,")
        return (word, join(self.place, word), message) if word in self.keys else ("", self.place, message)

    def _meant(self) -> dict[str, Any]:
        """Read misspelt keys as what they were meant to be: other fields may have to fit to them."""
        found = {}
        for name, value in self.given.items():
            meant = kinds.close(str(name), self.keys) if name not in self.keys else None
            if meant is not None and meant not in self.given:
                with suppress(Wrong):
                    found[meant] = convert(value, self.keys[meant].type)
        return found
