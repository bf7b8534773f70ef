"""Which hubs go on with their rounds when a run is taken up: those for which the hub above still waits."""

from __future__ import annotations

import pytest

from tiers.carrying import going_on
from tiers.journal import Closed, Record, Told
from tiers.messages import Arrived, Begin, Close, Lost, Share, Update
from tiers.standing import Errand

ASKED = {"w": {"i": Errand(3, 1)}}
BELOW = [Told("w/i/j", Begin(7))]


def told(*more: Record) -> list[Record]:
    return [Told("w/i", Begin(6, 2)), *more]


def arrived(member: str, number: int) -> Told:
    return Told("w/i", Arrived(Update("w/i", number, (Share(member, 1),))))


@pytest.mark.parametrize("number", [6, 7])
def test_a_hub_goes_on_for_a_round_that_closed_without_it_and_those_below_follow(number: int) -> None:
    found = going_on({"w/i": told(), "w/i/j": BELOW}, {"w/i": 3, "w/i/j": number}, ASKED)
    assert found == {"w/i": False, "w/i/j": True}


def test_a_hub_below_may_be_at_work_for_an_earlier_round() -> None:
    errands = {**ASKED, "w/i": {"j": Errand(5, 1)}}
    found = going_on({"w/i/j": BELOW, "w/i": told()}, {"w/i": 3, "w/i/j": 5}, errands)
    assert found == {"w/i": False, "w/i/j": False} and list(found) == ["w/i", "w/i/j"]
    assert going_on({"w/i/j": BELOW}, {"w/i/j": 5}, errands) == {"w/i/j": False}, "whose own rounds are over"


@pytest.mark.parametrize("errands", [{}, {"w": {}}, {"w": {"i": Errand(2, 1)}}, {"w": {"k": Errand(3, 1)}}])
def test_nobody_goes_on_for_whom_nobody_waits_and_nobody_below(errands: dict[str, dict[str, Errand]]) -> None:
    assert going_on({"w/i": told(), "w/i/j": BELOW}, {"w/i": 3, "w/i/j": 7}, errands) == {}


@pytest.mark.parametrize("answer", [arrived("j", 7), Told("w/i", Lost(7, {"j": "ill"}))])
def test_nor_is_waited_for_whose_answer_is_there(answer: Record) -> None:
    found = going_on({"w/i": told(answer), "w/i/j": BELOW}, {"w/i": 3, "w/i/j": 7}, ASKED)
    assert found == {"w/i": False}


@pytest.mark.parametrize(
    "other", [arrived("j", 6), arrived("k", 7), Told("w/i", Lost(6, {"j": ""})), Closed("w/i", Close(6, (), {}, 1, ""))]
)
def test_other_answers_are_not_its_own(other: Record) -> None:
    assert "w/i/j" in going_on({"w/i": told(other), "w/i/j": BELOW}, {"w/i": 3, "w/i/j": 7}, ASKED)
