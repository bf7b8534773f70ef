"""What the commands take: arguments and options that several of them share, and how their words are told apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from hierfl.errors import ConfigError

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig

__all__ = [
    "CodeDir",
    "Debug",
    "Discreet",
    "FaultsFile",
    "Json",
    "LeaveOut",
    "Overrides",
    "Plain",
    "PlanWords",
    "Report",
    "RunDir",
    "RunDirs",
    "Seeds",
    "SeveralJson",
    "SeveralWords",
    "Words",
    "configs_of",
    "loaded",
    "split",
    "with_faults",
]

Words = Annotated[list[str], typer.Argument(metavar="CONFIG [KEY=VALUE]", help="The YAML, then overrides.")]
PlanWords = Annotated[
    list[str] | None,
    typer.Argument(metavar="CONFIG [KEY=VALUE]", help="The YAML, then overrides; none with --replay."),
]
SeveralWords = Annotated[
    list[str], typer.Argument(metavar="CONFIG... [KEY=VALUE]", help="One YAML or several, then overrides.")
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a run.")]
RunDirs = Annotated[list[Path], typer.Argument(metavar="RUN_DIR", help="The folder of a run, or of several.")]
CodeDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where the folder that the run was started in lies now, if it was moved."),
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for machines.")]
SeveralJson = Annotated[
    bool,
    typer.Option("--json", help="One JSON document on standard output; of several CONFIGs a line each, and one more."),
]
Plain = Annotated[bool, typer.Option("--plain", help="Lines instead of a live display, no colours.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
LeaveOut = Annotated[
    str | None, typer.Option(metavar="SITE|each", help="Run it once more without each site, and compare there.")
]
Seeds = Annotated[
    str | None, typer.Option(metavar="0..4", help="Run each CONFIG on these seeds; tell mean and deviation.")
]
FaultsFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Rehearse: let the faults listed in FILE happen, as `faults:` does.")
]
Report = Annotated[bool, typer.Option("--report", help="Also write the report at the end.")]


class Discreet(TyperCommand):
    """A command whose hidden options are proposed to nobody who has mistyped another one.

    Who writes a key of the configuration as an option hears how it is written.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the words of the command line."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if found := getattr(error, "possibilities", None):
                hidden = {name for each in self.params if getattr(each, "hidden", False) for name in each.opts}
                error.possibilities = [name for name in found if name not in hidden]  # type: ignore[attr-defined]
            takes_keys = any("KEY=VALUE" in (getattr(each, "metavar", None) or "") for each in self.params)
            if takes_keys and hasattr(error, "option_name"):
                error.message += "; a key of the configuration has no dashes, KEY=VALUE: training.lr=0.1"  # type: ignore[attr-defined]
            raise


def split(words: Sequence[str]) -> tuple[Path, list[str]]:
    """Tell the configuration from the overrides, which hold a "="."""
    configs = configs_of(words)
    refuse_strays(configs)
    if len(configs) != 1:
        given = f"{len(configs)} are given: {', '.join(configs)}" if configs else "none is given"
        raise ConfigError(f"one CONFIG is needed, {given}; every other word is an override, KEY=VALUE")
    return Path(configs[0]), [word for word in words if word not in configs]


def with_faults(words: Sequence[str], file: Path | None) -> list[str]:
    """Add the faults that a file lists, if there is one, in the place of those in the YAML. Errors: ConfigError."""
    if file is None:
        return list(words)
    import json

    from hierfl.config.read import parse, read

    wanted = "a list of faults (- {kind: kill, node: ...})"
    if not file.exists():
        raise ConfigError(f"--faults {file}: there is no such file; it holds {wanted}, as `faults:` in the YAML")
    listed = parse(read(file), str(file))
    if isinstance(listed, dict) and set(listed) == {"faults"}:
        listed = listed["faults"]
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"--faults {file}: must hold {wanted}")
    return [*words, f"faults={json.dumps(listed)}"]


def configs_of(words: Sequence[str]) -> list[str]:
    """List the words that are no overrides."""
    return [word for word in words if "=" not in word or os.path.isfile(word)]  # of a long word pathlib complains


def refuse_strays(configs: Sequence[str]) -> None:
    """Say of words beside a configuration that look like none how an override is written. Errors: ConfigError."""
    strays = [word for word in configs if not Path(word).exists() and Path(word).suffix not in (".yaml", ".yml")]
    if strays and len(configs) > 1:
        said = ", ".join(map(repr, strays))
        raise ConfigError(f"{said}: no file, and no override, which is one word without spaces: training.lr=0.1")


def loaded(words: Sequence[str]) -> RunConfig:
    """Read the one configuration that the words name, with their overrides. Errors: ConfigError."""
    from hierfl.config import load

    path, overrides = split(words)
    return load(path, overrides)
