"""Buffered asynchronous rounds, step by step, and FedBuff's own loop beside them."""

from __future__ import annotations

import heapq

import pytest
from three_members import BUSY, LATE, arrived, machine, update

from scheduler.participations.buffered import Buffered
from tiers import Hub, HubRounds, Phase, Site
from tiers.messages import (
    Add,
    Arrived,
    Begin,
    Carry,
    Close,
    Command,
    Dismiss,
    Finish,
    Hold,
    Lost,
    Open,
    Share,
    Shortfall,
    TrainMember,
    Update,
)


def fedbuff(durations: dict[str, int], goal: int, steps: int) -> list[list[tuple[str, int]]]:
    """FedBuff's Algorithm 1 as a loop: the updates of each step with their staleness, in the order of arrival."""
    version, buffer, filled = 0, [], []
    started = dict.fromkeys(durations, 0)
    ends = [(duration, name) for name, duration in durations.items()]
    heapq.heapify(ends)
    while len(filled) < steps:
        now, name = heapq.heappop(ends)
        staleness = version - started.pop(name)
        buffer.append((name, staleness))
        if len(buffer) == goal:
            filled.append(buffer)
            version, buffer = version + 1, []
        for idle in durations if not buffer else [name]:
            if idle not in started and (not buffer or staleness):
                started[idle] = version
                heapq.heappush(ends, (now + durations[idle], idle))
    return filled


def run_buffered(durations: dict[str, int], goal: int, steps: int) -> list[list[tuple[str, int]]]:
    """The same by the machine, in simulated time; every weight is 1000."""
    hub = machine(Buffered(goal=goal, staleness=99), dict.fromkeys(durations, 1000))
    ends: list[tuple[int, str, int]] = []
    filled: list[list[tuple[str, int]]] = [[]]
    now = 0

    def obey(commands: list[Command]) -> None:
        for command in commands:
            match command:
                case TrainMember():
                    heapq.heappush(ends, (now + durations[command.member], command.member, command.round_number))
                case Add():
                    filled[-1].append((command.update.shares[0].member, 0))
                case Carry():
                    staleness = len(filled) - 1 - command.update.round_number
                    assert command.weight == round(1000 / (1 + staleness) ** 0.5)
                    filled[-1].append((command.update.shares[0].member, staleness))
                case Close():
                    assert command.weight <= 1000 * goal
                    filled.append([])

    obey(hub.handle(Begin(0, rounds=steps)))
    while hub.phase is Phase.COLLECTING:
        now, name, number = heapq.heappop(ends)
        obey(hub.handle(arrived(name, number, 1000)))
    return filled[:-1]


@pytest.mark.parametrize("goal", [1, 2, 3, 4])
def test_buffered_is_fedbuff(goal: int) -> None:
    durations = {"a": 1001, "b": 1103, "c": 2309, "d": 7411, "e": 3502}
    assert run_buffered(durations, goal, 12) == fedbuff(durations, goal, 12)


def test_fedbuffs_loop_by_hand() -> None:
    """a takes 2 s, b 3 s, c 10 s; steps at two updates. c comes at 10 s, when 3 steps were taken since 0 s."""
    assert fedbuff({"a": 2, "b": 3, "c": 10}, 2, 4) == [
        [("a", 0), ("b", 0)],  # at 3 s
        [("a", 0), ("b", 0)],  # at 6 s
        [("a", 0), ("b", 0)],  # at 9 s
        [("c", 3), ("a", 0)],  # at 11 s
    ]


def test_a_member_that_reports_late_to_a_buffer_trains_on_at_once() -> None:
    hub = machine(Buffered(goal=2))
    hub.handle(Begin(0, rounds=3))
    hub.handle(arrived("a", 0))
    commands = hub.handle(arrived("b", 0))
    assert commands[2] == Open(1, 160 + 28 + 40, {"c": BUSY}), "a and b, c as it comes, and c once more"
    assert hub.handle(arrived("c", 0)) == [
        Carry(update("c", 0), 28, "late by 1 round, weight 70% of 40"),
        TrainMember(1, "c", 40, (Shortfall(0, 28, 40),)),
    ]
    assert hub.handle(arrived("c", 1))[1] == Close(
        1,
        ("c",),
        {"a": LATE, "b": LATE},
        68,
        "2 updates are in, the goal is 2",
        {"c": "late by 1 round, weight 70% of 40"},
    )


def test_a_member_whose_work_was_stopped_trains_on_from_the_newest_model() -> None:
    hub = machine(Buffered(goal=1, staleness=1))
    hub.handle(Begin(0, rounds=9))
    hub.handle(arrived("a", 0))
    why = "late by 2 rounds, and at most 1 round count"
    assert Dismiss(0, {"b": why, "c": why}) in hub.handle(arrived("a", 1))
    asked = TrainMember(2, "c", 40, (Shortfall(0, 0, 1),))
    assert hub.handle(Lost(0, {"c": "stopped, as it was told"})) == [asked]


def test_held_updates_may_fill_a_buffer_before_anybody_is_asked() -> None:
    hub = machine(Buffered(goal=1))
    hub.handle(Begin(0))
    assert hub.handle(arrived("a", 0))[-1] == Finish(0)
    assert isinstance(hub.handle(arrived("b", 0))[0], Hold)
    opened, carried, closed, *rest = hub.handle(Begin(1, rounds=2))
    assert isinstance(opened, Open) and isinstance(carried, Carry)
    unasked = "not asked: late updates were enough to close the round"
    assert isinstance(closed, Close) and closed.missing == {"a": unasked, "c": BUSY}
    assert rest[0] == Open(2, 160 + 23 + 40, {"c": BUSY}), "c comes two rounds late: 40 / sqrt(3)"
    assert [command.member for command in rest if isinstance(command, TrainMember)] == ["a", "b"]


def test_a_hub_may_be_asynchronous_to_its_parent_and_synchronous_inside() -> None:
    """The hub is slow: its parent steps twice without it, does not begin it again, and carries what it sends."""
    inner = HubRounds(Hub("slow", (Site("x"), Site("y"))), {"x": 30, "y": 10}, path="w/slow")
    outer_hub = Hub("w", (Hub("slow", inner.hub.members), Site("a")), participation=Buffered(goal=1))
    outer = HubRounds(outer_hub, {"slow": 40, "a": 100}, path="w")
    begun: list[int] = []

    def ask(commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, TrainMember) and command.member == "slow":
                begun.append(command.round_number)
                inner.handle(Begin(command.round_number))

    ask(outer.handle(Begin(0, rounds=9)))
    inner.handle(Arrived(Update("w/slow", 0, (Share("x", 30),))))
    for number in (0, 1):
        ask(outer.handle(Arrived(Update("w", number, (Share("a", 100),)))))
    assert (begun, inner.phase, outer.round_number) == ([0], Phase.COLLECTING, 2)
    _, closed, finished = inner.handle(Arrived(Update("w/slow", 0, (Share("y", 10),))))
    assert isinstance(closed, Close) and closed.weight == 40 and isinstance(finished, Finish)
    commands = outer.handle(Arrived(Update("w", 0, (Share("slow", closed.weight),))))
    assert isinstance(commands[0], Carry) and commands[0].reason == "late by 2 rounds, weight 58% of 40"
    assert isinstance(commands[1], Close) and commands[1].missing == {"a": LATE}
    ask(commands)
    assert begun == [0, 3] and inner.phase is Phase.COLLECTING
