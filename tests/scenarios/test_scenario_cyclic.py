"""Whole runs in which the model travels from member to member, against loops that a reader can follow."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from least_squares import EAST, NORTH, SIZES, SOUTH, START, WEST, Weights, close, local, mean, trained
from small_runs import Ran, go, hub, site

from hierfl.errors import HierflError
from hierfl.lifecycle import resume
from hierfl.monitor.records import Assigned, RoundClosed, SiteTrained
from tiers import Partners
from tiers.topologies.cyclic import Cyclic

CYCLIC = {"kind": "cyclic"}
GOES_ON = {"on_failure": "continue", "quorum": 0.3}


def passed_on(w: Weights, names: Iterable[str], **training: Any) -> Weights:
    """Cyclic weight transfer: each one goes on from what the one before it left."""
    for name in names:
        w = local(w, name, **training)
    return w


@pytest.mark.parametrize("width", [32, 64])
def test_each_member_trains_from_what_the_one_before_it_left(width: int, tmp_path: Path) -> None:
    w = START
    for _ in range(3):
        w = passed_on(w, SIZES, steps=2)
    root = hub("world", NORTH, SOUTH, EAST, WEST, rounds=3, topology=CYCLIC)
    assert close(trained(tmp_path, root, steps=2, arithmetic={"width": width}), w)


def test_by_size_the_model_ends_at_the_largest(tmp_path: Path) -> None:
    w = passed_on(START, sorted(SIZES, key=SIZES.__getitem__))
    root = hub("world", SOUTH, NORTH, EAST, WEST, rounds=1, topology={**CYCLIC, "order": "by_size"})
    assert close(trained(tmp_path, root), w)


def test_a_shuffled_cycle_has_another_order_in_each_round(tmp_path: Path) -> None:
    cycle, w, seen = Cyclic("shuffled"), START, set()
    for number in range(4):
        order = cycle.plan(Partners("world", number, 5, SIZES)).trained
        seen.add(order)
        w = passed_on(w, order)
    assert len(seen) > 1
    root = hub("world", NORTH, SOUTH, EAST, WEST, rounds=4, topology={**CYCLIC, "order": "shuffled"})
    assert close(trained(tmp_path, root, seed=5), w)


@pytest.mark.parametrize("rounds", [1, 2])
def test_hubs_take_turns_like_sites_and_cycles_stand_below_stars(rounds: int, tmp_path: Path) -> None:
    """The root's model goes to `up`, a star, then to `down`, a cycle; a star above both averages."""
    w = START
    for _ in range(2):
        w = mean({name: local(w, name) for name in ("north", "south")}, SIZES)
        w = passed_on(w, ("east", "west") * rounds)
    up, down = hub("up", NORTH, SOUTH), hub("down", EAST, WEST, rounds=rounds, topology=CYCLIC)
    assert close(trained(tmp_path / "cycle", hub("world", up, down, topology=CYCLIC)), w)
    w = START
    for _ in range(2):
        models = {
            "up": mean({name: local(w, name) for name in ("north", "south")}, SIZES),
            "down": passed_on(w, ("east", "west") * rounds),
        }
        w = mean(models, {"up": 16, "down": 12})
    assert close(trained(tmp_path / "star", hub("world", up, down)), w)


def test_the_proximal_term_holds_each_member_near_what_it_was_given(tmp_path: Path) -> None:
    w = START
    for _ in range(2):
        w = passed_on(w, SIZES, steps=5, mu=0.7)
    fedprox = {"kind": "fedprox", "mu": 0.7}
    root = hub("world", NORTH, SOUTH, EAST, WEST, topology=CYCLIC, strategy=fedprox)
    assert close(trained(tmp_path, root, steps=5), w)


@pytest.mark.parametrize("bad", ["north", "south", "west"])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_model_goes_on_from_the_last_one_where_a_member_fails(bad: str, num_workers: int, tmp_path: Path) -> None:
    w = START
    for _ in range(2):
        w = passed_on(w, [name for name in SIZES if name != bad])
    members = [
        site(name, n=SIZES[name], shift=float("nan")) if name == bad else good
        for name, good in zip(SIZES, (NORTH, SOUTH, EAST, WEST), strict=True)
    ]
    runtime = {"kind": "local", "num_workers": num_workers}
    assert close(trained(tmp_path, hub("world", *members, topology=CYCLIC, **GOES_ON), runtime=runtime), w)


def test_a_failing_member_is_named_and_ends_the_run_unless_it_may_go_on(tmp_path: Path) -> None:
    members = "north", site("south", fault="raise"), "east"
    ran = go(tmp_path / "on", hub("world", *members, topology=CYCLIC, **GOES_ON))
    closed = [record for record in ran.monitor.of(RoundClosed) if record.node == "world"]
    assert [record.members for record in closed] == [("north", "east")] * 2
    assert all("a ward's own mistake" in record.missing["south"] for record in closed)
    with pytest.raises(HierflError, match="world/south"):
        go(tmp_path / "stop", hub("world", *members, topology=CYCLIC))


def deep(folder: Path, order: str = "shuffled", **settings: Any) -> Ran:
    """Cycles in cycles, with batch norm, dropout and mini-batches."""
    inner = hub("in", "a", "b", hub("star", "c", "d"), rounds=2, topology={**CYCLIC, "order": order})
    root = hub("world", inner, "e", "f", rounds=3, topology={**CYCLIC, "order": order})
    return go(folder, root, "ward_tasks:Deep", **settings)


def test_the_bits_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    one, three = (deep(tmp_path / str(n), runtime={"kind": "local", "num_workers": n}) for n in (1, 3))
    assert one.digest == three.digest
    assert one.digest != deep(tmp_path / "fixed", order="fixed").digest


def test_a_resumed_run_has_the_bits_of_the_whole_one(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        deep(tmp_path / "cut", until=(RoundClosed, 4))
    [folder] = (tmp_path / "cut").iterdir()
    assert resume(folder, [])["model_digest"] == deep(tmp_path / "whole").digest


def test_no_two_members_of_a_cycle_train_at_the_same_time(tmp_path: Path) -> None:
    ran = deep(tmp_path, runtime={"kind": "local", "num_workers": 3})
    for path in ("world/in", "world"):
        turns: dict[int, list[Any]] = {}
        for record in ran.monitor.of(SiteTrained):
            if record.node.rpartition("/")[0] == path:
                turns.setdefault(record.round_number, []).append(record)
        assert turns
        for records in turns.values():
            for one, two in pairwise(records):
                assert two.start_s >= one.start_s + one.duration_s


def test_work_knows_whose_turn_comes_after_it(tmp_path: Path) -> None:
    """Three sites that take alike: on the first of a round hangs what all three take, on the last its own."""
    root = hub("world", "a", "b", "c", rounds=3, topology=CYCLIC)
    task = {"kind": "synthetic", "num_samples_min": 8, "step_s": 0.02}
    ran = go(tmp_path, root, task, training={"lr": 0.1, "batch_size": 4, "local_steps": 2})
    reasons = [
        record.reason for record in ran.monitor.of(Assigned) if record.kind == "train" and record.round_number == 3
    ]
    first_s, *_, last_s = (float(reason.partition("(")[2].split()[0]) for reason in reasons)
    assert len(reasons) == 3 and first_s > 2 * last_s


def test_a_cycle_of_one_is_a_star_of_one(tmp_path: Path) -> None:
    cycle = trained(tmp_path / "cycle", hub("world", NORTH, topology=CYCLIC))
    assert np.array_equal(cycle, trained(tmp_path / "star", hub("world", NORTH)))
