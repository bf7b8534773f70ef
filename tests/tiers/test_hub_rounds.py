"""The rounds of a hub, event by event; tests/tiers/test_hub_rounds_machine.py draws the events."""

from __future__ import annotations

from typing import Any

import pytest

from tiers import Hub, HubRounds, Phase, Site
from tiers.messages import (
    Add,
    Arrived,
    Begin,
    Close,
    Finish,
    GiveUp,
    Lost,
    Open,
    Refuse,
    Share,
    Shortfall,
    TrainMember,
    Update,
)

WEIGHTS = {"a": 3, "b": 5, "c": 2}


def machine(weights: dict[str, int] = WEIGHTS, **settings: Any) -> HubRounds:
    return HubRounds(Hub("h", tuple(Site(name) for name in weights), **settings), weights)


def update(*names: str, round_number: int = 0, **weights: int) -> Update:
    return Update("h", round_number, tuple(Share(name, weights.get(name, WEIGHTS[name])) for name in names))


def arrived(*names: str, **settings: Any) -> Arrived:
    return Arrived(update(*names, **settings))


def test_a_round_opens_collects_closes_and_finishes() -> None:
    hub = machine()
    assert hub.handle(Begin(0)) == [
        Open(0, 10, {}),
        TrainMember(0, "a", 3),
        TrainMember(0, "b", 5),
        TrainMember(0, "c", 2),
    ]
    assert hub.handle(arrived("b")) == [Add(update("b"))]
    assert hub.phase is Phase.COLLECTING
    assert hub.handle(arrived("c", "a")) == [
        Add(update("c", "a")),
        Close(0, ("b", "c", "a"), {}, 10, "all reported"),
        Finish(0),
    ]
    assert hub.phase is Phase.IDLE


def test_kappa_rounds_follow_each_other_in_the_hubs_own_count() -> None:
    hub = machine({"a": 3})
    assert hub.handle(Begin(6, rounds=3)) == [Open(6, 3, {}), TrainMember(6, "a", 3)]
    for number in (6, 7):
        assert hub.handle(arrived("a", round_number=number)) == [
            Add(update("a", round_number=number)),
            Close(number, ("a",), {}, 3, "all reported"),
            Open(number + 1, 3, {}),
            TrainMember(number + 1, "a", 3),
        ]
    assert hub.handle(arrived("a", round_number=8))[-1] == Finish(8)


def in_round_four() -> HubRounds:
    """Round 4: a has reported, c was given up, b is waited for."""
    hub = machine(keep_going=True, quorum=0.1)
    hub.handle(Begin(4))
    hub.handle(arrived("a", round_number=4))
    hub.handle(Lost(4, {"c": "burnt down"}))
    return hub


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (update("a", round_number=4), "a has already reported in round 4"),
        (update("b", "a", round_number=4), "a has already reported in round 4"),
        (update("b", "b", round_number=4), "names a member twice"),
        (update(round_number=4), "names a member twice, or none"),
        (update("b", round_number=3), "it is of round 3; the hub is collecting in round 4, waiting for b"),
        (update("b", round_number=5), "it is of round 5; the hub is collecting in round 4"),
        (Update("h", 4, (Share("z", 1),)), "z is not a member of h in round 4"),
        (update("b", round_number=4, b=6), "b claims weight 6; the round opened with 5"),
        (update("b", round_number=4, b=0), "b claims weight 0; the round opened with 5"),
        (update("c", round_number=4), "c was given up in round 4: burnt down"),
    ],
    ids=["twice", "in-a-sum", "doubled", "none", "late", "early", "unknown", "heavy", "nothing", "given-up"],
)
def test_what_may_not_count_is_refused_with_a_reason_and_changes_nothing(refused: Update, reason: str) -> None:
    hub = in_round_four()
    [refusal] = hub.handle(Arrived(refused))
    assert isinstance(refusal, Refuse) and refusal.update == refused
    assert reason in refusal.reason
    assert hub.handle(arrived("b", round_number=4)) == [
        Add(update("b", round_number=4)),
        Close(4, ("a", "b"), {"c": "burnt down"}, 8, "2 of 3 reported, the rest lost"),
        Finish(4),
    ]


def test_an_update_after_the_end_is_refused() -> None:
    hub = machine({"a": 3})
    assert isinstance(hub.handle(arrived("a"))[0], Refuse), "before the first round"
    hub.handle(Begin(0))
    hub.handle(arrived("a"))
    [late] = hub.handle(arrived("a"))
    assert isinstance(late, Refuse) and late.reason == "it is of round 0; the hub is idle"
    assert machine({"a": 3}).handle(arrived("a")) == [late], "so does a replica that was told nothing before"


def test_a_member_may_report_a_part_of_its_weight() -> None:
    """A hub below that closed without one of its sites."""
    hub = machine({"a": 3, "b": 5})
    hub.handle(Begin(0))
    hub.handle(arrived("a"))
    assert hub.handle(arrived("b", b=4))[1] == Close(0, ("a", "b"), {}, 7, "all reported")


def test_a_member_without_weight_is_skipped_by_name() -> None:
    hub = machine({"a": 3, "empty": 0})
    opened, *asked = hub.handle(Begin(0))
    assert opened == Open(0, 3, {"empty": "no training samples"})
    assert asked == [TrainMember(0, "a", 3)]
    [refusal] = hub.handle(Arrived(Update("h", 0, (Share("empty", 1),))))
    assert isinstance(refusal, Refuse) and "no training samples" in refusal.reason
    closed = hub.handle(arrived("a"))[1]
    assert closed == Close(0, ("a",), {"empty": "no training samples"}, 3, "all reported")


def test_a_hub_of_nothing_gives_up_at_once() -> None:
    hub = machine({"a": 0, "b": 0})
    assert hub.handle(Begin(0)) == [GiveUp(0, "no member of h has training samples")]
    assert hub.phase is Phase.FAILED


def test_a_loss_ends_the_round_of_a_hub_that_does_not_keep_going() -> None:
    hub = machine()
    hub.handle(Begin(0))
    hub.handle(arrived("a"))
    assert hub.handle(Lost(0, {"b": "on fire"})) == [GiveUp(0, "b: on fire")]
    [refusal] = hub.handle(arrived("c"))
    assert isinstance(refusal, Refuse) and "the hub is failed in round 0" in refusal.reason


@pytest.mark.parametrize(
    ("quorum", "num", "losses"),
    [(0.5, 4, 2), (0.5, 5, 2), (0.51, 4, 1), (1.0, 3, 0), (0.01, 3, 2), (2 / 3, 3, 1), (0.1, 10, 9), (0.7, 10, 3)],
)
def test_a_quorum_is_a_fraction_of_those_asked_rounded_up(quorum: float, num: int, losses: int) -> None:
    """After `losses` the round can still close; one more and it cannot. A skipped member does not count."""
    weights = {f"m{i}": 1 for i in range(num)} | {"empty": 0}
    hub = machine(weights, keep_going=True, quorum=quorum)
    hub.handle(Begin(0))
    for i in range(losses):
        assert hub.handle(Lost(0, {f"m{i}": "gone"})) == []
    [given_up] = hub.handle(Lost(0, {f"m{losses}": "gone too"}))
    assert isinstance(given_up, GiveUp)
    assert given_up.reason == f"below the quorum of {num - losses} of {num} members: m{losses}: gone too"


def test_the_last_loss_closes_the_round_when_the_quorum_is_met() -> None:
    hub = machine(keep_going=True, quorum=0.5)
    hub.handle(Begin(0))
    hub.handle(arrived("a", "b"))
    assert hub.handle(Lost(0, {"c": "gone"})) == [
        Close(0, ("a", "b"), {"c": "gone"}, 8, "2 of 3 reported, the rest lost"),
        Finish(0),
    ]


def test_losses_of_the_past_of_strangers_and_of_those_who_reported_are_no_news() -> None:
    hub = machine()
    assert hub.handle(Lost(0, {"a": "gone"})) == []
    hub.handle(Begin(1))
    hub.handle(arrived("a", round_number=1))
    assert hub.handle(Lost(0, {"b": "late word"})) == []
    assert hub.handle(Lost(1, {"z": "who?"})) == []
    assert hub.handle(Lost(1, {"a": "too late: it has reported"})) == []
    assert hub.phase is Phase.COLLECTING


def test_who_was_lost_takes_part_in_the_next_round() -> None:
    hub = machine({"a": 3, "b": 5}, keep_going=True, quorum=0.5)
    hub.handle(Begin(0, rounds=2))
    hub.handle(Lost(0, {"b": "slept"}))
    commands = hub.handle(arrived("a"))
    asked = TrainMember(1, "b", 5, (Shortfall(0, 0, 1),))  # should it have sent something: that did not count
    assert commands[-3:] == [Open(1, 8, {}), TrainMember(1, "a", 3), asked]


def test_a_failed_hub_may_begin_again() -> None:
    hub = machine({"a": 3})
    hub.handle(Begin(0))
    hub.handle(Lost(0, {"a": "gone"}))
    assert hub.handle(Begin(1))[0] == Open(1, 3, {})


def test_two_beginnings_at_once_are_a_mistake_of_ours_and_tell_the_story() -> None:
    hub = machine()
    hub.handle(Begin(0))
    with pytest.raises(AssertionError, match="h begun while the hub is collecting in round 0, waiting for a, b, c"):
        hub.handle(Begin(1))


def test_every_member_needs_a_weight() -> None:
    with pytest.raises(KeyError):
        HubRounds(Hub("h", (Site("a"), Site("b"))), {"a": 1})


def test_members_that_could_not_be_loaded_count_against_the_quorum() -> None:
    hub = Hub("h", (Site("a"), Site("b"), Site("c"), Site("d")), keep_going=True, quorum=0.5)
    weights = {"a": 3, "b": 5, "c": 0, "d": 0}
    enough = HubRounds(hub, weights, {"c": "no file"})
    opened = enough.handle(Begin(0))
    assert opened[0] == Open(0, 8, {"c": "no file", "d": "no training samples"})
    assert enough.handle(arrived("a", "b"))[1] == Close(
        0, ("a", "b"), {"c": "no file", "d": "no training samples"}, 8, "2 of 3 reported, the rest lost"
    )
    few = HubRounds(hub, {"a": 3, "b": 0, "c": 0, "d": 5}, {"b": "no disk", "c": "no file"})
    assert few.handle(Begin(0))[0] == Open(0, 8, {"b": "no disk", "c": "no file"})
    assert few.handle(Lost(0, {"d": "died"})) == [
        GiveUp(0, "below the quorum of 2 of 4 members: d: died"),
    ]
    none = HubRounds(hub, {"a": 3, "b": 0, "c": 0, "d": 0}, {"b": "no disk", "c": "no file", "d": "no net"})
    assert none.handle(Begin(0)) == [
        GiveUp(0, "below the quorum of 2 of 4 members: b: no disk; c: no file; d: no net"),
    ]
