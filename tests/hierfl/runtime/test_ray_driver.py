"""What the Ray driver makes of processes that are lost, or will never begin, without any Ray."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hierfl.runtime import ray_actors
from hierfl.runtime.driver import Done
from hierfl.runtime.ray_actors import RayDriver
from hierfl.runtime.ray_rooms import HUB
from scheduler import Device

GONE = "its machine is gone"


class Link:
    """Two devices, of which one has moved."""

    def __init__(self) -> None:
        self.groups = {name: SimpleNamespace(id=f"new group of {name}") for name in ("worker-0", "worker-1")}
        self.told = {"worker-1"}

    def moved(self) -> set[str]:
        told, self.told = self.told, set()
        return told


def waiting(groups: dict[str, str]) -> RayDriver:
    """A driver whose workers have two calls each to answer; `groups`: in which each worker was started."""
    driver = object.__new__(RayDriver)
    driver.link = Link()  # type: ignore[assignment]
    driver._places = {name: Device(name) for name in ("worker-0", "worker-1")}
    driver._groups = dict(groups)
    driver._early, driver._looked_s = [], 0.0
    driver._rooms = SimpleNamespace(stranded=set)  # type: ignore[assignment]
    driver._lives = {"worker-0": 0, "worker-1": 1, f"{HUB}0": 0}
    rows = [("worker-0", 0), ("worker-1", 0), ("worker-1", 1), ("worker-1", 1), (f"{HUB}0", 0)]
    driver._pending = {f"reply {number}": (number, slot, slot, life, ()) for number, (slot, life) in enumerate(rows)}
    return driver


def test_a_worker_that_was_started_where_its_slot_is_no_more_is_given_up() -> None:
    driver = waiting({"worker-0": "old", "worker-1": "old"})
    assert driver._hopeless() == [Done(2, "worker-1", crashed=GONE)]
    assert "reply 2" not in driver._pending and len(driver._pending) == 4
    assert driver._hopeless() == []


def test_one_that_was_started_in_its_new_slot_is_not() -> None:
    driver = waiting({"worker-0": "old", "worker-1": "new group of worker-1"})
    assert driver._hopeless() == []


def test_a_process_that_is_not_to_start_is_given_up_and_looked_for_from_time_to_time() -> None:
    driver = waiting({"worker-0": "old", "worker-1": "new group of worker-1"})
    driver._rooms = SimpleNamespace(stranded=lambda: {f"{HUB}0"})  # type: ignore[assignment]
    assert driver._hopeless() == [Done(4, f"{HUB}0", crashed=GONE)]
    driver._pending["reply 5"] = (5, f"{HUB}0", f"{HUB}0", 0, ())
    assert driver._hopeless() == []


class Processes:
    """Rooms and spares: four processes of hubs, two of them on a node that may be gone, one of which has not begun."""

    def __init__(self) -> None:
        self.nodes = {f"{HUB}0": "head", f"{HUB}1": "second", f"{HUB}2": "second", f"{HUB}3": "third"}
        self.wanted: list[str] = []
        self.left: list[str] = []
        self.want = self.wanted.append
        self.leave = self.left.append

    def node(self, room: str) -> str:
        return self.nodes[room]

    def doubt(self, room: str) -> list[str] | None:
        if room == f"{HUB}0":
            return None
        return [f"{HUB}2"] if room == f"{HUB}1" else []


@pytest.mark.parametrize(
    ("room", "silent", "unreachable", "lost"),
    [
        (1, False, False, ["world/1"]),
        (1, True, False, ["world/1", "world/2"]),
        (1, False, True, ["world/1", "world/2"]),
        (0, True, False, ["world/0"]),
    ],
)
def test_who_is_lost_with_whom(
    monkeypatch: pytest.MonkeyPatch, room: int, silent: bool, unreachable: bool, lost: list[str]
) -> None:
    driver, processes = object.__new__(RayDriver), Processes()
    driver._slots = {f"world/{number}": f"{HUB}{number}" for number in range(4)}
    driver._actors = {slot: f"actor of {slot}" for slot in driver._slots.values()}
    driver._out_of_reach = {f"{HUB}{room}"} if unreachable else set()
    driver._rooms = driver._spares = processes  # type: ignore[assignment]
    killed: list[Any] = []
    started: list[str] = []
    monkeypatch.setattr(ray_actors.ray, "kill", lambda actor, no_restart: killed.append(actor))
    monkeypatch.setattr(driver, "_start_process", started.append)
    assert driver.restart(f"world/{room}", silent=silent) == tuple(lost)
    assert started == [driver._slots[one] for one in lost] and killed == [f"actor of {slot}" for slot in started]
    assert processes.wanted == [processes.nodes[slot] for slot in started]
    assert processes.left == (["second"] if len(lost) > 1 else [])
