"""The dispatcher by example: who is fed first, how much goes into one call, what waits at a busy device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler import Assign, Device, Dispatcher, Job
from scheduler.dispatch import CHUNK_MAX_S, CHUNK_MIN_S, PREFETCH_S
from scheduler.policies.chain_first import ChainFirst
from scheduler.policies.fifo import Fifo
from scheduler.policies.longest_first import LongestFirst
from scheduler.policies.round_robin import RoundRobin
from scheduler.policies.static import Static
from scheduler.policy import Policy


def jobs(*estimates: float | None, group: str = "g") -> list[Job]:
    return [Job(group, f"{group}{i}", 1, estimate, i) for i, estimate in enumerate(estimates)]


def dispatcher(*devices: str, depth: int = 2, policy: Policy | None = None) -> Dispatcher:
    found = Dispatcher(policy or Fifo(), depth)
    for device in devices:
        found.join(Device(device))
    return found


def said(decisions: list[Assign]) -> list[tuple[str, list[str]]]:
    return [(decision.device, [job.name for job in decision.jobs]) for decision in decisions]


def test_idle_devices_come_before_second_places() -> None:
    ledger = dispatcher("x", "y")
    ledger.ask(jobs(0.2, 0.2, 0.2, 0.2, 0.2))
    assert said(ledger.decide()) == [("x", ["g0"]), ("y", ["g1"]), ("x", ["g2"]), ("y", ["g3"])]
    assert ledger.decide() == [] and ledger.has_waiting("g")
    ledger.done("y", ledger.running("y")[0])
    assert said(ledger.decide()) == [("y", ["g4"])]
    assert not ledger.has_waiting("g")


def test_a_device_that_was_emptied_is_fed_before_one_with_a_place() -> None:
    ledger = dispatcher("x", "y")
    ledger.ask(jobs(0.2, 0.2, 0.2))
    ledger.decide()
    for chunk in ledger.running("y"):
        ledger.done("y", chunk)
    ledger.ask(jobs(0.2, group="h"))
    assert said(ledger.decide()) == [("y", ["h0"])]


def test_long_work_is_bound_late() -> None:
    """x ends first and takes what would else have waited behind y."""
    ledger = dispatcher("x", "y")
    ledger.ask(jobs(1, 9, 9))
    assert said(ledger.decide()) == [("x", ["g0"]), ("y", ["g1"])]
    ledger.done("x", ledger.running("x")[0])
    assert said(ledger.decide()) == [("x", ["g2"])]


@pytest.mark.parametrize(
    ("running", "following", "waits_there"),
    [
        (PREFETCH_S, PREFETCH_S, True),
        (PREFETCH_S, 0.21, False),
        (0.21, PREFETCH_S, False),
        (None, 0.1, False),
        (0.1, None, False),
    ],
)
def test_only_short_work_waits_at_a_busy_device_and_only_behind_short_work(
    running: float | None, following: float | None, waits_there: bool
) -> None:
    ledger = dispatcher("x")
    ledger.ask(jobs(running, following))
    assert len(ledger.decide()) == (2 if waits_there else 1)


def test_nothing_is_bound_behind_work_that_should_have_been_over() -> None:
    """g0 was thought to take 0.1 s and hangs: what comes now waits for a device that ends."""
    ledger = dispatcher("x")
    ledger.ask(jobs(0.1))
    ledger.decide(7.0)
    assert ledger.decide(7.0 + PREFETCH_S) == []
    ledger.ask(jobs(0.1, group="h"))
    assert ledger.decide(7.3) == []
    ledger.join(Device("y"))
    assert said(ledger.decide(7.4)) == [("y", ["h0"])]
    ledger.ask(jobs(0.1, group="i"))
    assert said(ledger.decide(7.5)) == [("y", ["i0"])], "behind the one that is not late"


def test_nothing_is_bound_behind_a_site_that_has_never_answered() -> None:
    """It is thought to take 0.1 s by what others took, and may hang; it may wait itself behind one that has."""
    guess = replace(jobs(0.1, group="h")[0], is_guess=True)
    ledger = dispatcher("x")
    ledger.ask([guess, *jobs(0.1)])
    assert said(ledger.decide()) == [("x", ["h0"])]
    ledger.join(Device("y"))
    assert said(ledger.decide()) == [("y", ["g0"])]
    ledger = dispatcher("x")
    ledger.ask([*jobs(0.1), guess])
    assert said(ledger.decide()) == [("x", ["g0"]), ("x", ["h0"])]


def test_what_follows_a_chunk_is_late_by_its_own_time() -> None:
    """g1 begins when g0 has ended; a device that has gone and come back is late with nothing."""
    ledger = dispatcher("x")
    ledger.ask(jobs(0.2, 0.2, 0.2))
    assert len(ledger.decide(0.0)) == 2
    ledger.done("x", ledger.running("x")[0])
    assert said(ledger.decide(0.15)) == [("x", ["g2"])]
    ledger.done("x", ledger.running("x")[1])
    ledger.ask(jobs(0.2, group="h"))
    assert said(ledger.decide(0.3)) == [("x", ["h0"])], "g1 runs since 0.15"
    ledger.leave("x")
    ledger.join(Device("x"))
    ledger.ask(jobs(0.2, group="i"))
    assert said(ledger.decide(0.4)) == [("x", ["i0"])]
    ledger.ask(jobs(0.2, group="k"))
    assert said(ledger.decide(0.5)) == [("x", ["k0"])], "i0 runs since 0.4, g1 is gone"


def test_what_is_next_but_long_is_not_overtaken_by_what_is_short() -> None:
    ledger = dispatcher("x")
    ledger.ask(jobs(0.2, 9, 0.1))
    assert said(ledger.decide()) == [("x", ["g0"])]


def test_a_second_place_opens_when_another_device_takes_the_long_job_in_front() -> None:
    ledger = dispatcher("x")
    ledger.ask(jobs(0.2, 9, 0.1))
    ledger.decide()
    ledger.join(Device("y"))
    assert said(ledger.decide()) == [("y", ["g1"]), ("x", ["g2"])]


def test_a_second_place_opens_when_the_long_job_in_front_goes_to_a_device_that_ends() -> None:
    ledger = dispatcher("x", "y")
    ledger.ask(jobs(0.2, 9, 9, 0.1))
    assert said(ledger.decide()) == [("x", ["g0"]), ("y", ["g1"])]
    ledger.done("y", ledger.running("y")[0])
    assert said(ledger.decide()) == [("y", ["g2"]), ("x", ["g3"])]


def test_what_is_to_be_alone_shares_a_chunk_with_nobody() -> None:
    """The second of four: the first is not followed by it, nor it by the third."""
    first, second, *others = jobs(*[0.002] * 4)
    ledger = dispatcher("x", depth=4)
    ledger.ask([first, replace(second, is_alone=True), *others])
    assert [each for _, each in said(ledger.decide())] == [["g0"], ["g1"], ["g2", "g3"]]


def test_short_jobs_share_a_call_until_it_is_long_enough() -> None:
    """Twelve jobs of 4 ms on one device: a call holds at least 10 ms, or a place's share of all that waits."""
    ledger = dispatcher("x")
    ledger.ask(jobs(*[0.004] * 12))
    first, second = ledger.decide()
    assert len(first.jobs) == 6, "half of 48 ms for each of two places"
    assert len(second.jobs) == 3, "half of the 24 ms left"


def test_a_call_is_never_longer_than_the_maximum_or_one_job() -> None:
    ledger = dispatcher("x")
    ledger.ask(jobs(*[0.03] * 100))
    assert [len(decision.jobs) for decision in ledger.decide()] == [3, 3]
    ledger = dispatcher("x")
    ledger.ask(jobs(0.15, 0.001, 0.001))
    assert said(ledger.decide()) == [("x", ["g0"]), ("x", ["g1", "g2"])]
    assert CHUNK_MIN_S < CHUNK_MAX_S


def test_what_one_short_call_for_each_takes_is_dealt_out_at_once() -> None:
    """Eight jobs of 1 or 4.9 ms: four for each of two devices, or of two places of one; of ten of 6 ms two at first."""
    for seconds in (0.001, 0.0049):
        for places in (1, 2):
            ledger = dispatcher()
            for name in ("x", "y")[: 2 // places]:
                ledger.join(Device(name, places=places))
            ledger.ask(jobs(*[seconds] * 8))
            assert [len(decision.jobs) for decision in ledger.decide()] == [4, 4]
    ledger = dispatcher("x", "y")
    ledger.ask(jobs(*[0.006] * 10))
    assert len(ledger.decide()[0].jobs) == 2


def test_what_is_dealt_out_is_even_in_seconds_too() -> None:
    """16 ms in one job and 12 in twelve: the second device takes all that is not the first one's."""
    ledger = dispatcher("x", "y")
    ledger.ask(jobs(0.016, *[0.001] * 12))
    assert said(ledger.decide()) == [("x", ["g0"]), ("y", [f"g{i}" for i in range(1, 13)])]


def test_what_is_dealt_out_comes_as_near_its_share_as_it_may() -> None:
    """Of 30 ms, 15 each: with the third job, of 3.8 ms, the first device is over by 1.8, without it 2 below."""
    ledger = dispatcher("x", "y")
    ledger.ask(jobs(0.008, 0.005, 0.0038, 0.005, 0.0045, 0.0037))
    assert said(ledger.decide()) == [("x", ["g0", "g1", "g2"]), ("y", ["g3", "g4", "g5"])]


def test_devices_share_what_waits() -> None:
    """Four tiny jobs on four devices go to four, though one call could hold them."""
    ledger = dispatcher("a", "b", "c", "d")
    ledger.ask(jobs(*[0.0001] * 4))
    assert [len(decision.jobs) for decision in ledger.decide()] == [1, 1, 1, 1]


def test_unknown_durations_go_alone() -> None:
    ledger = dispatcher("w", "x", "y", "z")
    ledger.ask(jobs(None, 0.001, None, 0.001))
    assert said(ledger.decide()) == [("w", ["g0"]), ("x", ["g1"]), ("y", ["g2"]), ("z", ["g3"])]


def test_groups_never_share_a_call_and_the_policy_chooses_between_them() -> None:
    ledger = dispatcher("x", policy=LongestFirst())
    ledger.ask(jobs(0.001, 0.002, group="g"))
    ledger.ask(jobs(0.003, group="h"))
    assert said(ledger.decide()) == [("x", ["h0"]), ("x", ["g1", "g0"])]


def test_who_leaves_gives_its_work_back() -> None:
    ledger = dispatcher("x", "y")
    work = jobs(0.2, 0.2, 0.2, 0.2, 0.2)
    ledger.ask(work)
    ledger.decide()
    assert ledger.leave("x") == (work[0], work[2])
    assert ledger.leave("x") == () and ledger.running("x") == () and ledger.devices == ("y",)
    ledger.done("x", (work[0],))
    ledger.ask(work[:1])
    ledger.join(Device("x"))
    assert said(ledger.decide()) == [("x", ["g0"]), ("x", ["g4"])]


def test_joining_twice_keeps_the_work() -> None:
    ledger = dispatcher("x")
    ledger.ask(jobs(9))
    ledger.decide()
    ledger.join(Device("x"))
    assert len(ledger.running("x")) == 1


def test_a_group_is_taken_back() -> None:
    ledger = dispatcher("x")
    ledger.ask(jobs(0.2, 0.2, 9, 9))
    ledger.decide()
    ledger.ask(jobs(9, group="h"))
    assert ledger.withdraw("g") == (("g", "g2"), ("g", "g3")), "in the order of asking"
    assert ledger.withdraw("g") == () and not ledger.has_waiting("g") and ledger.has_waiting("h")
    assert len(ledger.running("x")) == 2, "what runs, runs on"


def test_nothing_is_decided_without_devices_or_work() -> None:
    ledger = dispatcher()
    ledger.ask(jobs(1))
    assert ledger.decide() == [] and ledger.has_waiting("g")
    assert dispatcher("x").decide() == []


def test_work_has_begun_when_the_one_before_it_has_ended_though_nothing_waits_then() -> None:
    ledger = dispatcher("x")
    ledger.ask(jobs(0.1, 0.11))
    assert len(ledger.decide(0.0)) == 2
    ledger.done("x", ledger.running("x")[0])
    assert ledger.decide(0.1) == []
    ledger.ask(jobs(0.1, group="h"))
    assert ledger.decide(0.15 + PREFETCH_S) == [], "nothing waits behind what should have been over"
    assert dispatcher("x").decide(9.0) == []


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_depth_bounds_what_a_device_holds(depth: int) -> None:
    ledger = dispatcher("x", depth=depth)
    ledger.ask(jobs(*[0.2] * 5))
    assert len(ledger.decide()) == depth == len(ledger.running("x"))


def test_estimates_that_were_learned_order_anew_and_open_second_places() -> None:
    ledger = dispatcher("x", policy=LongestFirst())
    ledger.ask(jobs(0.1, 7.0, 5.0))
    ledger.ask(jobs(0.15, group="h"))
    assert said(ledger.decide()) == [("x", ["g1"])]
    ledger.done("x", ledger.running("x")[0])
    ledger.refresh(lambda job: replace(job, estimate_s={"g0": 0.19, "g2": None}.get(job.name, job.estimate_s)))
    (decision,) = ledger.decide()
    assert decision.jobs[0].name == "g2" and decision.jobs[0].estimate_s is None, "unknown again, so it goes first"
    ledger.done("x", decision.jobs)
    assert said(ledger.decide()) == [("x", ["g0"]), ("x", ["h0"])]


def test_chains_that_were_learned_order_anew() -> None:
    """Two hubs' rounds, asked for when nothing was known: h's is the one that 60 s hang on."""
    ledger = dispatcher("x", policy=ChainFirst())
    ledger.ask([*jobs(9.0, 9.0), *jobs(5.0, group="h")])
    assert said(ledger.decide()) == [("x", ["g0"])]
    ledger.refresh(lambda job: replace(job, chain_s=60.0 if job.group == "h" else 20.0))
    ledger.done("x", ledger.running("x")[0])
    (decision,) = ledger.decide()
    assert decision.jobs[0].name == "h0" and decision.jobs[0].chain_s == 60.0


def test_a_job_that_turns_out_short_waits_at_a_busy_device() -> None:
    ledger = dispatcher("x")
    ledger.ask(jobs(0.1, 9))
    assert said(ledger.decide()) == [("x", ["g0"])]
    ledger.refresh(lambda job: replace(job, estimate_s=0.15))
    assert said(ledger.decide()) == [("x", ["g1"])]


def test_the_policy_may_change_while_work_waits() -> None:
    ledger = dispatcher("x")
    ledger.ask(jobs(1, 2, 3))
    assert said(ledger.decide()) == [("x", ["g0"])]
    ledger.use(LongestFirst())
    assert ledger.policy == LongestFirst()
    ledger.done("x", ledger.running("x")[0])
    assert said(ledger.decide()) == [("x", ["g2"])]


def test_static_keeps_a_sites_device_and_round_robin_does_not() -> None:
    """Three sites on two devices, two rounds: the second round begins with b's seat, or at y's turn."""
    for policy, second in ((Static(), {"x": ["a", "c"], "y": ["b"]}), (RoundRobin(), {"x": ["c"], "y": ["b", "a"]})):
        ledger, had = dispatcher("x", "y", policy=policy), []
        for names in ("abc", "bca"):
            ledger.ask([Job("g", name, 1, 9.0, i) for i, name in enumerate(names)])
            had.append({"x": [], "y": []})
            while decisions := ledger.decide():
                for decision in decisions:
                    had[-1][decision.device] += [job.name for job in decision.jobs]
                    ledger.done(decision.device, decision.jobs)
        assert had[0] == {"x": ["a", "c"], "y": ["b"]}
        assert {device: sorted(names) for device, names in had[1].items()} == {
            device: sorted(names) for device, names in second.items()
        }


def test_a_static_device_that_comes_back_at_once_keeps_its_sites_and_one_that_does_not_leaves_them_to_others() -> None:
    ledger = dispatcher("x", "y", policy=Static())
    ledger.ask(jobs(9, 9, 9, 9))
    assert said(ledger.decide()) == [("x", ["g0"]), ("y", ["g1"])]
    ledger.ask(ledger.leave("y"))
    ledger.join(Device("y"))
    assert said(ledger.decide()) == [("y", ["g1"])]
    ledger.leave("y")
    ledger.done("x", ledger.running("x")[0])
    assert said(ledger.decide()) == [("x", ["g2"])]
    ledger.done("x", ledger.running("x")[0])
    assert said(ledger.decide()) == [("x", ["g3"])]
