"""What a hub is told while none of its rounds is under way, and answers that come late."""

from __future__ import annotations

from typing import Any

from hierfl.config.schema import Replication
from hierfl.runtime.driver import Done
from hierfl.runtime.hubs import Hubs, HubSaid, Kept
from hierfl.runtime.jobs import Memory, Outcome
from tiers.messages import Begin, Share, Shortfall, Update
from tiers.standing import Errand, Losses, Standing

FINISHED = Outcome(finished=Update("", 0, ()))


class Calls:
    """A driver that only notes calls."""

    def __init__(self) -> None:
        self.made: list[tuple[str, tuple[Any, ...]]] = []

    def start_hub(self, spec: Any, post: Any) -> None: ...

    def get(self, handle: Any) -> Any: ...

    def restart(self, actor: str, silent: bool = False) -> tuple[str, ...]:
        return (actor,)

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        self.made.append((method, arguments))
        return len(self.made) - 1

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.made]


class Spec:
    path = "world"
    redundancy = Replication()
    passes_up = False


def begun() -> tuple[Calls, Hubs]:
    driver = Calls()
    hubs = Hubs(driver)  # type: ignore[arg-type]
    hubs.make(Spec())  # type: ignore[arg-type]
    hubs.begin("world", Begin(0), None, "model", None)
    return driver, hubs


def answer(hubs: Hubs, ticket: int, outcome: Outcome) -> list[Outcome]:
    heard = hubs.handle(Done(ticket, "world", outcome, (None, None, None)))
    return [said.outcome for said in heard if isinstance(said, HubSaid)]


def late(round_number: int) -> Update:
    return Update("world", round_number, (Share("a", 1),))


def test_answers_to_what_was_told_before_the_next_rounds_are_heard_in_order() -> None:
    driver, hubs = begun()
    hubs.tell("world", "arrive", late(0), "part")
    hubs.tell("world", "lose", "late news")
    assert answer(hubs, 0, Outcome()) == [Outcome()]
    assert answer(hubs, 1, FINISHED) == [FINISHED] and not hubs.settled()
    hubs.begin("world", Begin(1), None, "next model", None)
    assert answer(hubs, 2, Outcome()) == [Outcome()]
    assert answer(hubs, 3, FINISHED) == [FINISHED] and hubs.settled()
    assert driver.methods == ["begin", "arrive", "lose", "begin"]


def test_a_hub_that_is_over_forgets_what_it_was_told() -> None:
    driver, hubs = begun()
    answer(hubs, 0, FINISHED)
    answer(hubs, hubs_died(hubs, driver), Outcome())
    assert driver.methods == ["begin", "lose", "lose"]


def hubs_died(hubs: Hubs, driver: Calls) -> int:
    """The process dies with the first call that was made after the hub's rounds; return that of the second try."""
    hubs.tell("world", "lose", "late news")
    list(hubs.handle(Done(len(driver.made) - 1, "world", crashed="power cut")))
    return len(driver.made) - 1


def test_a_hub_that_dies_idle_recalls_what_it_remembered_and_hears_the_rest_again() -> None:
    driver, hubs = begun()
    awaited = Memory(Standing(0, {"a": Errand(0, 1)}))
    answer(hubs, 0, Outcome(finished=Update("", 0, ()), memory=awaited))
    hubs.tell("world", "arrive", late(0), "payload")
    holding = Memory(Standing(0, held=(late(0),)))
    answer(hubs, 1, Outcome(memory=holding))
    assert hubs.kept()["world"].memory == holding and hubs.kept()["world"].payloads == ("payload",)
    ticket = hubs_died(hubs, driver)
    assert driver.made[-2:] == [("recall", (holding, "payload")), ("lose", ("late news",))]
    assert answer(hubs, ticket - 1, Outcome(memory=holding)) == []  # it was carried out before
    assert answer(hubs, ticket, Outcome()) == [Outcome()]
    assert hubs.kept() == {}


def test_what_is_kept_of_a_running_hub_is_from_before_its_rounds() -> None:
    _, hubs = begun()
    holding = Memory(Standing(0, {"a": Errand(0, 1)}))
    answer(hubs, 0, Outcome(finished=Update("", 0, ()), memory=holding))
    hubs.begin("world", Begin(1), None, "model", None)
    answer(hubs, 1, Outcome())
    assert hubs.running("world") and hubs.kept()["world"].memory == holding


def test_one_that_is_stopped_knows_only_what_did_not_count() -> None:
    driver, hubs = begun()
    errands, losses, half = {"c": Errand(0, 1)}, {"b": Losses(3, 0)}, Shortfall(0, 1, 2)
    answer(hubs, 0, Outcome(finished=Update("", 0, ()), memory=Memory(Standing(0, errands))))
    hubs.tell("world", "arrive", late(0), "payload")
    answer(hubs, 1, Outcome(memory=Memory(Standing(0, errands, losses, (late(0),), {"a": (half,), "b": (half,)}))))
    hubs.begin("world", Begin(1), None, "model", None)
    answer(hubs, 2, Outcome())
    hubs.stop("world")
    void = Shortfall(0, 0, 1)
    left = Memory(Standing(0, shortfalls={"a": (void,), "b": (half,), "c": (void,)}))
    assert driver.made[-1] == ("recall", (left,)) and hubs.kept()["world"] == Kept(left)
    answer(hubs, 3, Outcome(memory=left))
    assert not hubs.running("world") and hubs.settled()
    hubs.stop("world")
    assert hubs.kept()["world"] == Kept(left), "it may be stopped before it has begun again"
