"""How the command line speaks: answers, errors, the way on after a stop, and where everything is."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hierfl.errors import ConfigError, Fenced, HierflError
from hierfl.monitor.whereabouts import Whereabouts
from hierfl.stops import heard, is_stop

if TYPE_CHECKING:
    from hierfl.monitor.records import Record

__all__ = ["Watch", "aside", "at_work", "closing_lines", "command", "finish", "show", "stopped", "told", "usage_error"]

_UNBROKEN = 10_000
"""The width of what is no terminal: nothing is cut and nothing is left out there."""


_SOON_S = 2.0
"""What takes no longer needs no word on the way, where there is no terminal."""


@dataclass
class Watch(Whereabouts):
    """A monitor that remembers where a run writes, to tell how to go on after a stop; in the file `note` too.

    `words`: of a run that is taken up again and has not begun yet, what was typed beside its folder. `way_on`: the
    command, less hierfl and the run's folder, that goes on with a run.
    """

    note: Path | None = None
    words: Sequence[str] | None = None
    way_on: Sequence[str] = ("resume",)

    def on(self, record: Record) -> None:
        """Take one record."""
        from hierfl.monitor.records import RunStarted

        super().on(record)
        if isinstance(record, RunStarted):
            self.words = None
            if self.note is not None and self.run_dir is not None:
                self.note.write_text(str(self.run_dir.resolve()), encoding="utf-8")

    def advice(self) -> str:
        """Say how to go on; empty where the run has not begun."""
        return self.story(self.record().get("resume", ""))

    def record(self) -> dict[str, str]:
        """Say for machines where the run is and, if it has begun or has a commit, which command goes on with it."""
        if self.run_dir is None:
            return {}
        words = shlex.join([*self.way_on, str(self.run_dir), *(self.words or ())])
        way = {"resume": f"{command('hierfl')} {words}"} if self.has_begun or self.committed() is not None else {}
        return {"run_dir": str(self.run_dir), **way}


@contextlib.contextmanager
def told(as_json: bool, debug: bool, watch: Watch | None = None) -> Iterator[None]:
    """Turn errors and stops into clear messages and exit codes; a traceback only with `debug`, or for our mistakes."""
    watch = watch or Watch()
    try:
        yield
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, HierflError):
            if debug:
                import traceback

                traceback.print_exc()
            _say_error(error)
        if is_stop(error):
            raise typer.Exit(stopped(watch.advice(), as_json=as_json, **watch.record())) from None
        known = {} if isinstance(error, Fenced) else watch.record()  # it is not this process's any more
        if isinstance(error, HierflError) and watch.words is None and known and (way := watch.advice()):
            print(way, file=sys.stderr)  # what was refused is not advised
        if as_json and not isinstance(error, BrokenPipeError):
            _say_json({"error": {**_error_record(error), **known}})
        if not isinstance(error, HierflError):
            raise
        raise typer.Exit(error.exit_code) from None


def stopped(advice: str = "", *, as_json: bool = False, **known: str) -> int:
    """Say that a stop has ended the command, how to go on, and to machines what is known; return the exit code."""
    stops = heard()
    stops.is_told = True
    print("; ".join(filter(None, ("\nstopped", advice))), file=sys.stderr)
    if as_json:
        _say_json({"error": {"kind": "Interrupted", "message": f"stopped by {stops.cause}", **known}})
    return stops.exit_code


@contextlib.contextmanager
def aside(as_json: bool) -> Iterator[dict[str, Any]]:
    """Give a dict to put the answer in; with JSON it is all that standard output gets, and the rest goes to stderr."""
    answer: dict[str, Any] = {}
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield answer
    if as_json:
        _say_json(answer)


def closing_lines(summary: Mapping[str, Any], report: Path | None = None) -> str:
    """Say where a run's model is, if it has one, and the commands to look at it; its folder and digest the screen has
    said.
    """
    run_dir = Path(summary["run_dir"])
    lines = {"weights": str(run_dir / "model.safetensors")} if summary["model_digest"] else {}
    best = summary.get("best")
    if best is not None and best["round"] != summary["rounds"]:
        lines["best"] = f"{run_dir / best['file']}, {best['metric']} {best['value']:.4g} after round {best['round']}"
    if summary.get("rounds_planned") == 0:
        lines["train"] = f"{command('hierfl')} resume {shlex.quote(str(run_dir))} statistics.only=false"
    elif (run_dir / "tensorboard").is_dir():
        lines["curves"] = f"{command('tensorboard')} --logdir {shlex.quote(str(run_dir / 'tensorboard'))}"
    lines["report"] = str(report) if report else f"{command('hierfl')} report {shlex.quote(str(run_dir))}"
    return "\n".join(f"{what:<9}{where}" for what, where in lines.items())


def finish(summary: Mapping[str, Any], report: bool) -> None:
    """Write the report where it is asked for, and say where everything is."""
    written = None
    if report:
        from hierfl.monitor.report import write_report

        written = write_report(Path(summary["run_dir"]))
    if "statistics" in summary and not summary["rounds_planned"]:
        from hierfl.monitor.statistics import read_statistics

        told = read_statistics(Path(summary["run_dir"]))
        if told is not None:
            print()
            show(told.table, plain=False)
            print(f"\n{told.legend()}\n")
    print(closing_lines(summary, written))


@contextlib.contextmanager
def at_work(plain: bool) -> Iterator[Callable[[str], None]]:
    """Give what says on standard error what a command is at: in one line on a terminal, which goes at the end; in
    lines elsewhere, once it has taken a while.
    """
    from rich.console import Console

    console, began_s = Console(stderr=True, highlight=False), time.monotonic()
    if console.is_terminal and not plain:
        with console.status("") as status:
            yield lambda said: status.update(f"{said} ...")
    else:
        yield (
            lambda said: (
                print(f"... {said}", file=sys.stderr, flush=True) if time.monotonic() - began_s > _SOON_S else None
            )
        )


def show(drawing: Any, plain: bool) -> None:
    """Print a drawing of rich's, or what makes one for a width: in colours on a terminal, unbroken lines elsewhere."""
    from rich.console import Console

    console = Console(highlight=False, no_color=plain, force_terminal=False if plain else None)
    if not console.is_terminal:
        console.width = _UNBROKEN
    console.print(drawing(console.width) if callable(drawing) else drawing, soft_wrap=not console.is_terminal)


def command(name: str) -> str:
    """Spell a command so that it can be pasted: by its whole path where the user's PATH does not lead to it."""
    import shutil

    beside = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not beside.exists() or (found is not None and Path(found).resolve() == beside.resolve()):
        return name
    return shlex.quote(str(beside))


def _say_json(document: Mapping[str, Any]) -> None:
    print(json.dumps(document, indent=2, default=str))


def _say_error(error: HierflError) -> None:
    """Print one error on standard error; of a configuration, every mistake."""
    if not isinstance(error, ConfigError):
        print(f"error: {error}", file=sys.stderr)
        return
    count = len(error.problems)
    print(f"{count} mistake{'' if count == 1 else 's'} in the configuration:", file=sys.stderr)
    for problem in error.problems:
        print(f"  {problem}", file=sys.stderr)


def usage_error(ended: SystemExit) -> None:
    """Say for machines that the command line was not understood, if that is what ended it."""
    understood = getattr(ended.__context__, "format_message", None)  # of click's errors, which typer turns into exits
    if understood is not None:
        _say_json({"error": {"kind": "UsageError", "message": understood()}})


def _error_record(error: BaseException) -> dict[str, Any]:
    """Make an error ready for JSON."""
    record: dict[str, Any] = {"kind": type(error).__name__, "message": str(error)}
    if isinstance(error, ConfigError):
        record["problems"] = [asdict(problem) for problem in error.problems]
    return record
