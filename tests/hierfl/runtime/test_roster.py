from __future__ import annotations

from hierfl.runtime.driver import Seat
from hierfl.runtime.roster import Call, Roster
from scheduler import Device, Job

NATION = frozenset({"ch"})


def test_the_usual_kind_is_that_of_most_devices_that_may_take_the_work() -> None:
    """Two cards and one processor; only the processor is in Switzerland, until two more cards come there."""
    slow = Device("cpu-0", "cpu", NATION, places=4)
    seats = [Seat(f"cpu-0.{place}", slow) for place in range(4)]
    roster = Roster([*seats, *(Seat(f"card-{i}", Device(f"card-{i}", "card")) for i in range(2))])
    assert roster.usual_kind(frozenset()) == "card", "four places are one device"
    assert roster.usual_kind(NATION) == "cpu"
    for number in (2, 3):
        roster.add(Seat(f"card-{number}", Device(f"card-{number}", "card", NATION)))
    assert roster.usual_kind(NATION) == "card"
    assert roster.usual_kind(frozenset({"us"})) == "card", "none may take it yet: as if all could"


def test_what_has_to_wait_waits_for_the_worker_that_is_not_late() -> None:
    """Both have a job of 0.1 s; the first has been at it for a second."""
    device = Device("card", places=2)
    roster = Roster([Seat("card.0", device), Seat("card.1", device)])
    roster.ready |= {"card.0", "card.1"}
    a, b, c = ((Job("g", name, 1, 0.1, 0),) for name in "abc")
    assert roster.give("card", a, 0.0) == "card.0"
    assert roster.give("card", b, 1.0) == "card.1"
    assert roster.give("card", c, 1.1, holders={"card.0"}) == "card.1"


def test_company_is_what_a_call_had_all_the_time_and_its_end_alone_is_known() -> None:
    device = Device("card", places=3)
    roster = Roster([Seat(f"card.{place}", device) for place in range(3)])
    roster.ready |= {"card.0", "card.1", "card.2"}
    a, b, c = ((Job("g", name, 1, 0.1, 0),) for name in "abc")
    of_a, of_b = (roster.give("card", jobs, 0.0) for jobs in (a, b))
    first, second = (Call(worker, "train", None, jobs, jobs, 1) for worker, jobs in ((of_a, a), (of_b, b)))
    roster.end(of_a, a, 3.0)
    assert roster.company_of(first, 0, 3.0) == (1, 0.0)
    roster.end(of_b, b, 5.0)
    assert roster.company_of(second, 0, 5.0) == (1, 2.0)
    assert roster.company_of(second, 1, 5.0) == (None, 0.0), "another run's job has come in the first one's place"
    assert roster.company_of(Call(of_b, "train", None, b, b, 2), 0, 5.0) == (None, 0.0), (
        "two companions, one after another"
    )
    roster.give("card", c, 6.0)
    assert roster.company_of(Call(of_b, "train", None, b, b, 0), 0, 7.0) == (None, 0.0), "somebody joined it"
