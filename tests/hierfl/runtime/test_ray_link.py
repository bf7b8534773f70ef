"""A run's way to the scheduler that is shared: who is lost and comes back, while the run waits for nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnschedulableError, RayError

from hierfl.errors import RuntimeUnavailable
from hierfl.runtime import ray_link
from hierfl.runtime.ray_link import RayLink
from hierfl.runtime.ray_service import Moved
from scheduler import Granted

CPU = {"CPU": 1.0}


@dataclass(eq=False)
class Answer:
    """A reference; `value`: what is there, an exception to be raised, or nothing yet."""

    method: str
    arguments: tuple[Any, ...]
    value: Any = None


@dataclass
class Group:
    id: str


@dataclass
class Shared:
    """Ray and the service, as far as a link uses them: what was asked, and what has been answered."""

    asked: list[Answer] = field(default_factory=list)
    clock_s: float = 0.0
    at_once: bool = True

    def __getattr__(self, method: str) -> Shared._Method:
        if method.startswith("_"):
            raise AttributeError(method)
        return Shared._Method(self, method)

    @dataclass
    class _Method:
        shared: Shared
        method: str

        def remote(self, *arguments: Any, **more: Any) -> Answer:
            usual = {"register": True, "reserve": {"worker-0": Group("first")}}
            value = usual.get(self.method) if self.shared.at_once else None
            self.shared.asked.append(Answer(self.method, arguments, value))
            return self.shared.asked[-1]

    def last(self, method: str) -> Answer:
        return next(one for one in reversed(self.asked) if one.method == method)

    def count(self, method: str) -> int:
        return sum(one.method == method for one in self.asked)


class FakeRay:
    def __init__(self, shared: Shared) -> None:
        self.shared = shared

    def get(self, answer: Answer, timeout: float | None = None) -> Any:
        assert answer.value is not None, "the run waits"
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value

    def wait(self, answers: Sequence[Answer], timeout: float) -> tuple[list[Answer], list[Answer]]:
        return [one for one in answers if one.value is not None], [one for one in answers if one.value is None]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Shared:
    made = Shared()
    monkeypatch.setattr(ray_link, "ray", FakeRay(made))
    monkeypatch.setattr(ray_link, "service", lambda: made)
    monkeypatch.setattr(ray_link.time, "monotonic", lambda: made.clock_s)
    return made


def link_of() -> RayLink:
    return RayLink("run", "policy", {}, CPU, 1)


def hear(link: RayLink, answer: Answer, value: Any) -> None:
    """Let an answer be there, as the driver does."""
    answer.value = value
    assert answer in link.waiting
    link.collect()


def lose(link: RayLink, shared: Shared) -> None:
    """The service ends; who asks is not answered until it is said."""
    shared.at_once = False
    hear(link, shared.last("changes"), ActorDiedError())


def test_a_lost_service_is_told_what_the_run_holds_and_nobody_waits_for_it(shared: Shared) -> None:
    link = link_of()
    hear(link, shared.last("changes"), (1, [Granted("run", "worker-0", 7, "free")]))
    lose(link, shared)
    assert shared.last("register").arguments[2] == ("worker-0",)
    link.more(2)
    assert shared.count("reserve") == 1, "there is nobody to reserve anything"
    link.report({}, 3, {})
    hear(link, shared.last("register"), True)
    before = shared.count("changes")
    hear(link, shared.last("reserve"), {"worker-0": Group("first")})
    assert shared.count("changes") == before + 1 and shared.last("changes").arguments[1] == 0
    assert shared.last("report").arguments[3] == 3, "it is told once more what the run wants"


def test_one_that_cannot_be_reached_is_asked_again_and_in_the_end_given_up(shared: Shared) -> None:
    link = link_of()
    lose(link, shared)
    for attempt in range(3):
        hear(link, shared.last("register"), ActorDiedError())
        assert link.waiting == ()
        link.tend()
        assert shared.count("register") == 2 + attempt, "not at once"
        shared.clock_s += 1.0
        link.tend()
        assert shared.count("register") == 3 + attempt
        link.tend()
        assert shared.count("register") == 3 + attempt
    hear(link, shared.last("register"), False)  # it has just ended
    assert link.waiting == ()
    shared.clock_s += ray_link.REACH_S
    link.tend()
    with pytest.raises(RuntimeUnavailable, match=r"does not come up: .*; runtime\.share: false does without"):
        hear(link, shared.last("register"), ActorDiedError())


def test_one_that_says_nothing_is_given_up_in_the_end(shared: Shared) -> None:
    link = link_of()
    lose(link, shared)
    shared.clock_s = ray_link.REACH_S
    link.tend()
    assert link.waiting == (shared.last("register"),)
    shared.clock_s += 1.0
    with pytest.raises(RuntimeUnavailable, match="does not come up: no answer within 60 s"):
        link.tend()


def test_an_answer_that_is_there_is_never_late(shared: Shared) -> None:
    link = link_of()
    lose(link, shared)
    shared.last("register").value, shared.clock_s = True, ray_link.REACH_S + 1.0
    link.tend()
    hear(link, shared.last("register"), True)
    link.tend()
    hear(link, shared.last("reserve"), {"worker-0": Group("first")})
    assert link.waiting == (shared.last("changes"),)


@pytest.mark.parametrize("error", [ActorUnschedulableError("no room"), RayError("of another sort"), ValueError("gone")])
def test_whatever_is_said_instead_of_an_answer_it_is_asked_again(shared: Shared, error: Exception) -> None:
    link = link_of()
    lose(link, shared)
    hear(link, shared.last("register"), error)
    shared.clock_s += 1.0
    link.tend()
    assert shared.count("register") == 3


@pytest.mark.parametrize("tell", ["letter", "answer"])
def test_a_slot_that_is_reserved_anew_is_named_once(shared: Shared, tell: str) -> None:
    link = link_of()
    assert link.moved() == set()
    if tell == "letter":
        hear(link, shared.last("changes"), (1, [Moved("worker-0", Group("second"))]))  # type: ignore[arg-type]
    else:
        lose(link, shared)
        hear(link, shared.last("register"), True)
        hear(link, shared.last("reserve"), {"worker-0": Group("second")})
    assert link.moved() == {"worker-0"} and link.moved() == set()
    assert link.groups["worker-0"].id == "second"  # type: ignore[comparison-overlap]


def test_an_answer_that_is_older_than_a_letter_does_not_count(shared: Shared) -> None:
    link = link_of()
    shared.at_once = False
    link.more(2)
    hear(link, shared.last("changes"), (1, [Moved("worker-0", Group("second"))]))  # type: ignore[arg-type]
    shared.last("reserve").value = {"worker-0": Group("first"), "worker-1": Group("another")}
    link.more(2)
    assert {name: group.id for name, group in link.groups.items()} == {"worker-0": "second", "worker-1": "another"}
    assert link.moved() == {"worker-0"}


def test_the_beginning_waits_and_says_why_it_ends(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        shared.clock_s += seconds * 100

    monkeypatch.setattr(ray_link.time, "sleep", sleep)

    def gone() -> Callable[[], Any]:
        raise ValueError("no such actor")

    monkeypatch.setattr(ray_link, "service", gone)
    with pytest.raises(RuntimeUnavailable, match="does not come up: no such actor"):
        link_of()
