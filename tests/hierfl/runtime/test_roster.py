from __future__ import annotations

from hierfl.runtime.driver import Seat
from hierfl.runtime.roster import Roster
from scheduler import Device

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
