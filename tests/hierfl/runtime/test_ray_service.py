"""The service that leases devices to runs, by its methods alone: what it tells to whom, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, cast

import pytest
from played_cluster import Cluster

from hierfl.runtime import ray_service
from hierfl.runtime.ray_service import Moved, SchedulerService
from scheduler import Device, Granted, LeaseDecision, Recall, Want

CPU = {"CPU": 1.0}
WANTS = {"worker-0": Want((1.0,), 1.0)}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch, room=1)


async def joined(service: SchedulerService, *runs: str, count: int = 1) -> None:
    for run in runs:
        assert await service.register(run, "p", ())
        await service.reserve(run, {}, CPU, count, 0.0)


async def letters(service: SchedulerService, run: str, seen: int) -> list[LeaseDecision | Moved]:
    answer = await service.changes(run, seen)
    assert answer is not None
    assert answer[0] == seen + len(answer[1])
    return answer[1]


def play(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def test_a_run_is_told_of_each_decision_until_it_has_heard_of_it(cluster: Cluster) -> None:
    async def story() -> None:
        service = SchedulerService()
        await joined(service, "a", "b")
        assert await letters(service, "a", 0) == []
        asking = asyncio.create_task(letters(service, "a", 0))
        await asyncio.sleep(0.0)
        await service.report("a", 1, WANTS, 1, {})
        granted = Granted("a", "worker-0", 1, "no other run wants it")
        assert await asking == [granted]
        assert await letters(service, "a", 0) == [granted], "the answer may have been lost"
        await service.report("b", 1, WANTS, 1, {})
        (recall,) = await letters(service, "a", 1)
        assert isinstance(recall, Recall) and recall.number == 1
        await service.report("a", 2, {}, 0, {"worker-0": 1})
        assert [type(letter) for letter in await letters(service, "b", 0)] == [Granted]
        assert await letters(service, "a", 2) == []

    play(story())


def test_of_reports_that_come_out_of_order_the_last_wants_hold_and_every_release(cluster: Cluster) -> None:
    async def story() -> None:
        service = SchedulerService()
        await joined(service, "a", "b")
        await service.report("a", 1, WANTS, 1, {})
        await service.report("a", 3, {}, 0, {})
        await service.report("a", 2, WANTS, 1, {"worker-0": 1})
        await service.report("b", 1, WANTS, 1, {})
        (granted,) = await letters(service, "b", 0)
        assert isinstance(granted, Granted) and granted.reason == "no other run wants it"

    play(story())


def test_a_run_that_is_not_known_is_told_so(cluster: Cluster) -> None:
    async def story() -> None:
        service = SchedulerService()
        await joined(service, "a")
        await service.report("ghost", 1, WANTS, 1, {})
        assert await service.changes("ghost", 0) is None
        await service.report("a", 1, WANTS, 1, {})
        assert len(await letters(service, "a", 0)) == 1

    play(story())


def test_who_falls_silent_loses_its_devices(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_service, "LOOK_S", 0.01)
    monkeypatch.setattr(ray_service, "SILENCE_S", 0.3)

    async def story() -> None:
        service = SchedulerService()
        await joined(service, "silent", "b")
        await service.report("silent", 1, WANTS, 1, {})
        await service.report("b", 1, WANTS, 1, {})
        heard: list[LeaseDecision | Moved] = []
        for _ in range(100):
            heard += await letters(service, "b", len(heard))
            if heard:
                break
        assert [type(letter) for letter in heard] == [Granted]
        assert await service.changes("silent", 0) is None

    play(story())


def test_slots_are_shared_and_what_is_more_comes_when_there_is_room(cluster: Cluster) -> None:
    async def story() -> None:
        service = SchedulerService()
        await joined(service, "a", "b", count=2)
        assert len(cluster.groups) == 1, "one for both"
        cluster.room = 5
        found = await service.reserve("b", {}, CPU, 2, 0.0)
        assert isinstance(found, dict) and list(found) == ["worker-0", "worker-1"]
        other = await service.reserve("b", {}, {"CPU": 2.0}, 1, 0.0)
        assert list(other) == ["worker-2"], "another sort has another name"
        said = await service.reserve("b", {"worker-1": {"CPU": 4.0}}, CPU, 0, 0.0)
        assert isinstance(said, str) and "'worker-1' takes 4 CPU here, but 1 CPU" in said

    play(story())


def test_a_shared_device_is_the_same_for_all(cluster: Cluster) -> None:
    async def story() -> None:
        cluster.room = 5
        service = SchedulerService()
        await joined(service, "a", "b", count=0)
        gpu = Device("gpu-0", kind="gpu", memory_bytes=8 * 2**30, places=2)
        assert isinstance(await service.reserve("a", {"gpu-0": CPU}, CPU, 0, 0.0, [gpu]), dict)
        assert isinstance(await service.reserve("b", {"gpu-0": CPU}, CPU, 0, 0.0, [gpu]), dict)
        other = replace(gpu, places=4, memory_bytes=None)
        said = await service.reserve("b", {"gpu-0": CPU}, CPU, 0, 0.0, [other])
        assert isinstance(said, str)
        assert "'gpu-0' has 4 places and unknown memory here, but 2 places and 8 GiB in a run" in said
        await service.leave("b")
        changed = await service.reserve("a", {"gpu-0": CPU}, CPU, 0, 0.0, [other])
        assert isinstance(changed, dict), "who is alone may say it anew"

    play(story())


def test_with_the_last_run_the_slots_and_the_service_go(cluster: Cluster) -> None:
    async def story() -> None:
        service = SchedulerService()
        await joined(service, "a", "b")
        await service.leave("a")
        assert len(cluster.groups) == 1 and not cluster.killed
        await service.leave("b")
        assert not await service.register("late", "p", ()), "ask for another service"
        await asyncio.sleep(0.05)
        assert cluster.groups == [] and cluster.killed == ["the service"]

    play(story())


def test_a_slot_whose_node_is_gone_is_reserved_anew(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_service, "LOOK_S", 0.01)

    async def story() -> None:
        service = SchedulerService()
        await joined(service, "a", "b")
        (lost,) = cluster.groups
        cluster.table = {lost.name: {"name": lost.name, "state": "CREATED"}}
        await asyncio.sleep(0.05)
        assert cluster.groups == [lost]
        cluster.table[lost.name]["state"] = "RESCHEDULING"
        told = [await letters(service, run, 0) for run in "ab"]
        await asyncio.sleep(0.05)
        (group,) = cluster.groups
        assert group is not lost, "the old one is given back"
        moved: Any = Moved("worker-0", cast("Any", group))
        assert told == [[moved], [moved]]
        cluster.table[group.name] = {"name": group.name, "state": "PENDING"}
        await asyncio.sleep(0.05)
        assert cluster.groups == [group], "it waits in Ray"
        found: Any = await service.reserve("b", {}, CPU, 1, 0.0)
        assert found == {"worker-0": group}
        assert await letters(service, "a", 1) == []
        await service.leave("a")
        await service.leave("b")
        assert cluster.groups == []

    play(story())


def test_a_head_that_cannot_be_asked_is_asked_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_service, "LOOK_S", 0.01)
    answers: list[dict[str, dict[str, str]]] = []

    def look() -> dict[str, dict[str, str]]:
        if answers:
            return answers.pop()
        answers.append({group.name: {"name": group.name, "state": "RESCHEDULING"} for group in cluster.groups})
        raise RuntimeError("the head is away")

    async def story() -> None:
        service = SchedulerService()
        await joined(service, "a")
        monkeypatch.setattr(ray_service, "placement_group_table", look)
        assert isinstance((await letters(service, "a", 0))[0], Moved)
        await service.leave("a")

    play(story())
