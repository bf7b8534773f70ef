"""The command that rehearses faults on the user's own federation."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hierfl.console import aside, show, told
from hierfl.errors import ConfigError
from hierfl.kinds import nearest
from hierfl.monitor.words import UNDEFINED, count, seconds
from hierfl.options import Debug, Json, Plain, Words, loaded, split

if TYPE_CHECKING:
    from rich.table import Table

    from hierfl.drill import Row

__all__ = ["register"]

TITLES = ("fault", "node", "step", "expected", "seen", "recovery", "retrained", "digest equal", "as expected")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("drill")(_drill)


def _drill(
    words: Words,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Rounds of the run that is killed and resumed.")] = 2,
    runtime: Annotated[str | None, typer.Option(metavar="local|ray", help="In the place of the YAML's.")] = None,
    only: Annotated[str | None, typer.Option(metavar="KIND", help="This kind of fault alone: kill, hang, ...")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the runs in DIR; else only those that failed are kept.")
    ] = None,
    as_json: Json = False,
    plain: Plain = False,
    debug: Debug = False,
) -> None:
    """Rehearse faults on CONFIG, one by one.

    Each fault strikes a round of its own, and the model is held against the one of a run without faults; the run itself
    is killed and resumed. Exit code 1 if anything is not as expected.
    """
    with told(as_json, debug):
        failed = False
        with aside(as_json) as answer:
            path, overrides = split(words)
            command = [str(path), *overrides, *([f"runtime.kind={runtime}"] if runtime is not None else [])]
            command += _check(command, only)
            folder = out if out is not None else Path(tempfile.mkdtemp(prefix="hierfl-drill-"))
            folder.mkdir(parents=True, exist_ok=True)
            try:
                rows = _rows(command, folder.resolve(), only, rounds)
            except BaseException:
                if out is None and any(folder.iterdir()):
                    print(f"the runs are in {folder}", file=sys.stderr)
                elif out is None:
                    folder.rmdir()
                raise
            failed = any(row.passed is False for row in rows)
            answer.update(rows=[row.record() for row in rows], passed=not failed)
            if not as_json:
                show(lambda width: _tabulated(rows), plain)
            if failed or out is not None:
                print(f"the runs are in {folder}", file=sys.stderr)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        if failed:
            raise typer.Exit(1)


def _check(command: Sequence[str], only: str | None) -> list[str]:
    """Find mistakes before anything starts; give what is to be overridden. Errors: ConfigError."""
    from hierfl.drill import cases

    config = loaded(command)
    if config.faults:
        raise ConfigError("faults: the drill brings its own; leave them out, or use `hierfl run`")
    kinds = dict.fromkeys(case.kind for case in cases(config))
    if only is not None and only not in kinds:
        raise ConfigError(f"--only {only}: no fault of the drill{nearest(only, kinds)}")
    elsewhere = config.redundancy.journal not in (None, "none")
    return ["redundancy.journal=null"] if elsewhere else []  # what is rehearsed stays in the drill's folder


def _rows(command: Sequence[str], folder: Path, only: str | None, rounds: int) -> list[Row]:
    """Rehearse; say on standard error how far it is."""
    from hierfl.drill import drill

    return list(drill(command, folder, only, rounds, lambda said: print(f"... {said}", file=sys.stderr, flush=True)))


def _tabulated(rows: Sequence[Row]) -> Table:
    """Draw the table."""
    from rich.table import Table

    table = Table(*TITLES)
    for row in rows:
        case = row.case
        passed = "-" if row.passed is None else "yes" if row.passed else "NO"
        figures = (seconds(row.recovery_s), count(row.retrained), _yes_or_no(row.digest_equal), passed)
        table.add_row(case.kind, case.node, case.step, case.expects, row.said, *figures)
    return table


def _yes_or_no(value: bool | None) -> str:
    return UNDEFINED if value is None else "yes" if value else "no"
