"""Replicas of aggregators on a real Ray, killed, stopped and lying: the run has the bits of an undisturbed one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lying import LIES, tell
from ray_runs import Drivers, Watcher, alive, begun, closed, committed, run, trained, tree, write_config

from hierfl.monitor.records import Notice, Record, ReplicaReplaced, SiteTrained
from hierfl.runtime.driver import replica_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]

JUDGE_S = 2.2
"""A vector of a process that was killed may still be read for a second or two: who judges earlier is deceived."""


def replaced(watcher: Watcher) -> list[tuple[str, int, str]]:
    return [(r.node, r.replica, r.cause) for r in watcher.records if isinstance(r, ReplicaReplaced)]


def each_trained_once(watcher: Watcher) -> bool:
    trainings = [(r.node, r.round_number) for r in watcher.records if isinstance(r, SiteTrained)]
    return len(trainings) == len(set(trainings)) > 0


def killing(drivers: Drivers, hub: str, replica: int) -> Callable[[], None]:
    def strike() -> None:
        drivers.kill(replica_of(hub, replica))
        time.sleep(JUDGE_S)

    return strike


def stopping(drivers: Drivers, folder: Path, hub: str, replica: int, for_s: float) -> Callable[[], None]:
    """Stop a process, let it go on later, and let site f wait meanwhile, so that the run does not end before.

    It is stopped once it has given signs of life for a while: one that never gave any is thought to be starting.
    """

    def strike() -> None:
        pid = drivers.pid(replica_of(hub, replica))
        drivers.killed.add(pid)
        (folder / "hold-f").write_text("0")
        threading.Thread(target=stop, args=(pid, for_s), daemon=True).start()

    return strike


def stop(pid: int, for_s: float) -> None:
    """Stop a process for a time, which may just be starting."""
    with contextlib.suppress(OSError):
        while b"ray::HubProcess" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            time.sleep(0.1)
        time.sleep(3)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(for_s)
        wake(pid)


def wake(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def is_replaced(record: Record) -> bool:
    return isinstance(record, ReplicaReplaced)


@pytest.mark.slow
def test_one_of_three_that_vote_lies_and_another_is_killed(tmp_path: Path, drivers: Drivers) -> None:
    """One fault at a time: the round in which one lies is not the one in which another is killed."""
    config = write_config(tmp_path, tree(strategy={"kind": "lying:Lying", "folder": str(tmp_path)}))
    undisturbed = run(config, "runtime.kind=local")["model_digest"]
    for notes in tmp_path.glob("steps-*"):
        notes.unlink()
    tell(tmp_path, "flip")
    watcher = Watcher([(committed(1), killing(drivers, "world", 1))])
    result = run(config, "runtime.num_workers=2", "redundancy.replicas=3", "redundancy.mode=vote", watcher=watcher)
    assert result["model_digest"] == undisturbed
    assert watcher.strikes == [] and (tmp_path / "lied-flip").exists()
    assert each_trained_once(watcher)
    assert result["replaced"]["hubs"] == {"world": {"outvoted": 1, "died": 1}}
    first = next(one for one in watcher.records if isinstance(one, ReplicaReplaced))
    assert (first.cause, first.round_number) == ("outvoted", 1)


@pytest.mark.slow
@pytest.mark.parametrize("lie", LIES)
def test_one_lying_replica_of_three(tmp_path: Path, lie: str) -> None:
    config = write_config(tmp_path, tree(strategy={"kind": "lying:Lying", "folder": str(tmp_path)}))
    undisturbed = run(config, "runtime.kind=local")["model_digest"]
    tell(tmp_path, lie)
    watcher = Watcher()
    result = run(config, "runtime.num_workers=2", "redundancy.replicas=3", "redundancy.mode=vote", watcher=watcher)
    assert result["model_digest"] == undisturbed and each_trained_once(watcher)
    assert [(cause, hub) for hub, _, cause in replaced(watcher)] == [("outvoted", "world")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replica", "redundancy"),
    [(0, ("replicas=2",)), (1, ("replicas=2",)), (0, ("replicas=1",)), (2, ("replicas=3", "mode=vote"))],
    ids=str,
)
def test_a_replica_that_is_stopped_for_three_leases_and_wakes_up(
    config: Path, digest: str, drivers: Drivers, tmp_path: Path, replica: int, redundancy: tuple[str, ...]
) -> None:
    lease_s = 3.0
    watcher = Watcher(
        [
            (trained(3), stopping(drivers, tmp_path, "world", replica, 3 * lease_s)),
            (is_replaced, (tmp_path / "hold-f").unlink),
        ]
    )
    words = [f"redundancy.{word}" for word in (*redundancy, f"lease_s={lease_s}")]
    result = run(config, "runtime.num_workers=2", *words, watcher=watcher)
    assert watcher.strikes == []
    assert result["model_digest"] == digest and each_trained_once(watcher)
    assert ("world", replica + 1, "silent") in replaced(watcher)
    [pid] = drivers.killed
    wake(pid)
    deadline = time.monotonic() + 30
    while alive(pid):
        assert time.monotonic() < deadline, "who was stopped and fenced off lives for ever"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_replica_that_hangs_and_gives_signs_of_life_is_left_behind(tmp_path: Path) -> None:
    strategy = {"kind": "lying:Lying", "folder": str(tmp_path), "hang_s": 600.0}
    config = write_config(tmp_path, tree(rounds=6, strategy=strategy))
    undisturbed = run(config, "runtime.kind=local")["model_digest"]
    tell(tmp_path, "hang")
    hold = tmp_path / "hold-f"
    watcher = Watcher([(committed(1), lambda: hold.write_text("0")), (is_replaced, hold.unlink)])
    words = ("redundancy.replicas=2", "redundancy.lease_s=3")
    result = run(config, "runtime.num_workers=2", *words, watcher=watcher)
    assert result["model_digest"] == undisturbed and each_trained_once(watcher)
    assert [(hub, cause) for hub, _, cause in replaced(watcher)] == [("world", "silent")]


@pytest.mark.slow
def test_a_hundred_rounds_in_each_of_which_a_replica_is_killed(tmp_path: Path, drivers: Drivers) -> None:
    federation = {"name": "world", "rounds": 100, "members": [{"name": "a"}, {"name": "b"}]}
    config = write_config(tmp_path, federation)
    undisturbed = run(config, "runtime.kind=local")["model_digest"]
    strikes = [
        (committed(number), lambda number=number: drivers.kill(replica_of("world", number % 2)))
        for number in range(1, 100)
    ]
    watcher = Watcher(strikes)
    result = run(config, "runtime.num_workers=1", "redundancy.replicas=2", watcher=watcher)
    assert watcher.strikes == [] and len(drivers.killed) > 90
    assert result["model_digest"] == undisturbed and each_trained_once(watcher)
    assert result["replaced"]["hubs"]["world"]["died"] == len(drivers.killed)


@pytest.mark.parametrize(
    ("hub", "replica", "redundancy"),
    [
        ("world", 0, ("replicas=2",)),
        pytest.param("world", 1, ("replicas=2",), marks=pytest.mark.slow),
        pytest.param("world/us", 0, ("replicas=2",), marks=pytest.mark.slow),
        pytest.param("world/us", 1, ("replicas=2",), marks=pytest.mark.slow),
        pytest.param("world/us", 2, ("replicas=3", "mode=vote"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_replica_that_is_killed_at_many_moments(
    config: Path, digest: str, drivers: Drivers, hub: str, replica: int, redundancy: tuple[str, ...]
) -> None:
    moments = [begun, trained(3), closed("world/us", 3), committed(2), closed("world/us", 5)]
    watcher = Watcher([(moment, killing(drivers, hub, replica)) for moment in moments])
    words = [f"redundancy.{word}" for word in redundancy]
    result = run(config, "runtime.num_workers=2", *words, watcher=watcher)
    assert watcher.strikes == []
    assert result["model_digest"] == digest
    assert each_trained_once(watcher)
    said = replaced(watcher)
    assert set(said) == {(hub, replica + 1, "died")} and len(said) == len(drivers.killed) >= 3
    assert result["replaced"]["hubs"] == {hub: {"died": len(said)}}


@pytest.mark.slow
def test_one_that_dies_for_the_sixth_time_sits_out_and_is_back_in_the_next_round(tmp_path: Path) -> None:
    where = {"kind": "kill", "node": "world", "step": "open", "replica": 2}
    faults = [{**where, "round": 2, "times": 6}, {**where, "round": 3}]
    path = write_config(tmp_path, tree(rounds=3), redundancy={"replicas": 2}, faults=faults)
    held = tmp_path / "hold-f"

    def sits_out(record: Record) -> bool:
        return isinstance(record, Notice) and "sits out the rest of the round" in record.message

    watcher = Watcher([(committed(1), lambda: held.write_text("0")), (sits_out, held.unlink)])
    on_ray = run(path, "runtime.kind=ray", "runtime.num_workers=2", watcher=watcher)
    assert on_ray["model_digest"] == run(path, "runtime.kind=local", "faults=[]")["model_digest"]
    own = [one for one in replaced(watcher) if one == ("world", 2, "died")]
    assert 6 <= len(own) <= 7 and each_trained_once(watcher), "it may still be starting as its last round ends"
    assert [notice.node for notice in watcher.notices("warning") if sits_out(notice)] == ["world"]
