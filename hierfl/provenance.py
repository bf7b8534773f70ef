"""Which code a run is of: what its folder says of that, and what institutions hold against each other's."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierfl import __version__

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig

__all__ = ["LOCAL", "Code", "code_of", "is_own", "own_kinds", "task_code"]

LOCAL = ("runtime", "output", "redundancy")
"""Sections that are each institution's own: they say where work is done, not what."""

OURS = ("hierfl", "tiers", "scheduler")
"""Packages that the version of hierfl stands for."""

PYTHON = Path(sysconfig.get_path("stdlib"))
"""Where Python's own files lie, and below them maybe what is installed."""


@dataclass(frozen=True, slots=True)
class Code:
    """The source files, by their modules' names, that decide what a site does: see `code_of`."""

    files: Mapping[str, Path]

    @property
    def digest(self) -> str:
        """Give the SHA-256 of hierfl's version and of each file, with its module's name, in the names' order."""
        total = hashlib.sha256(__version__.encode())
        for name, file in sorted(self.files.items()):
            content = file.read_bytes()
            total.update(f"\n{name} {len(content)}\n".encode() + content)
        return total.hexdigest()


def code_of(config: RunConfig) -> Code:
    """Find the code of the task, and of strategies, topologies and other kinds of the user's own.

    It is the files of the task's class and its bases, the modules of other `package.module:Class` kinds outside of
    `LOCAL` sections, and all modules of one's own that these import, wherever in a file the import stands. One's own
    lie outside of site-packages and Python's folder; of an installed package, its own modules count. hierfl counts by
    its version; other installed packages, and what is imported by a name made at run time, do not count.

    Errors: OSError, TypeError for a class without a source file, as one made in a session.
    """
    found: dict[str, Path] = {}
    for cls in type(config.task).__mro__:
        name = inspect.getsourcefile(cls) if cls.__module__ != "builtins" else None
        if name and not _is_pythons(file := Path(name)):
            found[cls.__module__] = file
    shared = {key: value for key, value in config.resolved.items() if key not in LOCAL}
    for kind in own_kinds(shared):
        module = importlib.import_module(kind.partition(":")[0])
        if (origin := getattr(module, "__file__", None)) is None:
            raise TypeError(f"{kind} has no source file")  # as in a session
        found[module.__name__] = Path(origin)
    return Code(_with_imports(found))


def task_code(config: RunConfig) -> str:
    """Give the digest of `code_of`; empty where there are no source files, as of a class made in a session."""
    try:
        return code_of(config).digest
    except (OSError, TypeError):
        return ""


def own_kinds(section: Any) -> Iterator[str]:
    """Find the kinds of the user's own in a part of the configuration, however deep, in their order there."""
    stack = [section]
    while stack:
        part = stack.pop()
        if isinstance(part, Mapping):
            kind = part.get("kind")
            if isinstance(kind, str) and ":" in kind:
                yield kind
            stack.extend(reversed(list(part.values())))
        elif isinstance(part, (list, tuple)):
            stack.extend(reversed(part))


def _with_imports(first: Mapping[str, Path]) -> dict[str, Path]:
    """Add the modules of one's own that these import, and those import."""
    found: dict[str, Path] = {}
    waiting = [(name, file, name.partition(".")[0]) for name, file in first.items()]
    while waiting:
        name, file, top = waiting.pop()
        if name in found:
            continue
        found[name] = file
        if top in OURS:
            continue
        for other in _imported(name, file):
            source = _source(other)
            if source is not None and is_own(other, source, top):
                waiting.append((other, source, top))
    return found


def _imported(name: str, file: Path) -> Sequence[str]:
    """Name all modules that a file may import: the packages on the way to each, and what may be modules of them."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    return _named(file.read_bytes(), package)


@lru_cache(maxsize=1024)
def _named(source: bytes, package: str) -> Sequence[str]:
    """Name all modules that a source may import; a run asks several times."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # of another version of Python, maybe: whoever imports it will see
        return ()
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.update(dict.fromkeys(_way(alias.name)))
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                found.update(dict.fromkeys(_way(base)))
                found.update(dict.fromkeys(f"{base}.{alias.name}" for alias in node.names if alias.name != "*"))
    return tuple(found)


def _way(name: str) -> Iterator[str]:
    """Name a module, after the packages that it is in."""
    parts = name.split(".")
    yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def _source(name: str) -> Path | None:
    """Find a module's source file without importing anything; None if it is no module, or has none."""
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
    else:
        spec = _spec(name)
        origin = spec.origin if spec is not None else None
    return Path(origin) if origin and origin.endswith(".py") else None


def _spec(name: str) -> ModuleSpec | None:
    """Find a module as an import would, without importing the packages that it is in."""
    above, _, _ = name.rpartition(".")
    path = None
    if above:
        loaded = sys.modules.get(above)
        places = getattr(loaded, "__path__", None) if loaded is not None else None
        if loaded is None:
            spec = _spec(above)
            places = spec.submodule_search_locations if spec is not None else None
        if places is None:
            return None
        path = list(places)
    for finder in sys.meta_path:
        found: ModuleSpec | None = finder.find_spec(name, path) if hasattr(finder, "find_spec") else None
        if found is not None:
            return found
    return None


def is_own(name: str, file: Path, top: str = "") -> bool:
    """Whether a module is the user's own; `top`: as seen from an installed package of that name, whose modules are."""
    if name.partition(".")[0] in OURS or _is_pythons(file):
        return False
    return not _is_installed(file) or name.partition(".")[0] == top


def _is_installed(file: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(file.parts)


def _is_pythons(file: Path) -> bool:
    return file.is_relative_to(PYTHON) and not _is_installed(file)
