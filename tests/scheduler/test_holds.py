"""Large jobs that go first have a device held for them: what may begin beside, and that nothing idles by it."""

from __future__ import annotations

from random import Random

import pytest

from scheduler import Assign, Device, Dispatcher, Job
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo

GPUS = tuple(Device(f"gpu{i}", "gpu", memory_bytes=16, places=4) for i in range(2))


def job(name: str, memory_bytes: int, seconds: float = 10.0, chain_s: float = 0.0, order: int = 0) -> Job:
    return Job(f"g{memory_bytes}", name, 1, seconds, order, chain_s=chain_s, memory_bytes=memory_bytes)


def filled(policy: ChainFirst | Fifo, devices: tuple[Device, ...] = GPUS) -> Dispatcher:
    """Devices with four small jobs each, begun at 0, and four more that wait."""
    dispatcher = Dispatcher(policy)
    for device in devices:
        dispatcher.join(device)
    dispatcher.ask(job(f"small{i}", 4, seconds=10.0 - i / 100, order=i) for i in range(4 * len(devices) + 4))
    assert len(dispatcher.decide(0.0)) == 4 * len(devices)
    return dispatcher


def end_one(dispatcher: Dispatcher, device: str, now_s: float) -> list[Assign]:
    dispatcher.done(device, dispatcher.running(device)[0])
    return dispatcher.decide(now_s)


def names(decisions: list[Assign]) -> list[tuple[str, str]]:
    return [(decision.device, decision.jobs[0].name) for decision in decisions]


def test_a_large_job_that_goes_first_has_the_device_that_is_free_for_it_soonest() -> None:
    """Four small ones leave it no memory; three of the first device have to end for 13 of its 16."""
    dispatcher = filled(ChainFirst())
    assert end_one(dispatcher, "gpu0", 1.0) == [
        Assign("gpu0", (job("small8", 4, 9.92, order=8),), "longest remaining chain (9.92 s)")
    ]
    dispatcher.ask([job("large", 13, chain_s=100.0, order=99)])
    assert dispatcher.decide(2.0) == []
    assert names(end_one(dispatcher, "gpu1", 3.0)) == [], "the one with the least left: all of it began at 0"
    assert names(end_one(dispatcher, "gpu0", 3.0)) == [("gpu0", "small9")], "the other one is filled as before"
    assert names(end_one(dispatcher, "gpu1", 4.0)) == []
    assert names(end_one(dispatcher, "gpu1", 4.0)) == []
    assert names(end_one(dispatcher, "gpu1", 5.0)) == [("gpu1", "large")]


def test_without_the_rule_small_jobs_keep_every_device_filled() -> None:
    dispatcher = filled(Fifo())
    dispatcher.ask([job("large", 13, chain_s=100.0, order=-1)])
    assert names(end_one(dispatcher, "gpu0", 2.0)) == [("gpu0", "small8")]
    assert names(end_one(dispatcher, "gpu1", 2.0)) == [("gpu1", "small9")]


def test_beside_a_held_place_begins_what_leaves_it_or_has_ended_by_then() -> None:
    dispatcher = filled(ChainFirst(), GPUS[:1])
    dispatcher.ask([job("large", 13, chain_s=100.0, order=99)])
    assert names(end_one(dispatcher, "gpu0", 4.0)) == [], "9.96 s are longer than the 8.96 s that are left"
    dispatcher.ask([job("tiny", 3, seconds=99.0, order=50)])
    assert names(dispatcher.decide(4.0)) == [("gpu0", "tiny")], "3 beside 13"
    dispatcher.ask([job("tiny too", 3, seconds=99.0, order=51)])
    assert names(dispatcher.decide(4.0)) == [], "the places are in use"
    assert names(end_one(dispatcher, "gpu0", 5.0)) == []
    dispatcher.ask([job("short", 5, seconds=1.0, order=52)])
    assert names(dispatcher.decide(5.0)) == [("gpu0", "short")], "it is gone when the others are"


def test_at_most_half_of_the_devices_hold_large_jobs_so() -> None:
    dispatcher = filled(ChainFirst())
    dispatcher.ask([job(f"large{i}", 13, chain_s=100.0, order=90 + i) for i in range(3)])
    assert dispatcher.decide(1.0) == []
    for _ in range(3):
        assert names(end_one(dispatcher, "gpu0", 2.0)) == []
    assert names(end_one(dispatcher, "gpu0", 3.0)) == [("gpu0", "large0")]
    assert names(end_one(dispatcher, "gpu1", 3.0)) == [("gpu1", "small8")], "one of two devices has a large one"


@pytest.mark.parametrize("way", ["withdrawn", "another policy", "a smaller need"])
def test_what_is_held_is_let_go_with_its_reason(way: str) -> None:
    dispatcher = filled(ChainFirst(), GPUS[:1])
    dispatcher.ask([job("large", 8 if way == "a smaller need" else 13, chain_s=100.0, order=99)])
    if way == "withdrawn":
        assert end_one(dispatcher, "gpu0", 1.0) == []
        dispatcher.withdraw("g13")
    elif way == "another policy":
        assert end_one(dispatcher, "gpu0", 1.0) == []
        dispatcher.use(Fifo())
    else:
        dispatcher.done("gpu0", dispatcher.running("gpu0")[0])
    assert names(dispatcher.decide(1.0)) == [("gpu0", "small4")]


def test_no_device_is_idle_for_what_it_is_held_for_and_all_is_done() -> None:
    """Drawn histories: a device without work takes what it may, a held one is at work, and memory is kept."""
    held = 0
    for seed in range(30):
        random = Random(seed)
        dispatcher, waiting, now_s = Dispatcher(ChainFirst()), dict[tuple[str, str], Job](), 0.0
        for number in range(random.randint(1, 4)):
            dispatcher.join(
                Device(f"d{number}", "gpu", memory_bytes=random.choice([12, 16]), places=random.randint(2, 4))
            )
        asked = 0
        for _ in range(60):
            if random.random() < 0.7:
                asked += 1
                need = random.choice([1, 3, 4, 6, 11])
                made = job(f"s{asked}", need, random.uniform(1.0, 9.0), 50.0 if need == 11 else 0.0, asked)
                waiting[made.key] = made
                dispatcher.ask([made])
            busy = [name for name in dispatcher.devices if dispatcher.running(name)]
            if busy and random.random() < 0.5:
                name = random.choice(busy)
                dispatcher.done(name, random.choice(dispatcher.running(name)))
            now_s += random.random()
            for decision in dispatcher.decide(now_s):
                for each in decision.jobs:
                    del waiting[each.key]
            for name in dispatcher.devices:
                device, chunks = dispatcher.device(name), dispatcher.running(name)
                assert chunks or not any(each.memory_bytes <= (device.memory_bytes or 0) for each in waiting.values())
                assert sum(max(each.memory_bytes for each in chunk) for chunk in chunks) <= (device.memory_bytes or 0)
                held += dispatcher._shelves.slots[name].hold is not None
        while any(dispatcher.running(name) for name in dispatcher.devices):
            for name in dispatcher.devices:
                for chunk in dispatcher.running(name):
                    dispatcher.done(name, chunk)
            now_s += 1.0
            for decision in dispatcher.decide(now_s):
                for each in decision.jobs:
                    del waiting[each.key]
        assert not waiting
    assert held > 100
