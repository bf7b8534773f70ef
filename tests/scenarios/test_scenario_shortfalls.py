"""Updates that do not count whole, under strategies whose sites keep what they add to the hub's vector: the hub's and
the sites' stay in step (Karimireddy et al. 2020, Algorithm 1: c is the mean of the c_k; Acar et al. 2021 likewise).

The straggler waits many times as long as the others, so that it is late whatever the machine's pace is.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import Copied, Ran, config_of, go, hub, site
from stumbling_task import TRAININGS

from hierfl import checkpoint
from hierfl.checkpoint import Checkpoint
from hierfl.config.membership import epochs
from hierfl.learning.compression import RESIDUAL
from hierfl.learning.shortfalls import Settling
from hierfl.lifecycle import resume, run
from hierfl.monitor.records import RoundClosed, RoundCommitted
from hierfl.runtime.local import LocalDriver
from hierfl.runtime.remembered import Remembered
from tiers.messages import Shortfall

PATIENTS = {"a": 8, "b": 16, "slow": 24}
TASK = {"kind": "late_task:LateTask"}
TOP: dict[str, Any] = {
    "training": {"lr": 0.1, "batch_size": None, "local_steps": 3},
    "runtime": {"kind": "local", "devices": [{"name": "device", "count": 3}]},
    "evaluation": {"every": 0},
}
VECTORS = {"scaffold": ("control", "control"), "feddyn": ("h", "gradient")}
CARRIED = {"kind": "deadline", "after_s": 0.1, "quorum": 0.6, "weight": 0.4, "staleness": 100}
REFUSED = {**CARRIED, "late": "refuse"}
BUFFERED = {"kind": "buffered", "goal": 2, "staleness": 100}


PACE_S = {"a": 0.01, "b": 0.015, "slow": 0.12}


def ward(name: str) -> dict[str, Any]:
    return site(name, step_s=PACE_S[name], patients=PATIENTS[name])


def root(participation: Any, strategy: str, *members: Any, rounds: int = 24, **settings: Any) -> dict[str, Any]:
    wards = members or tuple(map(ward, PATIENTS))
    given = {"kind": strategy, "weights": "samples"}
    return hub("world", *wards, participation=participation, strategy=given, rounds=rounds, **settings)


def short_of(saved: Checkpoint, path: str) -> list[Shortfall]:
    """What has not counted whole of a node's updates, at its hub and above, those with several rounds left out."""
    above, _, name = path.rpartition("/")
    memory = saved.hubs[above][0] if above in saved.hubs else None
    short = list(memory.standing.shortfalls.get(name, ())) if memory else []
    if memory and any(update.shares[0].member == name for update in memory.standing.held):
        short = [Shortfall(short[0].round_number, 0, 1)]
    return [*(short_of(saved, above) if "/" in above else []), *short]


def newest(folder: Path) -> Checkpoint:
    found = checkpoint.latest(folder)
    assert found is not None
    return checkpoint.load(found)


def carried(ran: Ran) -> list[str]:
    """What is said of late updates that counted."""
    closed = [record for record in ran.monitor.of(RoundClosed) if record.node == "world"]
    return [said for record in closed for said in record.carried.values()]


def check(folder: Path, strategy: str, patients: Mapping[str, int] = PATIENTS) -> None:
    """The hub's vector is the mean of what the sites keep, in the last checkpoint."""
    saved, (of_hub, of_site) = newest(folder), VECTORS[strategy]
    mean = np.zeros(10, np.float32)
    for path, kept in saved.sites.items():
        settled = Settling(1000, short_of(saved, path)).settled(kept)
        mean += patients[path.rpartition("/")[2]] / sum(patients.values()) * settled[of_site]
    found = saved.states["world"][of_hub]
    assert np.abs(found).max() > 1e-3 and np.abs(found - mean).max() < 1e-5 * np.abs(found).max()


@pytest.mark.parametrize("strategy", VECTORS)
@pytest.mark.parametrize("participation", [CARRIED, REFUSED, BUFFERED], ids=["carried", "refused", "buffered"])
def test_the_hubs_vector_is_the_mean_of_the_sites(tmp_path: Path, participation: Any, strategy: str) -> None:
    ran = go(tmp_path, root(participation, strategy), TASK, **TOP)
    assert any("weight" in said for said in carried(ran)) == (participation is not REFUSED)  # discounted
    check(ran.folder, strategy)


@pytest.mark.parametrize("participation", [CARRIED, REFUSED], ids=["carried", "refused"])
def test_so_it_is_where_an_inner_hub_is_late(tmp_path: Path, participation: Any) -> None:
    members = hub("near", ward("a")), ward("b"), hub("far", hub("off", ward("slow")))
    ran = go(tmp_path, root(participation, "scaffold", *members), TASK, **TOP)
    closed = [record for record in ran.monitor.of(RoundClosed) if record.node == "world"]
    assert any("far" in record.missing for record in closed)
    check(ran.folder, "scaffold")


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("weights", ["samples", "uniform"])
def test_so_it_is_where_inner_hubs_ask_some(tmp_path: Path, rounds: int, weights: str) -> None:
    """What a hub hands up of c is a mean over all its sites, of which those who were not asked changed nothing."""
    some = {"participation": {"kind": "sample", "fraction": 0.5}, "rounds": rounds}
    members = hub("west", *"abcd", **some), hub("east", *"efgh", **some)
    given = hub("world", *members, strategy={"kind": "scaffold", "weights": weights}, rounds=5)
    ran = go(tmp_path, given, {"kind": "ward_tasks:Wards"})
    saved = newest(ran.folder)
    assert len(saved.sites) > 4
    mean = sum(kept["control"] for kept in saved.sites.values()) / np.float32(8)
    assert np.abs(saved.states["world"]["control"] - mean).max() < 1e-6 < np.abs(mean).max()


@pytest.mark.parametrize("strategy", VECTORS)
@pytest.mark.parametrize("change", ["joins_at", "leaves_at"])
def test_so_it_is_among_other_members(tmp_path: Path, change: str, strategy: str) -> None:
    """Corrections begin anew, here and where the change is at a resume."""
    changed = {**ward("b"), change: 4}
    left = {"a": 8, "slow": 24} if change == "leaves_at" else PATIENTS
    members = ward("a"), changed, site("slow", patients=24)
    given = root("all", strategy, *members, rounds=6)
    ran = go(tmp_path / "whole", given, TASK, **TOP)
    check(ran.folder, strategy, left)
    copied = Copied(tmp_path / "runs", lambda record: isinstance(record, RoundCommitted) and record.round_number == 3)
    top = {**TOP, "output": {"dir": str(copied.runs), "tensorboard": False, "checkpoint_every": 1}}
    run(config_of(copied.runs, given, TASK, **top), [copied])
    assert resume(copied.copy)["model_digest"] == ran.digest
    check(copied.copy, strategy, left)


def test_what_a_compression_has_left_out_goes_on_among_other_members(tmp_path: Path) -> None:
    task = {"kind": "ward_tasks:Wards"}
    members = hub("up", "a", {**site("b"), "joins_at": 3}), "c"
    strategy = {"kind": "feddyn", "weights": "uniform"}  # with which hubs decode, and compress their own change
    given = hub("world", *members, strategy=strategy, rounds=2, compression={"kind": "top_k", "fraction": 0.5})
    output = {"dir": str(tmp_path / "runs"), "tensorboard": False, "checkpoint_every": 1}
    config = config_of(tmp_path, {**given, "rounds": 4}, task, output=output)
    copied = Copied(tmp_path / "runs", lambda record: isinstance(record, RoundCommitted) and record.round_number == 2)
    run(config, [copied])
    saved = newest(copied.copy)
    with closing(LocalDriver(config.runtime)) as driver:
        remembered = Remembered.of(saved, epochs(config)[1].config, driver)
        kept = {path: set(driver.get(handle)[path]) for path, handle in remembered.sites.items()}
        assert kept == {"world/up/a": {RESIDUAL}, "world/c": {RESIDUAL}} and set(saved.sites["world/c"]) > {RESIDUAL}
        assert {path: set(driver.get(state)) for path, state in remembered.states.items()} == {"world/up": {RESIDUAL}}


@pytest.mark.parametrize(("quorum", "rounds"), [(0.5, 1), (0.5, 2), (1.0, 1)], ids=["goes on", "twice", "gives up"])
def test_so_it_is_where_a_site_fails_and_its_hub_goes_on_or_gives_up(
    tmp_path: Path, quorum: float, rounds: int
) -> None:
    """Of a round that is given up, what other sites had sent does not count either."""
    west = hub("west", ward("a"), site("b", patients=16, fails=True), quorum=quorum, rounds=rounds)
    settings = {"rounds": 4, "on_failure": "continue", "quorum": 0.3}
    ran = go(tmp_path, root("all", "scaffold", west, site("slow", patients=24), **settings), TASK, **TOP)
    missing = [record.missing for record in ran.monitor.of(RoundClosed) if record.node == "world"]
    assert all(("west" in one) == (quorum == 1.0) for one in missing) and len(missing) == 4
    check(ran.folder, "scaffold")


def stumbles(name: str, odd: int = 0) -> dict[str, Any]:
    return site(name, number=ord(name), odd=odd)


@pytest.mark.parametrize("deep", [False, True], ids=["two tiers", "three tiers"])
def test_so_it_is_where_hubs_ask_some_and_give_up_now_and_then(tmp_path: Path, deep: bool) -> None:
    """A site that is not asked for a while hears of its last update when it is, whatever its hub went through."""
    TRAININGS.clear()
    some = {"participation": {"kind": "sample", "fraction": 0.5}, "quorum": 1.0}
    west = hub("west", stumbles("a", 3), *map(stumbles, "bcd"), **some)
    near = hub("near", west, stumbles("e", 5), quorum=1.0) if deep else west
    settings = {"rounds": 12, "on_failure": "continue", "quorum": 0.3}
    strategy = {"kind": "scaffold", "weights": "uniform"}
    given = hub("world", near, stumbles("f"), strategy=strategy, **settings)
    one_step = {**TOP, "training": {**TOP["training"], "local_steps": 1}}
    ran = go(tmp_path, given, {"kind": "stumbling_task:StumblingTask"}, **one_step)
    gave_up = [record.missing for record in ran.monitor.of(RoundClosed) if near["name"] in record.missing]
    assert 2 <= len(gave_up) <= 8
    weights = {**dict.fromkeys("abcd", 1), "e": 4, "f": 8} if deep else {**dict.fromkeys("abcd", 1), "f": 4}
    check(ran.folder, "scaffold", weights)


@pytest.mark.parametrize("participation", [CARRIED, REFUSED], ids=["carried", "refused"])
def test_so_it_is_where_the_run_is_resumed(tmp_path: Path, participation: Any) -> None:
    """What fell short before the checkpoint is told afterwards."""

    def has_fallen_short(record: Any) -> bool:
        if isinstance(record, RoundCommitted) and not copied.copy.exists():
            return bool(short_of(newest(next(copied.runs.iterdir())), "world/slow"))
        return False

    copied = Copied(tmp_path / "runs", has_fallen_short, throw)
    top = {**TOP, "output": {"dir": str(copied.runs), "tensorboard": False, "checkpoint_every": 1}}
    with pytest.raises(KeyboardInterrupt):
        run(config_of(copied.runs, root(participation, "scaffold"), TASK, **top), [copied])
    resume(copied.copy)
    check(copied.copy, "scaffold")


def throw() -> None:
    raise KeyboardInterrupt
