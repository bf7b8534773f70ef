"""What the commands take: arguments and options that several of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "CodeDir",
    "Debug",
    "Json",
    "Overrides",
    "Plain",
    "PlanWords",
    "Report",
    "RunDir",
    "RunDirs",
    "SeveralWords",
    "Words",
]

Words = Annotated[list[str], typer.Argument(metavar="CONFIG [KEY=VALUE]...", help="The YAML, then overrides.")]
PlanWords = Annotated[list[str] | None, typer.Argument(metavar="CONFIG [KEY=VALUE]...", help="As for run.")]
SeveralWords = Annotated[
    list[str], typer.Argument(metavar="CONFIG... [KEY=VALUE]...", help="One YAML or several, then overrides.")
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a run.")]
RunDirs = Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="The folder of a run, or of several.")]
CodeDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where the folder that the run was started in lies now, if it was moved."),
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for machines.")]
Plain = Annotated[bool, typer.Option("--plain", help="Lines instead of a live display, no colours.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Report = Annotated[bool, typer.Option("--report", help="Also write the report at the end.")]
