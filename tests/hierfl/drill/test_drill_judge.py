"""What the drill reads from a run's events."""

from __future__ import annotations

from typing import Any

import pytest

from hierfl.drill import absolute, by_round
from hierfl.drill import seen as seen_of


def seen(events: list[dict[str, Any]], hub: str) -> Any:
    return seen_of(absolute(events), hub)


def phase(actor: str, end_s: float) -> dict[str, Any]:
    return {
        "event": "phase",
        "time_s": end_s,
        "actor": actor,
        "phase": "aggregate",
        "start_s": end_s - 0.1,
        "end_s": end_s,
    }


def fault(node: str, time_s: float) -> dict[str, Any]:
    return {"event": "fault_injected", "time_s": time_s, "kind": "kill", "node": node, "step": "open"}


def started(epoch_s: float) -> dict[str, Any]:
    return {"event": "run_started", "time_s": 1.0, "epoch_s": epoch_s}


def trained(node: str) -> dict[str, Any]:
    return {"event": "site_trained", "time_s": 2.0, "node": node, "round_number": 1}


def said(message: str) -> dict[str, Any]:
    return {"event": "notice", "time_s": 2.0, "message": message}


def test_recovery_is_until_the_struck_hub_answers_again() -> None:
    events = [started(100.0), phase("w", 2.0), fault("w", 3.0), phase("w/us", 3.5), phase("w", 4.25)]
    found = seen(events, "w/us")
    assert found.recoveries_s == pytest.approx((1.25,)) and [one["node"] for one in found.struck] == ["w"]


def test_of_a_site_it_is_until_its_hub_answers_and_of_a_run_until_any_does_in_the_next_process() -> None:
    events = [started(100.0), phase("w", 1.5), fault("w/us/a", 2.0), phase("w", 2.5), phase("w/us", 2.75)]
    assert seen(events, "w/us").recoveries_s == pytest.approx((0.75,))
    events = [started(100.0), phase("w", 1.5), fault("run", 2.0), started(110.0), phase("w/us", 1.0)]
    assert seen(events, "w").recoveries_s == pytest.approx((9.0,))


def test_where_nothing_came_there_is_no_figure() -> None:
    assert seen([started(0.0), phase("w", 1.0), fault("w", 2.0)], "w").recoveries_s == (None,)


def test_trainings_beyond_the_first_those_replaced_and_refusals_are_told() -> None:
    events = [
        *(started(0.0), trained("w/a"), trained("w/a"), trained("w/b")),
        said("refused an update of a: twice"),
        {"event": "replica_replaced", "time_s": 3.0, "node": "w", "cause": "died"},
    ]
    found = seen(events, "w")
    assert (found.retrained, found.replaced, found.refused) == (1, (("w", "died"),), ("refused an update of a: twice",))


def test_events_are_told_apart_by_the_root_s_rounds() -> None:
    committed = [{"event": "round_committed", "time_s": float(n), "round_number": n} for n in (1, 2)]
    found = by_round([started(100.0), fault("w", 0.5), committed[0], fault("w", 1.5), committed[1], said("the end")])
    assert {number: [one["event"] for one in events] for number, events in found.items()} == {
        1: ["run_started", "fault_injected", "round_committed"],
        2: ["fault_injected", "round_committed"],
        3: ["notice"],
    }
    assert found[2][0]["time_s"] == 101.5
