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


@pytest.mark.parametrize("topology", names("topology"))
@pytest.mark.parametrize("journal", [None, "none", "/durable/journals"])
def test_a_journal_is_not_asked_for_where_none_is_kept(topology: str, journal: str | None) -> None:
    found = problems(journal, in_topology=topology)
    if topology not in WITHOUT_CENTRE or journal in (None, "none"):
        assert found == []
        return
    [problem] = found
    assert problem.path == "redundancy.journal" and f"among themselves (in: {topology})" in problem.message
