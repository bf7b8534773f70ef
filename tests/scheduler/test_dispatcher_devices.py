"""Which device: labels, memory, speed, loaded models, several places; what cannot run anywhere is refused in words."""

from __future__ import annotations

import pytest

from scheduler import Device, Dispatcher, Job, infeasible
from scheduler.eligibility import admitted_bytes
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo

DE, CHARITE = frozenset({"de"}), frozenset({"de", "charite"})


def job(name: str, estimate_s: float | None = 9.0, **fields: object) -> Job:
    return Job("g", name, 1, estimate_s, ord(name[0]), **fields)  # type: ignore[arg-type]


def placed(ledger: Dispatcher, *jobs: Job) -> dict[str, str]:
    ledger.ask(jobs)
    return {job.name: decision.device for decision in ledger.decide() for job in decision.jobs}


def dispatcher(*devices: Device, **options: object) -> Dispatcher:
    ledger = Dispatcher(Fifo(), **options)  # type: ignore[arg-type]
    for device in devices:
        ledger.join(device)
    return ledger


def test_a_job_runs_only_where_all_of_its_labels_are() -> None:
    ledger = dispatcher(Device("a", labels=DE), Device("b", labels=CHARITE), Device("c"))
    assert placed(ledger, job("p", labels=CHARITE), job("q", labels=CHARITE), job("r", labels=DE), job("s")) == {
        "p": "b",
        "r": "a",
        "s": "c",
    }


def test_a_job_that_fits_nowhere_waits_and_one_behind_it_does_not() -> None:
    ledger = dispatcher(Device("a", memory_bytes=10))
    assert placed(ledger, job("p", memory_bytes=11), job("q", memory_bytes=10)) == {"q": "a"}
    ledger.join(Device("b", memory_bytes=11))
    assert placed(ledger) == {"p": "b"}


def test_the_device_that_completes_a_job_earliest_is_taken_and_no_job_waits_for_a_faster_one() -> None:
    speeds = {"slow": 1.0, "fast": 3.0}
    ledger = dispatcher(
        *(Device("a", "slow"), Device("b", "fast"), Device("c", "fast")),
        predict=lambda job, device: (job.estimate_s or 0.0) / speeds[device.kind],
    )
    assert placed(ledger, job("p"), job("q"), job("r")) == {"p": "b", "q": "c", "r": "a"}


def test_places_are_used_as_far_as_there_is_somebody_to_use_them() -> None:
    ledger = dispatcher(Device("a", places=3))
    ledger.limit("a", 1)
    assert placed(ledger, job("p"), job("q"), job("r"), job("s")) == {"p": "a"}
    ledger.limit("a", 2)
    assert placed(ledger) == {"q": "a"}
    ledger.limit("a", None)
    assert placed(ledger) == {"r": "a"}
    ledger.limit("a", 1)
    ledger.done("a", ledger.running("a")[0]), ledger.done("a", ledger.running("a")[0])
    assert placed(ledger) == {}, "one is still at work there"
    ledger.done("a", ledger.running("a")[0])
    assert placed(ledger) == {"s": "a"}


def test_what_should_have_been_over_is_no_company_that_keeps_others_off() -> None:
    """p is thought to take 1 s: twice that and a little later it hangs, whatever company costs."""
    ledger = dispatcher(Device("a", places=2), gain=lambda running, job, device: False)
    assert placed(ledger, job("p", 1.0), job("q", 1.0)) == {"p": "a"}
    assert ledger.decide(2.1) == []
    assert [decision.jobs[0].name for decision in ledger.decide(2.3)] == ["q"]
    unsure = dispatcher(Device("a", places=2), gain=lambda running, job, device: False)
    assert placed(unsure, job("p", 1.0, is_guess=True), job("q", 1.0)) == {"p": "a"}
    assert unsure.decide(1e6) == [], "p has never answered: nobody knows what it takes"


def test_a_loaded_model_counts_as_much_as_its_loading_takes() -> None:
    """b has the model: 9 s there, 9 + 2 elsewhere. A device three times as fast still wins: 3 + 2."""
    ledger = dispatcher(
        *(Device("a"), Device("b")),
        predict=lambda job, device: (job.estimate_s or 0.0) / (3.0 if device.kind == "fast" else 1.0),
        load=lambda model, device: 2.0,
    )
    assert placed(ledger, job("p", model="unet"), job("q", model="vit")) == {"p": "a", "q": "b"}
    for name in ("a", "b"):
        ledger.done(name, ledger.running(name)[0])
    assert placed(ledger, job("r", model="vit")) == {"r": "b"}
    ledger.done("b", ledger.running("b")[0])
    ledger.join(Device("c", "fast"))
    assert placed(ledger, job("s", model="vit")) == {"s": "c"}


def test_a_lost_device_has_nothing_loaded_when_it_comes_back() -> None:
    ledger = dispatcher(Device("a"), Device("b"), load=lambda model, device: 2.0)
    placed(ledger, job("p", model="unet"), job("q", model="unet"))
    ledger.leave("a"), ledger.leave("b")
    ledger.join(Device("a"))
    placed(ledger, job("r", model="unet"))
    ledger.done("a", ledger.running("a")[0])
    ledger.join(Device("B"))
    assert placed(ledger, job("s", model="unet")) == {"s": "a"}, "warm, though B comes first by name"


def test_a_model_that_takes_long_to_load_makes_no_second_place() -> None:
    ledger = dispatcher(Device("a"), load=lambda model, device: 5.0)
    assert placed(ledger, job("p", 0.1, model="unet"), job("q", 0.1, model="unet")) == {"p": "a"}
    ledger.done("a", ledger.running("a")[0])
    assert placed(ledger, job("r", 0.1, model="unet")) == {"q": "a", "r": "a"}


def test_places_run_jobs_at_once_as_far_as_memory_goes_and_empty_devices_come_first() -> None:
    ledger = dispatcher(Device("a", memory_bytes=10, places=3), Device("b", memory_bytes=10, places=3))
    jobs = [job(name, memory_bytes=size) for name, size in zip("pqrstu", (6, 6, 5, 4, 4, 0), strict=True)]
    assert placed(ledger, *jobs) == {"p": "a", "q": "b", "s": "a", "t": "b", "u": "a"}
    ledger.done("b", ledger.running("b")[1])
    assert placed(ledger) == {}, "5 do not fit beside 6"
    ledger.done("b", ledger.running("b")[0])
    assert placed(ledger) == {"r": "b"}


def test_each_place_has_a_second_one_for_short_work_and_never_more_memory_than_the_places_hold_at_once() -> None:
    ledger = dispatcher(Device("a", memory_bytes=10, places=2))
    jobs = [job(name, seconds, memory_bytes=5) for name, seconds in zip("pqrst", (9, 0.2, 0.2, 0.2, 0.2), strict=True)]
    assert placed(ledger, *jobs) == {"p": "a", "q": "a", "r": "a"}, "one behind q, none behind p"
    ledger = dispatcher(Device("a", memory_bytes=10, places=2))
    sizes = zip("pqr", (5, 5, 6), strict=True)
    assert placed(ledger, *(job(name, 0.2, memory_bytes=size) for name, size in sizes)) == {"p": "a", "q": "a"}


def test_a_place_that_company_is_not_worth_has_no_share_of_what_is_dealt_out() -> None:
    """Eight jobs of 1 ms on two places: one call where nothing is gained by company, two of four where it is."""
    for gains, dealt in ((False, [8]), (True, [4, 4])):
        ledger = dispatcher(Device("a", places=2), gain=lambda running, job, device, gains=gains: gains)
        ledger.ask([Job("g", f"g{i}", 1, 0.001, i) for i in range(8)])
        assert [len(decision.jobs) for decision in ledger.decide()] == dealt


def test_places_of_several_devices_are_dealt_equal_shares() -> None:
    ledger = dispatcher(Device("a", places=2), Device("b", places=2))
    ledger.ask([Job("g", f"g{i}", 1, 0.001, i) for i in range(16)])
    dealt = [(decision.device, len(decision.jobs)) for decision in ledger.decide()]
    assert sorted(dealt) == [("a", 4), ("a", 4), ("b", 4), ("b", 4)]


def test_jobs_share_a_device_only_where_that_gains() -> None:
    def gain(running: tuple[Job, ...], candidate: Job, device: Device) -> bool:
        return candidate.model not in {job.model for job in running}

    ledger = dispatcher(Device("a", places=3), gain=gain)
    assert placed(ledger, job("p", model="unet"), job("q", model="unet"), job("r", model="vit")) == {"p": "a", "r": "a"}
    ledger.done("a", ledger.running("a")[0])
    assert placed(ledger) == {"q": "a"}


def test_memory_beside_others_is_rounded_up_by_a_sixty_fourth_at_most() -> None:
    assert [admitted_bytes(size) for size in (0, 1, 127, 128, 129, 255, 1 << 34)] == [0, 1, 127, 128, 130, 256, 1 << 34]
    assert all(size <= admitted_bytes(size) <= size * 65 / 64 for size in range(1, 5000, 7))
    ledger = dispatcher(Device("a", memory_bytes=1023, places=2))
    assert placed(ledger, job("p", memory_bytes=1023)) == {"p": "a"}, "alone it needs no more than it has"


@pytest.mark.parametrize(("policy", "expected"), [(ChainFirst(), "large"), (Fifo(), "small")])
def test_beside_other_jobs_the_run_goes_first_that_fills_the_memory(policy: object, expected: str) -> None:
    """Of 16 GB 7 are taken: a small job is longer and was asked for first, but fits beside anything at any time."""
    ledger = Dispatcher(policy)  # type: ignore[arg-type]
    ledger.join(Device("x", memory_bytes=16, places=2))
    assert placed(ledger, Job("f", "first", 1, 20.0, 0, "f", memory_bytes=7)) == {"first": "x"}
    small = Job("g", "small", 1, 9.0, 1, "g", memory_bytes=1)
    assert placed(ledger, small, Job("h", "large", 1, 3.0, 2, "h", memory_bytes=7)) == {expected: "x"}


def test_the_least_flexible_of_about_equals_goes_first_and_flexibility_follows_the_devices() -> None:
    ledger = Dispatcher(ChainFirst())
    ledger.join(Device("a", labels=DE))
    ledger.ask([job("p", 10.0), job("q", 9.9, labels=DE), job("r", 9.8, labels=DE)])
    assert ledger.decide()[0].jobs[0].name == "p", "all have one device"
    ledger.join(Device("b"))
    ledger.ask([job("s", 10.0)])
    assert [(d.device, d.jobs[0].name) for d in ledger.decide()] == [("b", "s")]
    ledger.done("a", ledger.running("a")[0])
    ledger.ask([job("t", 10.0)])
    assert [(d.device, d.jobs[0].name) for d in ledger.decide()] == [("a", "q")], "t has two devices"


def test_flexibility_is_counted_anew_when_a_device_goes() -> None:
    ledger = Dispatcher(ChainFirst())
    for device in (Device("a", labels=DE), Device("b"), Device("c")):
        ledger.join(device)
    ledger.ask([*(job(name) for name in "klm"), job("p", 10.0), job("q", 9.9, labels=DE), job("r", 9.8)])
    assert [(d.device, d.jobs[0].name) for d in ledger.decide()] == [("a", "q"), ("b", "p"), ("c", "r")]
    ledger.ask([job("s", 10.0), job("t", 9.9, labels=DE)])
    ledger.leave("b"), ledger.leave("c")
    ledger.done("a", ledger.running("a")[0])
    assert [(d.device, d.jobs[0].name) for d in ledger.decide()] == [("a", "s")], "one device each: the longer first"


def test_refusals_name_the_label_or_the_memory_and_end_when_a_device_comes() -> None:
    needs = job("p", labels=CHARITE)
    large = job("q", labels=DE, memory_bytes=40_000_000_000)
    devices = [Device("gpu-3", labels=DE, memory_bytes=24_000_000_000), Device("gpu-4", memory_bytes=80_000_000_000)]
    ledger = dispatcher(*devices)
    ledger.ask([needs, large, job("r", labels=DE)])
    expected = {
        ("g", "p"): "needs labels {charite, de}; no device carries them (nearest: gpu-3 lacks charite)",
        ("g", "q"): "needs 40 GB; no device that carries {de} has as much (largest: gpu-3 with 24 GB)",
    }
    assert dict(ledger.refusals()) == expected
    assert dict(infeasible([needs, large, job("r", labels=DE)], devices)) == expected
    ledger.decide()
    assert dict(ledger.refusals()) == expected and ledger.has_waiting("g")
    ledger.join(Device("gpu-5", labels=CHARITE))
    assert dict(ledger.refusals()) == {}
    ledger.leave("gpu-5")
    assert dict(ledger.refusals()) == expected, "known once, gone now"
    assert dict(infeasible([needs], [])) == {("g", "p"): "no device has joined"}


def test_refusals_name_the_devices_that_might_and_are_not_there() -> None:
    work, far = job("p", labels=CHARITE), [Device(f"gpu-{number}", labels=CHARITE) for number in range(7)]
    ledger = dispatcher(Device("other"))
    ledger.ask([work, job("q")])
    assert dict(ledger.refusals(absent=far[:1])) == {("g", "p"): "gpu-0 is not there"}
    said = "gpu-0, gpu-1, gpu-2, gpu-3, gpu-4 and 2 more are not there"
    assert dict(ledger.refusals(absent=reversed(far))) == {("g", "p"): said}
    assert "needs labels {charite, de}" in ledger.refusals(absent=[Device("another", labels=DE)])["g", "p"]
    assert not ledger.refusals(far, absent=far), "whoever comes"


@pytest.mark.parametrize("num_jobs", [200, 2000])
def test_an_event_looks_at_the_heads_of_lanes_not_at_the_jobs_behind_them(num_jobs: int) -> None:
    """A device that ends asks for a prediction of at most a job of each of nine lanes, and of what it takes."""
    asked = 0

    def predict(job: Job, device: Device) -> float | None:
        nonlocal asked
        asked += 1
        return job.estimate_s

    ledger = dispatcher(*(Device(f"d{i:02}", labels=frozenset({f"n{i % 3}"})) for i in range(30)), predict=predict)
    nations = [frozenset({f"n{i}"}) for i in range(3)]
    ledger.ask([Job(f"g{i % 9}", f"s{i}", 1, 1.0 + i % 7, i, labels=nations[i % 3]) for i in range(num_jobs)])
    ledger.decide()
    for number in range(100):
        asked = 0
        device = f"d{number % 30:02}"
        ledger.done(device, ledger.running(device)[0])
        assert len(ledger.decide()) == 1 and asked <= 10, "one place, one job, no second place for long work"
