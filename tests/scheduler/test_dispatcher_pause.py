"""A paused device takes nothing more, ends what it has, and still counts; what each device would be given first."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Device, Dispatcher, Job, Want
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo
from scheduler.policies.static import Static

DE = frozenset({"de"})


def job(name: str, estimate_s: float | None = 9.0, labels: frozenset[str] = frozenset()) -> Job:
    return Job("g", name, 1, estimate_s, int(name), labels=labels)


def test_a_paused_device_ends_what_it_has_and_counts_as_there() -> None:
    ledger = Dispatcher(Fifo())
    ledger.join(Device("x", labels=DE))
    ledger.ask([job("1", labels=DE), job("2", labels=DE)])
    (first,) = ledger.decide()
    ledger.pause("x")
    ledger.done("x", first.jobs)
    assert ledger.decide() == [] and ledger.running("x") == ()
    assert ledger.refusals() == {} and ledger.devices == ("x",) and ledger.num_waiting == 1
    ledger.pause("x", False)
    assert [decision.jobs[0].name for decision in ledger.decide()] == ["2"]


def test_what_others_have_left_goes_to_the_devices_that_are_not_paused() -> None:
    ledger = Dispatcher(Fifo())
    for name in "xyz":
        ledger.join(Device(name))
    ledger.pause("y")
    ledger.pause("nobody")
    ledger.ask(job(str(number)) for number in range(5))
    assert [decision.device for decision in ledger.decide()] == ["x", "z"]


def test_the_first_of_each_device_by_residency_and_binding() -> None:
    def half(asked: Job, device: Device) -> float:
        return (asked.estimate_s or 0.0) / (2.0 if device.kind == "fast" else 1.0)

    ledger = Dispatcher(ChainFirst(), predict=half)
    for device in (Device("x"), Device("y", "fast", DE), Device("z", labels=frozenset({"fr"}))):
        ledger.join(device)
        ledger.pause(device.name)
    ledger.ask([job("1", 4.0, DE)])
    assert ledger.firsts(["x", "y", "nobody"]) == {"y": Want(ChainFirst().priority(job("1", 4.0), 1), 2.0)}
    ledger.ask([job("2", 3.0)])
    keys = {"x": ChainFirst().priority(job("2", 3.0), 3), "y": ChainFirst().priority(job("1", 4.0), 1)}
    assert {device: want.key for device, want in ledger.firsts("xy").items()} == keys

    bound = Dispatcher(Static())
    for name in "xy":
        bound.join(Device(name))
    bound.ask([job("1"), job("2"), job("3")])
    assert {device: want.key for device, want in bound.firsts("xy").items()} == {"x": (1.0,), "y": (2.0,)}


@pytest.mark.parametrize("policy", [ChainFirst(), Fifo(), Static()])
@settings(max_examples=60)
@given(
    lengths=st.lists(st.none() | st.floats(0.3, 9.0), min_size=1, max_size=9),
    paused=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_whoever_is_taken_up_is_given_what_was_said_to_be_its_first(
    policy: ChainFirst | Fifo | Static, lengths: list[float | None], paused: list[bool]
) -> None:
    ledger = Dispatcher(policy)
    for name, is_paused in zip("xyz", paused, strict=True):
        ledger.join(Device(name))
        ledger.pause(name, is_paused)
    ledger.ask(job(str(number), length) for number, length in enumerate(lengths))
    assert not {decision.device for decision in ledger.decide()} & set(those_paused(paused))
    for device in those_paused(paused):
        said = ledger.firsts([device])
        ledger.pause(device, False)
        given_out = [decision.jobs[0] for decision in ledger.decide() if decision.device == device]
        assert [want.seconds for want in said.values()] == [asked.estimate_s for asked in given_out]


def those_paused(paused: list[bool]) -> list[str]:
    return [name for name, is_paused in zip("xyz", paused, strict=True) if is_paused]
