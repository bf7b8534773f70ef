from __future__ import annotations

import dataclasses
import io
import os
import re

import monitor_script as script
import pytest
from rich.console import Console

from hierfl.monitor.board import Board
from hierfl.monitor.plain import Plain
from hierfl.monitor.records import Consensus, Evaluated, NodesChanged, Notice, RoundCommitted, RunStarted, SiteTrained
from hierfl.monitor.screen import screen
from hierfl.monitor.terminal import REFRESH_PER_SECOND, Terminal
from hierfl.monitor.words import few, metric, plural


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(terminal: Terminal, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=50, color_system=None).print(terminal._screen())
    return out.getvalue().splitlines()


def at_work(federation, records, width: int = 100, height: int = 50) -> tuple[Terminal, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=height, color_system=None)
    terminal = Terminal(script.config(federation), console)
    for record in records:
        terminal.on(record)
    return terminal, out


def final(terminal: Terminal, out: io.StringIO) -> str:
    out.seek(0)
    out.truncate()
    terminal.close()
    return out.getvalue().rpartition("\x1b[2K")[2]  # what stays once the live screen is taken away


def test_one_of_a_kind_is_named_in_the_singular() -> None:
    assert [plural(num, "hub") for num in (0, 1, 2, 10_000)] == ["0 hubs", "1 hub", "2 hubs", "10,000 hubs"]
    assert [few("abcdefg"[:num]) for num in (1, 5, 6, 7)] == [
        "a",
        "a, b, c, d, e",
        "a, b, c, d, e and 1 more",
        "a, b, c, d, e and 2 more",
    ]


def test_the_screen_shows_state_metrics_progress_and_idle_figure():
    records = script.run(script.heart(), until=3)
    terminal, _ = at_work(script.heart(), [*records, NodesChanged(9.0, ("world/us/cleveland",), "training", 4)])
    lines = shown(terminal, 100)
    terminal.close()
    row = next(line for line in lines if "cleveland" in line)
    assert row.split()[2:6] == ["cleveland", "training", "199", "99"]
    assert any(line.startswith("round 4/15") and "left" in line for line in lines)
    assert any("idle" in line for line in lines)
    assert any("one class only" in line for line in lines)
    swiss = next(line for line in lines if "zurich_basel" in line)
    assert "\N{EN DASH}" in swiss
    assert any("undefined: AUC needs" in line for line in lines)


def test_how_far_members_models_are_apart_stands_on_the_live_screen():
    apart = {"world": 0.19436, "world/us": 0.5, "world/hungary": 0.0, "world/switzerland": 0.002}
    found = [Consensus(9.0, path, 3, value) for path, value in apart.items()]
    terminal, _ = at_work(script.heart(), [*script.run(script.heart(), until=3), *found])
    lines = [line.strip() for line in shown(terminal, 100) if "consensus" in line]
    terminal.close()
    assert lines == ["consensus distance world/us 0.5, world 0.194, world/switzerland 0.002 and 1 hub with less"]


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (44, ["node", "state", "loss"]),
        (60, ["node", "state", "loss", "absolute error"]),
        (120, ["node", "state", "train", "test", "loss", "absolute error", "days of stay beyond…"]),
    ],
)
def test_a_task_without_classes_shows_its_own_metrics_in_the_place_of_theirs(width: int, heads: list[str]) -> None:
    own = {"num_test": 9, "loss": 0.5, "absolute_error": 0.25, "days_of_stay_beyond_the_plan": 3.0}
    records = [Evaluated(9.0, 3, {"world": own, "world/us/cleveland": own})]
    terminal, _ = at_work(script.heart(), [*script.run(script.heart(), until=2), *records], width=width)
    lines = shown(terminal, width)
    terminal.close()
    head = next(line for line in lines if line.startswith("node"))
    assert re.split(r"  +", head.rstrip()) == heads
    root = next(line for line in lines if line.startswith("world"))
    assert root.split()[-1] == metric({44: 0.5, 60: 0.25, 120: 3.0}[width])
    assert all(len(line) <= width for line in lines)


def test_a_run_that_measures_nothing_has_the_usual_columns_to_its_end():
    unmeasured = Evaluated(9.0, 3, {"world": {"num_samples": 486}})
    terminal, out = at_work(script.heart(), [*script.run(script.heart(), until=2), unmeasured])
    head = next(line for line in shown(terminal, 100) if line.startswith("node"))
    assert head.split() == ["node", "state", "train", "test", "AUC", "accuracy", "loss"]
    assert "world" in final(terminal, out)


@pytest.mark.parametrize("width", [20, 44, 60, 80, 200])
def test_every_width_holds_the_tree(width):
    terminal, out = at_work(script.heart(), script.run(script.heart()), width=width)
    lines = shown(terminal, width)
    assert all(len(line) <= width for line in lines)
    assert sum("─ " in line for line in lines) == 7
    assert "finished" in final(terminal, out)


def test_a_narrow_screen_keeps_whole_figures():
    terminal, _ = at_work(script.heart(), script.run(script.heart()), width=60)
    row = next(line for line in shown(terminal, 60) if "cleveland" in line)
    terminal.close()
    assert "0.808" in row
    assert "0.768" in row


def test_closing_lines_break_between_words_and_the_run_s_path_does_not():
    run_dir = "runs/" + "a b " * 30 + "c"
    terminal, out = at_work(script.heart(), script.run(script.heart(), run_dir=run_dir), width=80)
    said = final(terminal, out)
    assert f"run      {run_dir}" in said
    lines = [line for line in said[said.index("finished") :].splitlines() if not line.startswith("run ")]
    assert all(len(line) <= 80 for line in lines) and any(line.startswith(" " * 9) for line in lines)
    assert "world/switzerland/zurich_basel" in said, "no name is broken"


def test_ten_thousand_sites_take_forty_rows_and_the_rest_is_counted():
    federation = script.wide(100, 100, rounds=2)
    records = script.run(federation, until=1)
    half = [record for record in records if isinstance(record, SiteTrained)][:50]
    terminal, out = at_work(federation, [*records, *half])
    lines = shown(terminal, 100)
    assert len(lines) <= 46
    told = [line for line in lines if "more (" in line]
    assert len(told) == 1
    assert "(9,500 sites): 9,500 waiting" in told[0]
    assert any("45 trained, 50 waiting" in line for line in lines)
    assert len(final(terminal, out).splitlines()) < 60


def test_a_low_screen_gets_fewer_rows():
    terminal, _ = at_work(script.wide(10, 10), [], height=20)
    lines = [line for line in shown(terminal, 100) if "─ " in line]
    terminal.close()
    assert 5 <= len(lines) <= 10


def test_the_end_leaves_a_table_and_the_facts():
    terminal, out = at_work(script.heart(), script.run(script.heart()))
    text = final(terminal, out)
    for piece in ("zurich_basel", "0.924", "finished: 15 of 15 rounds", "idle 20%", "3f2a" * 16, "runs/x"):
        assert piece in text
    terminal.close()


def test_plain_lines_that_nobody_takes_end_no_run():
    """A disk that is full, and a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    for nobody in ("/dev/full", writer):
        with open(nobody, "w", encoding="utf-8") as stream:
            plain = Plain(stream)
            for record in script.run(script.heart()):
                plain.on(record)
            plain.close()
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # so that it can be closed


def test_the_last_lines_tell_all_figures_of_the_run_its_devices_and_hubs():
    out = io.StringIO()
    plain = Plain(out)
    for record in script.run(script.heart()):
        plain.on(record)
    lines = [line for line in out.getvalue().splitlines() if "goodput" in line]
    said = "(floor of any schedule 10%, avoidable"
    assert lines[0] == f"devices  busy 80%, idle 20% {said} 10%); efficiency 0.89, goodput 0.80"
    assert lines[1] == f"device   worker-1: idle 40% {said} 30%); efficiency 0.67, goodput 0.60", "most to gain first"
    assert lines[2].startswith("device   worker-0: idle 20%")
    assert lines[3].startswith("hub      world: idle 30%") and lines[4].startswith("hub      world/us: idle 55%")


def test_a_path_at_the_end_is_in_one_piece_however_narrow_the_terminal():
    run_dir = f"/data/{'far/' * 20}heart 1"
    records = [
        dataclasses.replace(record, run_dir=run_dir) if isinstance(record, RunStarted) else record
        for record in script.run(script.heart())
    ]
    terminal, out = at_work(script.heart(), records, width=40)
    assert f"run      {run_dir}\n" in final(terminal, out)


def test_a_run_that_fails_before_it_starts_leaves_its_notice():
    terminal, out = at_work(script.heart(), [Notice(0.1, "error", "", "no workers")])
    text = final(terminal, out)
    assert "error: no workers" in text
    assert "cut off after 0 of 15 rounds" in text


def test_markup_in_names_and_messages_is_text():
    terminal, out = at_work(script.heart(), [Notice(0.1, "warning", "world/[red]x", "[bold]a[/wrong] " + "y" * 300)])
    assert any("[red]x: [bold]a[/wrong]" in line for line in shown(terminal, 60))
    assert "[bold]a[/wrong]" in final(terminal, out)


def test_redraws_are_limited():
    terminal, _ = at_work(script.heart(), [])
    assert REFRESH_PER_SECOND <= 8
    assert terminal._live.refresh_per_second == REFRESH_PER_SECOND
    terminal.close()


def test_states_begin_anew_each_round_but_failures_stay():
    board = Board(script.heart().__class__(script.heart().root))
    board.on(NodesChanged(0.0, ("world/us/cleveland",), "failed", 1))
    board.on(SiteTrained(0.0, "world/us/long_beach", 1, "worker-0", 0.1, 1, 1, None))
    assert board.state("world/us/long_beach") == "trained"
    assert board.progress == pytest.approx(0.25)
    board.on(RoundCommitted(2.0, 1, 15, 2.0, 0.9, None))
    assert board.state("world/us/long_beach") == "waiting"
    assert board.state("world/us/cleveland") == "failed"
    assert board.left_s == pytest.approx(28)


def test_plain_prints_one_line_per_round_and_no_control_characters():
    out = io.StringIO()
    plain = Plain(out)
    for record in script.run(script.heart()):
        plain.on(record)
    plain.close()
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("heart: 4 sites under 4 hubs, 486 training samples, 14 parameters, 15 rounds")
    rounds = [line for line in lines if line.startswith("round ")]
    assert len(rounds) == 15
    assert rounds[0] == "round  1/15  auc 0.636  accuracy 0.603  loss 0.676  0.28 s  busy 90%"
    assert "warning: world/switzerland/zurich_basel: one class only: AUC is undefined" in lines
    assert "finished: 15 of 15 rounds in 5.06 s (start-up 0.80 s)" in lines
    assert "\x1b" not in out.getvalue()


def test_plain_says_nothing_of_metrics_in_a_round_that_was_not_measured():
    out = io.StringIO()
    plain = Plain(out)
    for record in script.run(script.heart(), until=1):
        plain.on(record)
    plain.on(RoundCommitted(9.0, 2, 15, 0.5, 0.9, None))
    assert out.getvalue().splitlines()[-1] == "round  2/15  0.50 s  busy 90%"


def test_the_screen_is_chosen_by_the_stream(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    config = script.config(script.heart())
    live = screen(config, stream=Tty())
    live.close()
    assert isinstance(live, Terminal)
    assert isinstance(screen(config, stream=io.StringIO()), Plain)
    assert isinstance(screen(config, stream=Tty(), force_plain=True), Plain)


def test_auc_has_no_column_where_it_is_not_measured():
    config = script.config(script.heart())
    config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, auc="none"))
    terminal = Terminal(config, Console(file=io.StringIO(), force_terminal=True, width=100, height=50))
    for record in script.run(script.heart(), until=3):
        terminal.on(record)
    head = next(line for line in shown(terminal, 100) if line.startswith("node"))
    terminal.close()
    assert head.split()[1:] == ["state", "train", "test", "accuracy", "loss"]
