"""From YAML text to plain Python values, and back to the line of a mistake.

YAML 1.1 as OmegaConf reads it: `1e-3` is a number, a date is a string, a key given twice is an error; but a hospital's
number keeps its zeros, `0417` and `12:30` are strings as in YAML 1.2 and not 271 and 750, and a name that looks like a
number stays as it is written: `1.10`, `1e3`. Plain dicts and lists come out, made by libyaml where it is there: 10,000
sites take a fraction of a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from hierfl.config.places import split
from hierfl.errors import ConfigError, Problem

__all__ = ["NAMING", "LineFinder", "Loader", "parse", "read"]

NAMING = ("name", "key")
"""The keys whose value names something: a number there is text, as it is written."""

MAX_NESTING = 5_000
"""Collections within collections that libyaml's recursive composer survives with room to spare."""

_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0b[0-1_]+|0x[0-9a-fA-F_]+)$")
"""Neither octal (`0417`) nor to the base of 60 (`12:30`), which nobody means. As a number 010 is ten."""

_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
    |\.[0-9_]+(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML with OmegaConf's rules for numbers, dates and doubled keys."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is given twice, and one within braces that has swallowed its value: {steps:20}."""
        for key, value in node.value if node.flow_style else ():
            if _is_bare(key) and _is_bare(value) and not value.value and _COLON.search(key.value):
                said = f"{key.value!r} lacks the space behind its colon: {_COLON.sub(': ', key.value, count=1)}"
                raise yaml.MarkedYAMLError(problem=said, problem_mark=key.start_mark)
        seen: set[tuple[str, str]] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE):
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in NAMING and _is_bare(value) and _loses(value):
                value.tag = _TEXT
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


_PLAIN = re.compile(r"-?(?:0|[1-9][0-9]*)")
"""How Python writes a whole number."""
_COLON = re.compile(r":(?=\S)")
_MERGE, _TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"
_NUMBERS = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:int")
_REPLACED = ("tag:yaml.org,2002:timestamp", *_NUMBERS)
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))


def read(path: Path) -> str:
    """Read a configuration's text. Errors: ConfigError that says why it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration {path}{_siblings(path)}") from None
    except IsADirectoryError:
        if (path / "config.yaml").is_file() and (path / "events.jsonl").is_file():
            raise ConfigError(
                f"{path} is the folder of a run: `hierfl resume {path}` goes on with it, and"
                f" `hierfl run {path / 'config.yaml'}` runs it anew"
            ) from None
        raise ConfigError(f"{path} is a folder; name the YAML file{_siblings(path / '_')}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the configuration {path} is no YAML text: it is binary, or not in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error}") from error


def parse(text: str, source: str = "") -> Any:
    """Parse YAML into plain values. Errors: ConfigError that names `source`, the line and the column."""
    where = f"{source}: " if source else ""
    if _nesting(text) > MAX_NESTING:
        raise ConfigError(f"{where}nested deeper than {MAX_NESTING} levels")
    try:
        value = yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        context = f" ({error.context})" if error.context else ""
        raise ConfigError([Problem("", f"{where}{at}{error.problem}{context}{_way_out(text, mark)}")]) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}not YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where}nested too deeply for this machine's YAML reader (PyYAML without libyaml)") from None
    if _contains_itself(value):
        raise ConfigError(f"{where}an alias (*name) stands inside its own anchor (&name)")
    return value


class LineFinder:
    """Finds the line of a place in a YAML text; parses the text once, and only when asked."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._root: yaml.Node | None = None

    def __call__(self, place: str) -> int | None:
        """Give the 1-based line where `place` (`federation.members.us.rounds`) stands; None if it is not there."""
        if self._root is None:
            self._root = yaml.compose(self._text, Loader)
        node, line = self._root, None
        for part in split(place):
            found = next((pair for pair in _children(node) if pair[0] == part), None)
            if found is None:
                return None
            _, line, node = found
        return line


def _children(node: yaml.Node | None) -> Iterator[tuple[str, int, yaml.Node]]:
    """Yield (key or name, line, value) of a collection; the members of a list by name first, then by index."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(key.value), key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            names = [of.value for key, of in value.value if key.value == "name"] if _is_mapping(value) else []
            yield from ((str(name), value.start_mark.line + 1, value) for name in names)
        for index, value in enumerate(node.value):
            yield str(index), value.start_mark.line + 1, value


def _way_out(text: str, mark: yaml.Mark | None) -> str:
    """Say what helps where a line that is no YAML is indented by a tab, or holds one of OmegaConf's words."""
    lines = text.split("\n")
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if re.match(r" *\t", line):
        return "; the line begins with a tab: YAML is indented by spaces"
    found = re.search(r"\?\?\?|\$\{[^}]*\}?", line)
    return f'; within braces {found[0]} stands in quotes: "{found[0]}"' if found is not None else ""


def _is_bare(node: yaml.Node) -> bool:
    """Say whether it is a word without quotes."""
    return isinstance(node, yaml.ScalarNode) and not node.style


def _loses(scalar: yaml.ScalarNode) -> bool:
    """Say whether it is a number that would be written otherwise when it comes back: 1.10, 1e3, 1_000."""
    return scalar.tag in _NUMBERS and _PLAIN.fullmatch(scalar.value) is None


def _is_mapping(node: yaml.Node) -> bool:
    return isinstance(node, yaml.MappingNode)


def _nesting(text: str) -> int:
    """Bound the depth of a YAML text from above: brackets open at once, and indentation."""
    open_now = deepest = 0
    for bracket in re.findall(r"[][{}]", text):
        open_now = max(0, open_now + (1 if bracket in "[{" else -1))
        deepest = max(deepest, open_now)
    indent = max((len(match) for match in re.findall(r"^[ \-?:]+", text, re.MULTILINE)), default=0)
    return deepest + indent


def _contains_itself(value: Any) -> bool:
    """Say whether a collection is its own descendant, without recursion."""
    inside: set[int] = set()
    done: set[int] = set()
    stack: list[tuple[Any, bool]] = [(value, False)]
    while stack:
        current, leaving = stack.pop()
        if leaving:
            inside.discard(id(current))
            done.add(id(current))
        elif id(current) in inside:
            return True
        elif isinstance(current, dict | list) and id(current) not in done:
            inside.add(id(current))
            stack.append((current, True))
            stack.extend((child, False) for child in (current.values() if isinstance(current, dict) else current))
    return False


def _siblings(path: Path) -> str:
    """List the YAML files of a path's folder, in brackets."""
    found = sorted(file.name for file in path.parent.glob("*.yaml"))[:10] if path.parent.is_dir() else []
    return f" (in that folder: {', '.join(found)})" if found else ""
