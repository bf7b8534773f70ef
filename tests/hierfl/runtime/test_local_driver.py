"""What the local driver gives of calls that have ended, in which order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hierfl.config import from_mapping
from hierfl.runtime.local import LocalDriver
from hierfl.runtime.specs import worker_spec


class Hub:
    """A hub that says how often it was called."""

    def __init__(self) -> None:
        self.num_calls = 0

    def tell(self) -> int:
        self.num_calls += 1
        return self.num_calls


@pytest.fixture
def driver() -> Iterator[LocalDriver]:
    members = [{"name": "a"}, {"name": "b"}]
    federation = {"name": "world", "rounds": 1, "members": members}
    config = from_mapping({"name": "small", "task": {"kind": "synthetic"}, "federation": federation})
    driver = LocalDriver(config.runtime)
    driver.start(worker_spec(config), 1)
    driver._hubs["world"] = Hub()
    yield driver
    driver.close()


def values(driver: LocalDriver) -> list[Any]:
    return [done.value for done in driver.wait(10.0)]


def test_what_ended_at_once_is_there_without_a_wait(driver: LocalDriver) -> None:
    tickets = [driver.call("world", "tell") for _ in range(3)]
    assert [(done.ticket, done.value) for done in driver.wait(0.0)] == list(zip(tickets, (1, 2, 3), strict=True))
    assert list(driver.wait(0.0)) == []


def test_what_a_hub_is_told_while_others_are_heard_is_heard_with_them(driver: LocalDriver) -> None:
    """So a chain of a hub's steps needs no turn of the supervisor's for each."""
    driver.call("world", "tell")
    heard = []
    for done in driver.wait(10.0):
        heard.append(done.value)
        if len(heard) < 4:
            driver.call("world", "tell")
    assert heard == [1, 2, 3, 4]


def test_what_was_not_gone_through_is_given_by_the_next_wait(driver: LocalDriver) -> None:
    for _ in range(3):
        driver.call("world", "tell")
    assert next(iter(driver.wait(10.0))).value == 1
    assert values(driver) == [2, 3]


def test_a_worker_that_ends_meanwhile_waits_for_the_next(driver: LocalDriver) -> None:
    """Devices are fed between two waits: no flood of answers may keep one idle."""
    begun, goes_on = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        assert goes_on.wait(60)
        return "worked"

    name = next(iter(driver._workers))
    driver._workers[name].work = work  # type: ignore[attr-defined]
    ticket = driver.call(name, "work")
    driver.call("world", "tell")
    assert begun.wait(60)
    heard = []
    for done in driver.wait(10.0):
        heard.append(done.value)
        goes_on.set()
        driver._threads[name].submit(lambda: None).result(60)  # behind it: it has ended
    assert heard == [1]
    assert [(done.ticket, done.value) for done in driver.wait(10.0)] == [(ticket, "worked")]
