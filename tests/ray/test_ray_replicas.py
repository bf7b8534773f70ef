"""Replicas of aggregators on a real Ray, killed, stopped and lying: the run has the bits of an undisturbed one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ray_runs import Drivers, Watcher, run, write_config

from hierfl.monitor.records import NodeChanged, Record, ReplicaReplaced, RoundClosed, RoundCommitted, SiteTrained
from hierfl.runtime.driver import replica_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]

JUDGE_S = 2.2
"""A vector of a process that was killed may still be read for a second or two: who judges earlier is deceived."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path)


@pytest.fixture
def digest(config: Path, tmp_path: Path) -> str:
    undisturbed = str(run(config, "runtime.kind=local")["model_digest"])
    for notes in tmp_path.glob("steps-*"):
        notes.unlink()
    return undisturbed


def trained(number: int) -> Callable[[Record], bool]:
    """Hold at this report of a trained site, counted from 1."""
    seen = []

    def when(record: Record) -> bool:
        seen.extend([record] if isinstance(record, SiteTrained) else [])
        return len(seen) == number

    return when


def closed(path: str, round_number: int) -> Callable[[Record], bool]:
    return lambda record: isinstance(record, RoundClosed) and (record.node, record.round_number) == (path, round_number)


def begun(record: Record) -> bool:
    return isinstance(record, NodeChanged) and record.state == "training"


def committed(round_number: int) -> Callable[[Record], bool]:
    return lambda record: isinstance(record, RoundCommitted) and record.round_number == round_number


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
