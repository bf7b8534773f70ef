"""Runs whose shared scheduler is lost and comes back: no device is in two runs' hands, whatever crosses meanwhile.

The links and the scheduler's methods are the product's; Ray between them is played.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

import pytest
from played_cluster import Cluster
from ray.exceptions import ActorDiedError

from hierfl.runtime import ray_link, ray_service
from hierfl.runtime.ray_link import RayLink
from hierfl.runtime.ray_service import SchedulerService
from scheduler import Beside, Device, Granted, Model, Want
from scheduler.colocation import Colocation

CPU = {"CPU": 1.0}


class PlayedRay:
    """Carries calls to the service, in their order, and answers back; `lose` kills it with all that it was asked."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.loop = asyncio.new_event_loop()
        self.handle: PlayedRay.Handle | None = None

    class Handle:
        """A service's actor."""

        def __init__(self, played: PlayedRay) -> None:
            self.played = played
            self.service = SchedulerService()
            self.asked: list[asyncio.Future[Any]] = []

        def __getattr__(self, method: str) -> PlayedRay.Method:
            return PlayedRay.Method(self, method)

    class Method:
        def __init__(self, handle: PlayedRay.Handle, method: str) -> None:
            self.handle = handle
            self.method = method

        def remote(self, *arguments: Any, **more: Any) -> asyncio.Future[Any]:
            played = self.handle.played
            answer: Coroutine[Any, Any, Any] = getattr(self.handle.service, self.method)(*arguments, **more)
            if self.handle is not played.handle:
                answer.close()
                answer = died()
            self.handle.asked.append(played.loop.create_task(answer))
            return self.handle.asked[-1]

    def service(self) -> PlayedRay.Handle:
        self.handle = self.handle or PlayedRay.Handle(self)
        return self.handle

    def lose(self) -> None:
        assert self.handle is not None
        lost, self.handle = self.handle, None
        for task in (*lost.asked, *lost.service._watching):
            task.cancel()
        self.cluster.table = {
            group.name: {"name": group.name, "state": "CREATED", "placement_group_id": "00", "bundles": [CPU]}  # type: ignore[dict-item]
            for group in self.cluster.groups
        }
        self.pump()

    def end(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.pump(0.01)
        self.loop.close()

    def pump(self, seconds: float = 0.0) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def get(self, answer: asyncio.Future[Any], timeout: float | None = None) -> Any:
        if not answer.done():
            self.wait([answer], 1.0)
        if answer.cancelled():
            raise ActorDiedError()
        return answer.result()

    def wait(self, answers: Sequence[asyncio.Future[Any]], timeout: float) -> tuple[list[Any], list[Any]]:
        self.loop.run_until_complete(asyncio.wait(answers, timeout=timeout))
        return [one for one in answers if one.done()], [one for one in answers if not one.done()]


async def died() -> Any:
    raise ActorDiedError()


class Run:
    """A run that keeps what it is leased until it gives that back."""

    def __init__(self, ray: PlayedRay, name: str, device: Device) -> None:
        self.ray = ray
        self.link = RayLink(name, "policy", {device.name: CPU}, CPU, 0, [device])
        self.held: dict[str, int] = {}
        self.heard: list[str] = []

    def want(self, *devices: str, back: Sequence[str] = (), narrowed: Sequence[str] = ()) -> None:
        wants = {device: Want((1.0,), 9.0, Model("unet")) for device in devices}
        beside = Beside({device: self.held[device] for device in narrowed})
        self.link.report(wants, len(wants), {device: self.held.pop(device) for device in back}, beside)

    def hear(self) -> None:
        while any(answer.done() for answer in self.link.waiting):
            self.link.collect()
            self.ray.pump()
        for letter in self.link.news():
            if isinstance(letter, Granted):
                self.held[letter.device] = letter.number
                self.heard.append(letter.reason)


class Story:
    """Two runs, and a device that both could use."""

    def __init__(self, cluster: Cluster, patch: pytest.MonkeyPatch, places: int) -> None:
        self.ray = PlayedRay(cluster)
        self.cluster = cluster
        patch.setattr(cluster, "PlacementGroupID", lambda key: key, raising=False)
        patch.setattr(ray_service, "PlacementGroup", lambda key: cluster.groups[0])
        patch.setattr(ray_service, "RECOVER_S", 0.1)  # a busy machine must not let it pass between two lines here
        patch.setattr(ray_service, "LOOK_S", 0.01)
        patch.setattr(Colocation, "gain", lambda *_: True)  # company pays, wherever a device may have guests
        patch.setattr(ray_link, "ray", self.ray)
        patch.setattr(ray_link, "service", self.ray.service)
        self.one, self.other = (Run(self.ray, name, Device("x", places=places)) for name in ("one", "other"))

    def listen(self) -> None:
        for _ in range(12):
            for run in (self.one, self.other):
                run.hear()
            self.ray.pump(0.02)

    def share(self) -> None:
        """One run has the device, and lets the other one use a place of it."""
        self.one.want("x")
        self.listen()
        self.other.want("x")
        self.listen()
        self.one.want(narrowed=["x"])
        self.listen()

    def settle(self) -> None:
        """Let everybody hear of everything; nothing is shared now."""
        self.listen()
        twice = self.one.held.keys() & self.other.held.keys()
        assert not twice, f"both runs have {sorted(twice)}"


@pytest.fixture
def story(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    made = Story(Cluster(monkeypatch, room=1), monkeypatch, places=request.param)
    yield made
    made.one.link.close()
    made.other.link.close()
    made.ray.end()


@pytest.mark.parametrize("story", [1], indirect=True)
def test_what_a_run_gives_back_while_the_scheduler_comes_back_is_not_in_two_hands(story: Story) -> None:
    story.one.want("x")
    story.settle()
    story.other.want("x")
    story.settle()
    assert story.one.held == {"x": 1} and not story.other.held
    story.ray.lose()
    story.one.link.collect()
    story.one.want(back=["x"])  # the new scheduler's first lease will be that of what this run said to have
    story.other.link.collect()
    story.settle()
    assert story.one.heard[-1] == "it had the device before"
    story.one.want(back=["x"])
    story.settle()
    assert not story.one.held and story.other.held


@pytest.mark.parametrize("story", [2], indirect=True)
def test_what_a_run_gives_back_while_it_is_told_that_it_is_alone_there_is_not_in_two_hands(story: Story) -> None:
    story.share()
    assert story.one.held == {"x": 1} and story.other.held == {"x": 2}, "each has a place"
    story.other.want(back=["x"])
    story.ray.pump(0.02)  # it is on its way that the whole device is the first run's again
    story.one.want(back=["x"])
    story.other.want("x")
    story.settle()
    assert not story.one.held and story.other.held == {"x": 3}
    assert "it is alone there again" not in story.one.heard
    story.other.want(back=["x"])
    story.one.want("x")
    story.settle()
    assert story.one.held == {"x": 4}, "a lease of its own is heard of"
