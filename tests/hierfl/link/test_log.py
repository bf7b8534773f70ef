"""What a member logs of its hubs' rounds, for whoever has to answer for them later."""

from __future__ import annotations

import io
import json

from hierfl.link.log import Log, Rounds
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
