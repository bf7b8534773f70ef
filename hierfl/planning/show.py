"""A plan, and a replay, for people: a table of the policies and the levers below it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hierfl.monitor.words import percent, plural, seconds

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from hierfl.plan import Plan, Replay
    from hierfl.planning.case import Figures
    from hierfl.planning.lever import Lever

__all__ = ["show_plan", "show_replay"]

COLUMNS = ("idle", "floor", "avoidable", "efficiency")
LEGEND = "floor: the idle time that no order of the work avoids; efficiency: the least time possible over the time"


def show_plan(plan: Plan) -> Group:
    """Draw a plan."""
    from rich.console import Group
    from rich.text import Text

    there = plural(sum(plan.devices.values()), "device")
    kinds = ", ".join(f"{num} of kind {kind}" for kind, num in plan.devices.items())
    if len(plan.devices) == 1:
        there, kinds = f"{there} of kind {next(iter(plan.devices))}", ""
    said = [
        f"{plan.name}: {plural(plan.counts['sites'], 'site')}, {plural(plan.counts['hubs'], 'hub')},"
        f" {plural(plan.counts['rounds'], 'round')} ({plan.simulated} simulated)",
        f"{there} ({kinds}{'; ' if kinds else ''}{plan.devices_from})",
        plan.durations,
        *(f"note: {note}" for note in plan.notes),
    ]
    table = _table("a round")
    for row in plan.policies:
        _row(table, row.policy, row.is_configured, row.figures.round_s, row.figures)
    num = plan.counts["rounds"]
    all_s = num * next(row.figures.round_s for row in plan.policies if row.is_configured)
    footer = (
        f"* the configuration's policy: {plural(num, 'round')} of training in {seconds(all_s)}"
        f"{' (guessed)' if plan.is_guess else ''}; measuring and start-up come on top\n{LEGEND}"
    )
    return Group(Text("\n".join(said)), table, Text(footer, style="dim"), _levers(plan.levers))


def show_replay(replay: Replay) -> Group:
    """Draw a replay."""
    from rich.console import Group
    from rich.text import Text

    of_all = f"the newest {replay.rounds:,} of " if replay.rounds < replay.in_log else ""
    way = f"--rounds {replay.in_log} simulates all" if of_all else ""
    said = [
        f"{replay.run_dir}: {of_all}{plural(replay.in_log, 'round')}, {plural(replay.num_jobs, 'training')},"
        f" {seconds(replay.work_s)} of work",
        *(f"note: {note}" for note in (way, *replay.notes) if note),
    ]
    table = _table("all rounds" if not of_all else "these rounds")
    live = replay.live
    _row(table, f"as it ran, {live.policy}", False, live.figures.round_s * replay.rounds, live.figures)
    for row in replay.policies:
        _row(table, row.policy, row.is_configured, row.figures.round_s * replay.rounds, row.figures)
    verdict = f"* the run's policy; simulated, the same training takes {_beside(replay.fidelity)} of the time"
    if replay.later_fidelity is not None:
        verdict += f", without the first round {_beside(replay.later_fidelity)}"
    return Group(Text("\n".join(said)), table, Text(f"{verdict}\n{LEGEND}", style="dim"))


def _table(time: str) -> Table:
    from rich.table import Table

    table = Table("policy", box=None, pad_edge=False)
    for name in (time, *COLUMNS):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _row(table: Table, name: str, is_configured: bool, time_s: float, figures: Figures) -> None:
    shares = (figures.idle, figures.floor, figures.avoidable)
    cells = (seconds(time_s), *(_share(share) for share in shares), f"{figures.efficiency:.3f}")
    table.add_row(f"{name} *" if is_configured else name, *cells, style="bold" if is_configured else None)


def _levers(levers: Sequence[Lever]) -> Text:
    """Write the levers, each with what it gains, why, and how to do it."""
    from rich.text import Text

    if not levers:
        return Text("no lever gains more than 2% of the time or a point of idle time")
    return Text("\n").join(line for lever in levers for line in _lever(lever))


def _lever(lever: Lever) -> Iterable[Text]:
    from rich.text import Text

    after, before = lever.after, lever.before
    idle = f"idle {100 * before.idle:.0f} -> {percent(after.idle)}"
    times = f"a round {seconds(before.round_s)} -> {seconds(after.round_s)}"
    yield Text(f"{lever.what}: {idle}, {times}", style="bold")
    yield Text(f"    {lever.reason}")
    if lever.overrides:
        yield Text(f"    {' '.join(shlex.quote(override) for override in lever.overrides)}", style="cyan")


def _beside(excess: float) -> str:
    return f"{100 * (1 + excess):.1f}%"


def _share(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"
