"""A device that holds a job's data is preferred by what that saves, and by no more."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from scheduler import Assign, Device, Dispatcher, Job
from scheduler.policies.fifo import Fifo
from scheduler.policies.longest_first import LongestFirst

SECONDS = {"fast": 1.0, "slow": 2.0}
HELD: Mapping[str, Mapping[str, float]] = {"a": {"d2": 0.5}, "b": {"d1": 0.5, "gone": 0.5}}


def dispatcher(*devices: Device, held: Mapping[str, Mapping[str, float]] = HELD, claims: bool = False) -> Dispatcher:
    made = Dispatcher(
        LongestFirst() if claims else Fifo(),
        predict=lambda job, device: SECONDS.get(device.kind, 1.0),
        saves=lambda job: held.get(job.name, {}),
    )
    for device in devices:
        made.join(device)
    return made


def job(name: str, order: int = 0, labels: frozenset[str] = frozenset()) -> Job:
    return Job("g", name, 1, 1.0, order, labels=labels)


def places(decisions: list[Assign]) -> dict[str, str]:
    return {each.name: decision.device for decision in decisions for each in decision.jobs}


def test_among_equal_devices_the_one_that_holds_the_data() -> None:
    made = dispatcher(*(Device(f"d{number}") for number in range(3)))
    made.ask([job("a", 0), job("b", 1), job("c", 2)])
    assert places(made.decide()) == {"a": "d2", "b": "d1", "c": "d0"}


def test_no_device_waits_for_its_data_and_no_job_for_its_device() -> None:
    made = dispatcher(Device("d0"), Device("d2"))
    made.ask([job("c", 0), job("d", 1), job("a", 2)])
    assert places(made.decide()) == {"c": "d0", "d": "d2"}
    made.done("d0", [job("c", 0)])
    assert places(made.decide()) == {"a": "d0"}


@pytest.mark.parametrize("claims", [False, True])
@pytest.mark.parametrize(("saved_s", "chosen"), [(0.9, "fast-0"), (1.1, "slow-0")])
def test_it_counts_for_as_many_seconds_as_it_saves(saved_s: float, chosen: str, claims: bool) -> None:
    held = {"a": {"slow-0": saved_s}}
    made = dispatcher(Device("fast-0", "fast"), Device("slow-0", "slow"), held=held, claims=claims)
    made.ask([job("a")])
    assert places(made.decide()) == {"a": chosen}


def test_a_device_that_others_need_is_left_to_them() -> None:
    """What may go anywhere does not take the one device that confined work may use, for the sake of half a second."""
    here = frozenset({"de"})
    made = dispatcher(Device("d1"), Device("d2", labels=here))
    made.ask([job("a", 0), job("c", 1, here)])
    assert places(made.decide()) == {"a": "d1", "c": "d2"}


def test_of_two_that_hold_the_data_the_one_that_ends_first() -> None:
    held = {"a": {"slow-0": 1.1, "fast-0": 0.9}}
    made = dispatcher(Device("fast-0", "fast"), Device("slow-0", "slow"), held=held)
    made.ask([job("a")])
    assert places(made.decide()) == {"a": "fast-0"}
