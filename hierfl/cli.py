"""The command line. What is heavy is imported inside the commands, so that help answers at once.

Exit codes: 0 done, 1 failed, 2 the configuration or the command is wrong, 130 stopped with Ctrl-C; `submit` hands on
the job's own. With `--json` standard output holds one JSON document, the result or `{"error": ...}`, of a stop too (of
several runs a line each, then one of their devices), and all else goes to standard error.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from hierfl.console import Watch, aside, command, finish, show, stopped, told, usage_error
from hierfl.errors import ConfigError
from hierfl.options import (
    CodeDir,
    Debug,
    Json,
    Overrides,
    Plain,
    PlanWords,
    Report,
    RunDir,
    RunDirs,
    SeveralWords,
    Words,
)

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig

__all__ = ["app", "main"]

app = typer.Typer(
    name="hierfl",
    help="Hierarchical federated learning on Ray: a tree of hospitals and hubs, in one YAML.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # importing rich costs more than all the rest of `--help`
    pretty_exceptions_enable=False,  # they print local variables: patients' data
)


def main() -> None:
    """Run the command line: the console script and `python -m hierfl`."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # `task: {kind: "my_task:MyTask"}` lies in the user's folder
    try:
        app(prog_name="hierfl")
    except SystemExit as ended:
        if "--json" in sys.argv:
            usage_error(ended)
        raise
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # `hierfl tree big.yaml | head` is nobody's mistake
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        from hierfl import __version__

        print(f"hierfl {__version__}")
        raise typer.Exit


@app.command("run")
def _run(
    words: SeveralWords,
    report: Report = False,
    as_json: Json = False,
    plain: Plain = False,
    debug: Debug = False,
    leave_out: Annotated[
        str | None, typer.Option(metavar="SITE|each", help="Run it once more without each site, and compare there.")
    ] = None,
    join: Annotated[str | None, typer.Option(hidden=True)] = None,
    note: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Train the federation of CONFIG, or of several at once.

    Several take turns on the devices of one Ray. KEY=VALUE overrides any key: training.lr=0.1 federation.rounds=3
    federation.members.us.rounds=2.
    """
    if leave_out is not None:
        _run_without(words, leave_out, report, as_json, plain, debug)
        return
    if len(_configs(words)) > 1:
        _run_several(words, report, as_json, debug)
    watch = Watch(note=note)
    with told(as_json, debug, watch), aside(as_json) as answer:
        config = _load(words)  # mistakes are told before torch is loaded
        if join is not None:  # the Ray of `hierfl run A B`; the run's folder knows nothing of it, to be resumed alone
            config = replace(config, runtime=replace(config.runtime, address=join))
        from hierfl.monitor.screen import screen
        from hierfl.run import run

        summary = run(config, [screen(config, force_plain=plain), watch])
        finish(summary, report)
        answer.update(summary)


def _run_without(words: Sequence[str], which: str, report: bool, as_json: bool, plain: bool, debug: bool) -> None:
    """Run a configuration whole and without sites; say how the models do at these."""
    watch = Watch()
    with told(as_json, debug, watch), aside(as_json) as answer:
        from hierfl.leave_out import leave_out, table, without

        whole, others = without(*_split(words), which)
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


def _run_several(words: Sequence[str], report: bool, as_json: bool, debug: bool) -> NoReturn:
    """Run several configurations on one Ray; exit with the worst code."""
    with told(as_json, debug):
        from hierfl.several import load_all, run_all

        paths = [Path(word) for word in _configs(words)]
        overrides = [word for word in words if word not in _configs(words)]
        options = [*(["--report"] if report else []), *(["--debug"] if debug else [])]
        configs = load_all(paths, overrides)
        try:
            code = run_all(paths, overrides, configs, options, as_json=as_json)
        except KeyboardInterrupt as stop:  # every run has told its own end
            code = stopped(stop)
    raise typer.Exit(code)


@app.command("resume")
def _resume(
    run_dir: RunDir,
    overrides: Overrides = None,
    code_dir: CodeDir = None,
    report: Report = False,
    as_json: Json = False,
    plain: Plain = False,
    debug: Debug = False,
) -> None:
    """Go on with a run from its last checkpoint.

    The model has the same bits at the end as if the run had never stopped. Overrides hold from the next round on and
    are written into the run's config.yaml; what the checkpoint was made with (seed, tree, arithmetic) stays.
    """
    watch = Watch(words=[*(overrides or []), *(["--code-dir", str(code_dir)] if code_dir is not None else [])])
    with told(as_json, debug, watch), aside(as_json) as answer:
        from hierfl.reopen import reopened

        with reopened(run_dir, overrides or [], code_dir, to_train=True) as left:  # refused before torch is loaded
            watch.run_dir = left.folder.path
            from hierfl.monitor.screen import screen
            from hierfl.run import go_on

            summary = go_on(left, [screen(left.config, force_plain=plain), watch])
        finish(summary, report)
        answer.update(summary)


@app.command("validate")
def _validate(words: Words, as_json: Json = False, debug: Debug = False) -> None:
    """Check CONFIG and list every mistake; starts nothing."""
    with told(as_json, debug), aside(as_json) as answer:
        config = _load(words)
        federation = config.federation
        counts = {"hubs": len(federation.hubs), "sites": len(federation.sites), "tiers": federation.num_tiers}
        answer.update(valid=True, name=config.name, task=config.task_kind, **counts)
        said = ", ".join(f"{count} {what if count > 1 else what[:-1]}" for what, count in counts.items())
        print(f"{_split(words)[0]} is valid: {config.name}, {said}")
        from hierfl.tree import promises

        promised = promises(config)
        answer.update(promises=promised)
        for path, promise in promised.items():
            print(f"{path}: {promise}")


@app.command("tree")
def _tree(
    words: Words,
    show_plan: Annotated[bool, typer.Option("--plan", help="Draw a round's steps at every hub, too.")] = False,
    as_json: Json = False,
    plain: Plain = False,
    debug: Debug = False,
) -> None:
    """Draw the federation of CONFIG; starts nothing.

    Each hub with its topology, strategy and rounds, each node with its samples where the task can count them.
    """
    with told(as_json, debug), aside(as_json) as answer:
        from hierfl.tree import draw, survey

        config = _load(words)
        nodes = survey(config)
        answer.update(name=config.name, nodes={path: node.record() for path, node in nodes.items()})
        drawing = draw(nodes)
        if show_plan:
            from hierfl.trajectory import draw_ways, ways

            found = ways(config, nodes)
            answer.update(plans={path: way.record() for path, way in found.items()})
            drawing.append("\n").append_text(draw_ways(found))
        if not as_json:
            show(drawing, plain)


@app.command("plan")
def _plan(
    words: PlanWords = None,
    estimates: Annotated[Path | None, typer.Option(metavar="FILE", help="Durations of earlier runs.")] = None,
    run_dir: Annotated[Path | None, typer.Option("--run", metavar="RUN_DIR", help="Durations of a run.")] = None,
    seconds_per_step: Annotated[float | None, typer.Option(metavar="S", help="Guess durations so.")] = None,
    num_devices: Annotated[int | None, typer.Option("--devices", metavar="N", help="Plan for N like devices.")] = None,
    rounds: Annotated[int | None, typer.Option(metavar="R", help="Rounds to simulate.")] = None,
    replayed: Annotated[Path | None, typer.Option("--replay", metavar="RUN_DIR", help="Simulate a run's log.")] = None,
    as_json: Json = False,
    plain: Plain = False,
    debug: Debug = False,
) -> None:
    """Predict round time and idle devices, and what changes them.

    The tree of CONFIG on its devices, simulated under each policy; --replay compares a run with its simulation.
    """
    with told(as_json, debug), aside(as_json) as answer:
        from hierfl.plan import knowledge, plan, replay
        from hierfl.planning.show import show_plan, show_replay

        if replayed is not None:
            others = (estimates, run_dir, seconds_per_step, num_devices, rounds)
            if words or any(option is not None for option in others):
                raise ConfigError(
                    "--replay RUN_DIR takes all it needs from the run: give no CONFIG and no other option"
                )
            found = replay(replayed)
            answer.update(found.record())
            drawing = show_replay(found)
        else:
            config = _load(words or [])
            known = knowledge(config, estimates=estimates, run_dir=run_dir, seconds_per_step=seconds_per_step)
            planned = plan(config, known, num_devices=num_devices, rounds=rounds)
            answer.update(planned.record())
            drawing = show_plan(planned)
        if not as_json:
            show(drawing, plain)


@app.command("evaluate")
def _evaluate(
    run_dir: RunDir,
    code_dir: CodeDir = None,
    cross_site: Annotated[
        bool, typer.Option("--cross-site", help="Measure the models that sites keep, too: each at every site.")
    ] = False,
    as_json: Json = False,
    plain: Plain = False,
    debug: Debug = False,
) -> None:
    """Measure a run's model at every site, rolled up per hub."""
    with told(as_json, debug), aside(as_json) as answer:
        from hierfl.rundir import saved_config

        saved_config(run_dir)  # a wrong folder is told before torch is loaded
        from hierfl.monitor.plain import Plain as Lines

        if cross_site:
            from hierfl.run import cross_site as measure

            matrix = measure(run_dir, [Lines(sys.stderr)], code_dir=code_dir)
            answer.update(matrix.record())
            if not as_json:
                from hierfl.tree import tabulate

                print(matrix.legend())
                show(lambda width: tabulate(matrix.shown()[1], width), plain)
            return
        from hierfl.run import evaluate

        metrics = evaluate(run_dir, [Lines(sys.stderr)], code_dir=code_dir)
        answer.update(metrics)
        if not as_json:
            from hierfl.tree import tabulate

            show(lambda width: tabulate(metrics, width), plain)


@app.command("report")
def _report(
    run_dirs: RunDirs,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    debug: Debug = False,
) -> None:
    """Write a run's report.html, or the joint.html of several.

    Curves per tier, the table of sites, the tree and the timeline, in one file that needs no other. Of several runs
    that shared devices: who had which when, and the idle time of all together, in the first one's folder.
    """
    with told(False, debug):
        from hierfl.rundir import saved_config

        for run_dir in run_dirs:
            saved_config(run_dir)
        if len(run_dirs) > 1:
            from hierfl.monitor.joint import joint_lines, read_joint
            from hierfl.monitor.joint_report import write_joint

            record = read_joint(run_dirs)
            print("\n".join(joint_lines(record)))
            written = write_joint(record)
        else:
            from hierfl.monitor.report import write_report

            written = write_report(run_dirs[0])
        print(written)
        if open_:
            typer.launch(str(written))


@app.command("init")
def _init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")], debug: Debug = False
) -> None:
    """Write a starter federation with a task into DIR."""
    with told(False, debug):
        from hierfl.starter import write

        for path in write(folder):
            print(f"wrote {path}")
        print(f"\nnow: cd {shlex.quote(str(folder))} && {command('hierfl')} run federation.yaml")


@app.command("submit")
def _submit(
    words: Words,
    address: Annotated[str, typer.Option(help="The Ray cluster's dashboard, http://host:8265.")],
    working_dir: Annotated[
        Path, typer.Option(help="The folder that the job gets a copy of; CONFIG is in it.")
    ] = Path(),
    wait: Annotated[bool, typer.Option(help="Show the job's log and wait for its end.")] = True,
    check: Annotated[bool, typer.Option(help="Check CONFIG here before it is sent.")] = True,
    debug: Debug = False,
) -> None:
    """Run CONFIG as a job on a Ray cluster.

    Sends the folder, shows the log and returns the job's exit code; Ctrl-C leaves the job running.
    """
    with told(False, debug):
        from hierfl.runtime.ray_submit import ON_CLUSTER, submit

        config, overrides = _split(words)
        if check:
            sys.path.insert(0, str(working_dir.resolve()))
            output = Path(_load([*words, *ON_CLUSTER]).output.dir)
            if not output.is_absolute():
                print(
                    f"note: output.dir={output} is relative: the run is written in the job's own folder on the cluster,"
                    " which Ray deletes in time; output.dir=/a/shared/folder keeps it",
                    file=sys.stderr,
                )
        code = submit(config, overrides, address=address, working_dir=working_dir, wait=wait)
        raise typer.Exit(code)


def _split(words: Sequence[str]) -> tuple[Path, list[str]]:
    """Tell the configuration from the overrides, which hold a "="."""
    configs = _configs(words)
    if len(configs) != 1:
        given = f"{len(configs)} are given: {', '.join(configs)}" if configs else "none is given"
        raise ConfigError(f"one CONFIG is needed, {given}; every other word is an override, KEY=VALUE")
    return Path(configs[0]), [word for word in words if word not in configs]


def _configs(words: Sequence[str]) -> list[str]:
    """List the words that are no overrides."""
    return [word for word in words if "=" not in word or Path(word).is_file()]


def _load(words: Sequence[str]) -> RunConfig:
    from hierfl.config import load

    path, overrides = _split(words)
    return load(path, overrides)
