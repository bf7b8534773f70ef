"""Two runs that share devices, in drawn histories in which their scheduler is lost at any moment, and its words cross
theirs: no device is in two hands, and whoever wants devices that nobody else wants has them in the end.

The links, the scheduler's methods and its ledger are the product's; Ray and time are played.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from hierfl.runtime import ray_link
from hierfl.runtime.ray_link import RayLink
from hierfl.runtime.ray_service import SchedulerService, _Slot
from scheduler import Granted, Want

CPU = {"CPU": 1.0}
DEVICES = ("x", "y", "z")
GROUPS: dict[str, Any] = {device: SimpleNamespace(id=device) for device in DEVICES}


class Asked:
    """A call and, once it is there, its answer."""

    def __init__(self, method: str, arguments: tuple[Any, ...], value: Any = None) -> None:
        self.method, self.arguments, self.value = method, arguments, value
        self.is_done = value is not None


def done(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Give what a method returns that waits for nothing."""
    with pytest.raises(StopIteration) as end:
        coroutine.send(None)
    return end.value.value


class Actor:
    """A scheduler, and what each run has asked of it, in order. It leases once both have told what they hold."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.service = SchedulerService()
        self.service._watching = [None]  # type: ignore[list-item]
        self.service._leases_from_s = float("inf")
        self.lines: dict[str, deque[Asked]] = {}
        self.questions: dict[str, Asked] = {}
        for device in DEVICES:
            self.service._slots[device] = _Slot(GROUPS[device], CPU, 0.0)
            self.service._leases.offer(device)

    def __getattr__(self, method: str) -> Any:
        def remote(run: str, *arguments: Any, **_: Any) -> Asked:
            is_lost = self.world.actor is not self
            asked = Asked(method, (run, *arguments), ActorDiedError() if is_lost else None)
            if not is_lost:
                self.lines.setdefault(run, deque()).append(asked)
            return asked

        return SimpleNamespace(remote=remote)

    def take(self, run: str) -> None:
        """Take what a run has asked first; a question for news is answered when there is some."""
        if not self.lines.get(run):
            return
        asked = self.lines[run].popleft()
        if asked.method == "changes":
            self.questions[run] = asked
            return
        if asked.method == "reserve":
            asked.value = GROUPS
        else:
            asked.value = done(getattr(self.service, asked.method)(*asked.arguments))
        asked.is_done = True
        if len(self.service._lines) == 2:
            self.service._leases_from_s = 0.0
            self.service._decide()

    def answer(self, run: str) -> None:
        if run in self.questions:
            line, seen = self.service._lines[run], self.questions[run].arguments[1]
            if line.letters[seen - line.first :]:
                asked = self.questions.pop(run)
                asked.value, asked.is_done = done(self.service.changes(run, seen)), True


class Run:
    """A run that keeps what it is leased until it gives that back."""

    def __init__(self, name: str) -> None:
        self.link = RayLink(name, "policy", dict.fromkeys(DEVICES, CPU), CPU, 0)
        self.held: dict[str, int] = {}

    def hear(self) -> None:
        if self.link.waiting and self.link.waiting[0].is_done:
            self.link.collect()
        self.link.tend()
        for letter in self.link.news():
            if isinstance(letter, Granted):
                self.held[letter.device] = letter.number

    def say(self, wants: Sequence[str], back: Sequence[str]) -> None:
        released = {device: self.held.pop(device) for device in back}
        self.link.report({device: Want((1.0,), 9.0) for device in wants}, len(wants), released)


class World:
    """What a seed draws; `run` plays it."""

    def __init__(self, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.random = Random(seed)
        self.actor: Actor | None = None
        self.clock_s = 0.0
        patch.setattr(ray_link, "ray", self)
        patch.setattr(ray_link, "service", self.service)
        patch.setattr(ray_link, "time", SimpleNamespace(monotonic=lambda: self.clock_s))
        self.runs = [Run(name) for name in ("one", "other")]

    def service(self) -> Actor:
        self.actor = self.actor or Actor(self)
        return self.actor

    def get(self, asked: Asked) -> Any:
        assert asked.is_done
        if isinstance(asked.value, Exception):
            raise asked.value
        return asked.value

    def wait(self, asked: Sequence[Asked], timeout: float) -> tuple[list[Asked], list[Asked]]:
        while timeout and self.actor is not None and not asked[0].is_done:
            self.actor.take(asked[0].arguments[0])
        return [one for one in asked if one.is_done], [one for one in asked if not one.is_done]

    def lose(self) -> None:
        lost, self.actor = self.actor, None
        if lost is not None:
            for asked in (*(one for line in lost.lines.values() for one in line), *lost.questions.values()):
                asked.value, asked.is_done = ActorDiedError(), True

    def step(self) -> None:
        self.clock_s += 0.02
        draw, run = self.random.random(), self.random.choice(self.runs)
        if draw < 0.012:
            self.lose()
        elif draw < 0.13:
            back = [device for device in run.held if self.random.random() < 0.25]
            left = run.held.keys() - set(back)
            run.say([one for one in DEVICES if one not in left and self.random.random() < 0.7], back)
        elif draw < 0.45:
            run.hear()
        elif self.actor is not None:
            (self.actor.take if draw < 0.77 else self.actor.answer)(run.link.run)
        assert not self.runs[0].held.keys() & self.runs[1].held.keys(), "a device is in two hands"

    def settle(self) -> None:
        """Nobody is lost any more, and all that is said is heard."""
        for _ in range(40):
            self.clock_s += 0.2
            for run in self.runs:
                run.hear()
                for _ in range(4 if self.actor is not None else 0):
                    self.service().take(run.link.run)
                if self.actor is not None:
                    self.actor.answer(run.link.run)

    def run(self) -> None:
        for _ in range(500):
            self.step()
        for run in self.runs:
            self.settle()
            for each in self.runs:
                each.say([], [*each.held])
            self.settle()
            for each in self.runs:
                each.say([], [*each.held])
            run.say(DEVICES, [])
            self.settle()
            assert run.held.keys() == set(DEVICES), "nobody has what nobody else wants"


def test_no_device_is_in_two_hands_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(40):
        World(seed, monkeypatch).run()
