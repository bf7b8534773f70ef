"""Idle figures from a run's records, on stories that a reader can recompute."""

from __future__ import annotations

import pytest

from hierfl.monitor.idle import IdleTime
from hierfl.monitor.records import Assigned, Evaluated, Phase, RoundClosed, SiteTrained
from scheduler import Device
from tiers.federation import Federation, Hub, Site
from tiers.topologies.cyclic import Cyclic

X, Y = Device("x"), Device("y")


def tree(kappa: int = 1) -> Federation:
    us = Hub("us", (Site("a"), Site("b")), rounds=kappa)
    return Federation(Hub("world", (us, Site("c"))))


def trained(idle: IdleTime, worker: str, site: str, start_s: float, end_s: float, number: int = 1) -> None:
    idle.on(Phase(end_s, worker, "train", start_s, end_s, [site], 1))
    idle.on(SiteTrained(end_s, site, number, worker, end_s - start_s, 10, 1, 0.5))


def closed(node: str, number: int, members: list[str], opened_s: float, time_s: float) -> RoundClosed:
    return RoundClosed(time_s, node, number, "all reported", members, {}, time_s - opened_s, 0)


def six_seconds(devices: dict[str, Device], labels: dict[str, frozenset[str]]) -> IdleTime:
    """A round of 5 s: 3 and 2 s of us on x, one after the other, 1 s of c on y."""
    idle = IdleTime(tree(), devices, labels)
    trained(idle, "x", "world/us/a", 0, 3)
    trained(idle, "x", "world/us/b", 3, 5)
    trained(idle, "y", "world/c", 0, 1)
    idle.on(closed("world/us", 1, ["a", "b"], 0, 5))
    idle.on(closed("world", 1, ["us", "c"], 0, 5))
    return idle


def test_a_round_by_hand() -> None:
    """Jobs of 3, 2 and 4 s on two devices, in 6 s: W = 9, LB = max(4.5, 4, 2 + 3) = 5; busy 9 of 12."""
    idle = IdleTime(tree(), {"x": X, "y": Y}, {})
    trained(idle, "x", "world/us/a", 0, 3)
    trained(idle, "y", "world/us/b", 0, 2)
    idle.on(closed("world/us", 1, ["a", "b"], 0, 3))
    trained(idle, "y", "world/c", 2, 6)
    idle.on(closed("world", 1, ["us", "c"], 0, 6))
    found = idle.last()
    assert found.busy == {"x": pytest.approx(0.5), "y": pytest.approx(1.0)}
    assert found.idle == pytest.approx(3 / 12) and found.makespan_s == 6
    assert found.efficiency == pytest.approx(4.5 / 6), "the three are of two hubs: only their sum bounds, 9 / 2"
    assert found.floor == pytest.approx(0.0) and found.goodput == pytest.approx(9 / 12)
    world = idle.hubs()["world"]
    assert (world.idle, world.floor) == (pytest.approx(3 / 12), pytest.approx(0.0)), "its hub's work is its own too"
    assert world.efficiency == pytest.approx(4.5 / 6), "all work below a hub bounds its round as it bounds the run"
    us = idle.hubs()["world/us"]
    assert us.makespan_s == 3 and us.efficiency == pytest.approx(1.0)
    assert us.idle == us.floor == 0.0 and us.goodput == pytest.approx(5 / 6), "y works for c from 2 on: not idle"


def test_members_that_take_turns_are_a_chain() -> None:
    """A cycle of us, where 2 and 1 s run side by side, of c with 3 s and of eu with 1 s: 6 s on two devices."""
    us, eu = Hub("us", (Site("a"), Site("b"))), Hub("eu", (Site("d"),))
    idle = IdleTime(Federation(Hub("world", (us, Site("c"), eu), topology=Cyclic())), {"x": X, "y": Y}, {})
    trained(idle, "x", "world/us/a", 0, 2)
    trained(idle, "y", "world/us/b", 0, 1)
    idle.on(closed("world/us", 1, ["a", "b"], 0, 2))
    trained(idle, "y", "world/c", 2, 5)
    trained(idle, "x", "world/eu/d", 5, 6)
    idle.on(closed("world/eu", 1, ["d"], 5, 6))
    idle.on(closed("world", 1, ["us", "c", "eu"], 0, 6))
    found = idle.last()
    assert found.efficiency == pytest.approx(1.0) and found.idle == pytest.approx(5 / 12) == found.floor


def test_rounds_of_an_inner_hub_are_a_chain() -> None:
    """Two rounds of 2 s at `us` per round of the world: 4 s, whatever the devices; the floor says so."""
    idle = IdleTime(tree(kappa=2), {"x": X, "y": Y}, {})
    for number in (1, 2):
        trained(idle, "x", "world/us/a", 2.0 * number - 2, 2.0 * number, number)
        trained(idle, "y", "world/us/b", 2.0 * number - 2, 2.0 * number - 1, number)
        idle.on(closed("world/us", number, ["a", "b"], 2.0 * number - 2, 2.0 * number))
    idle.on(closed("world", 1, ["us"], 0, 4))
    found = idle.last()
    assert found.efficiency == pytest.approx(1.0) and found.idle == pytest.approx(2 / 8) == found.floor


def test_work_that_a_member_had_done_before_it_was_asked_is_no_work_of_the_round() -> None:
    """Its hub was started anew: asked at 1 s, a linked member sends at once the update that it had trained for 5 s."""
    idle = IdleTime(Federation(Hub("world", (Site("a"), Site("b")))), {"x": X, "y": Y}, {})
    idle.on(SiteTrained(1.5, "world/a", 1, "x", 5.0, 10, 1, 0.5, start_s=1.0))
    trained(idle, "y", "world/b", 1, 2)
    idle.on(closed("world", 1, ["a", "b"], 1, 2))
    first = idle.last()
    assert (first.efficiency, first.idle) == (pytest.approx(1.0), pytest.approx(0.5 / 2)), "and it was 5.0"
    trained(idle, "x", "world/a", 2, 3, 2)
    trained(idle, "y", "world/b", 2, 4, 2)
    idle.on(closed("world", 2, ["a", "b"], 2, 4))
    assert idle.last().busy == {"x": pytest.approx(0.5), "y": pytest.approx(1.0)}, (
        "nothing of it lies in the next round"
    )


def test_residency_is_part_of_the_floor() -> None:
    """Only x may take a and b: 5 s there, while y has but 1 s of work."""
    labels = {"world/us/a": frozenset({"us"}), "world/us/b": frozenset({"us"})}
    idle = six_seconds({"x": Device("x", labels=frozenset({"us"})), "y": Y}, labels)
    assert idle.last().efficiency == pytest.approx(1.0) and idle.last().floor == pytest.approx(4 / 10)
    assert idle.hubs()["world/us"].busy == {"x": pytest.approx(1.0)}, "y may not take its sites and does not count"


def test_the_devices_of_a_hub_are_those_of_all_sites_below_it() -> None:
    """World has a site of its own in ch, and in us a hub: 5 s on x and 1 s on y are 6 of 10."""
    labels = {"world/us/a": frozenset({"us"}), "world/us/b": frozenset({"us"}), "world/c": frozenset({"ch"})}
    devices = {"x": Device("x", labels=frozenset({"us"})), "y": Device("y", labels=frozenset({"ch"}))}
    idle = six_seconds(devices, labels)
    world = idle.hubs()["world"]
    assert world.busy == {"x": pytest.approx(1.0), "y": pytest.approx(0.2)} and world.goodput == pytest.approx(6 / 10)
    assert (world.idle, world.floor) == (pytest.approx(4 / 10), pytest.approx(4 / 10))


def test_workers_that_share_a_device_are_one_device() -> None:
    shared = Device("gpu", places=2)
    idle = IdleTime(Federation(Hub("world", (Site("a"), Site("b")))), {"gpu.0": shared, "gpu.1": shared}, {})
    trained(idle, "gpu.0", "world/a", 0, 2)
    trained(idle, "gpu.1", "world/b", 1, 3)
    idle.on(closed("world", 1, ["a", "b"], 0, 4))
    assert idle.last().busy == {"gpu": pytest.approx(3 / 4)}


def test_a_late_site_is_no_part_of_the_bound_of_the_round_that_closed_without_it() -> None:
    idle = IdleTime(Federation(Hub("world", (Site("a"), Site("b")))), {"x": X, "y": Y}, {})
    trained(idle, "x", "world/a", 0, 2)
    idle.on(closed("world", 1, ["a"], 0, 2))
    assert idle.last().efficiency == pytest.approx(1.0) and idle.last().busy["y"] == 0.0
    trained(idle, "y", "world/b", 0, 5, number=1)
    trained(idle, "x", "world/a", 2, 4, number=2)
    idle.on(closed("world", 2, ["a"], 2, 5))
    found = idle.last()
    assert found.busy == {"x": pytest.approx(2 / 3), "y": pytest.approx(1.0)}, "of b only what lay in this round"
    assert found.efficiency <= 1.0


def test_measuring_counts_in_the_total_alone() -> None:
    idle = IdleTime(Federation(Hub("world", (Site("a"),))), {"x": X, "y": Y}, {})
    trained(idle, "x", "world/a", 0, 2)
    idle.on(closed("world", 1, ["a"], 0, 2))
    idle.on(Phase(4.0, "y", "evaluate", 2.0, 4.0, ["world/a"], 1))
    idle.on(Evaluated(4.0, 1, {}))
    assert idle.last().makespan_s == 2 and idle.total().makespan_s == pytest.approx(4)
    assert idle.total().busy == {"x": pytest.approx(0.5), "y": pytest.approx(0.5)}


def test_the_round_of_a_late_hub_that_closes_while_the_model_is_measured_bounds_nothing() -> None:
    """x trains c for a second and measures for one, y trains a for 1.5 s: bounds of 1 s and 0.75 s, 2 s went by."""
    idle = IdleTime(tree(), {"x": X, "y": Y}, {})
    idle.on(Assigned(0.0, "y", "y", "train", "world/us", ["world/us/a"], 1, ""))
    trained(idle, "x", "world/c", 0, 1)
    idle.on(RoundClosed(1.0, "world", 1, "the goal is 1", ["c"], {"us": "late"}, 1.0, 0, late=["us"]))
    trained(idle, "y", "world/us/a", 0, 1.5)
    idle.on(closed("world/us", 1, ["a"], 0, 1.5))
    idle.on(Phase(2.0, "x", "evaluate", 1.0, 2.0, ["world/c"], 1))
    idle.on(Evaluated(2.0, 1, {}))
    assert idle.total().efficiency == pytest.approx(1.75 / 2)


def test_only_what_a_run_had_can_be_idle() -> None:
    """Of 10 s the run had x for 4 and worked 3, and y never: 1 of 4 device-seconds was idle; then x for all of 2 s."""
    held = {"x": 4.0}
    idle = IdleTime(Federation(Hub("world", (Site("a"),))), {"x": X, "y": Y}, {}, held_s=lambda: dict(held))
    trained(idle, "x", "world/a", 0, 3)
    idle.on(closed("world", 1, ["a"], 0, 10))
    assert idle.last().idle == pytest.approx(0.25)
    assert idle.last().busy == {"x": pytest.approx(0.75), "y": 0.0}
    assert idle.devices().keys() == idle.devices(last=True).keys() == {"x"}, "y is neither busy nor idle"
    held["x"] = 6.0
    trained(idle, "x", "world/a", 10, 12, number=2)
    idle.on(closed("world", 2, ["a"], 10, 12))
    assert idle.last().idle == pytest.approx(0.0)
    assert idle.total().idle == pytest.approx(1 / 6)


def test_nothing_has_happened_yet() -> None:
    idle = IdleTime(tree(), {"x": X}, {})
    assert idle.total().idle == 0.0 and idle.last().efficiency == 1.0 and idle.hubs() == {}


def test_a_device_of_speed_three_counts_three_times() -> None:
    """x is three times as fast. Sites take 6, 6 and 3 s at speed 1: x does both long ones in 4 s, y the short one in 3.

    W = 15 of 4 * 4 = 16 are busy. No other way is shorter, for y alone takes 6 s for a long one: LB = 4.
    """
    fast = {"x": Device("x", "fast"), "y": Device("y", "slow")}
    one = Federation(Hub("world", (Site("a"), Site("b"), Site("c"))))
    idle = IdleTime(one, fast, {}, speed=lambda kind: 3.0 if kind == "fast" else 1.0)
    trained(idle, "x", "world/a", 0, 2)
    trained(idle, "x", "world/b", 2, 4)
    trained(idle, "y", "world/c", 0, 3)
    idle.on(closed("world", 1, ["a", "b", "c"], 0, 4))
    found = idle.last()
    assert found.idle == pytest.approx(1 / 16) and found.goodput == pytest.approx(15 / 16)
    assert found.efficiency == pytest.approx(1.0) and found.floor == pytest.approx(1 / 16)
    assert idle.devices()["y"].idle == pytest.approx(1 / 4) and idle.devices()["x"].idle == pytest.approx(0.0)


def test_memory_is_part_of_the_floor() -> None:
    """Two places, but two jobs of 6 GB do not fit 10 GB: 4 s one after another, where company would have made 2."""
    card = Device("card", memory_bytes=10, places=2)
    for memory, bound_s in ((6, 4.0), (4, 2.0)):
        idle = IdleTime(Federation(Hub("world", (Site("a"), Site("b")))), {"card.0": card, "card.1": card}, {})
        for start, worker, site in ((0.0, "card.0", "world/a"), (2.0, "card.1", "world/b")):
            idle.on(Assigned(start, worker, "card", "train", "world", [site], 1, "", memory))
            trained(idle, worker, site, start, start + 2)
        idle.on(closed("world", 1, ["a", "b"], 0, 4))
        assert idle.last().efficiency == pytest.approx(bound_s / 4)


def test_what_company_costs_is_not_work() -> None:
    """Two jobs side by side for 8 s at a total rate of 1.5: 6 s each alone. LB = max(12 / 1.5, 6)."""
    card = Device("card", places=2)
    idle = IdleTime(
        Federation(Hub("world", (Site("a"), Site("b")))),
        {"card.0": card, "card.1": card},
        {},
        rates=lambda device: (1.0, 1.5),
    )
    trained(idle, "card.0", "world/a", 0, 8)
    trained(idle, "card.1", "world/b", 0, 8)
    idle.on(closed("world", 1, ["a", "b"], 0, 8))
    found = idle.last()
    assert found.goodput == pytest.approx(12 / 8) and found.efficiency == pytest.approx(1.0) and found.idle == 0.0


def test_loading_is_not_training() -> None:
    idle = IdleTime(Federation(Hub("world", (Site("a"),))), {"x": X}, {})
    idle.on(Phase(4.0, "x", "train", 0.0, 4.0, ["world/a"], 1))
    idle.on(SiteTrained(4.0, "world/a", 1, "x", 4.0, 10, 1, 0.5, load_s=1.0, start_s=0.0))
    idle.on(closed("world", 1, ["a"], 0, 4))
    assert idle.last().idle == pytest.approx(1 / 4) and idle.last().efficiency == pytest.approx(3 / 4)


def test_late_work_counts_in_the_round_in_which_it_is_done() -> None:
    """y works for b from 0 to 5, past the barrier at 2: busy in both rounds, and no more work than that."""
    idle = IdleTime(Federation(Hub("world", (Site("a"), Site("b")))), {"x": X, "y": Y}, {})
    idle.on(Assigned(0.0, "y", "y", "train", "world", ["world/b"], 1, ""))
    trained(idle, "x", "world/a", 0, 2)
    idle.on(RoundClosed(2.0, "world", 1, "deadline", ["a"], {"b": "late"}, 2.0, 0, late=["b"]))
    assert idle.last().busy == {"x": pytest.approx(1.0), "y": pytest.approx(1.0)}
    assert idle.last().goodput == pytest.approx(1.0)
    trained(idle, "y", "world/b", 0, 5, number=1)
    trained(idle, "x", "world/a", 2, 4, number=2)
    idle.on(closed("world", 2, ["a"], 2, 5))
    assert idle.last().goodput == pytest.approx(5 / 6) == 1.0 - idle.last().idle
    assert idle.total().goodput == pytest.approx(9 / 10)


def test_a_device_is_not_at_work_for_what_was_withdrawn() -> None:
    idle = IdleTime(Federation(Hub("world", (Site("a"), Site("b")))), {"x": X, "y": Y}, {})
    idle.on(Assigned(0.0, "y", "y", "train", "world", ["world/b"], 1, ""))
    trained(idle, "x", "world/a", 0, 2)
    idle.on(closed("world", 1, ["a"], 0, 2))
    assert idle.last().busy["y"] == 0.0, "b is missing and not said to be late"


def test_devices_that_are_alike_share_their_floor() -> None:
    """x alone may take a and b, 5 s; y and z share c: of their 10 s at best 1 is busy, wherever it is."""
    labels = {"world/us/a": frozenset({"us"}), "world/us/b": frozenset({"us"})}
    devices = {"x": Device("x", labels=frozenset({"us"})), "y": Y, "z": Device("z")}
    idle = six_seconds(devices, labels)
    found = idle.devices()
    assert found["x"].idle == found["x"].floor == 0.0
    assert found["y"].floor == found["z"].floor == pytest.approx(0.9)
    assert (found["y"].idle, found["z"].idle) == (pytest.approx(0.8), pytest.approx(1.0))
    assert found["z"].avoidable == pytest.approx(0.1) and found["y"].avoidable == 0.0


def test_a_bound_above_the_time_is_shown_for_what_it_is() -> None:
    """A site that claims 3 s of work in a round of 2 s: some record is wrong, and the efficiency says so."""
    idle = IdleTime(Federation(Hub("world", (Site("a"),))), {"x": X}, {})
    trained(idle, "x", "world/a", 0, 3)
    idle.on(closed("world", 1, ["a"], 0, 2))
    assert idle.last().efficiency == pytest.approx(1.5)


def test_the_round_of_a_hub_that_is_late_is_bounded_by_all_of_its_work() -> None:
    """Jobs of 3 and 2 s, one of them before the root went on without the hub: LB = 3, in 5 s."""
    idle = IdleTime(tree(), {"x": X, "y": Y}, {})
    trained(idle, "x", "world/us/a", 0, 3)
    trained(idle, "y", "world/c", 0, 2)
    idle.on(RoundClosed(3.0, "world", 1, "deadline", ["c"], {"us": "late"}, 3.0, 0, late=("us",)))
    trained(idle, "x", "world/us/b", 3, 5)
    idle.on(closed("world/us", 1, ["a", "b"], 0, 5))
    trained(idle, "y", "world/c", 5, 6, 2)
    idle.on(closed("world", 2, ["c"], 5, 6))
    assert idle.hubs()["world/us"].efficiency == pytest.approx(3 / 5)


def kept(idle: IdleTime) -> int:
    """Count all that is remembered of rounds and work."""
    own = idle._trained.values()
    return len(idle._pieces) + len(idle._hub_rounds) + len(idle._open) + sum(map(len, own))


@pytest.mark.parametrize("story", ["late", "gives up", "hangs"])
def test_a_hub_that_is_never_heard_of_in_time_costs_no_more_after_many_rounds(story: str) -> None:
    """Its rounds are no part of the root's: it closes them late, gives them up, or is in its first one for ever."""
    idle = IdleTime(tree(kappa=2), {"x": X, "y": Y}, {})
    sizes = []
    for number in range(1, 201):
        start_s = 4.0 * number
        trained(idle, "y", "world/c", start_s, start_s + 2, number)
        if story != "hangs" or number == 1:
            trained(idle, "x", "world/us/a", start_s, start_s + 1, 2 * number - 1)
        late = () if story == "gives up" else ("us",)
        idle.on(RoundClosed(start_s + 2, "world", number, "deadline", ["c"], {"us": "late"}, 2, 0, late=late))
        if story == "late":
            trained(idle, "x", "world/us/b", start_s + 2, start_s + 3, 2 * number)
            for k in (2 * number - 1, 2 * number):
                idle.on(closed("world/us", k, ["a", "b"], start_s, start_s + 3))
        sizes.append(kept(idle))
    assert max(sizes[-50:]) <= max(sizes[50:100]) <= 20 * 3 + 8, (
        "and a hub that hangs keeps a bounded past of the others"
    )
    assert idle.total().efficiency <= 1.0
