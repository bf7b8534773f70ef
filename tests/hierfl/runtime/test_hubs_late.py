"""Answers to a hub's earlier rounds that come after its next have begun."""

from __future__ import annotations

from typing import Any

from hierfl.runtime.driver import Done
from hierfl.runtime.hubs import Hubs, HubSaid
from hierfl.runtime.jobs import Outcome
from tiers.messages import Begin, Update


class Calls:
    """A driver that only counts calls."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def start_hub(self, spec: Any) -> None: ...

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        self.made.append(method)
        return len(self.made) - 1


class Spec:
    path = "world"
    passes_up = False


def answer(ticket: int, outcome: Outcome) -> Done:
    return Done(ticket, "world", outcome, (None, None, None))


def test_an_answer_to_earlier_rounds_is_dropped() -> None:
    driver = Calls()
    hubs = Hubs(driver)  # type: ignore[arg-type]
    hubs.make(Spec())  # type: ignore[arg-type]
    hubs.begin("world", Begin(0), None, "model", None)
    hubs.tell("world", "arrive", "update", "part")
    hubs.tell("world", "lose", "late news")
    finished = Outcome(finished=Update("", 0, ()))
    assert [said.outcome for said in hubs.handle(answer(0, Outcome())) if isinstance(said, HubSaid)] == [Outcome()]
    assert len(list(hubs.handle(answer(1, finished)))) == 1
    hubs.begin("world", Begin(1), None, "next model", None)
    assert list(hubs.handle(answer(2, Outcome()))) == []
    assert len(list(hubs.handle(answer(3, finished)))) == 1
    assert driver.made == ["begin", "arrive", "lose", "begin"]
