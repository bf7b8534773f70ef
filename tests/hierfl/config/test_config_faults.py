"""`faults:` is checked whole, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hierfl.config import from_mapping
from hierfl.config.values import plain
from hierfl.errors import ConfigError
from hierfl.fault import FaultKind
from hierfl.kinds import load, names

TREE = {
    "name": "world",
    "rounds": 3,
    "members": [{"name": "us", "rounds": 2, "members": [{"name": "cleveland"}]}, {"name": "budapest"}],
}


def config(faults: Any, kind: str = "ray", **top: Any) -> Any:
    task = {"kind": "heart_disease"}
    whole = {"task": task, "federation": TREE, "runtime": {"kind": kind}, "faults": faults, **top}
    return from_mapping(whole)


def said(faults: Any, kind: str = "ray", **top: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config(faults, kind, **top)
    return "\n".join(map(str, caught.value.problems))


@pytest.mark.parametrize("kind", names("fault"))
def test_every_kind_is_one(kind: str) -> None:
    made = load("fault", kind)()
    assert isinstance(made, FaultKind)
    assert set(made.at) <= {"hub", "site", "run"} and all(made.at.values())
    assert made.strikes in ("process", "message", "answer")


def test_an_entry_has_its_step_and_is_written_back() -> None:
    found = config([{"kind": "kill", "node": "world/us", "round": 6}, {"kind": "delay", "node": "run"}])
    first, second = found.faults
    assert (first.where.step, second.where.step) == ("before_accept", "before_accept")
    assert str(first) == "kill of world/us at before_accept of update 1 in round 6"
    assert found.resolved["faults"][0] == {"kind": "kill", "after_s": 0.0, **plain(first.where)}
    assert from_mapping(found.resolved).faults == found.faults


def test_equal_entries_are_told_apart() -> None:
    first, second = config([{"kind": "kill", "node": "world"}] * 2).faults
    assert first.key != second.key


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"kind": "kill"}, r"faults: must be a list of faults"),
        (["kill"], r"faults[0]: must be a mapping"),
        ([{"kind": "kil", "node": "world"}], "unknown fault 'kil' (did you mean 'kill'?"),
        ([{"kind": "kill"}], "faults[0].node: is missing"),
        ([{"kind": "kill", "node": "world/uk"}], "'world/uk', which is no node (did you mean 'world/us'?"),
        ([{"kind": "kill", "node": "world", "step": "close"}], "'close' is no step of a hub (did you mean"),
        ([{"kind": "kill", "node": "world/budapest", "step": "publish"}], "no step of a site"),
        ([{"kind": "kill", "node": "world/us", "round": 7}], "is 7, and world/us has 6 in all"),
        ([{"kind": "kill", "node": "world", "step": "open", "nth": 2}], "nth: counts updates"),
        ([{"kind": "kill", "node": "world", "probability": 0}], "a fraction above 0, at most 1"),
        ([{"kind": "kill", "node": "world", "after": 1}], "unknown key (did you mean 'after_s'?"),
        (
            [{"kind": "kill", "nodee": "world"}],
            "nodee: unknown key (did you mean 'node'? allowed: node, step, round, nth, times, probability, replica, ",
        ),
        ([{"kind": "kill", "node": "world", "rounds": 2}], "rounds: unknown key (did you mean 'round'?"),
        ([{"kind": "hang", "node": "world", "after_s": 0}], "after_s is 0"),
        ([{"kind": "duplicate", "node": "world", "step": "open"}], "'open' is no step for a duplicate"),
        ([{"kind": "partition", "node": "world/budapest"}], "partition does not happen to a site (allowed: hub)"),
        ([{"kind": "kill", "node": "world", "replica": 2}], "replica: is 2, and world has 1: set redundancy.replicas"),
        ([{"kind": "lie", "node": "world", "what": "bitflip"}], "what is 'bitflip' (did you mean 'bit_flip'?"),
    ],
)
def test_mistakes_are_told_with_their_place(faults: Any, message: str) -> None:
    assert message in said(faults)


def test_what_a_thread_cannot_do_is_refused_on_the_local_runtime() -> None:
    assert "needs a process to itself" in said([{"kind": "hang", "node": "world"}], "local")
    config([{"kind": "hang", "node": "run"}, {"kind": "kill", "node": "world"}], "local")


def test_a_baseline_has_no_federation_to_strike() -> None:
    assert "baseline: local has none" in said([{"kind": "kill", "node": "world"}], baseline="local")


def test_a_file_of_faults_must_hold_a_list(tmp_path: Path) -> None:
    from hierfl.options import with_faults

    file = tmp_path / "faults.yaml"
    file.write_text("kind: kill\n")
    with pytest.raises(ConfigError, match="must hold a list of faults"):
        with_faults(["a.yaml"], file)
    file.write_text("- {kind: kill, node: world}\n")
    assert with_faults(["a.yaml"], file) == ["a.yaml", 'faults=[{"kind": "kill", "node": "world"}]']
    assert with_faults(["a.yaml"], None) == ["a.yaml"]


def test_a_list_that_is_longer_than_a_file_name_may_be_is_an_override_too(tmp_path: Path) -> None:
    from hierfl.options import configs_of, with_faults

    file = tmp_path / "faults.yaml"
    file.write_text("\n".join(["- {kind: kill, node: world}"] * 1000))
    assert configs_of(with_faults(["a.yaml"], file)) == ["a.yaml"]


def test_who_exchanges_with_nobody_is_not_struck_as_it_does() -> None:
    exchange = {"kind": "kill", "node": "world/us", "step": "exchange"}
    told = "faults[0].step: is 'exchange', and world/us exchanges with nobody: the hub above it has a centre"
    assert told in said([exchange])
    config([exchange, {**exchange, "round": 3}], federation={**TREE, "topology": "swarm"})
    told = "faults[0].round: is 4, and world/us has 3 in all"
    assert told in said([{**exchange, "round": 4}], federation={**TREE, "topology": "swarm"})
    below = {**TREE, "members": [{**TREE["members"][0], "topology": "peer"}, TREE["members"][1]]}
    config([{**exchange, "node": "world/us/cleveland", "round": 6}], federation=below)
    assert "exchanges with nobody" in said([exchange], federation=below)


def test_what_strikes_updates_needs_a_centre() -> None:
    federation = {"name": "world", "topology": "allreduce", "members": [{"name": "cleveland"}, {"name": "budapest"}]}
    message = "duplicate strikes updates that come to a hub"
    assert message in said([{"kind": "duplicate", "node": "world"}], federation=federation)
    config([{"kind": "kill", "node": "world"}], federation=federation)
