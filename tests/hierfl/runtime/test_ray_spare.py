"""Processes that wait for the next death: where they are used, and that there is never more than one a node."""

from __future__ import annotations

from typing import Any

import pytest

from hierfl.runtime import ray_spare
from hierfl.runtime.ray_spare import Spares


class Processes:
    """Ray, as far as spares use it."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.killed: list[str] = []

    def start(self, node: str) -> str:
        self.started.append(f"{node}{len(self.started)}")
        return self.started[-1]

    def kill(self, actor: Any, no_restart: bool) -> None:
        assert no_restart
        self.killed.append(actor)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    made = Processes()
    monkeypatch.setattr(ray_spare, "ray", made)
    return made


def test_before_a_death_there_is_none(processes: Processes) -> None:
    spares = Spares(processes.start)
    assert [spares.take("a"), spares.take("b")] == ["a0", "b1"] == processes.started
    spares.close()
    assert processes.killed == []


def test_the_next_death_on_a_node_takes_the_one_that_waits_there(processes: Processes) -> None:
    spares = Spares(processes.start)
    for node in "aab":
        spares.renew(node)
    assert processes.started == ["a0", "b1"]
    assert [spares.take(node) for node in "caab"] == ["c2", "a0", "a3", "b1"]


def test_they_end_with_the_run(processes: Processes) -> None:
    spares = Spares(processes.start)
    for node in "abc":
        spares.renew(node)
    assert spares.take("b") == "b1"
    spares.close()
    spares.close()
    assert sorted(processes.killed) == ["a0", "c2"]
