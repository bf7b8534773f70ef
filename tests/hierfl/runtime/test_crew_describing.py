"""Sites that say what they have, on a driver that does nothing by itself: they share calls once one has told."""

from __future__ import annotations

from crew_play import Play

from hierfl.runtime.driver import Done
from hierfl.runtime.jobs import Inventory
from hierfl.runtime.results import Described, Group
from scheduler import Device

SITES = [f"world/site-{number:03d}" for number in range(300)]


def test_many_sites_are_described_in_few_calls() -> None:
    play = Play(dict.fromkeys(SITES, None), [Device("worker-0"), Device("worker-1")])
    play.answer()
    play.crew.ask(Group("describe:world", "describe", "world", 0, dict.fromkeys(SITES, 1)))
    play.crew.pump()
    described, answered, sizes = [], 0, []
    while answered < len(play.driver.calls):
        worker, method, arguments = play.driver.calls[answered]
        if method == "describe":
            found = tuple(Inventory(site, 4, 2, duration_s=0.001) for site in arguments[0])
            sizes.append(len(found))
            told = [one for one in play.crew.handle(Done(answered, worker, found)) if isinstance(one, Described)]
            described += [item.site for one in told for item in one.inventories]
            play.crew.pump()
        answered += 1
    assert sorted(described) == SITES
    assert sizes[:2] == [1, 1], "nothing is known of the first"
    assert len(sizes) < 30


def test_a_site_that_could_not_be_loaded_teaches_nothing() -> None:
    play = Play(dict.fromkeys(SITES[:3], None))
    play.answer()
    play.crew.ask(Group("describe:world", "describe", "world", 0, dict.fromkeys(SITES[:3], 1)))
    for site in SITES[:3]:
        play.crew.pump()
        [ticket] = [at for at, (_, _, given) in enumerate(play.driver.calls) if given == ((site,),)]
        list(play.crew.handle(Done(ticket, "worker-0", (Inventory(site, 0, 0, None, "no file", duration_s=0.001),))))
