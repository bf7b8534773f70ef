"""Several runs at once on one Ray: each is a process of its own, and one scheduler serves them all.

All configurations are checked before anything starts. What the runs say is shown line by line, each with its run's
name, and at the end what they made of the devices together. A stop is passed on to every run once, so that each keeps
its last commit.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from hierfl.console import command
from hierfl.errors import ConfigError, OutputError, Problem
from hierfl.monitor.words import told_apart
from hierfl.stops import unbroken

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig

__all__ = ["in_file", "load_all", "run_all", "worst"]


def load_all(paths: Sequence[Path], overrides: Sequence[str] = ()) -> list[RunConfig]:
    """Read several configurations, the same overrides in each. Errors: ConfigError with all mistakes of all files."""
    from hierfl.config import load

    problems: list[Problem] = []
    configs = []
    for path in paths:
        try:
            configs.append(load(path, overrides))
        except ConfigError as error:
            problems += [in_file(path, problem) for problem in error.problems]
        else:
            if configs[-1].runtime.kind != "ray":
                said = f"is {configs[-1].runtime.kind}; several runs share a Ray, runtime.kind=ray"
                problems.append(in_file(path, Problem("runtime.kind", said)))
    addresses = {config.runtime.address or "null": path for path, config in zip(paths, configs, strict=False)}
    if len(configs) == len(paths) and len(addresses) > 1:
        said = ", ".join(f"{address} in {path}" for address, path in addresses.items())
        problems.append(Problem("runtime.address", f"is {said}; several runs share one Ray"))
    if problems:
        raise ConfigError(problems)
    return configs


def run_all(
    paths: Sequence[Path],
    overrides: Sequence[str],
    configs: Sequence[RunConfig],
    options: Sequence[str] = (),
    *,
    as_json: bool = False,
) -> int:
    """Run every configuration, all at once; return the worst exit code.

    `options`: of `hierfl run`, for each. With `as_json` standard output gets one line of JSON for each run, when it
    ends, and one of them together, {"joint": ...}; all else goes to standard error. Errors: RuntimeUnavailable;
    KeyboardInterrupt once every run has stopped.
    """
    with tempfile.TemporaryDirectory() as notes:
        own = [Path(notes) / str(number) for number in range(len(paths))]
        code = _run_together(paths, own, [*overrides, *options], configs, as_json=as_json)
        run_dirs = [Path(note.read_text(encoding="utf-8")) for note in own if note.exists()]
    if len(run_dirs) > 1:
        _tell_joint(run_dirs, as_json=as_json, report="--report" in options)
    return code


def _run_together(
    paths: Sequence[Path], notes: Sequence[Path], words: Sequence[str], configs: Sequence[RunConfig], *, as_json: bool
) -> int:
    """Run all to their ends; each notes its folder in one of `notes`. Return the worst exit code."""
    with _one_ray(configs) as join:
        more = [*words, *join, "--json" if as_json else "--plain"]
        runs: list[_Run] = []
        try:
            for path, note, name in zip(paths, notes, told_apart([config.name for config in configs]), strict=True):
                with unbroken():  # a stop in between would leave a process behind that nobody knows
                    runs.append(_Run(path, name, [*more, "--note", str(note)], as_json))
            for run in runs:
                run.wait()
        except KeyboardInterrupt:
            for run in runs:
                run.stop()
            for run in runs:
                run.wait()
            raise
        finally:
            for run in runs:
                run.kill()
    return worst([run.process.returncode for run in runs])


def worst(codes: Sequence[int]) -> int:
    """Give the highest exit code, as a shell counts them: 128 and the number for a run that a signal ended."""
    return max((code if code >= 0 else 128 - code for code in codes), default=0)


def _tell_joint(run_dirs: Sequence[Path], *, as_json: bool, report: bool) -> None:
    """Say what the runs made of the devices together, where they shared them."""
    from hierfl.monitor.joint import joint_lines, read_joint

    try:
        record = read_joint(run_dirs)
        lines = joint_lines(record)
        if report:
            from hierfl.monitor.joint_report import write_joint

            lines.append(f"report   {write_joint(record)}")
        else:
            lines.append(f"report   {command('hierfl')} report {shlex.join(map(str, run_dirs))}")
    except OutputError as error:
        print(f"note: no joint figures: {error}", file=sys.stderr)
        return
    print("\n".join(lines), file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps({"joint": record.record()}), flush=True)


class _Run:
    """One run's process, whose lines are shown as they come; it hears no signal but those that it is sent."""

    def __init__(self, path: Path, name: str, words: Sequence[str], as_json: bool) -> None:
        command = [sys.executable, "-m", "hierfl", "run", str(path), *words]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, errors="replace", start_new_session=True, **pipes)
        out: tuple[Any, ...] = (_answer, path) if as_json else (_show, name, sys.stdout)
        assert self.process.stdout is not None and self.process.stderr is not None
        self._readers = [
            threading.Thread(target=out[0], args=(self.process.stdout, *out[1:]), daemon=True),
            threading.Thread(target=_show, args=(self.process.stderr, name, sys.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def wait(self) -> None:
        """Wait for the end, and for all that was said."""
        self.process.wait()
        for reader in self._readers:
            reader.join()

    def stop(self) -> None:
        """Stop it as Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _show(lines: IO[str], name: str, stream: TextIO) -> None:
    """Pass lines on, each with the run's name; empty ones are nobody's."""
    with lines:
        for line in lines:
            if line.strip():
                stream.write(f"[{name}] {line.rstrip()}\n")
                stream.flush()


def _answer(lines: IO[str], path: Path) -> None:
    """Pass a run's JSON document on as one line, with its configuration's place; say so where it left none."""
    with lines:
        try:
            document: Mapping[str, Any] = json.loads(lines.read())
        except ValueError:
            document = {"error": {"kind": "Killed", "message": "the run was ended before it could answer"}}
        sys.stdout.write(json.dumps({"config": str(path), **document}) + "\n")
        sys.stdout.flush()


@contextlib.contextmanager
def _one_ray(configs: Sequence[RunConfig]) -> Iterator[Sequence[str]]:
    """Start a Ray for all, unless they name one; give what tells a run to join it."""
    runtimes = [config.runtime for config in configs]
    if runtimes[0].address is not None:
        yield ()
        return
    from hierfl.runtime.ray_cluster import embedded

    num_cpus = _most([runtime.num_cpus for runtime in runtimes])
    num_gpus = _most([runtime.num_gpus for runtime in runtimes])
    with embedded(replace(runtimes[0], num_cpus=num_cpus, num_gpus=num_gpus)) as address:
        yield ("--join", address)


def _most(numbers: Sequence[int | None]) -> int | None:
    """Give the largest; None, all that the machine has, where one asks for that."""
    given = [number for number in numbers if number is not None]
    return max(given) if len(given) == len(numbers) else None


def in_file(path: Path, problem: Problem) -> Problem:
    """Say in which file a mistake is."""
    return replace(problem, path=f"{path}: {problem.path}" if problem.path else str(path))
