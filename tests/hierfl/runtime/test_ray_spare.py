"""Processes that wait for the next death: where they are used, and that nobody waits for their start."""

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


def test_before_one_is_wanted_there_is_none(processes: Processes) -> None:
    spares = Spares(processes.start)
    spares.fill(())
    assert [spares.take("a"), spares.take("b")] == ["a0", "b1"] == processes.started
    spares.close()
    assert processes.killed == []


def test_the_next_death_on_a_node_takes_the_one_that_waits_there(processes: Processes) -> None:
    spares = Spares(processes.start)
    spares.want("a")
    assert processes.started == []
    for _ in range(2):
        spares.want("a")
        spares.fill(())
    spares.want("b")
    spares.fill(())
    assert processes.started == ["a0", "b1"], "one a node"
    assert [spares.take(node) for node in "caab"] == ["c2", "a0", "a3", "b1"]


def test_whoever_is_waited_for_starts_first(processes: Processes) -> None:
    spares = Spares(processes.start)
    spares.want("a")
    spares.want("b")
    spares.fill({"a", "c"})
    assert processes.started == ["b0"]
    spares.fill(())
    assert processes.started == ["b0", "a1"]


def test_on_a_node_that_may_be_gone_none_is_kept_or_started(processes: Processes) -> None:
    spares = Spares(processes.start)
    spares.want("a")
    spares.fill(())
    spares.want("b")
    spares.leave("a")
    spares.leave("b")
    spares.fill(())
    assert (processes.started, processes.killed) == (["a0"], ["a0"])
    assert spares.take("a") == "a1"


def test_they_end_with_the_run(processes: Processes) -> None:
    spares = Spares(processes.start)
    for node in "abc":
        spares.want(node)
        spares.fill(())
    assert spares.take("b") == "b1"
    spares.close()
    spares.close()
    assert sorted(processes.killed) == ["a0", "c2"]
