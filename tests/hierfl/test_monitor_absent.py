"""What a run's summary and its last lines say of those who took no part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_runs import go, hub, site

from hierfl.monitor.absent import Absent, absent_lines
from hierfl.monitor.plain import closing_lines
from hierfl.monitor.records import RoundClosed


def closed(node: str, number: int, missing: dict[str, str], **more: Any) -> RoundClosed:
    return RoundClosed(0.0, node, number, "closed", (), missing, 1.0, 0, **more)


def test_who_took_no_part_is_counted_by_round_with_the_last_reason() -> None:
    absent = Absent()
    absent.on(closed("w", 1, {"a": "died", "b": "late: at work since round 1"}, late=("b",)))
    absent.on(closed("w/c", 1, {}))
    absent.on(closed("w", 2, {"a": "silent"}, others={"refused": 30}))
    absent.on(closed("w", 3, {}))
    assert absent.record({"w/d": "could not be loaded: no file", "x/e": "of a hub that closed no round"}) == {
        "absent": {
            "w": {"rounds": 1, "last_round": 2, "reason": "refused", "members": 30},
            "w/a": {"rounds": 2, "last_round": 2, "reason": "silent"},
            "w/d": {"rounds": 3, "last_round": 3, "reason": "could not be loaded: no file"},
        }
    }
    assert Absent().record({}) == {}


def test_the_last_lines_name_the_most_absent() -> None:
    found = {f"w/{name}": {"rounds": name, "last_round": 9, "reason": "died"} for name in range(1, 7)}
    found["w"] = {"rounds": 8, "last_round": 1000, "reason": "refused", "members": 30}
    assert list(absent_lines(found)) == [
        "without  30 members of w in 8 rounds, last in 1,000: refused",
        *(f"without  w/{name} in {name} rounds, last in 9: died" for name in (6, 5, 4)),
        "without  3 more (absent in summary.json)",
    ]
    assert list(absent_lines({"w/a": {"rounds": 1, "last_round": 1, "reason": "died"}})) == [
        "without  w/a in 1 round, last in 1: died"
    ]
    assert list(absent_lines({})) == []


def test_a_run_that_goes_on_without_some_says_so(tmp_path: Path) -> None:
    north = hub("north", "a", site("b", fault="nan"), site("c", fault="no file"))
    run = go(tmp_path, hub("world", north, "d", on_failure="continue", quorum=0.3, rounds=2))
    absent = dict(run.summary["absent"])
    assert absent.keys() == {"world/north/b", "world/north/c"}
    assert all((said["rounds"], said["last_round"]) == (2, 2) for said in absent.values())
    assert absent["world/north/b"]["reason"].startswith("the training loss is nan")
    assert absent["world/north/c"]["reason"] == "could not be loaded: FileNotFoundError: c.csv is missing"
    told = [line for line in closing_lines("finished", run.summary, "") if line.startswith("without ")]
    assert len(told) == 2 and told[1].startswith("without  world/north/c in 2 rounds, last in 2: could not be loaded")
    assert "absent" not in go(tmp_path, hub("world", "a", "d")).summary
