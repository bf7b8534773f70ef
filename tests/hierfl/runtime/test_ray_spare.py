"""The process that waits for the next death: where it is used, and that there is never more than one."""

from __future__ import annotations

from typing import Any

import pytest

from hierfl.runtime import ray_spare
from hierfl.runtime.ray_spare import Spare


class Processes:
    """Ray, as far as a spare uses it."""

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
    spare = Spare(processes.start)
    assert [spare.take("a"), spare.take("b")] == ["a0", "b1"] == processes.started
    spare.close()
    assert processes.killed == []


def test_the_next_death_on_its_node_takes_it_and_another_one_does_not(processes: Processes) -> None:
    spare = Spare(processes.start)
    spare.renew("a")
    spare.renew("a")
    assert processes.started == ["a0"]
    assert [spare.take("b"), spare.take("a"), spare.take("a")] == ["b1", "a0", "a2"]


def test_it_follows_the_deaths_and_ends_with_the_run(processes: Processes) -> None:
    spare = Spare(processes.start)
    spare.renew("a")
    spare.renew("b")
    assert (processes.started, processes.killed) == (["a0", "b1"], ["a0"])
    spare.close()
    spare.close()
    assert processes.killed == ["a0", "b1"]
