"""The file is the registration: `strategy: {kind: fedavgm}` loads `hierfl/learning/strategies/fedavgm.py`.

A kind's module holds one public frozen dataclass; its fields are the configuration's schema. A new kind is one new
file and no edit elsewhere.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass

from hierfl.errors import ConfigError

__all__ = ["FOLDERS", "METHODS", "close", "lacking", "load", "name_of", "names", "nearest"]

FOLDERS = {
    "attack": "hierfl.learning.attacks",
    "compression": "hierfl.learning.compressions",
    "fault": "hierfl.faults",
    "participation": "scheduler.participations",
    "policy": "scheduler.policies",
    "privacy": "hierfl.privacy",
    "strategy": "hierfl.learning.strategies",
    "task": "hierfl.tasks",
    "topology": "tiers.topologies",
}

METHODS = {
    "attack": ("poison", "change"),
    "fault": ("strike",),
    "task": ("model", "data", "loss", "predict"),
    "strategy": ("objective", "inherited", "init", "step"),
    "compression": ("compress", "restore", "num_bytes"),
    "privacy": ("release", "conflict", "misfit", "gradients"),
    "topology": ("plan", "misfit"),
    "participation": ("choose", "limits", "decide", "admit"),
    "policy": ("priority", "reason"),
}
"""The methods of each seam's protocol."""

FLAGS = {
    "attack": ("knows_honest",),
    "participation": ("may_close_early", "rolling"),
    "strategy": ("linear",),
    "topology": ("sequential", "has_centre", "keeps_models"),
}
"""What a protocol asks of the class itself: `linear: ClassVar[bool] = False`."""

MOST_NAMED = 24
"""Words that an error message lists at most."""


def names(seam: str) -> list[str]:
    """List the kinds of a seam ("strategy", "topology", "task", "policy"), sorted."""
    folder = importlib.import_module(FOLDERS[seam])
    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__) if not module.name.startswith("_"))


def load(seam: str, kind: str) -> type:
    """Load the class of a kind, or of a user's own `package.module:Class`.

    Errors: ConfigError that lists what is allowed and suggests the nearest.
    """
    if ":" in kind:
        return _load_own(seam, kind)
    allowed = names(seam)
    if kind not in allowed:
        sought = _sought(seam, kind)
        said = f"{sought}{nearest('', allowed)}" if sought else f"{nearest(kind, allowed)}{_as_value(seam, kind)}"
        way = f"your own as {':'.join(kind.rsplit('.', 1)) if '.' in kind else 'package.module:Class'!r}"
        raise ConfigError(f"unknown {seam} {kind!r}{said}, or {way}")
    module = importlib.import_module(f"{FOLDERS[seam]}.{kind}")
    found = [
        value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and is_dataclass(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
    assert len(found) == 1, f"{module.__name__} must hold one public dataclass, has {found}"
    return found[0]


def name_of(cls: type) -> str:
    """Give the kind that a class is: the name of hierfl's own, else `package.module:Class`."""
    folder, _, name = cls.__module__.rpartition(".")
    return name if folder in FOLDERS.values() and name[:1] != "_" else f"{cls.__module__}:{cls.__qualname__}"


def lacking(seam: str, cls: type) -> list[str]:
    """List the methods and flags of a seam's protocol that a class does not have."""
    methods = [method for method in METHODS[seam] if not callable(getattr(cls, method, None))]
    return [*methods, *(flag for flag in FLAGS.get(seam, ()) if not isinstance(getattr(cls, flag, None), bool))]


def close(word: str, options: Iterable[str]) -> str | None:
    """Find the option that a word was meant to be; None where none is near."""
    small = {option.lower(): option for option in reversed(list(options))}
    found = difflib.get_close_matches(str(word).lower(), list(small), n=1, cutoff=0.5)
    return small[found[0]] if found else None


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Say in a half sentence what is allowed, the nearest word first: " (did you mean 'x'? allowed: x, y)"."""
    options = [str(option) for option in allowed]
    meant = close(word, options)
    hint = f"did you mean {meant!r}? " if meant else ""
    more = f", ... ({len(options)} in all)" if len(options) > MOST_NAMED else ""
    return f" ({hint}allowed: {', '.join(options[:MOST_NAMED])}{more})" if options else ""


def _sought(seam: str, word: str) -> str:
    """Name the kind that is for what a word says, where its class lists that: "; parquet reads CSV files, too"."""
    for kind in names(seam):
        found: Mapping[str, str] = getattr(load(seam, kind), "sought_as", {})
        if word.lower() in found:
            return f"; {kind} {found[word.lower()]}"
    return ""


def _as_value(seam: str, word: str) -> str:
    """Say of which kind's key a word is a value: ", or {kind: peer, graph: ring}"; nothing where of none's."""
    for kind in names(seam):
        cls = load(seam, kind)
        for name in (field.name for field in fields(cls) if field.init and isinstance(field.default, str)):
            if _takes(cls, name, word) and not _takes(cls, name, "?"):
                return f", or {{kind: {kind}, {name}: {word}}}"
    return ""


def _takes(cls: type, name: str, word: str) -> bool:
    """Say whether a class takes a word for one of its fields, the others as they are by default."""
    try:
        cls(**{name: word})
    except (ValueError, TypeError, ConfigError):
        return False
    return True


def _load_own(seam: str, kind: str) -> type:
    """Import the user's own class, with every way to get it wrong told apart."""
    module_name, _, class_name = kind.partition(":")
    if "<locals>" in class_name:
        raise ConfigError(
            f"{seam} {kind!r}: a class that is made within a function cannot be found again; define it at the top of a"
            " module, a script or a notebook's cell"
        )
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", kind) or module_name.endswith(".py"):
        raise ConfigError(
            f"{seam} {kind!r} is not of the form 'package.module:Class': the module's dotted name without .py, a colon,"
            " the class"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigError(f"{seam} {kind!r}: importing {module_name} failed: {error}") from error
        raise ConfigError(
            f"{seam} {kind!r}: there is no module {error.name!r} on the Python path;"
            " start hierfl in the folder that holds it, or install it"
        ) from error
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        raise ConfigError(
            f"{seam} {kind!r}: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
    found = getattr(module, class_name, None)
    if found is None and module_name == "__main__":
        raise ConfigError(
            f"{seam} {kind!r}: was a class of a script or a notebook, and {class_name} is not defined in this program;"
            f" define it here, too (and hierfl.resume in Python), or put it in a module: my_{seam}:{class_name}"
        )
    if not inspect.isclass(found):
        fit = [name for name, value in vars(module).items() if inspect.isclass(value) and not lacking(seam, value)]
        way = nearest(class_name, fit) or f"; nor any other that is a {seam} (with {', '.join(METHODS[seam])})"
        file = getattr(module, "__file__", None)  # another module of the name may have been meant
        where = f" ({file})" if file else ""
        raise ConfigError(f"{seam} {kind!r}: {module_name}{where} has no class {class_name!r}{way}")
    if not is_dataclass(found):
        raise ConfigError(f"{seam} {kind!r}: {class_name} must be a dataclass; its fields are the YAML's keys")
    if any(field.name == "kind" for field in fields(found) if field.init):
        raise ConfigError(
            f"{seam} {kind!r}: {class_name} has a field 'kind', which in the YAML names the class itself; give the"
            " field another name"
        )
    if undeclared := _no_fields(found):
        raise ConfigError(
            f"{seam} {kind!r}: {class_name} declares {', '.join(undeclared)} and is no dataclass of its own, so that"
            f" the YAML could not set {'it' if len(undeclared) == 1 else 'them'}; write @dataclass(frozen=True)"
            " above it"
        )
    return found


def _no_fields(cls: type) -> list[str]:
    """List what a class declares for itself as if these were fields, where its bases alone are dataclasses."""
    if "__dataclass_fields__" in vars(cls):
        return []
    declared = inspect.get_annotations(cls).items()
    return [name for name, said in declared if name[:1] != "_" and "ClassVar" not in str(said)]
