"""Every participation policy under long drawn histories: see tests/support/hub_schedules.py for what is held."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from random import Random

import pytest
from hub_schedules import SETTINGS, HubSchedule

from hierfl.kinds import load, names
from tiers import Hub, Site

KINDS = names("participation")
EXPECTED = {
    "all": ("closed", "refused", "lost", "given up", "echoed", "nonsense", "restored", "replayed", "finished"),
    "sample": ("closed", "refused", "lost", "given up", "echoed", "nonsense", "restored", "replayed", "finished"),
    "deadline": ("closed early", "carried", "held", "dismissed", "refused", "given up", "restored", "replayed"),
    "buffered": ("closed early", "carried", "held", "dismissed", "refused", "given up", "restored", "replayed"),
}
"""What must have happened often for a known kind's test to say much."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_history_keeps_the_ledger_and_comes_to_an_end(kind: str) -> None:
    seen: Counter[str] = Counter()
    for seed in range(100):
        schedule = HubSchedule.drawn(kind, Random(seed))
        try:
            for _ in range(60):
                schedule.step()
            schedule.drain()
        except AssertionError as error:
            error.add_note(f"seed {seed}, {schedule.hub}, weights {schedule.weights}:")
            error.add_note("\n".join(str(event) for event in schedule.told[-12:]))
            raise
        seen += schedule.seen
    assert min((seen[what] for what in EXPECTED.get(kind, ("closed", "finished"))), default=0) >= 20, seen


@pytest.mark.parametrize(
    ("kind", "fields"), [(kind, fields) for kind in KINDS for fields in SETTINGS.get(kind, [{}])], ids=str
)
def test_every_history_of_a_few_events_keeps_the_ledger_and_comes_to_an_end(
    kind: str, fields: dict[str, object]
) -> None:
    """All of them for two members: each answers or is lost, in time or late; each timer fires; rounds begin."""
    hub = Hub(
        "h", (Site("a"), Site("b")), keep_going=True, quorum=0.5, participation=load("participation", kind)(**fields)
    )
    stack = [(HubSchedule(hub, {"a": 10, "b": 30}, Random(0)), 5)]
    ended = 0
    while stack:
        schedule, left = stack.pop()
        if left:
            for move in schedule.moves():
                after = deepcopy(schedule)
                move(after)
                stack.append((after, left - 1))
        else:
            schedule.drain()
            ended += 1
    assert ended > 1
