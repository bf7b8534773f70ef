"""What a member logs of its hubs' rounds, for whoever has to answer for them later."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

from hierfl.link.log import Lines, Log, Rounds
from hierfl.monitor.plain import Plain
from hierfl.monitor.records import Notice, RoundClosed


def said(closed: RoundClosed) -> dict[str, str]:
    """Give the line of a round."""
    stream = io.StringIO()
    rounds = Rounds(Log(stream))
    rounds.on(Notice(1.0, "info", "world/us", "what is no round is for others to say"))
    rounds.on(closed)
    (line,) = stream.getvalue().splitlines()
    found: dict[str, str] = json.loads(line)
    return found


def test_a_round_with_all_says_so_in_one_short_line() -> None:
    line = said(RoundClosed(1.0, "world/us", 3, "all reported", ["a", "b"], {}, 1.0, 8))
    assert (line["level"], line["node"]) == ("info", "world/us")
    assert line["message"] == "round 3: has updates of 2 of 2 members"


def test_who_is_not_in_a_round_is_named_with_the_reason() -> None:
    missing, others = {"b": "its data are damaged"}, {"not drawn": 1200}
    carried = {"c": "an update of round 2 counts, at half its weight"}
    line = said(RoundClosed(1.0, "world/us", 3, "quorum", ["a"], missing, 1.0, 8, carried=carried, others=others))
    assert line["message"] == (
        "round 3: has updates of 1 of 1,202 members, without b (its data are damaged), 1,200 more (not drawn);"
        " c: an update of round 2 counts, at half its weight"
    )


def test_lines_of_a_screen_are_lines_of_the_log_and_notices_keep_their_level_and_node() -> None:
    stream = io.StringIO()
    log = Log(stream)
    screen = Plain(Lines(log, "world"), log)  # type: ignore[arg-type]
    screen.on(Notice(1.0, "warning", "world/us", "it is late"))
    print("in two", "pieces\n\nand", "a half", end="", file=Lines(log, "world"))
    found = [tuple(json.loads(line).values())[1:] for line in stream.getvalue().splitlines()]
    assert found == [("warning", "world/us", "it is late"), ("info", "world", "in two pieces")]


def test_a_line_that_cannot_be_written_is_dropped_and_later_ones_are_not() -> None:
    """A disk that is full, and a pipe whose reader has gone."""
    with open("/dev/full", "w", encoding="utf-8", buffering=1) as full:
        log = Log(full)
        for _ in range(3):
            log("info", "world", "x" * 10_000)
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # so that it can be closed
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8", buffering=1) as gone:
        Log(gone)("info", "world", "to nobody")
        os.dup2(os.open(os.devnull, os.O_WRONLY), gone.fileno())


def test_what_follows_a_full_disk_is_written(tmp_path: Path) -> None:
    place = tmp_path / "log"
    with open("/dev/full", "w", encoding="utf-8") as stream:
        log = Log(stream)
        log("info", "world", "lost, or late")
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT), stream.fileno())  # there is room again
        log("info", "world", "there is room again")
    assert "there is room again" in place.read_text()
