"""Whole runs of hubs whose members exchange without a centre: the bits of a star, and what each member is handed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from least_squares import EAST, NORTH, SIZES, SOUTH, START, WEST, close, local, mean, trained
from small_runs import Copied, Listener, Ran, config_of, events, go, hub, site

from hierfl.errors import HierflError
from hierfl.learning.ring import PartialSum
from hierfl.lifecycle import resume, run
from hierfl.monitor.records import Exchanged, Notice, Record, RoundClosed, SiteTrained
from hierfl.monitor.report import write_report
from hierfl.monitor.run_record import read_run
from hierfl.runtime.local import LocalDriver
from hierfl.runtime.places import PLACE
from hierfl.tree import not_kept

KINDS = ("swarm", "allreduce")
GOES_ON = {"on_failure": "continue", "quorum": 0.3}


def deep(folder: Path, root: Any = "star", inner: Any = "star", *, rounds: int = 1, **settings: Any) -> Ran:
    """Three tiers, batch norm, dropout and mini-batches; the root's members are two hubs and two sites."""
    own = {key: settings.pop(key) for key in ("strategy",) if key in settings}
    members = hub("in", "a", "b", "c", rounds=rounds, topology=inner), hub("on", "x", "y"), "e", "f"
    return go(folder, hub("world", *members, rounds=3, topology=root, **own), "ward_tasks:Deep", **settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "scaffold", "fednova", "feddyn", "fedbn"])
def test_the_model_has_the_bits_of_a_stars(kind: str, strategy: str, tmp_path: Path) -> None:
    rounds = 1 if strategy == "fednova" else 2
    star = deep(tmp_path / "star", strategy=strategy, rounds=rounds).digest
    assert deep(tmp_path / "root", kind, strategy=strategy, rounds=rounds).digest == star
    assert deep(tmp_path / "both", kind, kind, strategy=strategy, rounds=rounds).digest == star


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [32, 64])
def test_a_hub_below_passes_up_the_raw_sum_of_a_star(kind: str, width: int, tmp_path: Path) -> None:
    arithmetic = {"width": width}
    star = deep(tmp_path / "star", arithmetic=arithmetic).digest
    assert deep(tmp_path / kind, "star", kind, arithmetic=arithmetic).digest == star
    assert deep(tmp_path / "both", kind, kind, arithmetic=arithmetic).digest == star


@pytest.mark.parametrize("strategy", [{"kind": "median"}, {"kind": "krum", "num_byzantine": 0}])
def test_the_leader_of_a_swarm_looks_at_whole_updates_as_a_hub_does(strategy: Any, tmp_path: Path) -> None:
    star = deep(tmp_path / "star", strategy=strategy).digest
    assert deep(tmp_path / "swarm", "swarm", strategy=strategy).digest == star


@pytest.mark.parametrize("kind", KINDS)
def test_against_a_loop_by_hand(kind: str, tmp_path: Path) -> None:
    w = START
    for _ in range(3):
        w = mean({name: local(w, name, steps=2) for name in SIZES}, SIZES)
    root = hub("world", NORTH, SOUTH, EAST, WEST, rounds=3, topology=kind)
    assert close(trained(tmp_path, root, steps=2), w)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_do_not_depend_on_the_workers_and_a_resumed_run_has_them(kind: str, tmp_path: Path) -> None:
    whole = deep(tmp_path / "whole", kind, kind, strategy="fedadam")
    runtime = {"kind": "local", "num_workers": 3}
    assert deep(tmp_path / "three", kind, kind, strategy="fedadam", runtime=runtime).digest == whole.digest
    with pytest.raises(KeyboardInterrupt):
        deep(tmp_path / "cut", kind, kind, strategy="fedadam", until=(Exchanged, 3))
    [folder] = (tmp_path / "cut").iterdir()
    assert resume(folder, [])["model_digest"] == whole.digest


@pytest.mark.parametrize(("kind", "every"), [("swarm", 1), ("allreduce", 2), ("peer", 1), ("peer", 2)])
def test_a_run_that_is_killed_goes_on_from_its_newest_checkpoint_and_says_that_it_would(
    kind: str, every: int, tmp_path: Path
) -> None:
    def exchanges(record: Record) -> bool:
        return isinstance(record, Exchanged) and record.node == "world" and record.round_number == 4

    monitor, again = Copied(tmp_path / "runs", exchanges), Listener()
    members = hub("in", "a", "b", topology="swarm"), "e", "f"
    root = hub("world", *members, rounds=4, topology=kind)
    config = config_of(tmp_path / "runs", root, "ward_tasks:Deep", [f"output.checkpoint_every={every}"])
    digest = run(config, [monitor])["model_digest"]
    [said] = not_kept(config).values()
    assert "since the members of world, world/in exchange among themselves" in said
    assert (f"(one after {'each round' if every == 1 else 'every 2 rounds'})") in said
    assert said in [notice.message for notice in monitor.of(Notice)]
    assert not (monitor.copy / "journal").exists()
    assert resume(monitor.copy, [], [again])["model_digest"] == digest
    assert {record.round_number for record in again.of(SiteTrained)} == ({4} if every == 1 else {3, 4})


def test_where_every_hub_has_a_centre_or_no_journal_is_wanted_nothing_is_said(tmp_path: Path) -> None:
    def said(topology: str, **top: Any) -> dict[str, str]:
        return not_kept(config_of(tmp_path, hub("world", "a", hub("in", "b", "c", topology=topology)), **top))

    assert said("star") == said("cyclic") == said("swarm", redundancy={"journal": "none"}) == {}
    assert said("swarm").keys() == {"world"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", ["north", "west"])
def test_who_is_lost_takes_no_part_in_the_exchange(kind: str, bad: str, tmp_path: Path) -> None:
    w = START
    for _ in range(2):
        w = mean({name: local(w, name) for name in SIZES if name != bad}, SIZES)
    members = [
        site(name, n=SIZES[name], shift=float("nan")) if name == bad else good
        for name, good in zip(SIZES, (NORTH, SOUTH, EAST, WEST), strict=True)
    ]
    assert close(trained(tmp_path, hub("world", *members, topology=kind, **GOES_ON)), w)


def test_a_failing_member_ends_the_run_by_name_unless_it_may_go_on(tmp_path: Path) -> None:
    with pytest.raises(HierflError, match="world/south"):
        go(tmp_path, hub("world", "north", site("south", fault="raise"), topology="swarm"))


def test_the_run_and_its_report_tell_who_mixed(tmp_path: Path) -> None:
    ran = go(tmp_path, hub("world", "a", "b", hub("in", "c", "d", topology="allreduce"), rounds=3, topology="swarm"))
    found = [record for record in ran.monitor.of(Exchanged) if record.node == "world"]
    assert [list(record.mixed) for record in found] == [["a"], ["b"], ["in"]]
    assert all(tuple(*record.mixed.values()) == ("a", "b", "in") for record in found)
    [closed, *_] = [record for record in ran.monitor.of(RoundClosed) if record.node == "world"]
    assert found[0].bytes_between == closed.bytes_up * 2 // 3, "the leader's own update stays where it is"
    assert [event["mixed"] for event in events(ran.folder) if event["event"] == "exchanged"][-1] == {
        "in": ["a", "b", "in"]
    }
    assert read_run(ran.folder).mixed == {
        "world": {"in": ["a", "b", "in"]},
        "world/in": {name: ["c", "d"] for name in "cd"},
    }
    write_report(ran.folder)
    assert (ran.folder / "trajectory.png").exists()


Handed = list[tuple[str, str, tuple[Any, ...]]]


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> Handed:
    """What every hub and every member's place is handed: actor, method, arguments."""
    found: Handed = []
    call = LocalDriver.call

    def watched(self: LocalDriver, actor: str, method: str, *arguments: Any) -> int:
        found.append((actor, method, arguments))
        return call(self, actor, method, *arguments)

    monkeypatch.setattr(LocalDriver, "call", watched)
    return found


def sizes(arguments: tuple[Any, ...]) -> list[int]:
    """The parameters of each sum among a call's arguments."""
    return [part.floats.size for part in arguments if isinstance(part, PartialSum)]


def test_in_an_allreduce_no_place_is_handed_anothers_whole_update(handed: Handed, tmp_path: Path) -> None:
    deep(tmp_path, "allreduce", rounds=2)
    whole = deep(tmp_path / "again").summary["num_parameters"]
    calls = [(actor.removeprefix(PLACE), method, sizes(arguments)) for actor, method, arguments in handed]
    calls = [call for call in calls if call[0] in {"world/in", "world/on", "world/e", "world/f"}]
    cuts = [(actor, parts) for actor, method, parts in calls if method == "cut"]
    assert len(cuts) == 12 and all(parts == [whole] for _, parts in cuts), "each cuts one: its own"
    slices = [parts for _, method, parts in calls if method == "add"]
    assert len(slices) == 12 and all(len(parts) == 4 and len(set(parts)) == 1 for parts in slices)
    assert sum(parts[0] for parts in slices[:4]) == whole and max(max(parts) for parts in slices) < whole / 3
    own = {"cut", "add", "gather"}
    assert not any(parts for actor, method, parts in calls if method not in own and actor in {"world/e", "world/f"})


@pytest.mark.parametrize("kind", [*KINDS, "peer"])
def test_without_a_centre_at_the_root_the_supervisor_fetches_no_vector(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in its rounds nor for checkpoints and the final model; a star's supervisor fetches all of these."""
    fetched: list[Any] = []

    def get(self: LocalDriver, handle: Any) -> Any:
        fetched.append(handle)
        return handle

    monkeypatch.setattr(LocalDriver, "get", get)
    strategy = "fedavg" if kind == "peer" else "fedadam"
    ran = deep(tmp_path / kind, kind, "star", rounds=2, strategy=strategy)
    assert fetched == [] and len(list((ran.folder / "checkpoints").iterdir())) == 2
    assert ran.digest == deep(tmp_path / "star", "star", "star", rounds=2, strategy=strategy).digest
    assert len(fetched) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_what_serves_a_hub_without_a_centre_is_handed_headers_alone(kind: str, handed: Handed, tmp_path: Path) -> None:
    deep(tmp_path, kind, rounds=2, strategy="scaffold")
    arguments = [one for actor, _, given in handed if actor == "world" for one in given]
    assert len(arguments) > 10 and not any(hasattr(one, "floats") or isinstance(one, np.ndarray) for one in arguments)


def test_the_best_model_is_not_kept_where_no_model_comes_to_the_root(tmp_path: Path) -> None:
    run = deep(tmp_path, "allreduce", stopping={"metric": "loss", "patience": 9})
    assert "best" not in run.summary and not list(run.folder.glob("best*"))
