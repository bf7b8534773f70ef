"""A log replayed: the workload read from it, and the decisions that it leads to again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from scheduler import Device
from scheduler.eventlog import Span, read
from scheduler.forecast import Oracle
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo
from scheduler.policies.longest_first import LongestFirst
from scheduler.policy import Policy
from scheduler.replay import from_log, replay
from scheduler.simulator import simulate
from scheduler.workload import Federation, Hub, Site, Workload, draw

DEVICES = tuple(Device(f"d{i}") for i in range(3))


def made(transfer_s: float = 0.5) -> Workload:
    """Two hubs, one with two rounds per global round, over three global rounds."""
    sizes = np.random.default_rng(3).uniform(1.0, 9.0, 12)
    sites = [Site(f"s{i:02}", float(size)) for i, size in enumerate(sizes)]
    hubs = (
        Hub("a", tuple(sites[:7]), 1, frozenset(), transfer_s),
        Hub("b", tuple(sites[7:]), 2, frozenset(), transfer_s),
    )
    return Workload((Federation("fed", hubs, 3),), DEVICES)


@pytest.mark.parametrize("policy", [Fifo(), LongestFirst(), ChainFirst()], ids=["fifo", "longest", "chain"])
def test_a_simulated_log_replays_to_the_same_decisions(policy: Policy) -> None:
    work = made()
    actual = draw(work, np.random.default_rng(4), 0.05)
    first = simulate(work, policy, actual, Oracle(work, actual))
    lines = [json.dumps(span.as_dict()) for span in first.log]
    again, took = from_log(read(map(json.loads, lines)), DEVICES, kappa={"fed/b": 2}, hubs=None)
    assert took == pytest.approx(actual)
    second = replay(again, took, policy)
    assert second.makespan_s == pytest.approx(first.makespan_s)
    given = [[(d.assign.device, [job.key for job in d.assign.jobs]) for d in o.decisions] for o in (first, second)]
    assert given[0] == given[1]
    assert [d.time_s for d in second.decisions] == pytest.approx([d.time_s for d in first.decisions])


def test_a_live_log_by_hand() -> None:
    """Two workers, sites right under the federation's root, a call of two sites, a pause of 0.2 between rounds."""
    log = [
        Span("w0", "load", 0.0, 0.9, ("root/a",), 0),
        Span("w0", "train", 1.0, 3.0, ("root/a",), 1),
        Span("w1", "train", 1.0, 2.5, ("root/c",), 1),
        Span("w1", "train", 2.51, 2.71, ("root/d", "root/e"), 1),
        Span("w0", "train", 3.2, 5.0, ("root/a",), 2),
        Span("w1", "train", 3.2, 4.7, ("root/c",), 2),
        Span("root", "aggregate", 5.0, 5.1, ("root",), 2),
    ]
    work, actual = from_log(log, (Device("w0"), Device("w1")))
    (federation,) = work.federations
    (hub,) = federation.hubs
    assert [site.name for site in hub.sites] == ["a", "c", "d", "e"] and federation.rounds == 2
    assert hub.transfer_s == pytest.approx(0.2) and work.call_s == pytest.approx(0.01)
    assert actual["root/root#0", "root/root/e"] == pytest.approx(0.1)
    assert ("root/root#1", "root/root/d") not in actual, "it sat that round out"
    outcome = replay(work, actual, Fifo())
    assert outcome.makespan_s == pytest.approx(4.0 + 0.2, rel=0.03), "from 1.0 to 5.0, and the last transfer"


def test_a_log_without_training_is_refused() -> None:
    with pytest.raises(AssertionError, match="without training"):
        from_log([Span("w0", "load", 0.0, 0.9, ("root/a",), 0)], DEVICES)
