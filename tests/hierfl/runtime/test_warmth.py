"""Who is thought to hold which data, and what follows: a site's work returns to where its data are."""

from __future__ import annotations

from pathlib import Path

import pytest
from ward_tasks import Wards

from hierfl.config.schema import Evaluation, SiteSettings, Training
from hierfl.learning import native
from hierfl.runtime.driver import Seat
from hierfl.runtime.estimates import Estimates
from hierfl.runtime.jobs import SiteReport, WorkerSpec
from hierfl.runtime.roster import Roster
from hierfl.runtime.warmth import CACHE_SITES, Warmth
from hierfl.runtime.worker import SiteWorker
from scheduler import Device, Job


def use(warmth: Warmth, worker: str, *sites: str, was_loaded: bool = True, is_kept: bool = True) -> None:
    for site in sites:
        warmth.used(worker, site, was_loaded=was_loaded, is_kept=is_kept)


def test_what_a_worker_used_it_holds_until_it_is_lost_or_told_to_drop_it() -> None:
    warmth = Warmth()
    use(warmth, "w0", "a")
    use(warmth, "w1", "a")
    use(warmth, "w1", "huge", is_kept=False)
    assert warmth.holders("a") == {"w0", "w1"} and not warmth.holders("huge")
    warmth.lost("w0")
    assert warmth.holders("a") == {"w1"}
    warmth.clear()
    assert not warmth.holders("a")


def test_who_loads_again_what_it_held_has_dropped_all_that_is_older() -> None:
    warmth = Warmth()
    use(warmth, "w0", "a", "b", "c")
    use(warmth, "w0", "a", was_loaded=False)
    use(warmth, "w0", "c", was_loaded=True)
    assert not warmth.holders("b"), "it was used before c"
    assert warmth.holders("a") == warmth.holders("c") == {"w0"}


def test_a_worker_holds_so_many_sites_at_most() -> None:
    warmth = Warmth()
    use(warmth, "w0", *(f"s{number}" for number in range(CACHE_SITES + 1)))
    assert not warmth.holders("s0") and warmth.holders("s1") == {"w0"}


def test_a_worker_says_what_loading_took_and_that_it_keeps_the_data() -> None:
    settings = SiteSettings(Training(batch_size=4), "a")
    worker = SiteWorker(WorkerSpec(Wards(), 0, {"world/a": settings}, Evaluation(), "cpu"))
    first, again = worker.describe(["world/a"])[0], worker.describe(["world/a"])[0]
    assert first.duration_s > first.load_s > 0.0 == again.load_s and first.is_kept and again.is_kept


def test_a_worker_makes_its_machine_code_before_any_site_is_timed() -> None:
    native._loops.cache_clear()
    worker = SiteWorker(WorkerSpec(Wards(), 0, {"world/a": SiteSettings(Training(), "a")}, Evaluation(), "cpu"))
    assert not native._loops.cache_info().currsize
    worker.prepare(None, None)
    assert native._loops.cache_info().currsize == 1


def test_work_without_loading_is_what_is_learned_where_data_are_kept() -> None:
    assert SiteReport("a", 5.0, 1, 1, 0.0, load_s=2.0, is_kept=True).work_s == 3.0
    assert SiteReport("a", 5.0, 1, 1, 0.0, load_s=2.0, is_kept=False).work_s == 5.0, "they will be loaded each time"


def test_among_the_workers_of_a_device_one_that_holds_the_data_is_given_the_work() -> None:
    device = Device("d", places=2)
    roster = Roster([Seat("w0", device), Seat("w1", device)])
    roster.ready = {"w0", "w1"}
    jobs = (Job("g", "a", 1, 1.0, 0),)
    assert roster.give("d", jobs, 0.0, {"w1"}) == "w1"
    assert roster.give("d", jobs, 0.0, {"w1"}) == "w0", "the other is busy"


def test_loads_are_kept_for_the_next_run(tmp_path: Path) -> None:
    estimates = Estimates("model", tmp_path / "e.json")
    estimates.learn_load("world/a", 2.0)
    estimates.learn_load("world/a", 1.0)
    estimates.save()
    assert Estimates.open("model", tmp_path / "e.json").loads_s == {"world/a": pytest.approx(1.5)}
