"""Processes that wait for the next death: where they are used, and that nobody waits for their start."""

from __future__ import annotations

from typing import Any

import pytest
from ray.exceptions import RayActorError

from hierfl.runtime import ray_spare
from hierfl.runtime.ray_spare import MOST, Spares


class Process:
    """A process, its door and its sign of life in one; `signs`: whether that has come, `died`: whether none will."""

    def __init__(self, name: str) -> None:
        self.name, self.signs, self.died = name, False, False
        self.ping = self

    def remote(self) -> Process:
        return self


class Processes:
    """Ray, as far as spares use it."""

    def __init__(self) -> None:
        self.started: list[Process] = []
        self.killed: list[str] = []

    def start(self, node: str) -> Process:
        self.started.append(Process(f"{node}{len(self.started)}"))
        return self.started[-1]

    def kill(self, actor: Process, no_restart: bool) -> None:
        assert no_restart
        self.killed.append(actor.name)

    def wait(self, signs: list[Process], num_returns: int, timeout: float, fetch_local: bool) -> Any:
        assert len(signs) == num_returns and not timeout and not fetch_local
        come = [sign for sign in signs if sign.signs or sign.died]
        return come, [sign for sign in signs if sign not in come]

    def get(self, sign: Process) -> None:
        if sign.died:
            raise RayActorError

    def up(self, *names: str) -> None:
        for process in self.started:
            process.signs |= process.name in names

    @property
    def names(self) -> list[str]:
        return [process.name for process in self.started]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    made = Processes()
    monkeypatch.setattr(ray_spare, "ray", made)
    return made


def kept(spares: Spares, *nodes: str) -> None:
    for node in nodes:
        spares.want(node)
    spares.fill(())


def take(spares: Spares, node: str) -> str:
    return str(spares.take(node).name)


def test_before_one_is_wanted_there_is_none(processes: Processes) -> None:
    spares = Spares(processes.start)
    spares.fill(())
    assert spares.soonest() == set()
    assert [take(spares, node) for node in "abb"] == ["a0", "b1", "b2"] == processes.names
    kept(spares, "b")
    assert processes.names[3:] == ["b3"], "who began the run was not missed"
    spares.close()
    assert processes.killed == ["b3"]


def test_the_next_death_on_a_node_takes_the_one_that_waits_there(processes: Processes) -> None:
    spares = Spares(processes.start)
    spares.want("a")
    assert processes.names == []
    kept(spares, "a", "a")
    kept(spares, "b")
    assert processes.names == ["a0", "b1"], "one a node"
    assert [take(spares, node) for node in "caab"] == ["c2", "a0", "a3", "b1"]
    assert spares.soonest() == set()


def test_where_one_is_up_nobody_waits_and_where_one_has_begun_not_for_long(processes: Processes) -> None:
    spares = Spares(processes.start)
    kept(spares, "a", "b", "c")
    assert spares.soonest() == {"a", "b", "c"}
    processes.up(*(name for name in processes.names if name[0] in "ab"))
    assert spares.soonest() == {"a", "b"}
    take(spares, "a")
    assert spares.soonest() == {"b"}
    take(spares, "b")
    assert spares.soonest() == {"c"}


def test_whoever_is_waited_for_starts_first(processes: Processes) -> None:
    spares = Spares(processes.start)
    spares.want("a")
    spares.want("b")
    spares.fill({"a", "c"})
    assert processes.names == ["b0"]
    spares.fill(())
    assert processes.names == ["b0", "a1"]


def test_where_deaths_come_faster_than_starts_more_are_kept(processes: Processes) -> None:
    spares = Spares(processes.start)
    kept(spares, "a")
    processes.up("a0")
    assert spares.soonest() == {"a"} and take(spares, "a") == "a0"
    kept(spares, "a")
    assert processes.names == ["a0", "a1"], "nobody waited"
    for number in range(1, 6):
        assert take(spares, "a") == f"a{number}", "the one that began first is up first"
        kept(spares, "a")
        assert len(processes.started) == number + 1 + min(number + 1, MOST)


def test_one_that_is_up_is_taken_before_one_that_began_earlier(processes: Processes) -> None:
    spares = Spares(processes.start)
    kept(spares, "a")
    assert take(spares, "a") == "a0"
    kept(spares, "a")
    processes.up("a2")
    assert spares.soonest() == {"a"}
    assert take(spares, "a") == "a2"


def test_one_that_has_died_as_it_started_is_replaced(processes: Processes) -> None:
    spares = Spares(processes.start)
    kept(spares, "a")
    processes.started[0].died = True
    assert spares.soonest() == set() and spares.wanted == {"a"}
    spares.fill(())
    assert take(spares, "a") == "a1"


def test_on_a_node_that_may_be_gone_none_is_kept_or_started(processes: Processes) -> None:
    spares = Spares(processes.start)
    kept(spares, "a")
    spares.want("b")
    spares.leave("a")
    spares.leave("b")
    spares.fill(())
    assert (processes.names, processes.killed) == (["a0"], ["a0"])
    assert take(spares, "a") == "a1"


def test_they_end_with_the_run(processes: Processes) -> None:
    spares = Spares(processes.start)
    kept(spares, "a", "b", "c")
    taken = take(spares, "b")
    spares.close()
    spares.close()
    assert sorted([*processes.killed, taken]) == sorted(processes.names) and len(processes.killed) == 2
