"""The ways of `hierfl run` beside the single one: without a site, on several seeds, several federations at once; and of
taking a run up again: now, or once nobody else leads it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from hierfl.console import Watch, aside, finish, show, stopped, told
from hierfl.errors import ConfigError
from hierfl.options import configs_of, refuse_strays, split

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig
    from hierfl.monitor.records import Monitor
    from hierfl.reopen import Reopened

__all__ = ["resume", "run_seeds", "run_several", "run_without"]


def resume(
    run_dir: Path,
    overrides: Sequence[str],
    code_dir: Path | None,
    standby: bool,
    report: bool,
    as_json: bool,
    plain: bool,
    debug: bool,
) -> None:
    """Go on with a run; as a standby, once whoever leads it is heard of no more."""
    watch = Watch(words=[*overrides, *(["--code-dir", str(code_dir)] if code_dir is not None else [])])
    with told(as_json, debug, watch), aside(as_json) as answer:
        from hierfl.errors import Overtaken
        from hierfl.takeup import take_up

        def monitors(left: Reopened) -> Sequence[Monitor]:
            watch.run_dir = left.folder.path
            from hierfl.monitor.screen import screen

            return [screen(left.config, force_plain=plain), watch]

        summary: Mapping[str, Any] | None = None
        while summary is None:
            if standby and not _is_to_lead(run_dir, overrides):
                from hierfl.rundir import RunDir

                answer.update(RunDir(run_dir).summary())
                return
            try:
                summary = take_up(run_dir, overrides, code_dir, monitors, stands_by=standby, tell=_tell)
            except Overtaken as error:
                if not standby:
                    raise
                _tell(str(error))
        finish(summary, report)
        answer.update(summary)


def _is_to_lead(run_dir: Path, overrides: Sequence[str]) -> bool:
    """Watch a run; say whether it is to be led here, or has ended. Errors: OutputError if that was not well."""
    from hierfl.errors import ConfigError, OutputError
    from hierfl.reopen import reopened
    from hierfl.runtime.opening import store_of
    from hierfl.standby import Standby, watched
    from tiers.lease import LEAD

    if overrides:
        raise ConfigError("--standby takes a run up as it is: leave the overrides out, or `hierfl amend` it")

    with reopened(run_dir) as left:
        folder, lease_s = left.folder.path, left.config.redundancy.lease_s
        store = watched(store_of(left.config, folder))
        _, verdict = Standby(lambda: folder, lambda _: store, lease_s, _tell).wait()
    if verdict.failed:
        raise OutputError(f"{run_dir} has ended: {verdict.reason}")
    _tell(f"{'takes up ' if verdict.what == LEAD else ''}{run_dir}: {verdict.reason}")
    return verdict.what == LEAD


def _tell(said: str) -> None:
    """Say what happens meanwhile."""
    print(said, file=sys.stderr, flush=True)


def run_without(
    words: Sequence[str], which: str, seeds: str | None, report: bool, as_json: bool, plain: bool, debug: bool
) -> None:
    """Run a configuration whole and without sites; say how the models do at these. `seeds` are refused."""
    watch = Watch()
    with told(as_json, debug, watch), aside(as_json) as answer:
        if seeds is not None:
            raise ConfigError(
                "--leave-out and --seeds are both given, and each runs CONFIG several times in a way of its own: give"
                " --leave-out once for each seed (seed=1 ...), or --seeds with the site's role=evaluation"
            )
        from hierfl.leave_out import OTHERS, leave_out, table, without

        whole, others = without(*split(words), which)
        answer.update(leave_out(whole, others, _one_by_one(watch, report, plain)))
        if not as_json:
            from hierfl.monitor.table import tabulate

            show(lambda width: tabulate(table(answer), width), plain)
            print(f"\n{OTHERS}:\n")
            show(lambda width: tabulate(table(answer, others=True), width), plain)
        if report:
            from hierfl.monitor.report import write_report

            write_report(Path(answer["run_dir"]))  # the whole run's once more: the comparison is there now


def run_seeds(words: Sequence[str], seeds: str, report: bool, as_json: bool, plain: bool, debug: bool) -> None:
    """Run configurations once per seed; say what came of them on the mean, and how far it spreads."""
    watch = Watch()
    with told(as_json, debug, watch), aside(as_json) as answer:
        from hierfl.repeat import repeat, seeds_of, tables, with_seeds

        paths = configs_of(words)
        if not paths:
            split(words)
        overrides = [word for word in words if word not in paths]
        configs = with_seeds([Path(path) for path in paths], overrides, seeds_of(seeds))
        answer.update(repeat(configs, _one_by_one(watch, report, plain)))
        if not as_json:
            from hierfl.monitor.table import tabulate

            for title, rows in tables(answer).items():
                print(f"\n{title}")
                show(lambda width, rows=rows: tabulate(rows, width), plain)


def _one_by_one(watch: Watch, report: bool, plain: bool) -> Callable[[RunConfig], Mapping[str, Any]]:
    """Give what runs one configuration to its end, as `hierfl run` does."""
    from hierfl.lifecycle import run
    from hierfl.monitor.screen import screen

    def one(config: RunConfig) -> Mapping[str, Any]:
        summary = run(config, [screen(config, force_plain=plain), watch])
        finish(summary, report)
        return summary

    return one


def run_several(words: Sequence[str], report: bool, as_json: bool, debug: bool) -> NoReturn:
    """Run several configurations on one Ray; exit with the worst code."""
    with told(as_json, debug):
        from hierfl.several import load_all, run_all

        refuse_strays(configs_of(words))
        paths = [Path(word) for word in configs_of(words)]
        overrides = [word for word in words if word not in configs_of(words)]
        options = [*(["--report"] if report else []), *(["--debug"] if debug else [])]
        configs = load_all(paths, overrides)
        try:
            code = run_all(paths, overrides, configs, options, as_json=as_json)
        except KeyboardInterrupt:  # every run has told its own end
            code = stopped()
    raise typer.Exit(code)
