"""The ways of `hierfl run` beside the single one: without a site, and several federations at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from hierfl.console import Watch, aside, finish, show, stopped, told
from hierfl.options import configs_of, split

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig

__all__ = ["run_several", "run_without"]


def run_without(words: Sequence[str], which: str, report: bool, as_json: bool, plain: bool, debug: bool) -> None:
    """Run a configuration whole and without sites; say how the models do at these."""
    watch = Watch()
    with told(as_json, debug, watch), aside(as_json) as answer:
        from hierfl.leave_out import leave_out, table, without

        whole, others = without(*split(words), which)
        from hierfl.monitor.screen import screen
        from hierfl.run import run
        from hierfl.tree import tabulate

        def one(config: RunConfig) -> Mapping[str, Any]:
            summary = run(config, [screen(config, force_plain=plain), watch])
            finish(summary, report)
            return summary

        answer.update(leave_out(whole, others, one))
        if not as_json:
            show(lambda width: tabulate(table(answer), width), plain)


def run_several(words: Sequence[str], report: bool, as_json: bool, debug: bool) -> NoReturn:
    """Run several configurations on one Ray; exit with the worst code."""
    with told(as_json, debug):
        from hierfl.several import load_all, run_all

        paths = [Path(word) for word in configs_of(words)]
        overrides = [word for word in words if word not in configs_of(words)]
        options = [*(["--report"] if report else []), *(["--debug"] if debug else [])]
        configs = load_all(paths, overrides)
        try:
            code = run_all(paths, overrides, configs, options, as_json=as_json)
        except KeyboardInterrupt as stop:  # every run has told its own end
            code = stopped(stop)
    raise typer.Exit(code)
