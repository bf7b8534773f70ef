"""The simulator: examples that a reader can recompute, and laws that hold for whatever it is given."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.kinds import load, names
from scheduler import Device
from scheduler.bounds import workload_bound
from scheduler.eventlog import read_span, union_s
from scheduler.forecast import Forecast, Learned, Oracle
from scheduler.outcome import Change, Outcome
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo
from scheduler.policies.longest_first import LongestFirst
from scheduler.policy import Policy
from scheduler.simulator import simulate
from scheduler.workload import Federation, Hub, Site, Workload, draw, nominal


def hub(*durations: float, name: str = "h", rounds: int = 1, transfer_s: float = 0.0, **given: object) -> Hub:
    sites = tuple(Site(f"s{i}", float(d), **given) for i, d in enumerate(durations))  # type: ignore[arg-type]
    return Hub(name, sites, rounds, frozenset(), transfer_s)


def devices(num: int, **given: object) -> tuple[Device, ...]:
    return tuple(Device(f"d{i}", **given) for i in range(num))  # type: ignore[arg-type]


def run(work: Workload, policy: Policy | None = None, **given: object) -> Outcome:
    actual = nominal(work)
    return simulate(work, policy or Fifo(), actual, Oracle(work, actual), **given)  # type: ignore[arg-type]


def calls(outcome: Outcome, phase: str = "train") -> list[tuple[str, str, float, float]]:
    """(device, site, begin, end) of calls with one site each."""
    found = (span for span in outcome.log if span.phase == phase)
    return [(span.actor, span.nodes[0].rpartition("/")[2], span.start_s, span.end_s) for span in found]


def test_a_round_by_hand() -> None:
    """FIFO on two devices: 3 and 1, then 2 behind the 1: ends at 3; 6 of 6 device-seconds are busy."""
    outcome = run(Workload((Federation("f", (hub(3, 1, 2),)),), devices(2)))
    assert calls(outcome) == [("d1", "s1", 0.0, 1.0), ("d0", "s0", 0.0, 3.0), ("d1", "s2", 1.0, 3.0)]
    assert (outcome.makespan_s, outcome.idle.idle, outcome.idle.efficiency) == (3.0, 0.0, 1.0)


def test_barriers_and_kappa_by_hand() -> None:
    """One device each: a's round takes 2, b's two rounds 1 + 1 each with 0.25 of transfer; the barrier is at 2.5."""
    a, b = hub(2, name="a", transfer_s=0.25), hub(1, name="b", rounds=2, transfer_s=0.25)
    outcome = run(Workload((Federation("f", (a, b), 2),), devices(2)))
    rounds = [
        (span.actor, span.start_s, span.end_s, span.round_number) for span in outcome.log if span.phase == "round"
    ]
    assert rounds[:4] == [("f/b", 0.0, 1.25, 1), ("f/a", 0.0, 2.25, 1), ("f/b", 1.25, 2.5, 2), ("f", 0.0, 2.5, 1)]
    assert outcome.makespan_s == 5.0 and outcome.ends_s == {"f": 5.0}
    waits = [span.end_s - span.start_s for span in outcome.log if span.phase == "aggregate"]
    assert waits == [0.25] * 6


def test_federations_interleaved_and_in_sequence_by_hand() -> None:
    """Two federations of one 2 s site and two rounds, on two devices: side by side 4 s, one after the other 8 s."""
    work = Workload((Federation("f", (hub(2),), 2), Federation("g", (hub(2),), 2)), devices(2))
    assert run(work).makespan_s == 4.0
    behind = run(work, in_sequence=True)
    assert behind.ends_s == {"f": 4.0, "g": 8.0} and behind.idle.efficiency == pytest.approx(0.5)
    late = Workload((work.federations[0], Federation("g", (hub(2),), 2, start_s=9.0)), devices(2))
    assert run(late).ends_s == run(late, in_sequence=True).ends_s == {"f": 4.0, "g": 13.0}


def test_models_are_loaded_once_and_loading_is_idle() -> None:
    """Model m takes 1 s to load; two jobs of 2 s on one device: 1 + 2 + 2."""
    work = Workload((Federation("f", (hub(2, 2, model="m"),)),), devices(1), load_s={"m": 1.0})
    outcome = run(work)
    assert calls(outcome, "load") == [("d0", "s0", 0.0, 1.0)]
    assert outcome.makespan_s == 5.0 and outcome.idle.idle == pytest.approx(0.2)


def test_speeds_and_the_gap_between_calls() -> None:
    """Speed 2: 4 and 6 s of work take 2 and 3, each after a gap of 0.5."""
    work = Workload((Federation("f", (hub(4, 6),)),), devices(1, kind="fast"), {"fast": 2.0}, call_s=0.5)
    assert calls(run(work)) == [("d0", "s0", 0.5, 2.5), ("d0", "s1", 3.0, 6.0)]


def test_a_short_call_that_waits_at_the_device_has_no_gap() -> None:
    work = Workload((Federation("f", (hub(0.15, 0.15),)),), devices(1), call_s=0.002)
    assert run(work, depth=1).makespan_s == pytest.approx(0.304)
    assert run(work, depth=2).makespan_s == pytest.approx(0.302)


def test_company_shares_the_device_by_hand() -> None:
    """Two at once have 1.5 of the rate of one. 3 and 6 s: until 4 both at 0.75, then 3 s are left for one alone."""
    work = Workload((Federation("f", (hub(3, 6),)),), devices(1, places=2), rates=(1.0, 1.5))
    outcome = run(work)
    assert calls(outcome) == [("d0", "s0", 0.0, 4.0), ("d0", "s1", 0.0, 7.0)]
    assert outcome.idle.idle == 0.0 and outcome.idle.goodput == pytest.approx(9 / 7)


def test_company_needs_memory() -> None:
    """Of 10, 10 and 5 GB on 16 GB two run at once."""
    sites = tuple(Site(f"s{i}", 2.0, memory_bytes=need) for i, need in enumerate((10, 10, 5)))
    work = Workload((Federation("f", (Hub("h", sites),)),), devices(1, memory_bytes=16, places=3), rates=(1.0, 2.0))
    assert calls(run(work)) == [("d0", "s0", 0.0, 2.0), ("d0", "s2", 0.0, 2.0), ("d0", "s1", 2.0, 4.0)]


def test_a_device_that_fails_loses_its_work_and_one_that_comes_late_helps() -> None:
    """d0 goes at 3 with 1 s of s0 left, d1 comes at 5 and does it again: 9. d0's three seconds are idle."""
    work = Workload((Federation("f", (hub(4),)),), devices(2))
    changes = (Change(3.0, "d0"), Change(5.0, "d1", joins=True))
    outcome = run(work, changes=changes)
    assert calls(outcome, "lost") == [("d0", "s0", 0.0, 3.0)] and calls(outcome) == [("d1", "s0", 5.0, 9.0)]
    assert outcome.idle.idle == pytest.approx(3 / 7) and outcome.idle.busy == {"d0": 0.0, "d1": 1.0}
    with pytest.raises(AssertionError, match="no device is left for"):
        run(work, changes=(Change(3.0, "d0"), Change(3.0, "d1")))


def test_a_site_without_an_entry_sits_out_and_an_empty_round_passes() -> None:
    work = Workload((Federation("f", (hub(2, 3),), 3),), devices(1))
    actual = {("f/h#0", "f/h/s0"): 2.0, ("f/h#2", "f/h/s1"): 3.0}
    outcome = simulate(work, Fifo(), actual, Oracle(work, actual))
    assert calls(outcome) == [("d0", "s0", 0.0, 2.0), ("d0", "s1", 2.0, 5.0)]
    assert outcome.makespan_s == outcome.bound_s == 5.0


def test_unions_by_hand() -> None:
    assert union_s([(0, 2), (1, 3), (5, 6)]) == 4.0
    assert union_s([(0, 2), (1, 3), (5, 6)], [(2.5, 5.5), (5.75, 9)]) == pytest.approx(0.5 + 0.5 + 0.25)
    assert union_s([]) == union_s([(0, 1)], []) == 0.0


def test_the_log_is_read_back() -> None:
    work = Workload((Federation("f", (hub(3, 1, 2),), 2),), devices(2))
    log = run(work).log
    lines = [json.dumps(span.record()) for span in log]
    assert tuple(map(read_span, map(json.loads, lines))) == log
    assert read_span({"event": "notice", "phase": "train"}) is None


RESIDENCIES = (frozenset(), frozenset({"de"}), frozenset({"fr"}))


@st.composite
def workloads(drawn: st.DrawFn) -> Workload:
    """Small workloads of all sorts."""
    federations = []
    for f in range(drawn(st.integers(1, 3))):
        hubs = []
        for h in range(drawn(st.integers(1, 2))):
            sites = tuple(
                Site(
                    f"s{i}", duration, drawn(st.integers(1, 99)), drawn(st.integers(0, 9)), drawn(st.sampled_from("mn"))
                )
                for i, duration in enumerate(drawn(st.lists(st.floats(0.01, 9.0), min_size=1, max_size=4)))
            )
            residency = drawn(st.sampled_from(RESIDENCIES))
            hubs.append(Hub(f"h{h}", sites, drawn(st.integers(1, 2)), residency, drawn(st.sampled_from([0.0, 0.3]))))
        federations.append(
            Federation(f"f{f}", tuple(hubs), drawn(st.integers(1, 2)), drawn(st.sampled_from([0.0, 2.0])))
        )
    both = frozenset({"de", "fr"})
    labelled = [drawn(st.sampled_from(RESIDENCIES)) for _ in range(drawn(st.integers(0, 2)))]
    held = [Device("d0", "fast", both, 10, drawn(st.integers(1, 3)))]
    held += [
        Device(f"d{i}", "slow", labels, drawn(st.sampled_from([10, None]))) for i, labels in enumerate(labelled, 1)
    ]
    load_s = {"m": drawn(st.sampled_from([0.0, 0.5]))}
    return Workload(
        tuple(federations), tuple(held), {"fast": 2.0}, (1.0, 1.5, 1.6), load_s, drawn(st.sampled_from([0.0, 0.01]))
    )


def check(work: Workload, actual: dict[tuple[str, str], float], outcome: Outcome) -> None:
    """What holds for every run."""
    assert outcome.bound_s <= outcome.makespan_s * (1 + 1e-9), "a bound that a schedule beats is none"
    assert outcome.idle.floor <= outcome.idle.idle + 1e-9
    trained = sorted(
        (span.nodes[i], span.round_number)
        for span in outcome.log
        if span.phase == "train"
        for i in range(len(span.nodes))
    )
    asked = sorted((site, int(group.rpartition("#")[2]) + 1) for group, site in actual)
    assert trained == asked, "every job once"
    need = {f"{f.name}/{h.name}/{site.name}": (h.labels, site.memory_bytes) for f, h, site in work.sites()}
    for device in work.devices:
        mine = [span for span in outcome.log if span.actor == device.name]
        assert all(need[site][0] <= device.labels for span in mine for site in span.nodes), "residency"
        held = [(span.start_s, span.end_s, max(need[site][1] for site in span.nodes)) for span in mine]
        events = sorted(
            [(end, 0, -1, -memory) for _, end, memory in held] + [(start, 1, 1, memory) for start, _, memory in held]
        )
        at_once = np.cumsum([(num, memory) for *_, num, memory in events], axis=0).reshape(-1, 2).max(axis=0, initial=0)
        assert at_once[0] <= device.places and (device.memory_bytes is None or at_once[1] <= device.memory_bytes)
    opened = {(span.actor, span.round_number): span for span in outcome.log if span.phase == "round"}
    for span in outcome.log:
        if span.phase == "train":
            of = opened[span.nodes[0].rpartition("/")[0], span.round_number]
            assert of.start_s <= span.start_s and span.end_s <= of.end_s, "within its round's barriers"
    for actor in {actor for actor, _ in opened}:
        mine = sorted((span for (who, _), span in opened.items() if who == actor), key=lambda span: span.round_number)
        assert all(before.end_s <= after.start_s for before, after in pairwise(mine))


@pytest.mark.parametrize("policy", names("policy"))
@settings(max_examples=25)
@given(workloads(), st.integers(0, 99), st.booleans(), st.sampled_from([1, 2]))
def test_laws_of_every_run(policy: str, work: Workload, seed: int, in_sequence: bool, depth: int) -> None:
    actual = draw(work, np.random.default_rng(seed), 0.2)
    kind = load("policy", policy)
    bound_s = workload_bound(work, actual)

    def once(forecast: Forecast) -> Outcome:
        return simulate(work, kind(), actual, forecast, depth=depth, in_sequence=in_sequence, bound_s=bound_s)

    learned = once(Learned())
    check(work, actual, learned)
    assert once(Learned()) == learned, "the same again, bit for bit"
    check(work, actual, once(Oracle(work, actual, 0.5, np.random.default_rng(seed))))


@settings(max_examples=40)
@given(
    workloads(),
    st.integers(0, 99),
    st.lists(st.tuples(st.floats(0.0, 20.0), st.integers(1, 2), st.booleans()), max_size=6),
)
def test_devices_may_come_and_go(work: Workload, seed: int, moves: list[tuple[float, int, bool]]) -> None:
    """d0 stays, so that all work is done in the end; what is lost is done again."""
    actual = draw(work, np.random.default_rng(seed), 0.2)
    there = {device.name for device in work.devices}
    changes = [Change(time_s, f"d{i}", joins) for time_s, i, joins in moves if f"d{i}" in there]
    check(work, actual, simulate(work, ChainFirst(), actual, Learned(), changes=changes))


def test_longest_first_learned_nears_the_oracle() -> None:
    """24 unequal sites on 4 devices: what was learned in a few rounds is worth nearly what an oracle knows."""
    durations = np.exp(np.random.default_rng(1).standard_normal(24))
    work = Workload((Federation("f", (hub(*durations),), 10),), devices(4))
    actual = draw(work, np.random.default_rng(2), 0.05)
    fifo = simulate(work, Fifo(), actual, Learned()).makespan_s
    learned = simulate(work, LongestFirst(), actual, Learned()).makespan_s
    oracle = simulate(work, LongestFirst(), actual, Oracle(work, actual)).makespan_s
    assert oracle <= learned <= 1.03 * oracle and learned < fifo
