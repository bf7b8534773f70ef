"""One hub on a driver that can lose its process at any moment, and members that answer whenever a test says so.

The hub's aggregator is the real one. Beside it a plain loop adds up what should count, in float64.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.learning.ring import Accumulator, PartialSum
from hierfl.learning.state import Layout, ModelState
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.runtime.driver import Done
from hierfl.runtime.hub import Aggregator, grid_of
from hierfl.runtime.hubs import Hubs, HubSaid, Kept
from hierfl.runtime.jobs import HubSpec, Order
from scheduler.participation import Participation
from tiers.federation import Hub, Site
from tiers.messages import Begin, Close, Lost, SetTimer, Share, TimeUp, Update

__all__ = ["LAYOUT", "Frail", "Members", "spec_of"]

LAYOUT = Layout.of({"w": ((3,), "float32"), "seen": ((), "int64")})
PATH = "world"


def spec_of(policy: Participation, weights: dict[str, int], width: int = 32) -> HubSpec:
    hub = Hub(
        PATH, tuple(Site(name) for name in weights), rounds=100, keep_going=True, quorum=0.1, participation=policy
    )
    return HubSpec(PATH, hub, FedAvg(), width, 8.0, weights, LAYOUT, LAYOUT, is_root=True, passes_up=False, seed=5)


class Frail:
    """A driver of one hub; `kill` loses the process with all that it has not answered."""

    def __init__(self) -> None:
        self.hub: Aggregator | None = None
        self.waiting: deque[tuple[int, str, tuple[Any, ...]]] = deque()
        self.num_calls = 0

    def start_hub(self, spec: HubSpec) -> None:
        self.hub = Aggregator(spec)

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        self.num_calls += 1
        self.waiting.append((self.num_calls, method, arguments))
        return self.num_calls

    def restart(self, actor: str) -> tuple[str, ...]:
        self.hub = None
        return (PATH,)

    def kill(self) -> Done | None:
        """Give what is noticed of it: nothing, while nothing waits for an answer."""
        ticket = self.waiting[0][0] if self.waiting else None
        self.waiting.clear()
        return None if ticket is None else Done(ticket, PATH, crashed="power cut")

    def answer(self) -> Done:
        ticket, method, arguments = self.waiting.popleft()
        header, *beside = getattr(self.hub, method)(*arguments)
        return Done(ticket, PATH, header, tuple(beside))


@dataclass
class Members:
    """The members of one hub, told what to do one event at a time; `kills` draws when the hub's process dies."""

    spec: HubSpec
    kills: Random | None = None
    kept: Kept | None = None
    first: int = 0
    model: ModelState = field(default_factory=lambda: ModelState(np.zeros(3, np.float32), np.zeros(1, np.int64)))
    rounds: list[Close] = field(default_factory=list)
    at_work: dict[str, Order] = field(default_factory=dict)
    timers: list[SetTimer] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.driver = Frail()
        self.hubs = Hubs(self.driver)  # type: ignore[arg-type]
        self.hubs.make(self.spec, self.kept)
        self.number = self.first - 1
        self.expected = self.model.floats.astype(np.float64)
        self.sent: dict[tuple[str, int], tuple[int, NDArray[Any]]] = {}
        self.settle()

    def begin(self) -> None:
        self.number += 1
        self.hubs.begin(PATH, Begin(self.number), None, self.model, None)
        self.settle()

    def arrive(self, name: str) -> None:
        """A member trains from zero, which is as good as any model here, and sends its change."""
        order = self.at_work.pop(name)
        weight = dict(order.members)[name]
        draw = np.random.default_rng([order.round_number, *name.encode()])
        change = draw.normal(size=3).astype(np.float32)
        self.sent[name, order.round_number] = (weight, change)
        total = Accumulator(grid_of(order.opening), LAYOUT)
        nothing = ModelState(np.zeros(3, np.float32), np.zeros(1, np.int64))
        total.add_update(ModelState(change, np.ones(1, np.int64)), nothing, weight)
        header = Update(PATH, order.round_number, (Share(name, weight),), 20)
        self.hubs.tell(PATH, "arrive", header, _copied(total.total()))
        self.settle()

    def lose(self, name: str) -> None:
        self.hubs.tell(PATH, "lose", Lost(self.at_work.pop(name).round_number, {name: "power cut"}))
        self.settle()

    def ring(self) -> None:
        """The time of the open round's first limit comes."""
        timer = self.timers.pop(0)
        self.hubs.tell(PATH, "elapse", TimeUp(timer.round_number, timer.after_s))
        self.settle()

    def settle(self) -> None:
        """Let the hub answer; its process may die before it has."""
        while self.driver.waiting:
            done = None
            if self.kills is not None and self.kills.random() < 0.3 and self.lives() < 4:
                done = self.driver.kill()
            for said in self.hubs.handle(done or self.driver.answer()):
                if isinstance(said, HubSaid):
                    self.heard(said)

    def lives(self) -> int:
        return self.hubs._lives[PATH].restarts

    def heard(self, said: HubSaid) -> None:
        outcome = said.outcome
        if outcome.failed is not None:
            self.give_up()
            return
        for refused in outcome.refused:
            self.refused.append(refused.update.shares[0].member)
            del self.sent[refused.update.shares[0].member, refused.update.round_number]
        for closed in outcome.closed:
            self.rounds.append(closed)
            self.add_up(closed)
            self.timers.clear()
        self.timers += outcome.timers
        for order in outcome.orders:
            assert not self.at_work.keys() & dict(order.members).keys(), "a member is asked while it is at work"
            self.at_work.update(dict.fromkeys(dict(order.members), order))
        if outcome.finished is not None:
            self.model = said.result
            assert np.allclose(self.model.floats, self.expected, atol=1e-5)

    def give_up(self) -> None:
        """What the supervisor does with a hub that gave up its round: all that was asked and held is void."""
        self.hubs.stop(PATH)
        self.at_work.clear()
        self.timers.clear()
        self.sent.clear()
        self.expected = self.model.floats.astype(np.float64)

    def add_up(self, closed: Close) -> None:
        """The plain loop: whatever counts, with its weight."""
        total, weights = np.zeros(3), 0
        admit = self.spec.hub.participation.admit
        for name in closed.members:
            weight, change = self.sent.pop((name, closed.round_number))
            total, weights = total + weight * change.astype(np.float64), weights + weight
        for name in closed.carried:
            [asked_in] = [number for member, number in self.sent if member == name]
            weight, change = self.sent.pop((name, asked_in))
            weight = admit(weight, closed.round_number - asked_in).weight
            total, weights = total + weight * change.astype(np.float64), weights + weight
        assert weights == closed.weight
        self.expected = self.expected + total / weights


def _copied(part: PartialSum) -> PartialSum:
    """As an object store hands it out: read-only, and nobody else's memory."""
    floats, ints = part.floats.copy(), part.ints.copy()
    floats.setflags(write=False)
    ints.setflags(write=False)
    return PartialSum(floats, ints, part.weight)
