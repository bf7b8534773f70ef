"""Every participation policy with every topology under long drawn histories.

See tests/support/hub_schedules.py for what is held.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hub_schedules import ORDERS, SETTINGS, HubSchedule

from hierfl.kinds import load, names
from tiers import Hub, Site, Topology

KINDS = names("participation")
TOPOLOGIES = [load("topology", name)(**fields) for name in names("topology") for fields in ORDERS.get(name, [{}])]
EXPECTED = {
    "all": ("closed", "refused", "lost", "given up", "echoed", "nonsense", "restored", "replayed", "finished"),
    "sample": ("closed", "refused", "lost", "given up", "echoed", "nonsense", "restored", "replayed", "finished"),
    "deadline": ("closed early", "carried", "held", "dismissed", "refused", "given up", "restored", "replayed"),
    "buffered": ("closed early", "carried", "held", "dismissed", "refused", "given up", "restored", "replayed"),
}
"""What must have happened often for a known kind's test to say much."""


def fit(topology: Topology, kind: str) -> bool:
    waits = topology.sequential or not topology.has_centre
    return not (waits and load("participation", kind).may_close_early)


@pytest.mark.parametrize("num", [40, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("topology", "kind"),
    [(topology, kind) for topology in TOPOLOGIES for kind in KINDS if fit(topology, kind)],
    ids=str,
)
def test_every_history_keeps_the_ledger_and_comes_to_an_end(topology: Topology, kind: str, num: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(num):
        schedule = HubSchedule.drawn(kind, Random(seed), topology)
        try:
            for _ in range(60):
                schedule.step()
            schedule.drain()
        except AssertionError as error:
            error.add_note(f"seed {seed}, {schedule.hub}, weights {schedule.weights}:")
            error.add_note("\n".join(str(event) for event in schedule.told[-12:]))
            raise
        seen += schedule.seen
    expected = (*EXPECTED.get(kind, ("closed", "finished")), *(["advanced"] if topology.sequential else []))
    expected = expected if topology.has_centre else (*expected, "exchanged")
    assert min((seen[what] for what in expected), default=0) >= min(20, num // 5), seen


@pytest.mark.parametrize(
    ("topology", "kind", "fields"),
    [
        (topology, kind, fields)
        for topology in TOPOLOGIES
        for kind in KINDS
        for fields in SETTINGS.get(kind, [{}])
        if fit(topology, kind)
    ],
    ids=str,
)
def test_every_history_of_a_few_events_keeps_the_ledger_and_comes_to_an_end(
    topology: Topology, kind: str, fields: dict[str, object]
) -> None:
    """All of them for two members: each answers or is lost, in time or late; each timer fires; rounds begin."""
    policy = load("participation", kind)(**fields)
    hub = Hub("h", (Site("a"), Site("b")), topology=topology, keep_going=True, quorum=0.5, participation=policy)
    stack = [(HubSchedule(hub, {"a": 10, "b": 30}, Random(0)), 5)]
    ended = 0
    while stack:
        schedule, left = stack.pop()
        if left:
            for move in schedule.moves():
                after = schedule.copied()
                move(after)
                stack.append((after, left - 1))
        else:
            schedule.drain()
            ended += 1
    assert ended > 1
