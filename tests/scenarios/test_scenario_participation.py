"""Rounds that do not wait for all, in whole local runs: who closed without whom, and what became of what was late.

Stragglers wait twenty times as long as the others, so that the order of events does not hang on the machine's pace.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import Listener, Ran, config_of, events, go, hub, site

from hierfl import checkpoint
from hierfl.lifecycle import resume, run
from hierfl.members import read
from hierfl.monitor.records import Exchanged, NodesChanged, Notice, Record, RoundClosed, RoundCommitted, SiteTrained
from hierfl.runtime import chance
from hierfl.validation import told_of

FAST_S, SLOW_S = 0.025, 0.5
TASK: dict[str, Any] = {"kind": "late_task:LateTask"}
DEVICES: dict[str, Any] = {"kind": "local", "devices": [{"name": "device", "count": 10}]}
TOP: dict[str, Any] = {
    "training": {"lr": 0.1, "batch_size": None, "local_steps": 1},
    "runtime": DEVICES,
    "evaluation": {"every": 0},
}
DEADLINE: dict[str, Any] = {"kind": "deadline", "after_s": 0.1, "quorum": 0.7, "weight": 0.7, "staleness": 100}


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Train once: the first training of a process takes long, and no site is to be late for that."""
    went(tmp_path_factory.mktemp("warm"), hub("world", "a", rounds=1))


def ward(name: str, step_s: float = FAST_S, **data: Any) -> dict[str, Any]:
    return site(name, step_s=step_s, **data)


def four(participation: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Three fast sites and a slow one."""
    members = [ward("a"), ward("b"), ward("c"), ward("slow", SLOW_S)]
    return hub("world", *members, participation=participation, **settings)


def went(folder: Path, root: dict[str, Any], *, task: dict[str, Any] = TASK, **top: Any) -> Ran:
    return go(folder, root, task, **{**TOP, **top})


@pytest.mark.parametrize("strategy", ["scaffold", "feddyn", "fedprox"])
@pytest.mark.parametrize(
    ("early", "up", "several", "partly"),
    [
        (False, {"participation": DEADLINE}, False, True),
        (True, {"participation": DEADLINE}, True, True),
        (True, {"participation": {**DEADLINE, "late": "refuse"}}, False, True),
        (True, {}, False, False),
        (True, {"rounds": 2}, True, False),
    ],
    ids=["early below", "late ones below", "none below", "early above", "several rounds"],
)
def test_corrections_that_may_come_apart_are_warned_of(
    tmp_path: Path, strategy: str, early: bool, up: dict[str, Any], several: bool, partly: bool
) -> None:
    """One update of a hub may have several of a site, of which only the last can be taken back; feddyn takes a hub's
    mean for that of all.
    """
    below, policy = hub("up", ward("a"), ward("b"), **up), DEADLINE if early else "all"
    root = hub("world", below, ward("c"), strategy=strategy, participation=policy, rounds=1)
    partly = partly and strategy == "feddyn"
    warned = [*["world"] * several, *["world/up"] * partly] if strategy != "fedprox" else []
    assert list(told_of(config_of(tmp_path, root, TASK, **TOP))["strategies"]) == warned
    ran = went(tmp_path, root)
    said = [note for note in ran.monitor.of(Notice) if "beside the optimum" in note.message]
    assert [(note.level, note.node) for note in said] == [("warning", node) for node in warned]
    flat = hub("world", ward("a"), ward("c"), strategy=strategy, participation=DEADLINE, rounds=1)
    assert not told_of(config_of(tmp_path, flat, TASK, **TOP))["strategies"]


def closed(ran: Ran | Listener, node: str = "world") -> list[RoundClosed]:
    monitor = ran.monitor if isinstance(ran, Ran) else ran
    return [record for record in monitor.of(RoundClosed) if record.node == node]


def counts(rounds: list[RoundClosed], name: str) -> int:
    return sum((name in record.members) + (name in record.carried) for record in rounds)


def trainings(monitor: Listener, node: str) -> int:
    return sum(record.node == node for record in monitor.of(SiteTrained))


def test_a_deadline_closes_rounds_without_a_straggler_and_carries_its_update_later(tmp_path: Path) -> None:
    ran = went(tmp_path, four(DEADLINE, rounds=50))
    rounds = closed(ran)
    without = [record for record in rounds if record.late == ("slow",)]
    carried = [record for record in rounds if "slow" in record.carried]
    assert len(without) > 20 and carried and len(rounds) == 50
    assert all("slow" not in record.members for record in without)
    assert without[0].missing["slow"].startswith("late: at work since round")
    assert re.fullmatch(r"late by \d+ rounds, weight \d+% of 8", carried[0].carried["slow"])
    assert trainings(ran.monitor, "world/slow") - counts(rounds, "slow") in (0, 1)
    assert any("world/slow" in one.nodes for one in ran.monitor.of(NodesChanged) if one.state == "late")
    event = next(event for event in events(ran.folder) if "slow" in event.get("carried", ()))
    assert event["carried"] == carried[0].carried and event["reason"] == carried[0].reason


def test_the_run_ends_without_its_late_members_and_says_so(tmp_path: Path) -> None:
    ran = went(tmp_path, four(DEADLINE, rounds=3))
    assert ran.summary["status"] == "finished" and ran.summary["rounds"] == 3
    if closed(ran)[-1].late:
        told = [notice.message for notice in ran.monitor.of(Notice) if notice.node == "world"]
        assert any(re.match(r"the run ends while these are still at work: slow \(since round \d\)", m) for m in told)


def test_a_dead_site_leaves_the_wait_set_at_once(tmp_path: Path) -> None:
    """The deadline is an hour away."""
    policy = {**DEADLINE, "after_s": 3600.0, "probe_after": 1}
    members = [ward("a"), ward("b"), site("dead", fails=True)]
    root = hub("world", *members, participation=policy, on_failure="continue", rounds=4)
    rounds = closed(went(tmp_path, root))
    assert rounds[0].reason == "2 of 3 reported, the rest lost"
    assert rounds[0].missing == {"dead": "ValueError: a power cut"} and rounds[0].late == ()
    assert rounds[1].missing["dead"] == "lost once; asked again in 1 round"
    assert rounds[2].missing["dead"] == "ValueError: a power cut"


def test_a_deadline_that_is_never_needed_changes_no_bit(tmp_path: Path) -> None:
    members = [ward("a", 0.0), ward("b", 0.0), ward("c", 0.0)]
    runs = [
        went(tmp_path / kind, hub("world", *members, rounds=3, participation=policy))
        for kind, policy in {"all": {"kind": "all"}, "deadline": {**DEADLINE, "after_s": 3600.0}}.items()
    ]
    assert runs[0].digest == runs[1].digest


def test_a_deadline_follows_what_was_learned(tmp_path: Path) -> None:
    """Nine of ten are in time by their own forecasts, and the tenth is the slow one; the first rounds teach that."""
    members = [*(ward(f"s{number}", 0.01) for number in range(9)), ward("slow", 0.6)]
    policy = {"kind": "deadline", "after": {"p90": 2.0}, "quorum": 0.8, "weight": 0.8, "staleness": 100}
    ran = went(tmp_path, hub("world", *members, rounds=20, participation=policy))
    rounds = closed(ran)
    assert rounds[0].late == () and rounds[0].reason == "all reported"
    without = [record.reason for record in rounds if "slow" in record.late]  # on a busy machine one more, at times
    assert any("0% of the weight are in at the deadline of" in reason for reason in without)


def test_late_updates_may_be_refused(tmp_path: Path) -> None:
    ran = went(tmp_path, four({**DEADLINE, "late": "refuse"}, rounds=40))
    refused = [notice.message for notice in ran.monitor.of(Notice) if "refused an update of slow" in notice.message]
    assert refused and all("late updates do not count here" in message for message in refused)
    assert not any(record.carried for record in closed(ran))


def test_a_buffered_hub_steps_at_its_goal(tmp_path: Path) -> None:
    ran = went(tmp_path, four({"kind": "buffered", "goal": 2, "staleness": 100}, rounds=60))
    rounds = closed(ran)
    assert all(record.reason == "2 updates are in, the goal is 2" for record in rounds)
    assert all(len(record.members) + len(record.carried) == 2 for record in rounds)
    for name in ("a", "b", "c", "slow"):
        assert trainings(ran.monitor, f"world/{name}") - counts(rounds, name) in (0, 1)
    assert counts(rounds, "slow") < counts(rounds, "a")


def test_synchronous_hubs_under_a_buffered_root_are_begun_again_only_when_they_are_done(tmp_path: Path) -> None:
    fast = hub("fast", ward("a"), ward("b"), rounds=2, strategy={"kind": "fedavgm"})
    near = hub("near", ward("c"))
    far = hub("far", ward("d"), ward("slow", SLOW_S))
    policy = {"kind": "buffered", "goal": 2, "staleness": 100}
    root = hub("world", fast, near, far, rounds=40, participation=policy, strategy={"kind": "fedadam"})
    ran = went(tmp_path, root)
    for name in ("fast", "near", "far"):
        states = [record.state for record in ran.monitor.of(NodesChanged) if f"world/{name}" in record.nodes]
        at_work = [state for state in states if state != "late"]
        assert all(before != after for before, after in pairwise(at_work))
        inner = closed(ran, f"world/{name}")
        assert all(record.reason == "all reported" for record in inner)
        assert [r.round_number for r in inner] == sorted({r.round_number for r in inner})
    assert counts(closed(ran), "far") < counts(closed(ran), "near")
    assert any(record.late and "far" in record.late for record in closed(ran))
    assert len(closed(ran, "world/fast")) >= 2 * counts(closed(ran), "fast")


def test_an_inner_hub_with_a_deadline_hands_up_its_own_change(tmp_path: Path) -> None:
    ward_hub = hub(
        "us", ward("a"), ward("b"), ward("slow", SLOW_S), participation={**DEADLINE, "quorum": 0.6, "weight": 0.6}
    )
    ran = went(tmp_path, hub("world", ward_hub, ward("c"), rounds=40))
    assert any(record.late == ("slow",) for record in closed(ran, "world/us"))
    assert any(record.carried for record in closed(ran, "world/us"))
    assert all(set(record.members) == {"us", "c"} for record in closed(ran))


def test_some_are_drawn_and_a_resumed_run_draws_the_same(tmp_path: Path) -> None:
    members = [site(f"s{number}") for number in range(30)]
    root = hub("world", *members, rounds=4, participation={"kind": "sample", "count": 5})
    whole = went(tmp_path / "whole", root)
    assert [len(record.members) for record in closed(whole)] == [5] * 4
    assert [record.others for record in closed(whole)] == [{"not drawn: 5 of 30 take part": 25}] * 4
    assert all(not record.missing and not record.late for record in closed(whole))
    with pytest.raises(KeyboardInterrupt):
        went(tmp_path / "cut", root, until=(RoundCommitted, 2))
    [folder] = (tmp_path / "cut").iterdir()
    assert resume(folder)["model_digest"] == whole.digest


def test_a_hub_draws_among_its_members_and_the_draws_differ_from_hub_to_hub(tmp_path: Path) -> None:
    policy = {"kind": "sample", "fraction": 0.5}
    hubs = [hub(name, *(site(f"s{i}") for i in range(8)), participation=policy) for name in ("us", "eu")]
    ran = went(tmp_path, hub("world", *hubs, rounds=4))
    drawn = {name: [set(record.members) for record in closed(ran, f"world/{name}")] for name in ("us", "eu")}
    assert all(len(members) == 4 for rounds in drawn.values() for members in rounds)
    assert drawn["us"] != drawn["eu"] and len({frozenset(members) for members in drawn["us"]}) > 1


@pytest.mark.parametrize("weights", ["uniform", "given"])
def test_draws_by_samples_are_the_same_whatever_members_weigh(weights: str, tmp_path: Path) -> None:
    policy = {"kind": "sample", "count": 1, "by": "samples"}
    large = hub("large", site("a", patients=24), site("b", patients=24))
    members = [site("small", patients=4), site("middle", patients=8), large]

    def drawn(weights: str) -> Counter[str]:
        root = hub("world", *members, rounds=40, participation=policy, strategy={"kind": "fedavg", "weights": weights})
        ran = went(tmp_path / weights, root)
        return Counter(name for record in closed(ran) for name in record.members)

    found = drawn(weights)
    assert found == drawn("samples")
    assert found["large"] >= 24, "of 40 rounds 32 are expected, with a deviation of 2.5; 13 were it drawn like others"


class Gatekeeper(Listener):
    """Shuts the gate after the first round, for the second one's straggler."""

    gate: Path

    def on(self, record: Record) -> None:
        if isinstance(record, RoundCommitted) and record.round_number == 1:
            self.gate.touch()
        super().on(record)


@pytest.mark.parametrize("compression", ["none", "one_bit"])
def test_an_update_that_came_between_two_rounds_survives_the_process(tmp_path: Path, compression: str) -> None:
    """The straggler ends while the model is measured; what it sends then is held, written down, and counted once."""
    members = [ward("a"), ward("b"), ward("c"), site("slow", gated=True)]
    root = hub("world", *members, participation=DEADLINE, rounds=3, compression=compression)
    first, second = Gatekeeper(until=(RoundCommitted, 2)), Listener()
    first.gate = tmp_path / "gate"
    task = {**TASK, "measure_s": 1.0, "gate": str(first.gate)}
    with pytest.raises(KeyboardInterrupt):
        run(config_of(tmp_path / "runs", root, task, **{**TOP, "evaluation": {"every": 1}}), [first])
    [folder] = (tmp_path / "runs").iterdir()
    newest = checkpoint.latest(folder)
    assert newest is not None
    assert closed(first)[1].late == ("slow",)
    memory, payloads = checkpoint.load(newest).hubs["world"]
    assert [update.shares[0].member for update in memory.standing.held] == ["slow"] and len(payloads) == 1
    assert resume(folder, monitors=[second])["status"] == "finished"
    [last] = closed(second)
    assert last.carried["slow"] == "late by 1 round, weight 75% of 8"
    assert trainings(first, "world/slow") == 2


def test_a_run_that_is_cut_off_with_work_out_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        went(tmp_path, four(DEADLINE, rounds=40), until=(RoundCommitted, 3))
    [folder] = tmp_path.iterdir()
    second = Listener()
    assert resume(folder, monitors=[second])["rounds"] == 40
    numbers = Counter(record.round_number for record in closed(second))
    assert numbers == Counter(range(4, 41))
    assert counts(closed(second), "slow") <= trainings(second, "world/slow") + 1


def without_the_slow(folder: Path, topology: Any) -> tuple[str, Gatekeeper, Path]:
    """Two rounds in which one of four is late: in the first all report, in the last it is at work to the end."""
    monitor = Gatekeeper()
    monitor.gate = folder / "gate"
    members = [ward("a"), ward("b", patients=12), ward("c"), site("slow", gated=True)]
    policy = {**DEADLINE, "after_s": 1.0, "late": "refuse"}
    root = hub("world", *members, topology=topology, participation=policy, rounds=2)
    top = {**TOP, "evaluation": {"every": 2}}
    summary = run(config_of(folder / "runs", root, {**TASK, "gate": str(monitor.gate)}, **top), [monitor])
    assert [record.late for record in closed(monitor)] == [(), ("slow",)]
    return summary["model_digest"], monitor, Path(summary["run_dir"])


@pytest.mark.parametrize("topology", ["swarm", "allreduce"])
def test_at_a_deadline_members_exchange_without_the_late_one_to_the_bits_of_a_star(
    topology: str, tmp_path: Path
) -> None:
    digest, monitor, _ = without_the_slow(tmp_path / topology, topology)
    assert digest == without_the_slow(tmp_path / "star", "star")[0]
    mixed = [{name for of in record.mixed.values() for name in of} for record in monitor.of(Exchanged)]
    assert mixed == [{"a", "b", "c", "slow"}, {"a", "b", "c"}]


def test_a_late_peer_keeps_its_model(tmp_path: Path) -> None:
    ring = {"kind": "peer", "graph": "ring"}
    _, _, folder = without_the_slow(tmp_path / "late", ring)
    members = [ward("a"), ward("b", patients=12), ward("c"), ward("slow", 0.0)]
    once = went(tmp_path / "once", hub("world", *members, topology=ring, rounds=1)).folder
    models = {
        name: [
            read((checkpoint.latest(run_dir) or Path()) / "members" / f"world%2F{name}.safetensors").floats
            for run_dir in (folder, once)
        ]
        for name in ("a", "slow")
    }
    np.testing.assert_allclose(*models["slow"], atol=1e-6)
    assert np.abs(models["a"][0] - models["a"][1]).max() > 1e-3


def test_a_first_site_that_hangs_holds_up_neither_the_others_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads share their random numbers, so the first site trains alone; this one would do so for ever."""
    monkeypatch.setattr(chance, "SharedChance", partial(chance.SharedChance, patience_s=0.05, look_s=0.02))
    gate = tmp_path / "gate"
    gate.touch()
    members = [ward("hangs", gated=True), *(ward(name) for name in "bcd")]
    root = hub("world", *members, participation={**DEADLINE, "late": "refuse"}, rounds=3)
    ran = went(tmp_path, root, task={**TASK, "gate": str(gate)})
    assert [record.late for record in closed(ran)] == [("hangs",)] * 3
    assert gate.exists() and not trainings(ran.monitor, "world/hangs")
