"""What goes with a topology, and what does not, each said at its place."""

from __future__ import annotations

from typing import Any

import pytest
from small_runs import hub

from hierfl.config import from_mapping
from hierfl.errors import ConfigError, Problem
from hierfl.kinds import load, names

LINEAR = [name for name in names("strategy") if load("strategy", name).linear]
REDUCERS = [name for name in names("strategy") if hasattr(load("strategy", name), "reduce")]
WITHOUT_CENTRE = [name for name in names("topology") if not load("topology", name).has_centre]
PATTERNS = {"fedper": {"personal": ["head.*"]}, "fedrep": {"personal": ["head.*"]}}


def problems(journal: str | None = None, **settings: Any) -> list[Problem]:
    """Of a root with `settings`, whose member `in` has those that begin with `in_`."""
    inner = {key.removeprefix("in_"): value for key, value in settings.items() if key.startswith("in_")}
    own = {key: value for key, value in settings.items() if not key.startswith("in_")}
    root = hub("world", hub("in", "a", "b", "c", "d", "e", **inner), "f", "g", "h", "i", **own)
    kept = {"redundancy": {"journal": journal}} if journal else {}
    try:
        from_mapping({"task": {"kind": "synthetic"}, "federation": root, "runtime": {"kind": "local"}} | kept)
    except ConfigError as error:
        return list(error.problems)
    return []


def strategy(kind: str) -> dict[str, Any]:
    return {"kind": kind, **PATTERNS.get(kind, {})}


@pytest.mark.parametrize("topology", ["cyclic", "peer"])
@pytest.mark.parametrize("kind", names("strategy"))
def test_a_strategy_goes_with_a_cycle_and_with_peers_if_its_step_is_plain_replacement(kind: str, topology: str) -> None:
    assert problems(strategy=strategy(kind)) == [], "with a star each is sound"
    found = problems(strategy=strategy(kind), topology=topology)
    if kind in LINEAR:
        assert found == []
        return
    [problem] = found
    assert problem.path == "federation.strategy"
    assert f"{kind} does not go with topology {topology}" in problem.message
    assert f"(allowed: {', '.join(LINEAR)})" in problem.message


@pytest.mark.parametrize("kind", names("participation"))
def test_a_policy_goes_with_a_cycle_if_all_that_are_asked_are_waited_for(kind: str) -> None:
    found = problems(participation=kind, topology="cyclic")
    if not load("participation", kind).may_close_early:
        assert found == []
        return
    [problem] = found
    assert problem.path == "federation.participation"
    assert f"{kind} does not go with topology cyclic" in problem.message and "(allowed: all" in problem.message


def test_a_hub_below_inherits_no_server_optimiser_but_a_rule_for_the_whole_subtree() -> None:
    assert problems(strategy="fedadam", in_topology="cyclic") == []
    assert problems(strategy="fedadam", participation="buffered", in_topology="cyclic") == []
    for kind in ("scaffold", "fednova", "feddyn"):
        [problem] = problems(strategy=kind, in_topology="cyclic")
        assert problem.path == "federation.members.in.topology"
        assert f"{kind} of 'world' does not go with topology cyclic" in problem.message


def test_below_a_cycle_all_is_allowed() -> None:
    assert problems(topology="cyclic", in_strategy="scaffold", in_participation="deadline") == []


@pytest.mark.parametrize("topology", WITHOUT_CENTRE)
@pytest.mark.parametrize("kind", names("participation"))
def test_no_place_is_left_for_what_comes_late_where_members_exchange(topology: str, kind: str) -> None:
    found = problems(participation=kind, topology=topology)
    if not load("participation", kind).may_close_early:
        assert found == []
        return
    [problem] = found
    assert problem.path == "federation.participation"
    assert f"{kind} does not go with topology {topology}" in problem.message
    assert "(allowed: all, sample, deadline with late: refuse)" in problem.message


@pytest.mark.parametrize("topology", [*WITHOUT_CENTRE, "cyclic"])
def test_a_deadline_goes_without_a_centre_if_nothing_late_counts(topology: str) -> None:
    refusing = {"kind": "deadline", "after_s": 1.0, "late": "refuse"}
    assert len(problems(participation=refusing, topology=topology)) == (topology == "cyclic")
    assert len(problems(participation={**refusing, "late": "carry"}, topology=topology)) == 1


@pytest.mark.parametrize("kind", names("strategy"))
def test_a_rule_that_looks_at_whole_updates_goes_with_a_swarm_and_not_with_slices(kind: str) -> None:
    assert problems(strategy=strategy(kind), topology="swarm") == []
    found = problems(strategy=strategy(kind), topology="allreduce")
    if kind not in REDUCERS:
        assert found == []
        return
    [problem] = found
    assert problem.path == "federation.strategy" and "or topology: swarm" in problem.message
    assert f"{kind} does not go with topology allreduce: it looks at whole updates" in problem.message


def test_members_that_cannot_exchange_are_refused_before_the_start() -> None:
    root = hub("world", *(f"s{i}" for i in range(300)), topology="allreduce")
    with pytest.raises(
        ConfigError, match=r"federation.topology: allreduce: 300 members are more than the 256 .* in hubs"
    ):
        from_mapping({"task": {"kind": "synthetic"}, "federation": root})


LINE = {"kind": "peer", "graph": "given", "edges": {"a": ["b"], "b": ["c"]}}
DRAWN = {"kind": "peer", "graph": "erdos_renyi", "probability": 0.35}


@pytest.mark.parametrize(
    ("topology", "between", "said"),
    [
        (LINE, {}, ""),
        (LINE, {"joins_at": 3}, "peer: from round 1 on, the graph of those who train is not connected: no way from a"),
        (LINE, {"leaves_at": 2}, "peer: from round 2 on, the graph of those who train is not connected: no way from a"),
        (LINE, {"role": "evaluation"}, "peer: the graph of those who train is not connected: no way from a to c; add"),
        ({**LINE, "edges": {"a": ["b", "c"], "b": ["c"]}}, {"leaves_at": 2}, ""),
        (LINE, {"leaves_at": 5}, ""),
    ],
)
def test_members_that_train_have_a_way_to_each_other_whoever_is_there(topology: Any, between: Any, said: str) -> None:
    root = hub("world", "a", {"name": "b", **between}, "c", rounds=4, topology=topology)
    found = _said_of(root)
    assert bool(found) == bool(said)
    assert not said or (found[0].path == "federation.topology" and said in found[0].message)


@pytest.mark.parametrize("stay", [{"leaves_at": 2}, {"joins_at": 2}, {"role": "evaluation"}])
def test_a_drawn_graph_is_refused_where_it_would_be_if_those_who_train_were_all(stay: Any) -> None:
    members = [f"s{i}" for i in range(6)]
    verdicts = set()
    for seed in range(40):
        alone = _said_of(hub("world", *members[1:], topology=DRAWN), seed)
        whole = _said_of(hub("world", *members, topology=DRAWN), seed)
        found = _said_of(hub("world", {"name": "s0", **stay}, *members[1:], rounds=2, topology=DRAWN), seed)
        assert bool(found) == (bool(alone) if "role" in stay else bool(alone or whole))
        verdicts.add((bool(whole), bool(alone)))
    assert (False, True) in verdicts, "a graph that hangs together by a member that is not always there"


def test_a_hub_below_takes_part_while_a_site_of_it_trains() -> None:
    inner = hub("b", {"name": "x", "leaves_at": 3}, {"name": "y", "role": "evaluation"})
    [problem] = _said_of(hub("world", "a", inner, "c", rounds=4, topology=LINE))
    assert problem.path == "federation.topology" and "from round 3 on" in problem.message


def test_nothing_comes_over_an_edge_of_weight_0() -> None:
    edges = {"a": {"b": 0.5}, "b": {"c": 0.0}}
    [problem] = _said_of(hub("world", *"abc", topology={**LINE, "weights": "given", "edges": edges}))
    assert "no way from a to c; add edges, or weights above 0" in problem.message


def _said_of(root: dict[str, Any], seed: int = 0) -> list[Problem]:
    try:
        from_mapping({"task": {"kind": "synthetic"}, "federation": root, "seed": seed, "runtime": {"kind": "local"}})
    except ConfigError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize("topology", names("topology"))
@pytest.mark.parametrize("journal", [None, "none", "/durable/journals"])
def test_a_journal_is_not_asked_for_where_none_is_kept(topology: str, journal: str | None) -> None:
    found = problems(journal, in_topology=topology)
    if topology not in WITHOUT_CENTRE or journal in (None, "none"):
        assert found == []
        return
    [problem] = found
    assert problem.path == "redundancy.journal" and f"among themselves (in: {topology})" in problem.message
