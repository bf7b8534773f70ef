"""A replica that dies again and again sits out: what is done about its process until it is one like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from hierfl.config.schema import Replication
from hierfl.errors import RuntimeUnavailable
from hierfl.runtime.driver import Done, replica_of
from hierfl.runtime.hubs import HubLost, Hubs, HubSaid, HubUp
from hierfl.runtime.jobs import Outcome
from tiers.messages import Begin, Update

SECOND = replica_of("world", 1)
FINISHED = Outcome(finished=Update("", 0, ()))


class Processes:
    """A driver of two processes, each with a replica, that notes what it is asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.restarted: list[str] = []
        self.silent: list[str] = []
        self.pings: dict[str, int] = {}
        self.seen = 0

    def start_hub(self, spec: Any, post: Any) -> None:
        self.calls.append((replica_of(spec.path, post.replica), "start"))

    def processes(self) -> Mapping[str, Sequence[str]]:
        return {"/hub-0": ("world",), "/hub-0.1": (SECOND,)}

    def machine(self, actor: str) -> str:
        return f"machine of {actor}"

    def restart(self, actor: str, silent: bool = False) -> tuple[str, ...]:
        self.restarted.append(actor)
        self.silent += [actor] if silent else []
        return ("world",) if actor in ("world", "/hub-0") else (SECOND,)

    def get(self, handle: Any) -> Any:
        return handle

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        self.calls.append((actor, method))
        return len(self.calls)

    def ping(self, process: str) -> int:
        self.calls.append((process, "ping"))
        self.pings[process] = len(self.calls)
        return len(self.calls)

    def ticket(self, actor: str) -> int:
        """That of the newest call of an actor."""
        return max(at + 1 for at, (who, method) in enumerate(self.calls) if who == actor and method != "start")


class Spec:
    path = "world"
    redundancy = Replication(2)
    passes_up = False


def begun() -> tuple[Processes, Hubs]:
    driver = Processes()
    hubs = Hubs(driver)  # type: ignore[arg-type]
    hubs.make(Spec())  # type: ignore[arg-type]
    hubs.begin("world", Begin(0), None, "model", None)
    return driver, hubs


@pytest.fixture
def worn() -> tuple[Processes, Hubs]:
    """The second replica has died six times."""
    driver, hubs = begun()
    for number in range(6):
        [lost] = hubs.handle(Done(driver.ticket(SECOND), SECOND, crashed="power cut"))
        assert isinstance(lost, HubLost) and lost.sits_out == (number == 5)
    driver.restarted.clear()
    driver.seen = len(driver.calls)
    return driver, hubs


def test_it_is_told_nothing_and_nobody_waits_for_it(worn: tuple[Processes, Hubs]) -> None:
    driver, hubs = worn
    hubs.tell("world", "lose", "news")
    assert driver.calls[driver.seen :] == [("world", "lose")]
    assert list(hubs.tick(0.0)) == list(hubs.tick(100.0)) == []


def test_its_process_may_end_and_is_left_as_it_is(worn: tuple[Processes, Hubs]) -> None:
    driver, hubs = worn
    assert list(hubs.tick(0.0)) == []
    assert list(hubs.handle(Done(driver.pings["/hub-0.1"], "/hub-0.1", crashed="no memory"))) == []
    assert driver.restarted == []
    [lost] = hubs.handle(Done(driver.pings["/hub-0"], "/hub-0", crashed="no memory"))
    assert isinstance(lost, HubLost) and (lost.replica, driver.restarted) == (0, ["/hub-0"])


def test_in_the_next_rounds_it_is_told_everything_again_and_may_die_again(worn: tuple[Processes, Hubs]) -> None:
    driver, hubs = worn
    hubs.tell("world", "lose", "news")
    told = [at + 1 for at, (actor, method) in enumerate(driver.calls) if actor == "world" and method != "start"]
    for ticket, said in zip(told, (Outcome(), FINISHED), strict=True):
        assert [type(one) for one in hubs.handle(Done(ticket, "world", said, (None, None, None)))] == [HubSaid]
    hubs.begin("world", Begin(1), None, "model", None)
    assert driver.calls[driver.seen + 1 :] == [(SECOND, "start"), ("world", "begin"), (SECOND, "begin")]
    for number in range(6):
        [lost] = hubs.handle(Done(driver.ticket(SECOND), SECOND, crashed="power cut"))
        assert lost.sits_out == (number == 5)
    for _ in range(5):
        list(hubs.handle(Done(driver.ticket("world"), "world", crashed="power cut")))
    with pytest.raises(RuntimeUnavailable, match="the aggregator of world died 6 times in one round: power cut"):
        list(hubs.handle(Done(driver.ticket("world"), "world", crashed="power cut")))


def test_where_a_replica_is_is_said_with_its_process_s_first_sign_of_life() -> None:
    driver, hubs = begun()
    assert list(hubs.tick(0.0)) == []
    where = f"machine of {SECOND}"
    assert list(hubs.handle(Done(driver.pings["/hub-0.1"], "/hub-0.1"))) == [HubUp("world", 1, 2, where, again=False)]
    assert list(hubs.tick(10.0)) == list(hubs.handle(Done(driver.pings["/hub-0.1"], "/hub-0.1"))) == []
    list(hubs.handle(Done(driver.ticket(SECOND), SECOND, crashed="power cut")))
    assert list(hubs.tick(20.0)) == []
    assert list(hubs.handle(Done(driver.pings["/hub-0.1"], "/hub-0.1"))) == [HubUp("world", 1, 2, where, again=True)]


def test_the_driver_hears_whether_a_process_was_silent_or_has_died() -> None:
    driver, hubs = begun()
    assert list(hubs.tick(0.0)) == []
    for process in ("/hub-0", "/hub-0.1"):
        list(hubs.handle(Done(driver.pings[process], process)))
    list(hubs.handle(Done(driver.ticket(SECOND), SECOND, crashed="power cut")))
    assert driver.silent == []
    clock_s = 0.0
    while not driver.silent:
        clock_s += Spec.redundancy.lease_s / 8
        list(hubs.tick(clock_s))
        assert clock_s < 10 * Spec.redundancy.lease_s
    assert driver.silent == ["/hub-0"], "who was replaced has not been heard yet"
