"""From a YAML file and overrides to a RunConfig, or to every mistake in them.

1. read the YAML; 2. put the overrides in; 3. resolve interpolations; 4. put in the overrides that had to wait for 3;
5. check the whole; 6. build.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from hierfl.config.build import build
from hierfl.config.check import Checked, check_config
from hierfl.config.interpolate import resolve
from hierfl.config.overrides import NotYet, Override, apply, parse_override
from hierfl.config.places import split
from hierfl.config.read import LineFinder, parse, read
from hierfl.config.schema import RunConfig
from hierfl.config.values import shown
from hierfl.errors import ConfigError, Problem
from hierfl.kinds import name_of
from hierfl.provenance import code_of, is_own, own_kinds

__all__ = ["as_words", "check", "from_mapping", "load"]

_WAITING = " overrides that wait"
"""A key of the top that no YAML uses: the values of waiting overrides are resolved there."""


def load(path: Path | str, overrides: Sequence[str] = (), *, base: Path | None = None) -> RunConfig:
    """Read, check and build a configuration.

    The user's own classes (`package.module:Class`) are imported from the current folder or from `base`, the YAML's
    folder if not given. Errors: ConfigError with every mistake, its place, and its line where it stands in the file.
    """
    path = Path(path)
    checked, problems = _checked_file(path, overrides, base)
    if problems or checked is None:
        raise ConfigError(problems)
    config = replace(build(checked), folder=(base or path.parent).absolute())
    with suppress(OSError, TypeError):  # a class without a source file, which nothing imports
        problems = _others_beside(code_of(config).files, base or path.parent)
    if problems:
        raise ConfigError(problems)
    return config


def check(path: Path | str, overrides: Sequence[str] = (), *, base: Path | None = None) -> list[Problem]:
    """List every mistake of a configuration; empty if it is sound."""
    return _checked_file(Path(path), overrides, base)[1]


def from_mapping(mapping: Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Check and build a configuration from a mapping: plain values, or an OmegaConf DictConfig; it is not changed.

    A class stands for its name, a dataclass's instance for that and its fields. Modules of one's own are looked for
    where they come from.

    Errors: ConfigError with every mistake and its place.
    """
    _make_importable(None)
    checked, problems = _checked(_plain(mapping), overrides, "run")
    if problems or checked is None:
        raise ConfigError(problems)
    config = build(checked)
    return replace(config, folder=_home(config.resolved))


def as_words(overrides: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """Give overrides as on the command line; in a mapping, {"training.lr": 0.1}, values are as in one of a
    configuration. Errors: ConfigError for what is no override.
    """
    if isinstance(overrides, str):
        raise ConfigError(f"overrides are a list of words: [{overrides!r}]")
    if not isinstance(overrides, Mapping):
        strays = [word for word in overrides if not isinstance(word, str)]
        if strays:
            said = "overrides are a list of words, ['training.lr=0.1'], or one dict, {'training.lr': 0.1}"
            raise ConfigError(f"{said}; in the list stands {strays[0]!r:.80}")
        return list(overrides)
    words = []
    for key, value in overrides.items():
        try:
            words.append(f"{key}={json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)}")
        except (TypeError, ValueError):
            said = f"is {value!r:.80}, which YAML has no words for; give plain values"
            raise ConfigError([Problem(str(key), said)]) from None
    return words


def _checked_file(path: Path, overrides: Sequence[str], base: Path | None) -> tuple[Checked | None, list[Problem]]:
    _make_importable(base or path.parent)
    try:
        text = read(path)
        content = parse(text, str(path))
        called = f"the configuration {path}"
        checked, problems = _checked(content, overrides, path.stem, base or path.parent, called)
    except ConfigError as error:
        return None, list(error.problems)
    return checked, _with_lines(problems, text, overrides) if problems else []


def _checked(
    content: Any,
    overrides: Sequence[str],
    name: str,
    folder: Path | None = None,
    called: str = "the configuration",
) -> tuple[Checked | None, list[Problem]]:
    if not isinstance(content, dict):
        what = "is empty" if content is None else "is a list" if isinstance(content, list) else f"is {shown(content)}"
        return None, [Problem("", f"{called} {what}; it must be a mapping with task and federation")]
    config, problems = _overridden(content, overrides)
    if folder is not None and (others := _others_beside(_imported(config), folder)):
        return None, others
    checked, found = check_config(config, name)
    unresolved = {problem.path for problem in problems if problem.path}
    problems += [problem for problem in found if not _under(problem.path, unresolved)]
    return checked, problems


def _overridden(config: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[Problem]]:
    """Put overrides in and resolve interpolations; an override that leads through one is put in after it."""
    problems: list[Problem] = []
    waiting: list[Override] = []
    for text in overrides:
        try:
            override = parse_override(text)
            config = apply(config, override)
        except NotYet:
            waiting.append(override)
        except ConfigError as error:
            problems += error.problems
    config = {**config, _WAITING: [override.value for override in waiting]}
    problems += resolve(config)
    for override, value in zip(waiting, config.pop(_WAITING), strict=True):
        try:
            config = apply(config, replace(override, value=value))
        except NotYet:
            problems.append(Problem(override.text, "leads through a value that holds '${'"))
        except ConfigError as error:
            problems += error.problems
    return config, problems


def _with_lines(problems: list[Problem], text: str, overrides: Sequence[str]) -> list[Problem]:
    """Add the file's line to each problem whose place stands in the file and was not overridden."""
    find = LineFinder(text)
    changed = {parts for override in overrides if (parts := _parts(override.partition("=")[0].strip()))}
    found = []
    for problem in problems:
        parts = _parts(problem.path)
        overridden = any(parts[: len(way)] == way for way in changed)
        line = find(problem.path) if parts and not overridden else None
        found.append(replace(problem, line=line) if line is not None else problem)
    return found


def _parts(place: str) -> tuple[str, ...]:
    """Take a place apart; empty where it is none."""
    try:
        return tuple(split(place)) if place else ()
    except ValueError:
        return ()


def _under(place: str, roots: set[str]) -> bool:
    parts = _parts(place)
    return any(parts[: len(above)] == above for above in (_parts(root) for root in roots) if above)


def _make_importable(folder: Path | None) -> None:
    """Let the user's own modules be imported from where hierfl was started, and from beside the YAML."""
    for place in (Path.cwd(), folder):  # what lies beside the YAML comes first
        if place is not None and place.is_dir() and str(place.resolve()) not in sys.path:
            sys.path.insert(0, str(place.resolve()))


def _imported(config: Mapping[str, Any]) -> dict[str, Path]:
    """Give the files of the modules of one's own that a configuration names and that are imported already."""
    held = {name: sys.modules.get(name) for name in (kind.partition(":")[0] for kind in own_kinds(config))}
    files = {name: getattr(module, "__file__", None) for name, module in held.items()}
    return {name: Path(file) for name, file in files.items() if file is not None}


def _others_beside(files: Mapping[str, Path], folder: Path) -> list[Problem]:
    """Name the modules of which this process holds others than lie beside the YAML: Python imports a name once."""
    problems = []
    for name, held in ((name, file) for name, file in files.items() if is_own(name, file.absolute())):
        place = folder.joinpath(*name.split("."))
        for beside in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            if beside.is_file() and held.is_file() and beside.read_bytes() != held.read_bytes():
                way = "give one another name, or use a process for each"
                problems.append(Problem("", f"{beside.resolve()} is not the {name} of this process, {held}; {way}"))
    return problems


def _home(resolved: Mapping[str, Any]) -> Path | None:
    """Find the folder that classes of one's own were imported from, where that is not the current one: a script's, say.

    Workers look there, too, and a run that is taken up again. None for what is installed.
    """
    for kind in own_kinds(resolved):
        name = kind.partition(":")[0]
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None or name == "__main__" or not is_own(name, place := Path(file).absolute()):
            continue
        module = place.parent if place.name == "__init__.py" else place.with_suffix("")
        num_parts = name.count(".") + 1
        if ".".join(module.parts[-num_parts:]) != name:  # it was loaded by hand, under a name that no import finds
            continue
        home = module.parents[num_parts - 1]
        if home.resolve() != Path.cwd():
            return home
    return None


def _plain(value: Any) -> Any:
    """Copy a mapping of any kind into plain dicts and lists, classes and instances as kinds, without recursion; what
    lies in an instance's fields is no kind, but a record of its own.
    """
    if type(value).__module__.partition(".")[0] == "omegaconf":
        from omegaconf import OmegaConf

        value = OmegaConf.to_container(value, resolve=False)
    top: list[Any] = [value]
    stack: list[tuple[Any, Any, bool]] = [(top, 0, False)]
    while stack:
        holder, key, is_in_kind = stack.pop()
        inner = holder[key]
        if isinstance(inner, Mapping):
            holder[key] = dict(inner)
            stack.extend((holder[key], name, is_in_kind) for name in inner)
        elif isinstance(inner, list | tuple):
            holder[key] = list(inner)
            stack.extend((holder[key], index, is_in_kind) for index in range(len(inner)))
        elif isinstance(inner, type):
            holder[key] = name_of(inner)
        elif is_dataclass(inner):
            own = {field.name: getattr(inner, field.name) for field in fields(inner) if field.init}
            holder[key] = own if is_in_kind else {**own, "kind": name_of(type(inner))}
            stack.extend((holder[key], name, True) for name in own)
    return top[0]
