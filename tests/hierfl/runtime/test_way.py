"""What is held up on its way to a hub and back arrives in its order; for a fresh process nothing of it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from hierfl.fault import Fault, Moment, Plan, Where
from hierfl.faults.corrupt import Corrupt
from hierfl.faults.duplicate import Duplicate
from hierfl.faults.partition import Partition
from hierfl.learning.ring import PartialSum
from hierfl.runtime.driver import Done, hub_of, replica_of
from hierfl.runtime.way import FIRST_TICKET, Way, garbled
from tiers.messages import Share, Update


class Base:
    """A driver that keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        self.asked.append((actor, method, arguments))
        return len(self.asked) - 1

    def ping(self, process: str) -> int:
        return self.call(process, "ping")

    def processes(self) -> Mapping[str, Sequence[str]]:
        return {"/hub-0": ["w"], "/hub-1": ["w/us"]}

    def get(self, handle: Any) -> Any:
        return handle

    put = get


class Always:
    """Lets everything happen, and keeps when."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []

    def claim(self, fault: Fault, moment: Moment) -> bool:
        self.moments.append(moment)
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def way(*what: Any, **where: Any) -> tuple[Way, Base, Clock, Always]:
    faults = [Fault("x", Where("w", **{"step": "before_accept", **where}), one) for one in what]
    base, clock, claims = Base(), Clock(), Always()
    return Way(base, Plan(faults), claims, clock), base, clock, claims  # type: ignore[arg-type]


def update(member: str, round_number: int = 0) -> Update:
    return Update("w", round_number, (Share(member, 1),))


def part() -> PartialSum:
    return PartialSum(np.arange(4), np.zeros(0, np.int64), 1)


def said(base: Base) -> list[str]:
    return [method for _, method, _ in base.asked]


def test_without_faults_all_passes() -> None:
    one, base, _, _ = way()
    assert one.call("w", "arrive", (update("a"), part())) == 0 and one.ping("/hub-0") == 1
    done = Done(0, "w")
    assert said(base) == ["arrive", "ping"] and one.through([done]) == [done] and one.left_s(0.5) == 0.5


def test_a_silence_holds_calls_answers_and_signs_of_life_and_lets_them_go_in_order() -> None:
    one, base, clock, _ = way(Partition(after_s=2.0))
    before = one.call("w", "begin", ())
    first = one.call("w", "arrive", (update("a"), part()))
    second, beat, other = one.call("w", "lose", ()), one.ping("/hub-0"), one.call("w/us", "begin", ())
    assert said(base) == ["begin", "begin"] and min(first, second, beat) > FIRST_TICKET and other == 1
    assert one.left_s(9.0) == 2.0
    answer = Done(before, "w")
    assert one.through([answer, Done(other, "w/us")]) == [Done(other, "w/us")]
    clock.now = 2.0
    assert one.through([]) == [answer]
    assert said(base) == ["begin", "begin", "arrive", "lose", "ping"]
    found = one.through([Done(2, "w"), Done(3, "w"), Done(4, "/hub-0")])
    assert [done.ticket for done in found] == [first, second, beat]


def test_a_fresh_process_is_reached_and_hears_nothing_that_was_meant_for_the_old_one() -> None:
    one, base, clock, _ = way(Partition(after_s=9.0))
    one.call("w", "arrive", (update("a"), part()))
    one.ping("/hub-0")
    one.renewed(["w"])
    assert one.call("w", "begin", ()) == 0 and one.through([]) == [] and said(base) == ["begin"]
    clock.now = 10.0
    assert one.through([]) == [] and said(base) == ["begin"]


def test_the_nth_update_is_counted_by_its_members_and_once_where_it_is_handed_over_again() -> None:
    one, base, _, claims = way(Duplicate(copies=2), nth=2)
    for member in ("a", "b", "b", "c"):
        one.call("w", "arrive", (update(member), part()))
    one.call(replica_of("w", 1), "arrive", (update("c"), part()))
    assert [(moment.nth, moment.replica) for moment in claims.moments] == [(2, 1), (2, 1)]
    assert said(base).count("arrive") == 5 + 4


def test_one_bit_of_what_goes_there_changes_and_nothing_of_what_the_sender_has() -> None:
    one, base, _, _ = way(Corrupt(bit=64))
    mine = part()
    one.call("w", "arrive", (update("a"), mine))
    [(_, _, (_, theirs))] = base.asked
    assert mine.floats.tolist() == [0, 1, 2, 3] and theirs.floats.tolist() == [0, 0, 2, 3]


@pytest.mark.parametrize("bit", [0, 63, 255, 256])
def test_a_bit_counts_on_from_the_beginning(bit: int) -> None:
    changed = garbled(part(), bit).floats.view(np.uint64) ^ part().floats.view(np.uint64)  # type: ignore[union-attr]
    assert sum(int(word).bit_count() for word in changed) == 1


def test_a_replica_s_name_tells_its_hub() -> None:
    assert [hub_of(replica_of("w/us", number)) for number in (0, 1, 12)] == [("w/us", 0), ("w/us", 1), ("w/us", 12)]
