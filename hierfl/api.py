"""Federations from Python: what a script or a notebook calls, as the command line does.

Nothing is printed unless it is asked for, nothing ends the process, and no signal is taken. What goes wrong is a
`HierflError`; it knows the run's folder, and says in a note how to go on. Ctrl-C, or a notebook's stop, comes out as
KeyboardInterrupt once the run has ended cleanly, its last commit kept.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hierfl.errors import ConfigError, Fenced, HierflError, OutputError
from hierfl.monitor.caller import LOG, AfterRound, Caller
from hierfl.result import Result

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig

__all__ = ["Config", "Overrides", "open_run", "resume", "run", "validate"]

Config: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
"""A configuration: the path of a YAML; or what such a file holds, as a dict or an OmegaConf DictConfig. There a `kind`
may also be the class itself, and a section that names a kind an instance of it.
"""

Overrides: TypeAlias = Sequence[str] | Mapping[str, Any]
"""Overrides: as on the command line, `["training.lr=0.1"]`, or their values by key, `{"training.lr": 0.1}`."""


def run(config: Config, overrides: Overrides = (), *, progress: bool | AfterRound = False) -> Result:
    """Run a federation to its end, as `hierfl run`.

    Args:
        config: the path of a YAML, or its content.
        overrides: as on the command line, `["training.lr=0.1", "federation.rounds=3"]`, or `{"training.lr": 0.1}`.
        progress: True shows the run on standard output, as the command line does. A function is called after each
            round that was committed, with the number of rounds done and, where they were measured, every node's
            metrics by path; what it raises ends the run as Ctrl-C does, and is raised here. Warnings go to the logger
            "hierfl" unless they are shown.

    Errors: ConfigError with every mistake, before anything starts; another HierflError, whose `run_dir` says where the
    run is.
    """
    read = _read(config, overrides)
    from hierfl.lifecycle import run as carry_out

    with _heard(progress) as caller:
        summary = carry_out(read, caller.monitors(read))
    return Result(Path(summary["run_dir"]).absolute())


def resume(
    run_dir: str | os.PathLike[str] | Result,
    overrides: Overrides = (),
    *,
    progress: bool | AfterRound = False,
    code_dir: str | os.PathLike[str] | None = None,
) -> Result:
    """Go on with a run from its last commit and its journal, as `hierfl resume`; without overrides to the same bits.

    `code_dir`: where the folder that the run was started in lies now, if it was moved. `progress`, errors: as of `run`;
    OutputError if the run has done its rounds.
    """
    from hierfl.config import as_words
    from hierfl.takeup import take_up

    words = as_words(overrides)
    left = run_dir if isinstance(run_dir, Result) else Result(_folder(run_dir))
    here = Path(code_dir).absolute() if code_dir is not None else left.code_dir
    with _heard(progress) as caller:
        caller.run_dir = left.run_dir
        take_up(left.run_dir, words, here, lambda found: caller.monitors(found.config), tell=LOG.warning)
    return Result(left.run_dir, here)


def validate(config: Config, overrides: Overrides = ()) -> dict[str, Any]:
    """Check a configuration, as `hierfl validate`; start nothing.

    Return what `hierfl validate --json` says: name, task, numbers of hubs, sites and tiers, and by node what the rules
    hold off, what is sent small, which public data go to whom, and which sites have the same data. Errors:
    ConfigError, whose `problems` are all mistakes, each with its path in the YAML.
    """
    from hierfl.validation import told_of

    return told_of(_read(config, overrides))


def open_run(run_dir: str | os.PathLike[str], *, code_dir: str | os.PathLike[str] | None = None) -> Result:
    """Open the folder of a run, finished or not. `code_dir`: as of `resume`. Errors: OutputError if it is none."""
    from hierfl.rundir import saved_config

    folder = _folder(run_dir)
    saved_config(folder)
    return Result(folder, Path(code_dir).absolute() if code_dir is not None else None)


def _folder(run_dir: object) -> Path:
    """Take the folder of a run. Errors: OutputError for what names none."""
    if not isinstance(run_dir, str | os.PathLike):
        raise OutputError(
            f"a run is named by its folder, as a path, or for resume by what run gave, not by {run_dir!r:.80}"
        ).misnamed()
    return Path(run_dir).absolute()


def _read(config: Config, overrides: Overrides) -> RunConfig:
    """Understand a configuration, wherever it comes from. Errors: ConfigError."""
    from hierfl.config import as_words, from_mapping, load

    words = as_words(overrides)
    if isinstance(config, str | os.PathLike):
        return load(Path(config), words)
    if not isinstance(config, Mapping):
        raise ConfigError(
            f"a configuration is the path of a YAML, a dict or an OmegaConf DictConfig, not {type(config).__name__}"
        )
    return from_mapping(config, words)


@contextlib.contextmanager
def _heard(progress: bool | AfterRound) -> Iterator[Caller]:
    """Give what tells the caller of a run; whatever ends that before its time knows where it is, and how to go on."""
    caller = Caller(progress)
    try:
        yield caller
    except BaseException as error:
        if isinstance(error, HierflError):
            error.run_dir = caller.run_dir
        may_go_on = caller.has_begun or isinstance(error, KeyboardInterrupt)  # what was refused is not advised
        if may_go_on and not isinstance(error, Fenced) and (advice := caller.advice()):
            error.add_note(advice)
        raise
