"""The command line. What is heavy is imported inside the commands, so that help answers at once.

Exit codes: 0 done, 1 failed, 2 the configuration or the command is wrong, 3 another process leads the run now, 130
stopped by Ctrl-C, 143 by SIGTERM, 129 with its terminal; `submit` hands on the job's own. With `--json` standard output
holds one JSON document, the result or `{"error": ...}`, of a stop too (of several runs a line each, then one of their
devices), and all else goes to stderr.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hierfl import drilling, predicting, submitting
from hierfl.console import Watch, aside, at_work, command, finish, show, told, usage_error
from hierfl.errors import ConfigError
from hierfl.link import commands as link_commands
from hierfl.monitor.words import plural
from hierfl.options import (
    CodeDir,
    Debug,
    Discreet,
    FaultsFile,
    Json,
    LeaveOut,
    Overrides,
    Plain,
    PlanWords,
    Report,
    RunDir,
    RunDirs,
    Seeds,
    SeveralJson,
    SeveralWords,
    Words,
    configs_of,
    loaded,
    split,
    with_faults,
)
from hierfl.running import resume, run_seeds, run_several, run_without

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
    """Run the command line, in the user's folder."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # `task: {kind: "my_task:MyTask"}` lies in the user's folder
    if isinstance(sys.stdout, io.TextIOWrapper):  # a log's encoding may have no letter for a name or a tree's lines
        sys.stdout.reconfigure(errors="replace")
    try:
        app(prog_name="hierfl")
    except SystemExit as ended:
        if "--json" in sys.argv:
            usage_error(ended)
        raise
    except OSError:
        _write_out(end="\n")  # where it was not standard output that failed, the error is ours
        raise
    finally:
        _write_out()


def _write_out(end: str = "") -> None:
    """Write out what is printed. What cannot be is dropped, and ends the command with a sentence and exit code 1."""
    try:
        print(end=end, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # `hierfl tree big.yaml | head` is nobody's mistake
            sys.exit(f"error: standard output cannot be written: {error.strerror or error}")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        from hierfl import __version__

        print(f"hierfl {__version__}")
        raise typer.Exit


@app.command("run", cls=Discreet)
def _run(
    words: SeveralWords,
    report: Report = False,
    as_json: SeveralJson = False,
    plain: Plain = False,
    debug: Debug = False,
    leave_out: LeaveOut = None,
    seeds: Seeds = None,
    faults: FaultsFile = None,
    join: Annotated[str | None, typer.Option(hidden=True)] = None,
    note: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Train the federation of CONFIG, or of several at once.

    Several share the devices of one Ray. KEY=VALUE overrides any key: training.lr=0.1 federation.rounds=3
    federation.members.us.rounds=2.
    """
    with told(as_json, debug):
        words = with_faults(words, faults)
    if leave_out is not None:
        run_without(words, leave_out, seeds, report, as_json, plain, debug)
        return
    if seeds is not None:
        run_seeds(words, seeds, report, as_json, plain, debug)
        return
    if len(configs_of(words)) > 1:
        run_several(words, report, as_json, debug)
    watch = Watch(note=note)
    with told(as_json, debug, watch), aside(as_json) as answer:
        config = loaded(words)  # mistakes are told before torch is loaded
        if join is not None:  # the Ray of `hierfl run A B`; the run's folder knows nothing of it, to be resumed alone
            config = replace(config, runtime=replace(config.runtime, address=join))
        from hierfl.lifecycle import run
        from hierfl.monitor.screen import screen

        summary = run(config, [screen(config, force_plain=plain), watch])
        finish(summary, report)
        answer.update(summary)


@app.command("resume", cls=Discreet)
def _resume(
    run_dir: RunDir,
    overrides: Overrides = None,
    code_dir: CodeDir = None,
    standby: Annotated[bool, typer.Option("--standby", help="Watch who leads it, and lead once nobody does.")] = False,
    report: Report = False,
    as_json: Json = False,
    plain: Plain = False,
    debug: Debug = False,
) -> None:
    """Go on with a run from its last checkpoint and its journal.

    The model has the same bits at the end as if the run had never stopped. Overrides hold from the next round on and
    are written into the run's config.yaml; what the checkpoint was made with (seed, task, arithmetic, tree) stays, but
    for members that join or leave from then on.
    """
    resume(run_dir, overrides or [], code_dir, standby, report, as_json, plain, debug)


@app.command("amend", cls=Discreet)
def _amend(
    run_dir: RunDir,
    overrides: Overrides = None,
    code_dir: CodeDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Change a run that is under way, from its next round on.

    KEY=VALUE as for resume, joins_at and leaves_at among them: the run takes it in between two rounds, or when it is
    resumed.
    """
    with told(as_json, debug), aside(as_json) as answer:
        from hierfl.amend import amend

        notes: list[str] = []
        rounds_done, words = amend(run_dir, overrides or [], code_dir, notes.append)
        answer.update(run_dir=str(run_dir), rounds_done=rounds_done, overrides=list(words))
        print(f"left for {run_dir}, which has done {plural(rounds_done, 'round')}: {' '.join(words)}", *notes, sep="\n")


@app.command("validate", cls=Discreet)
def _validate(words: Words, as_json: Json = False, debug: Debug = False) -> None:
    """Check CONFIG and list every mistake; starts nothing."""
    with told(as_json, debug), aside(as_json) as answer:
        from hierfl.validation import COUNTS, NOTES, told_of

        answer.update(told_of(loaded(words)))
        counts = (f"{answer[what]} {what if answer[what] > 1 else what[:-1]}" for what in COUNTS)
        print(f"{split(words)[0]} is valid: {answer['name']}, {', '.join(counts)}")
        for path, said_of in (pair for what in NOTES for pair in answer[what].items()):
            print(f"{path}: {said_of}")


@app.command("tree", cls=Discreet)
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

        config = loaded(words)
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


@app.command("plan", cls=Discreet)
def _plan(
    words: PlanWords = None,
    estimates: Annotated[Path | None, typer.Option(metavar="FILE", help="Durations of earlier runs.")] = None,
    run_dir: Annotated[Path | None, typer.Option("--run", metavar="RUN_DIR", help="Durations of a run.")] = None,
    seconds_per_step: Annotated[float | None, typer.Option(metavar="S", help="Guess durations so.")] = None,
    num_devices: Annotated[int | None, typer.Option("--devices", metavar="N", help="Plan for N like devices.")] = None,
    rounds: Annotated[int | None, typer.Option(metavar="R", help="Rounds to simulate; of a log the newest.")] = None,
    replayed: Annotated[Path | None, typer.Option("--replay", metavar="RUN_DIR", help="Simulate a run's log.")] = None,
    as_json: Json = False,
    plain: Plain = False,
    debug: Debug = False,
) -> None:
    """Predict round time and idle devices, and what changes them.

    The tree of CONFIG on its devices, simulated under each policy; --replay compares a run with its simulation.
    """
    with told(as_json, debug), aside(as_json) as answer:
        from hierfl.plan import NEWEST_ROUNDS, knowledge, plan, replay
        from hierfl.planning.show import show_plan, show_replay

        if replayed is not None:
            others = (estimates, run_dir, seconds_per_step, num_devices)
            if words or any(option is not None for option in others):
                raise ConfigError(
                    "--replay RUN_DIR takes all it needs from the run: give no CONFIG and no other option than --rounds"
                )
            with at_work(plain) as say:
                found = replay(replayed, say, rounds=NEWEST_ROUNDS if rounds is None else rounds)
            answer.update(found.record())
            drawing = show_replay(found)
        else:
            with at_work(plain) as say:
                config = loaded(words or [])
                known = knowledge(config, estimates=estimates, run_dir=run_dir, seconds_per_step=seconds_per_step)
                planned = plan(config, known, num_devices=num_devices, rounds=rounds, say=say)
            answer.update(planned.record())
            drawing = show_plan(planned)
        if not as_json:
            show(drawing, plain)


@app.command("evaluate", cls=Discreet)
def _evaluate(
    run_dir: RunDir,
    overrides: Overrides = None,
    code_dir: CodeDir = None,
    cross_site: Annotated[
        bool, typer.Option("--cross-site", help="Measure every hub's and site's model, too: each at every site.")
    ] = False,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --cross-site: the metric that the table shows.")
    ] = None,
    as_json: Json = False,
    plain: Plain = False,
    debug: Debug = False,
) -> None:
    """Measure a run's model at every site, rolled up per hub.

    Overrides hold for this measurement alone: federation.members.us.members.cleveland.data.path=new.parquet measures
    there on other data.
    """
    with told(as_json, debug), aside(as_json) as answer:
        if cross_site and overrides:
            raise ConfigError("--cross-site takes no overrides: its figures are kept with the run")
        if metric is not None and not cross_site:
            raise ConfigError("--metric chooses what --cross-site shows: give that, too")
        from hierfl.rundir import saved_config

        saved_config(run_dir)  # a wrong folder is told before torch is loaded
        from hierfl.monitor.plain import Plain as Lines

        if cross_site:
            from hierfl.lifecycle import cross_site as measure

            matrix = measure(run_dir, [Lines(sys.stderr)], code_dir=code_dir, metric=metric)
            answer.update(matrix.record())
            if not as_json:
                from hierfl.monitor.table import tabulate

                print(matrix.legend(metric))
                show(lambda width: tabulate(matrix.shown(metric)[1], width), plain)
            return
        from hierfl.lifecycle import evaluate

        metrics = evaluate(run_dir, [Lines(sys.stderr)], code_dir=code_dir, overrides=overrides or ())
        answer.update(metrics)
        if not as_json:
            from hierfl.monitor.table import tabulate

            show(lambda width: tabulate(metrics, width), plain)


@app.command("export")
def _export(
    run_dir: RunDir,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, model.safetensors.")],
    site: Annotated[str, typer.Option(metavar="PATH", help="The model that this site uses itself.")] = "",
    code_dir: CodeDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a run's newest model as safetensors, adapters merged.

    With --site the model that a site uses itself: its personal one, as of fedper or ditto, or what it has fine-tuned.
    """
    with told(as_json, debug), aside(as_json) as answer:
        from hierfl.rundir import saved_config

        saved_config(run_dir)  # a wrong folder is told before torch is loaded
        from hierfl.lifecycle import export
        from hierfl.monitor.plain import Plain as Lines

        rounds, digest = export(run_dir, file.absolute(), [Lines(sys.stderr)], code_dir=code_dir, site=site)
        whose = f"the model of {site}" if site else "the model"
        answer.update(model=str(file), rounds=rounds, model_digest=digest, **({"site": site} if site else {}))
        print(f"{file}: {whose} after {rounds} rounds, {'made of' if site else 'of'} the digest {digest}")


predicting.register(app)


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
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    tables: Annotated[bool, typer.Option("--tables", help="One on CSV files, with no code of your own.")] = False,
    debug: Debug = False,
) -> None:
    """Write a starter federation into DIR.

    It has a task of your own in Python or, with --tables, a table for each site and no code.
    """
    with told(False, debug):
        from hierfl.starter import write

        for path in write(folder, tables=tables):
            print(f"wrote {path}")
        print(f"\nnow: cd {shlex.quote(str(folder))} && {command('hierfl')} run federation.yaml")


link_commands.register(app)
drilling.register(app)
submitting.register(app)
