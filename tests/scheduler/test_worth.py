"""Worth of company: a small job does not shut better company out for a trifle, and nothing urgent waits for that."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from scheduler import Device, Dispatcher, Job
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo
from scheduler.worth import Worth

RATES = (1.0, 1.5, 1.8, 2.0)
NEEDS = {"dense": 10, "unet": 35, "nnunet": 70, "swin": 145}
"""Of 160. With as much work of each model, a second of them is worth 1/3, 1/2, 2/3 and 1."""

GPU = Device("gpu0", "gpu", memory_bytes=160, places=4)


def total(models: Sequence[str], device: Device) -> float | None:
    return RATES[min(len(models), 4) - 1]


def job(model: str, name: str = "s", seconds: float | None = 10.0, chain_s: float = 0.0, order: int = 0) -> Job:
    need = NEEDS.get(model, 80)
    return Job(f"{model}#0", name, 1, seconds, order, run=model, chain_s=chain_s, memory_bytes=need, model=model)


def priced(seconds: dict[str, float], devices: Sequence[Device] = (GPU,)) -> Worth:
    worth = Worth(total, lambda job, device: job.estimate_s)
    for model, took in seconds.items():
        worth.ask(job(model, seconds=took))
    assert worth.settle(set(seconds), devices)
    return worth


def joins(worth: Worth, beside: str, model: str, device: Device = GPU) -> bool:
    return worth.joins([job(each) for each in beside.split()], job(model), device)


@pytest.mark.parametrize(
    ("beside", "model", "does"),
    [
        ("nnunet", "nnunet", True),  # 0.67 -> 1: nothing better
        ("nnunet", "dense", True),  # 0.67 -> 0.75
        ("nnunet dense", "dense", True),  # 0.75 -> 0.8, and two nnunets and two denses fit
        ("nnunet dense dense", "dense", False),  # 0.8 -> 0.83, and no second nnunet any more
        ("nnunet dense dense", "nnunet", True),
        ("unet unet unet", "dense", False),  # 0.9 -> 0.92; with one more unet 1
        ("unet unet unet", "unet", True),
        ("nnunet unet", "dense", True),  # one more unet fits
        ("swin", "dense", True),  # 1 -> 1
    ],
)
def test_who_joins_by_hand(beside: str, model: str, does: bool) -> None:
    assert joins(priced(dict.fromkeys(NEEDS, 100.0)), beside, model) is does


def test_prices_follow_the_work_that_is_open() -> None:
    """With far more work for dense than for the others its places are what is scarce: it takes all that are free."""
    worth = priced(dict.fromkeys(NEEDS, 100.0))
    for model in NEEDS:
        worth.ask(job(model, seconds=101.0))
    assert not worth.settle(set(NEEDS), [GPU]), "about as before"
    worth.ask(job("dense", seconds=5000.0))
    assert worth.is_stale and worth.settle(set(NEEDS), [GPU])
    assert joins(worth, "nnunet dense dense", "dense") and joins(worth, "unet unet unet", "dense")


def test_a_run_that_is_gone_has_no_price() -> None:
    """Without unets and nnunets a dense shuts nobody out."""
    worth = priced(dict.fromkeys(NEEDS, 100.0))
    assert not joins(worth, "unet unet unet", "dense")
    assert worth.settle({"dense", "swin"}, [GPU])
    assert joins(worth, "unet unet unet", "dense")


def test_a_rate_that_is_learned_makes_new_prices() -> None:
    known = {1: 1.0}
    worth = Worth(lambda models, device: known.get(len(models)), lambda job, device: job.estimate_s)
    for model in NEEDS:
        worth.ask(job(model, seconds=100.0))
    assert worth.settle(set(NEEDS), [GPU])
    assert joins(worth, "nnunet dense dense", "dense"), "what nobody has measured is not valued"
    known |= dict(enumerate(RATES, 1))
    assert worth.settle(set(NEEDS), [GPU])
    assert not joins(worth, "nnunet dense dense", "dense")


@pytest.mark.parametrize("why", ["one class", "a duration unknown", "too many sets", "fits nowhere beside others"])
def test_without_prices_any_company_will_do(why: str) -> None:
    devices, seconds = [GPU], dict.fromkeys(NEEDS, 100.0)
    worth = Worth(total, lambda job, device: job.estimate_s)
    if why == "one class":
        seconds = {"dense": 100.0}
    if why == "too many sets":
        devices = [Device("d", "gpu", memory_bytes=9999, places=12)]
    for model, took in seconds.items():
        worth.ask(job(model, seconds=None if why == "a duration unknown" and model == "unet" else took))
    if why == "fits nowhere beside others":
        worth.ask(Job("huge", "s", 1, 9.0, 0, run="huge", memory_bytes=999, model="huge"))
    worth.settle({*seconds, "huge"}, devices)
    assert joins(worth, "nnunet dense dense", "dense", devices[0])


def filled(policy: ChainFirst | Fifo, **chains_s: float) -> Dispatcher:
    """A device with a nnunet and two denses and a place free, a dense that waits, and one for whom there is no room."""
    dispatcher = Dispatcher(policy, total=total)
    dispatcher.join(GPU)
    dispatcher.ask([job("nnunet", chain_s=300.0), *(job("dense", f"s{i}", 5.0, 100.0, i) for i in range(2))])
    assert len(dispatcher.decide(0.0)) == 3, "one class has no more than a place of its own"
    dispatcher.ask([job("dense", "waits", 0.1, chains_s.get("dense", 100.0), 9)])
    dispatcher.ask([job("half", "large", 10.0, 200.0, 1)])
    return dispatcher


def test_a_small_job_leaves_the_last_place_to_those_who_are_about_to_come() -> None:
    dispatcher = filled(ChainFirst())
    assert dispatcher.decide(0.0) == []
    dispatcher.ask([job("nnunet", "second", 10.0, 50.0, 5)])
    (assign,) = dispatcher.decide(1.0)
    assert assign.jobs[0].name == "second"
    assert len(filled(Fifo()).decide(0.0)) == 1, "another policy fills every place"


def test_what_goes_first_of_all_joins_in_any_case() -> None:
    (assign,) = filled(ChainFirst(), dense=900.0).decide(0.0)
    assert assign.jobs[0].name == "waits"


def test_what_goes_first_by_now_joins_though_nothing_else_has_changed() -> None:
    dispatcher = filled(ChainFirst())
    assert dispatcher.decide(0.0) == []
    dispatcher.withdraw("half#0")
    (assign,) = dispatcher.decide(0.0)
    assert assign.jobs[0].name == "waits"


def test_all_is_done_and_no_device_without_work_waits() -> None:
    """Drawn histories: an idle device takes what it may, memory is kept, and nothing is left over."""
    refused = 0
    for seed in range(30):
        random = Random(seed)
        dispatcher, waiting, now_s = Dispatcher(ChainFirst(), total=total), dict[tuple[str, str], Job](), 0.0
        for number in range(random.randint(1, 3)):
            dispatcher.join(Device(f"d{number}", "gpu", memory_bytes=160, places=4))
        for number in range(80):
            if random.random() < 0.8:
                model = random.choice(list(NEEDS))
                made = job(model, f"s{number}", random.uniform(5.0, 15.0), random.uniform(0.0, 99.0), number)
                waiting[made.key] = made
                dispatcher.ask([made])
            busy = [name for name in dispatcher.devices if dispatcher.running(name)]
            if busy and (random.random() < 0.6 or number > 70):
                name = random.choice(busy)
                dispatcher.done(name, random.choice(dispatcher.running(name)))
            now_s += random.random()
            for decision in dispatcher.decide(now_s):
                for each in decision.jobs:
                    del waiting[each.key]
            for name in dispatcher.devices:
                held = [chunk[0].memory_bytes for chunk in dispatcher.running(name)]
                assert sum(held) <= 160 and (held or not waiting)
                refused += len(held) < 4 and any(each.memory_bytes <= 160 - sum(held) for each in waiting.values())
        while any(dispatcher.running(name) for name in dispatcher.devices):
            for name in dispatcher.devices:
                for chunk in dispatcher.running(name)[:1]:
                    dispatcher.done(name, chunk)
            now_s += 1.0
            for decision in dispatcher.decide(now_s):
                for each in decision.jobs:
                    del waiting[each.key]
        assert not waiting
    assert refused > 50
