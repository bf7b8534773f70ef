"""Work that takes too long, and work that no device can take, on a driver that does nothing by itself."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from crew_play import Play

from hierfl.errors import ConfigError
from hierfl.runtime.driver import Done
from hierfl.runtime.estimates import Estimates
from hierfl.runtime.foresight import check_needs
from hierfl.runtime.jobs import SiteReport
from hierfl.runtime.results import SitesLost, WorkerLost
from scheduler import Device

GIB = 2**30


def test_every_site_has_a_limit_of_its_own() -> None:
    play = Play({"world/a": 5.0, "world/b": None}, [Device("worker-0"), Device("worker-1")])
    play.answer()
    play.ask("world/a", "world/b")
    assert play.overdue(4.9) == []
    lost, gone = play.overdue(5.1)
    assert isinstance(lost, WorkerLost) and lost.sites == ("world/a",)
    assert isinstance(gone, SitesLost) and "no answer within 5 s (site_timeout_s)" in gone.sites["world/a"]
    assert play.overdue(1e6) == [], "b has no limit"


def test_a_process_that_warms_up_costs_no_site_its_time() -> None:
    play = Play({"world/a": 5.0})
    play.answer()
    play.crew.prepare(None, None)  # the worker builds the model, for a long time, before it can train
    play.ask("world/a")
    assert play.overdue(100.0) == []
    play.answer()
    assert play.overdue(104.9) == []
    assert play.overdue(105.1) != []


def test_what_no_device_can_hold_is_refused_before_the_start_by_name() -> None:
    estimates = Estimates("model")
    estimates.learn_memory(32, 4 * GIB, 0, "default")
    play = Play({f"world/{name}": None for name in "abcdefg"})
    small = Device("gpu-0", memory_bytes=GIB)
    with pytest.raises(ConfigError, match=r"world/a, world/b, .* and 2 more sites: each needs 4\.72 GB") as caught:
        check_needs(estimates, play.sites, [small])
    assert "memory_gib" in str(caught.value) and "training.batch_size" in str(caught.value)
    check_needs(estimates, play.sites, [small, Device("gpu-1", memory_bytes=8 * GIB)])


def test_a_need_that_grows_beyond_every_device_ends_by_name_and_the_others_go_on() -> None:
    play = Play({"world/a": None}, [Device("gpu-0", memory_bytes=GIB)])
    play.answer()
    play.ask("world/a")
    report = SiteReport("world/a", 1.0, 1, 1, 0.0, peak_bytes=2 * GIB)
    list(play.crew.handle(Done(play.answered + 1, "gpu-0", (report,))))
    assert not play.crew.hopeless()
    name = play.ask("world/a")
    assert set(play.crew.hopeless()) == {(name, "world/a")}
    [lost] = play.crew.give_up(play.crew.hopeless())
    assert isinstance(lost, SitesLost) and "no device can take it: needs 2.36 GB" in lost.sites["world/a"]
    assert "give a device more memory_gib" in lost.sites["world/a"]
    assert not play.crew.hopeless() and not play.crew.refusals(), "nobody waits any more"


def test_a_declared_device_that_has_not_come_may_still_take_it() -> None:
    estimates = Estimates("model")
    estimates.learn_memory(32, 4 * GIB, 0, "default")
    small, large = Device("gpu-0", memory_bytes=GIB), Device("gpu-1", memory_bytes=8 * GIB)
    play = Play({"world/a": None}, [small], declared=[small, large], estimates=estimates)
    play.answer()
    play.ask("world/a")
    assert list(play.crew.refusals().values()) == ["gpu-1 is not there"] and not play.crew.hopeless()


@pytest.mark.parametrize(("away", "said"), [(True, "is away (silent) and is waited for"), (False, "died (silent) and")])
def test_one_that_is_away_is_not_said_to_have_died(away: bool, said: str) -> None:
    play = Play({"world/a": None}, [Device("gpu-0")])
    play.answer()
    name = play.ask("world/a")
    [lost] = play.crew.handle(Done(play.answered + 1, "gpu-0", crashed="silent", away=away))
    assert isinstance(lost, WorkerLost) and lost.said.startswith(said)
    assert play.crew.refusals() == {(name, "world/a"): "gpu-0 is not there"}


def test_a_sites_work_returns_to_the_worker_that_has_loaded_its_data() -> None:
    play = Play({"world/a": None, "world/b": None}, [Device("worker-0"), Device("worker-1")])
    play.answer()
    play.ask("world/a", "world/b")
    trained = {arguments[0].sites[0][0]: worker for worker, method, arguments in play.driver.calls if method == "train"}
    assert trained == {"world/a": "worker-0", "world/b": "worker-1"}
    for ticket, (worker, method, arguments) in enumerate(list(play.driver.calls)):
        if method == "train":
            report = SiteReport(arguments[0].sites[0][0], 1.5, 1, 1, 0.0, load_s=1.0, is_kept=True)
            list(play.crew.handle(Done(ticket, worker, (report,))))
    play.ask("world/b", "world/a")
    newest = [
        (worker, arguments[0].sites[0][0]) for worker, method, arguments in play.driver.calls if method == "train"
    ]
    assert newest[2:] == [("worker-1", "world/b"), ("worker-0", "world/a")]


def test_nothing_is_sent_behind_a_site_that_has_never_answered() -> None:
    """a took 2 ms, so c is thought to; d has another hub, and must not hang with c."""
    play = Play({"world/a": None, "world/c": None, "world/d": None})
    play.answer()
    play.ask("world/a")
    play.end("world/a")
    play.ask("world/c"), play.ask("world/d")
    assert play.at_work() == ["world/c"]
    play.end("world/c"), play.end("world/d")
    play.ask("world/c"), play.ask("world/d")
    assert play.at_work() == ["world/c", "world/d"], "both have answered in no time"


def test_a_hub_that_goes_on_without_a_site_does_not_miss_those_behind_it() -> None:
    """Nothing shares a chunk with a site that has never answered, where the hub hears of each by itself."""
    play = Play(dict.fromkeys(["world/a", "world/b", "world/c"]))
    play.answer()
    play.ask("world/a")
    play.end("world/a")
    play.ask("world/b", "world/c", one_by_one=True)
    assert play.at_work() == ["world/b"]
    play.end("world/b"), play.end("world/c")
    play.ask("world/b", "world/c", one_by_one=True)
    assert play.at_work() == ["world/b", "world/c"]


def test_work_that_is_let_go_leaves_nothing_behind() -> None:
    class Kept(dict[str, Any]):
        pass

    play = Play({"world/a": None})
    play.answer()
    name, ticket = play.ask("world/a"), play.answered + 1
    kept = Kept()
    found = weakref.ref(kept)
    list(play.crew.handle(Done(ticket, "worker-0", (SiteReport("world/a", 0.01, 1, 1, 0.0),), (kept,))))
    del kept
    play.crew.withdraw(name)
    assert play.driver.calls[-1][1] == "collect", "the worker drops its sum"
    gc.collect()
    assert found() is None, "what the site made to keep, and never will"
