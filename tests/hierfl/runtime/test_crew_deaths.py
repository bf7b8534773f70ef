"""A crew whose workers die, on a driver that does nothing by itself: each end of a call is written here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from hierfl.errors import RuntimeUnavailable
from hierfl.learning.local import Objective
from hierfl.runtime.crew import Crew
from hierfl.runtime.driver import Done, Seat
from hierfl.runtime.jobs import Order, SiteReport
from hierfl.runtime.results import Group, SitesLost, WorkerLost
from scheduler import Device
from scheduler.policies.longest_first import LongestFirst
from tiers.messages import Opening, Share, Update


class Silent:
    """Keeps the calls that are made; nothing comes of them until a test says so."""

    kind = "silent"

    def __init__(self) -> None:
        self.calls: list[tuple[int, str, str, tuple[Any, ...]]] = []
        self.restarted: list[str] = []

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        self.calls.append((len(self.calls), actor, method, arguments))
        return len(self.calls) - 1

    def restart(self, actor: str, silent: bool = False) -> tuple[str, ...]:
        self.restarted.append(actor)
        return (actor,)


class Play:
    """One worker and one hub's rounds of training."""

    def __init__(self, sites: Sequence[str]) -> None:
        self.driver = Silent()
        seats = [Seat("worker-0", Device("worker-0"))]
        self.crew = Crew(self.driver, seats, LongestFirst(), preaggregate=True)  # type: ignore[arg-type]
        self.sites = sites
        self.ask(0)
        self.seen = 0
        self.results: list[Any] = []

    def ask(self, number: int, *, one_by_one: bool = False) -> None:
        """Ask for a round of the hub."""
        opening = Opening("world", number, 32, 8.0, len(self.sites), "torch.float32")
        order = Order("world", number, tuple((site, 1) for site in self.sites), opening, Objective())
        paths = {f"world/{site}": 1 for site in self.sites}
        name = f"train:world:{number}"
        self.crew.ask(Group(name, "train", "world", number, paths, paths, order, one_by_one=one_by_one))

    def next(self) -> tuple[int, str, list[str]]:
        """Give the next call that the worker has not answered: its ticket, method and sites.

        A process that has come up says so at once.
        """
        self.crew.pump()
        while self.driver.calls[self.seen][2] == "prepare":
            self.seen += 1
            self.results += self.crew.handle(Done(self.seen - 1, "worker-0"))
            self.crew.pump()
        ticket, _, method, arguments = self.driver.calls[self.seen]
        self.seen += 1
        return ticket, method, [site for site, _ in arguments[0].sites] if method == "train" else []

    def train(self, ticket: int, sites: Sequence[str], took_s: float = 0.5) -> None:
        """Let training succeed."""
        reports = tuple(SiteReport(site, took_s, 1, 1, 0.0) for site in sites)
        self.results += self.crew.handle(Done(ticket, "worker-0", reports))

    def die(self, ticket: int) -> None:
        """Let the worker die, and all that it was asked with it."""
        self.seen = len(self.driver.calls)
        self.results += self.crew.handle(Done(ticket, "worker-0", crashed="killed"))


def train_and_lose(play: Play) -> None:
    ticket, method, sites = play.next()
    assert (method, sites) == ("train", ["world/a"])
    play.train(ticket, sites)
    ticket, method, _ = play.next()
    assert method == "collect"
    play.die(ticket)


def test_training_that_is_lost_with_its_worker_is_done_again_but_not_for_ever() -> None:
    play = Play(["a"])
    for _ in range(5):
        train_and_lose(play)
    assert [result.sites for result in play.results if isinstance(result, WorkerLost)] == [("world/a",)] * 5
    with pytest.raises(RuntimeUnavailable, match=r"died with the training of world/a, lost so 6 times: killed"):
        train_and_lose(play)
    assert len(play.driver.restarted) == 5


def test_of_a_chunk_what_was_handed_up_is_not_done_again() -> None:
    play = Play(["a", "b", "c", "d"])
    trained: list[str] = []
    while len(trained) < 4:  # so short that they share a chunk the next time
        ticket, _, sites = play.next()
        play.train(ticket, sites, took_s=1e-4)
        trained += sites
    play.crew.finish("train:world:0")
    play.ask(1, one_by_one=True)
    play.crew.pump()
    play.seen = len(play.driver.calls) - 8  # a call to train, and one to hand up, for each
    for site in ("a", "b"):
        ticket, method, sites = play.next()
        assert (method, sites) == ("train", [f"world/{site}"])
        play.train(ticket, sites, took_s=1e-4)
        ticket, method, _ = play.next()
        assert method == "collect"
        update = Update("world", 1, (Share(site, 1),))
        play.results += play.crew.handle(Done(ticket, "worker-0", update, (None,)))
    ticket, _, sites = play.next()
    assert sites == ["world/c"]
    play.die(ticket)
    (lost,) = [result for result in play.results if isinstance(result, WorkerLost)]
    assert lost.sites == ("world/c", "world/d")


def test_a_site_that_kills_its_worker_is_given_up_after_three_times() -> None:
    play = Play(["a"])
    for _ in range(3):
        ticket, _, sites = play.next()
        assert sites == ["world/a"]
        play.die(ticket)
    (lost,) = [result for result in play.results if isinstance(result, SitesLost)]
    assert set(lost.sites) == {"world/a"}
    play.crew.pump()
    assert [method for _, _, method, _ in play.driver.calls[play.seen :]] == ["prepare"], "no more work is asked"


def test_once_a_worker_has_died_what_is_trained_is_handed_up_before_the_next_site_begins() -> None:
    play = Play(["a", "b", "c", "d"])
    ticket, _, _ = play.next()
    play.die(ticket)
    play.crew.pump()
    methods = []
    for _ in range(20):
        play.crew.pump()
        if play.seen == len(play.driver.calls):
            break
        ticket, method, sites = play.next()
        methods.append((method, len(sites)))
        if method == "train":
            play.train(ticket, sites)
        else:
            play.results += play.crew.handle(Done(ticket, "worker-0", None, (None,)))
    trained = [number for number, (method, _) in enumerate(methods) if method == "train"]
    assert len(trained) == 4
    assert all(methods[number - 1][0] == "collect" for number in trained[1:]), methods


def test_a_model_under_which_every_worker_dies_ends_the_run_though_each_worker_comes_up() -> None:
    play = Play(["a"])

    def build_and_die() -> None:
        ticket, method, _ = play.next()
        assert method == "initial"
        play.die(ticket)

    play.crew.build()
    for _ in range(5):
        build_and_die()
    with pytest.raises(RuntimeUnavailable, match="died 6 times in a row while they built the model, worker-0 last"):
        build_and_die()
    assert play.driver.restarted == ["worker-0"] * 5
