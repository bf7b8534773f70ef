"""What waits behind a site that hangs goes to who is free, on a driver that does nothing by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crew_play import Play

from hierfl.runtime.driver import Done
from hierfl.runtime.jobs import SiteReport
from hierfl.runtime.results import HandedUp, SitesLost, WorkerLost
from scheduler import Device
from tiers.messages import Share, Update

SITES = ("a", "b", "c")


def two_workers(devices: Sequence[Device] = (Device("worker-0"), Device("worker-1"))) -> Play:
    """All sites have answered in 2 ms before, so that short work may wait behind short work."""
    play = Play({f"world/{site}": 60.0 for site in SITES}, devices)
    play.answer()
    for number, site in enumerate(SITES):
        name = play.ask(f"world/{site}")
        play.end(f"world/{site}")
        ticket, worker, _ = calls(play, "collect")[-1]
        reply(play, ticket, worker, Update("world", number, (Share(site, 1),)), None)
        play.crew.finish(name)
    return play


def calls(play: Play, method: str) -> list[tuple[int, str, tuple[Any, ...]]]:
    """List the calls of a method: ticket, worker, arguments."""
    return [(at, worker, given) for at, (worker, name, given) in enumerate(play.driver.calls) if name == method]


def trains(play: Play) -> dict[str, list[tuple[int, str]]]:
    """Give where each site was asked to train, from the third round on."""
    found: dict[str, list[tuple[int, str]]] = {}
    for ticket, worker, (job, *_) in calls(play, "train")[len(SITES) :]:
        for site, _ in job.sites:
            found.setdefault(site, []).append((ticket, worker))
    return found


def pump(play: Play, now_s: float) -> list[Any]:
    play.now_s = now_s
    return play.crew.pump()


def reply(play: Play, ticket: int, worker: str, value: Any = None, *beside: Any) -> list[Any]:
    return [*play.crew.handle(Done(ticket, worker, value, beside)), *play.crew.pump()]


def hung(play: Play) -> tuple[int, str, int]:
    """Let a and b fill both workers and c wait behind one; b ends, a does not; give c's worker, and both tickets."""
    for site in SITES:
        play.ask(f"world/{site}")
    [(_, worker)] = trains(play)["world/c"]
    [ahead] = [site for site in ("world/a", "world/b") if trains(play)[site][0][1] == worker]
    other = "world/b" if ahead == "world/a" else "world/a"
    play.end(other)
    return trains(play)[ahead][0][0], worker, trains(play)["world/c"][0][0]


def test_what_waits_behind_a_site_that_hangs_is_asked_back_once_and_goes_elsewhere() -> None:
    play = two_workers()
    _, worker, waiting = hung(play)
    assert not pump(play, 0.3) and not calls(play, "take_back"), "it may still come"
    pump(play, 0.5), pump(play, 0.9)
    [(ticket, asked_of, (tickets,))] = calls(play, "take_back")
    assert asked_of == worker and waiting in tickets
    assert len(trains(play)["world/c"]) == 1, "not before the worker has said that it has not begun"
    said = reply(play, ticket, worker, tickets)
    assert any("world/c waited behind work that should have been over" in getattr(one, "message", "") for one in said)
    [_, (_, second)] = trains(play)["world/c"]
    assert second != worker


def test_of_a_single_worker_that_is_late_nothing_is_said() -> None:
    """Nobody else is there to do it: on a busy machine a run of one worker said so many times a round."""
    play = two_workers([Device("worker-0")])
    play.ask("world/a"), play.ask("world/b")
    pump(play, 0.5)
    [(ticket, _, (tickets,))] = calls(play, "take_back")
    assert not [one for one in reply(play, ticket, "worker-0", tickets) if hasattr(one, "message")]
    play.end("world/a")
    assert len(trains(play)["world/b"]) == 2, "it is done all the same, after what was late"


def test_a_run_that_was_held_up_binds_nothing_behind_what_should_have_been_over_meanwhile() -> None:
    """It hears that a is over, is busy for half a second, and only then looks how late b is."""
    play = two_workers([Device("worker-0")])
    for site in SITES:
        play.ask(f"world/{site}")
    [(ticket, worker)] = trains(play)["world/a"]
    list(play.crew.handle(Done(ticket, worker, (SiteReport("world/a", 0.002, 1, 1, 0.0),))))
    list(play.crew.handle(Done(calls(play, "collect")[-2][0], worker, Update("world", 3, (Share("a", 1),)), (None,))))
    pump(play, 0.5), pump(play, 0.51)
    assert (list(trains(play)), calls(play, "take_back")) == (["world/a", "world/b"], [])
    [(ticket, worker)] = trains(play)["world/b"]
    reply(play, ticket, worker, (SiteReport("world/b", 0.002, 1, 1, 0.0),))
    assert list(trains(play)) == ["world/a", "world/b", "world/c"]


def test_what_has_begun_stays_where_it_is() -> None:
    play = two_workers()
    _, worker, _ = hung(play)
    pump(play, 0.5)
    [(ticket, _, _)] = calls(play, "take_back")
    reply(play, ticket, worker, ())
    assert len(trains(play)["world/c"]) == 1


def test_nothing_is_bound_behind_a_worker_that_is_late() -> None:
    play = two_workers()
    _, worker, _ = hung(play)
    pump(play, 0.5)
    [(ticket, _, (tickets,))] = calls(play, "take_back")
    reply(play, ticket, worker, tickets)
    for _ in range(3):
        play.ask("world/b")
    assert {there for _, there in trains(play)["world/b"][1:]} <= {"worker-0", "worker-1"} - {worker}


def test_a_site_that_hangs_is_given_up_alone_when_its_time_is_over() -> None:
    play = two_workers()
    _, worker, _ = hung(play)
    pump(play, 0.5)
    [(ticket, _, (tickets,))] = calls(play, "take_back")
    reply(play, ticket, worker, tickets)
    reply(play, *trains(play)["world/c"][1], (SiteReport("world/c", 0.002, 1, 1, 0.0),))
    lost, gone = play.overdue(61.0)
    assert isinstance(lost, WorkerLost) and lost.worker == worker and lost.sites == tuple(gone.sites)
    assert isinstance(gone, SitesLost) and len(gone.sites) == 1 and "world/c" not in gone.sites


def test_a_worker_dies_while_it_is_asked_back_and_all_is_done_again_once() -> None:
    play = two_workers()
    ahead, worker, _ = hung(play)
    pump(play, 0.5)
    list(play.crew.handle(Done(ahead, worker, crashed="killed")))
    play.crew.pump()
    [(ticket, _, _)] = [call for call in calls(play, "prepare") if call[1] == worker and call[0] > ahead]
    reply(play, ticket, worker)
    assert len(trains(play)["world/a"]) == len(trains(play)["world/c"]) == 2


def test_a_sum_that_is_whole_is_handed_up_past_the_work_of_another_hub() -> None:
    """b and c may go to one worker only; when c, the last, begins, a's worker has long gone on to d of another hub."""
    near = {"world/b": "near", "world/c": "near"}
    devices = [Device("worker-0"), Device("worker-1", labels=frozenset({"near"}))]
    play = Play({f"world/{site}": None for site in "abcd"}, devices, labels=near)
    play.answer()
    play.ask("world/a", "world/b", "world/c"), play.ask("world/d")
    assert play.at_work() == ["world/a", "world/b"]
    play.end("world/a")
    assert play.at_work() == ["world/b", "world/d"]
    assert not [given for _, _, given in calls(play, "collect") if given == ("world", 0)], "there is more to come"
    play.end("world/b")
    assert [(worker, given) for _, worker, given in calls(play, "aside collect")] == [("worker-0", ("world", 0))]
    assert [worker for _, worker, given in calls(play, "collect") if given == ("world", 0)] == ["worker-1"]
    before = play.crew._roster.chunks("worker-0")
    [(ticket, worker, _)] = calls(play, "aside collect")
    results = reply(play, ticket, worker, Update("world", 0, (Share("a", 1),)), None)
    assert any(isinstance(result, HandedUp) for result in results)
    assert play.crew._roster.chunks("worker-0") == before, "d is at work as before"


def test_of_a_chunk_that_is_handed_up_site_by_site_the_rest_is_given_back() -> None:
    play = two_workers()
    name = play.ask("world/a", "world/b", "world/c", one_by_one=True)
    where = {site: asked[0] for site, asked in trains(play).items()}
    [worker] = [each for each in ("worker-0", "worker-1") if sum(w == each for _, w in where.values()) == 2]
    (hangs, ticket), (behind, _) = sorted(
        ((site, ticket) for site, (ticket, w) in where.items() if w == worker), key=lambda each: each[1]
    )
    pump(play, 0.5)
    [(asked, _, (tickets,))] = [call for call in calls(play, "take_back") if call[1] == worker]
    reply(play, asked, worker, tickets)
    assert len(trains(play)[behind]) == 1 + (len(where) == 2), "it waits, or is with the other worker"
    [alone] = [site for site, (_, w) in where.items() if w != worker]
    other = where[alone][1]
    reply(play, where[alone][0], other, (SiteReport(alone, 0.002, 1, 1, 0.0),))
    [_, (_, second)] = trains(play)[behind]
    assert second == other
    reply(play, ticket, worker, (SiteReport(hangs, 0.9, 1, 1, 0.0),))
    member = hangs.rpartition("/")[2]
    collects = [call for call in calls(play, "collect") if call[1] == worker and call[0] > ticket]
    results = reply(play, collects[0][0], worker, Update("world", 3, (Share(member, 1),)), None)
    assert [result.update.shares[0].member for result in results if hasattr(result, "update")] == [member]
    assert play.crew._dispatcher.running(worker) == (), f"the chunk of {name} is over with what is left of it"
