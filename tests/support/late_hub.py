"""One hub on a driver that can lose its process at any moment, and members that answer whenever a test says so.

The hub's aggregator is the real one. Beside it a plain loop adds up what should count, in float64.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.config.schema import Replication
from hierfl.learning.ring import Accumulator, PartialSum
from hierfl.learning.state import Layout, ModelState
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.runtime.driver import Done, replica_of
from hierfl.runtime.hub import Aggregator, grid_of
from hierfl.runtime.hubs import Hubs, HubSaid, Kept
from hierfl.runtime.jobs import HubSpec, Order, Post
from hierfl.runtime.witness import INTRODUCE, witnessed
from scheduler.participation import Participation
from tiers.federation import Hub, Site
from tiers.messages import Begin, Close, Lost, SetTimer, Share, TimeUp, Update

__all__ = ["LAYOUT", "Frail", "Members", "spec_of"]

LAYOUT = Layout.of({"w": ((3,), "float32"), "seen": ((), "int64")})
PATH = "world"
ALONE = Replication()


def spec_of(
    policy: Participation, weights: Mapping[str, int], width: int = 32, redundancy: Replication = ALONE
) -> HubSpec:
    hub = Hub(
        PATH, tuple(Site(name) for name in weights), rounds=100, keep_going=True, quorum=0.1, participation=policy
    )
    arithmetic = (width, 8.0, weights, LAYOUT, LAYOUT)
    return HubSpec(PATH, hub, FedAvg(), *arithmetic, is_root=True, passes_up=False, seed=5, redundancy=redundancy)


class Frail:
    """A driver of one hub's replicas; `kill` loses a process with all that it has not answered."""

    def __init__(self) -> None:
        self.hubs: dict[str, Any] = {}
        self.waiting: dict[str, deque[tuple[int, str, tuple[Any, ...]]]] = {}
        self.num_calls = 0

    def start_hub(self, spec: HubSpec, post: Post) -> None:
        """In its turn, as all that a process is told."""
        calls = self.waiting.setdefault(replica_of(PATH, post.replica), deque())
        calls.append((0, "start_hub", (witnessed(spec, post, Aggregator(spec)),)))

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        self.num_calls += 1
        self.waiting[actor].append((self.num_calls, method, arguments))
        return self.num_calls

    def get(self, handle: Any) -> Any:
        return handle

    def restart(self, actor: str, silent: bool = False) -> tuple[str, ...]:
        self.waiting[actor].clear()
        return (actor,)

    @property
    def busy(self) -> list[str]:
        """Those that have not answered all."""
        return [actor for actor, calls in self.waiting.items() if any(ticket for ticket, _, _ in calls)]

    def kill(self, actor: str) -> list[Done]:
        """Give what is noticed of it, which has something to answer."""
        lost = [Done(ticket, actor, crashed="power cut") for ticket, _, _ in self.waiting[actor] if ticket]
        self.waiting[actor].clear()
        return lost

    def answer(self, actor: str) -> Done:
        ticket, method, arguments = self.waiting[actor].popleft()
        if not ticket:
            [self.hubs[actor]] = arguments
            return self.answer(actor)
        said = getattr(self.hubs[actor], method)(*arguments)
        header, *beside = said if method != INTRODUCE else (said,)
        return Done(ticket, actor, header, tuple(beside))


@dataclass
class Members:
    """The members of one hub, told what to do one event at a time; `kills` draws when a process of the hub dies, and
    which one answers."""

    spec: HubSpec
    kills: Random | None = None
    kept: Kept | None = None
    first: int = 0
    model: ModelState = field(default_factory=lambda: ModelState(np.zeros(3, np.float32), np.zeros(1, np.int64)))
    rounds: list[Close] = field(default_factory=list)
    at_work: dict[str, Order] = field(default_factory=dict)
    timers: list[SetTimer] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    num_lost: int = 0
    lost: list[tuple[int, str]] = field(default_factory=list)

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
        self.num_lost = 0
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
        """Let the hub answer; its processes may die before they have, and some lag behind the first."""
        while self.hubs.waits(PATH):
            busy = self.driver.busy
            actor = busy[0] if self.kills is None else self.kills.choice(busy)
            if self.kills is not None and self.kills.random() < 0.3 and self.num_lost < 4:
                found = self.driver.kill(actor)
            else:
                found = [self.driver.answer(actor)]
            for said in (said for done in found for said in self.hubs.handle(done)):
                if isinstance(said, HubSaid):
                    self.heard(said)
                else:
                    self.num_lost += 1
                    self.lost.append((said.replica, said.cause))

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
