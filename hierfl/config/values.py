"""A plain YAML value as the type that a dataclass field asks for, or a reason why not.

Strict where a slip hides (true is no number, 1.5 no whole number), lenient where YAML or an environment variable gives
the same thing in another dress ("3" for 3, 3 for 3.0, a list for a tuple).
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from hierfl.kinds import nearest
from hierfl.learning.task import Check

__all__ = ["Key", "Wrong", "convert", "evaluated", "keys_of", "plain", "shown"]


class Wrong(ValueError):
    """A value is not what its type asks for; `at` names the element within it."""

    def __init__(self, message: str, at: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.at = at


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section: its name, type, and default; `required` where there is none."""

    name: str
    type: Any
    default: Any
    required: bool


@cache
def keys_of(cls: type) -> Mapping[str, Key]:
    """List a dataclass' keys by name, in order; an annotation that cannot be evaluated accepts anything."""
    found = {}
    for field in dataclasses.fields(cls):
        if field.init and not field.name.startswith("_"):
            default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
            required = default is dataclasses.MISSING
            found[field.name] = Key(field.name, _hint(cls, field.name), None if required else default, required)
    return types.MappingProxyType(found)


def convert(value: Any, to: Any) -> Any:
    """Convert a plain value to a type. Errors: Wrong, whose message reads "must be ..., not ..."."""
    origin, arguments = typing.get_origin(to), typing.get_args(to)
    if origin in (typing.Union, types.UnionType):
        return _union(value, arguments)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise Wrong(f"is {shown(value)}{nearest(str(value), map(str, arguments))}")
    if origin is typing.Annotated:
        return _checked(convert(value, arguments[0]), arguments[1:])
    base = origin or to
    if not isinstance(base, type) or base is object:
        return value
    if base in _SCALARS:
        return _SCALARS[base](value)
    if issubclass(base, Enum):
        return _enum(value, base)
    if dataclasses.is_dataclass(base):
        return _record(value, base)
    if issubclass(base, Mapping) or base is collections.abc.Mapping:
        return _mapping(value, arguments)
    if issubclass(base, collections.abc.Collection):
        return _collection(value, base, arguments)
    return value


def _checked(value: Any, checks: tuple[Any, ...]) -> Any:
    """Hold a value against what its annotation says beside its type. Errors: Wrong."""
    for check in checks:
        if isinstance(check, Check) and (said := check.wrong(value)):
            raise Wrong(said)
    return value


def plain(value: Any) -> Any:
    """Give a converted value back as YAML writes it."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key: plain(getattr(value, key)) for key in keys_of(type(value))}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(inner) for inner in value)
    return value


def shown(value: Any) -> str:
    """Write a value as YAML would show it, shortened."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _hint(cls: type, name: str) -> Any:
    """Evaluate one field's annotation in the module of the class that declares it."""
    owner = next(base for base in cls.__mro__ if name in inspect.get_annotations(base))
    return evaluated(name, owner.__annotations__[name], owner.__module__)


def evaluated(name: str, annotation: Any, module: str) -> Any:
    """Evaluate one annotation in its module; Any where it is none, or names what only a type checker sees."""
    if annotation is inspect.Parameter.empty:
        return Any
    only = type(name, (), {"__annotations__": {name: annotation}, "__module__": module})
    try:
        return typing.get_type_hints(only, include_extras=True)[name]
    except Exception:  # a name that only a type checker sees
        return Any


def _int(value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    raise Wrong(f"must be a whole number, not {shown(value)}{_in_digits(value)}")


def _in_digits(value: Any) -> str:
    """Say how a whole number is written that YAML reads as one with a point: 1e3, 5.0."""
    try:
        number = float(value) if isinstance(value, float | str) else math.nan
    except ValueError:
        return ""
    return f": write {int(number)}" if number.is_integer() and abs(number) < 2**53 else ""


def _float(value: Any) -> float:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise Wrong(f"must be a number, not {shown(value)}")


def _bool(value: Any) -> bool:
    words = {"true": True, "false": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise Wrong(f"must be true or false, not {shown(value)}")


def _str(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        raise Wrong(f"must be a string, not {shown(value)}; YAML reads yes, no, on and off so: quote it, 'no'")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        raise Wrong(f"must be a string, not the number {shown(value)}: write it in quotes")
    raise Wrong(f"must be a string, not {shown(value)}")


def _path(value: Any) -> Path:
    return value if isinstance(value, Path) else Path(_str(value))


def _null(value: Any) -> None:
    if value is not None:
        raise Wrong(f"must be null, not {shown(value)}")


_SCALARS: dict[Any, Callable[[Any], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    Path: _path,
    types.NoneType: _null,
}


def _union(value: Any, options: tuple[Any, ...]) -> Any:
    if value is None and types.NoneType in options:
        return None
    for option in options:
        if type(value) is option:
            return value
    reasons = []
    for option in (option for option in options if option is not types.NoneType):
        try:
            return convert(value, option)
        except Wrong as wrong:
            reasons.append(wrong)
    if len(reasons) == 1:
        raise reasons[0]
    raise Wrong(" or ".join(dict.fromkeys(str(reason) for reason in reasons)))


def _enum(value: Any, to: type[Enum]) -> Enum:
    if isinstance(value, to):
        return value
    by_name = {member.name.lower(): member for member in to} | {str(member.value).lower(): member for member in to}
    if str(value).lower() in by_name:
        return by_name[str(value).lower()]
    raise Wrong(f"is {shown(value)}{nearest(str(value), [member.name for member in to])}")


def _record(value: Any, to: type) -> Any:
    if isinstance(value, to):
        return value
    if not isinstance(value, Mapping):
        raise Wrong(f"must be a mapping, not {shown(value)}")
    keys, given = keys_of(to), {}
    for name, inner in value.items():
        if name not in keys:
            raise Wrong(f"unknown key{nearest(str(name), keys)}", (str(name),))
        given[name] = _within(inner, keys[name].type, name)
    for key in keys.values():
        if key.required and key.name not in given:
            raise Wrong("is missing", (key.name,))
    try:
        return to(**given)
    except ValueError as error:
        named = str(error).partition(" ")[0]  # "p90 is 0.0; a number above 0"
        raise Wrong(str(error), (named,) if named in given else ()) from None


def _mapping(value: Any, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise Wrong(f"must be a mapping ({{key: value}}), not {shown(value)}")
    of_key, of_value = arguments if len(arguments) == 2 else (Any, Any)
    return {_within(key, of_key, str(key)): _within(inner, of_value, str(key)) for key, inner in value.items()}


def _collection(value: Any, to: type, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(value, list | tuple | set | frozenset):
        raise Wrong(f"must be a list, not {shown(value)}")
    of = list(arguments)
    if to is tuple and arguments and Ellipsis not in arguments:
        if len(value) != len(arguments):
            raise Wrong(f"must be a list of {len(arguments)}, not of {len(value)}")
    else:
        of = [arguments[0] if arguments else Any] * len(value)
    made = [_within(inner, kind, index) for index, (inner, kind) in enumerate(zip(value, of, strict=True))]
    return to(made) if to in (list, set, frozenset) else tuple(made)


def _within(value: Any, to: Any, at: str | int) -> Any:
    try:
        return convert(value, to)
    except Wrong as wrong:
        raise Wrong(str(wrong), (at, *wrong.at)) from None
