"""Who was late, in words and on the screen."""

from __future__ import annotations

import io
from typing import Any

from monitor_script import heart

from hierfl.monitor.board import Board
from hierfl.monitor.lateness import lateness
from hierfl.monitor.plain import Plain
from hierfl.monitor.records import NodesChanged, RoundClosed, RoundCommitted, SiteTrained

QUORUM = "3 of 4 members and 81% of the weight are in at the deadline of 30 s"
BEACH = "world/us/long_beach"


def closed(**more: Any) -> RoundClosed:
    return RoundClosed(1.0, "world/us", 2, QUORUM, ("cleveland",), {}, 30.0, 0, **more)


def lines(record: RoundClosed) -> list[str]:
    stream = io.StringIO()
    Plain(stream).on(record)
    return stream.getvalue().splitlines()


def test_a_round_that_closes_without_somebody_says_without_whom_and_why() -> None:
    assert lines(closed(late=("long_beach",))) == [f"info: world/us: closes without long_beach: {QUORUM}"]
    assert lines(closed(late=tuple("abcde")))[0].startswith("info: world/us: closes without a, b, c and 2 more: ")
    assert lines(closed()) == []


def test_a_late_update_that_counts_says_how_much() -> None:
    counts = {"long_beach": "late by 1 round, weight 71% of 85"}
    assert lines(closed(carried=counts)) == [f"info: {BEACH}: late by 1 round, weight 71% of 85"]
    many = {f"s{number}": "late by 1 round" for number in range(1005)}
    assert [notice.message for notice in lateness(closed(carried=many))] == [
        *["late by 1 round"] * 3,
        "1,002 more late updates count",
    ]


def test_a_late_node_stays_late_on_the_screen_until_it_reports() -> None:
    board = Board(heart())
    board.on(NodesChanged(0.0, (BEACH,), "training", 1))
    board.on(NodesChanged(0.1, (BEACH,), "late", 1))
    board.on(closed(late=("long_beach",)))
    assert board.notices[-1].message.startswith("closes without long_beach")
    assert board.num_warnings == 0
    board.on(RoundCommitted(0.2, 1, 15, 0.1, 0.5, None))
    assert board.state(BEACH) == "late" and board.state("world/us/cleveland") == "waiting"
    board.on(SiteTrained(0.3, BEACH, 1, "worker-0", 0.3, 85, 100, 0.5))
    assert board.state(BEACH) == "trained" and not board.lasting()
