"""Places that die at any step of an exchange: what members have afterwards depends on who has left, and not on when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from random import Random
from typing import Any

import numpy as np
import pytest

from hierfl.errors import RuntimeUnavailable
from hierfl.learning.ring import Accumulator
from hierfl.learning.state import Layout, ModelState
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.runtime.driver import Done, num_beside
from hierfl.runtime.exchanges import Exchanges, Moved
from hierfl.runtime.hub import grid_of
from hierfl.runtime.jobs import HubSpec, Outcome
from hierfl.runtime.places import PLACE, Place
from tiers import HubRounds, Topology
from tiers.federation import Hub, Site
from tiers.messages import Arrived, Begin, Exchange, Left, Mixed, Opening, Share, Update
from tiers.topologies.allreduce import AllReduce
from tiers.topologies.peer import Peer
from tiers.topologies.swarm import Swarm

LAYOUT = Layout.of({"w": ((7,), "float32")})
WEIGHTS = {"a": 3, "b": 5, "c": 4, "d": 2}
OPENING = Opening("world", 0, 32, 8.0, sum(WEIGHTS.values()), "float32")
TOPOLOGIES = {"swarm": Swarm(), "allreduce": AllReduce(), "peer": Peer(graph="ring", gossip_steps=3)}
PROCESSES = {"a": "p", "b": "p", "c": "q", "d": "r"}
"""Which process has whose place."""


class Federation:
    """A hub's machine, its members' places, and whoever lets processes die.

    `dying`: says of a member's nth call whether it is its process's last; `spares`: once they have exchanged, none is.
    `away`: members that are elsewhere, and do not come back in time.
    """

    def __init__(
        self, topology: Topology, dying: Any, *, spares: bool = True, away: Collection[str] = (), **hub: Any
    ) -> None:
        self.dying, self.spares, self.away = dying, spares, away
        settings = {"keep_going": True, "quorum": 0.25, **hub}
        self.hub = Hub("world", tuple(map(Site, WEIGHTS)), topology=topology, **settings)
        arithmetic = (32, 8.0, WEIGHTS, LAYOUT, LAYOUT)
        spec = HubSpec("world", self.hub, FedAvg(), *arithmetic, is_root=True, passes_up=False, seed=5)
        self.machine = HubRounds(self.hub, WEIGHTS, path="world", seed=5)
        self.queue: list[tuple[int, str, str, tuple[Any, ...]]] = []
        self.num_calls = 0
        self.asked: dict[str, int] = {}
        self.left: list[Mapping[str, str]] = []
        self.over = False
        self.exchanges = Exchanges(self, lambda *_: None, self.failed, self.leave)  # type: ignore[arg-type]
        self.exchanges.make(spec)
        self.start = ModelState(np.zeros(7, np.float32), np.zeros(0, np.int64))
        self.exchanges.begin("world", self.start, None, lambda: None)

    def call(self, actor: str, method: str, *arguments: Any) -> int:
        self.num_calls += 1
        self.queue.append((self.num_calls, actor, method, arguments))
        return self.num_calls

    def failed(self, path: str, reason: str) -> None:
        raise AssertionError(reason)

    def leave(self, path: str, number: int, members: Mapping[str, str]) -> None:
        self.left.append(members)
        [command] = self.machine.handle(Left(number, members))
        self.exchange(command)

    def exchange(self, command: Any) -> None:
        assert isinstance(command, Exchange)
        self.exchanges.start("world", Outcome(exchange=command, opening=OPENING), self.mixed)

    def mixed(self, moved: Moved) -> None:
        assert set(moved.missing) == {name for members in self.left for name in members}
        self.machine.handle(Mixed(0))
        self.over = True

    def run(self) -> dict[str, bytes]:
        """Do one round; give what each member trains from next."""
        self.machine.handle(Begin(0))
        commands: Any = ()
        for number, (name, weight) in enumerate(WEIGHTS.items()):
            update = Update("world", 0, (Share(name, weight),))
            trained = ModelState(np.arange(7, dtype=np.float32) * (number + 1) / 9, np.zeros(0, np.int64))
            own = Accumulator(grid_of(OPENING), LAYOUT)
            own.add_update(trained, self.start, weight)
            self.exchanges.keep("world", update, own.total())
            commands = self.machine.handle(Arrived(update))
        self.exchange(commands[-1])
        self.serve()
        assert self.over
        self.exchanges.deliver("world", Update("", 0, ()), None, lambda *_: None)
        self.serve()
        return {name: self.exchanges.model("world", name).floats.tobytes() for name in WEIGHTS}

    def serve(self) -> None:
        place = Place()
        while self.queue:
            ticket, actor, method, arguments = self.queue.pop(0)
            if not self.exchanges.owns(ticket):
                continue
            member = actor.removeprefix(f"{PLACE}world/")
            self.asked[member] = self.asked.get(member, 0) + 1
            if not (self.over and self.spares) and self.dying(member, self.asked[member]):
                if member in self.away:
                    for lost in self.exchanges.handle(Done(ticket, actor, crashed="not heard of", away=True)):
                        self.exchanges.again([lost])
                    continue
                process = PROCESSES[member]
                lost = [call for call in self.queue if PROCESSES[call[1].rpartition("/")[2]] == process]
                self.queue = [call for call in self.queue if call not in lost]
                for end in [(ticket, actor), *((call[0], call[1]) for call in lost)]:
                    if self.exchanges.owns(end[0]):  # what is noticed first tells of all
                        [_] = self.exchanges.handle(Done(*end, crashed="power cut"))
                        self.exchanges.again(f"{PLACE}world/{name}" for name in PROCESSES if PROCESSES[name] == process)
                continue
            result = getattr(place, method)(*arguments)
            num = num_beside(method, arguments)
            value, beside = (result[0], tuple(result[1:])) if num else (result, ())
            assert [*self.exchanges.handle(Done(ticket, actor, value, beside))] == []


def after(topology: Topology, gone: frozenset[str]) -> dict[str, bytes]:
    """What members have once a round is over that some have left at once."""
    return Federation(topology, lambda member, _: member in gone).run()


@pytest.mark.parametrize("kind", TOPOLOGIES)
def test_what_comes_out_depends_on_who_has_left_and_not_on_when(kind: str) -> None:
    """Deaths are drawn for every call; those under whom a process died three times have left."""
    topology, random = TOPOLOGIES[kind], Random(7)
    seen: Counter[frozenset[str]] = Counter()
    for _ in range(100):
        rate = random.choice([0.1, 0.3, 0.5] if kind != "swarm" else [0.3, 0.6, 0.8])
        federation = Federation(topology, lambda member, _, rate=rate: member != "d" and random.random() < rate)
        found = federation.run()
        gone = frozenset(name for members in federation.left for name in members)
        assert found == after(topology, gone)
        seen[gone] += 1
    assert len(seen) >= 4 and seen[frozenset()] > 5


def test_a_place_that_always_dies_where_nobody_can_do_without_it_ends_the_run_by_name() -> None:
    federation = Federation(TOPOLOGIES["peer"], lambda member, nth: member == "c" and nth > 3, spares=False)
    with pytest.raises(RuntimeUnavailable, match="world: the processes of its members' places died 6 times"):
        federation.run()


@pytest.mark.parametrize("kind", TOPOLOGIES)
def test_who_stays_away_for_as_long_as_it_may_is_waited_for_once(kind: str) -> None:
    topology, gone = TOPOLOGIES[kind], frozenset("bd")
    for nth in (1, 2):
        federation = Federation(topology, lambda member, at, nth=nth: member in gone and at >= nth, away=gone)
        found = federation.run()
        left = {name: reason for members in federation.left for name, reason in members.items()}
        assert found == after(topology, frozenset(left)) and left.keys() <= gone
        assert set(left.values()) <= {"not heard of"} and (left or kind == "swarm")
        assert all(federation.asked.get(name, 0) <= nth + 1 for name in gone), "one call, or two of one step"


@pytest.mark.parametrize("hub", [{"keep_going": False}, {"quorum": 1.0}])
def test_it_is_asked_three_times_where_the_others_are_not_enough(hub: dict[str, Any]) -> None:
    federation = Federation(TOPOLOGIES["allreduce"], lambda member, _: member == "c", away="c", **hub)
    with pytest.raises(AssertionError):
        federation.run()  # the hub gives up in place of another exchange
    assert [dict(members) for members in federation.left] == [
        {"c": "the process of its place died 3 times while it did its part"}
    ]
    assert federation.asked["c"] == 3


def test_it_is_asked_once_where_the_others_are_just_enough() -> None:
    federation = Federation(TOPOLOGIES["allreduce"], lambda member, _: member == "c", away="c", quorum=0.75)
    federation.run()
    assert [dict(members) for members in federation.left] == [{"c": "not heard of"}] and federation.asked["c"] == 1


def test_a_late_update_takes_no_newer_ones_place() -> None:
    exchanges, parts = Federation(TOPOLOGIES["peer"], lambda *_: False).exchanges, dict[str, Any]()
    exchanges._hubs["world"].parts = parts
    for number, part in ((3, "new"), (2, "late"), (3, "again"), (4, "newer")):
        exchanges.keep("world", Update("world", number, (Share("a", 3),), 10), part)
        assert parts["a"][0] == ("new" if part == "late" else part)


@pytest.mark.parametrize("kind", ["allreduce", "peer"])
def test_who_waited_in_a_process_that_died_under_another_is_not_held_to_account(kind: str) -> None:
    """b's place is in the process of a's; the one that leaves keeps what it had."""
    federation = Federation(TOPOLOGIES[kind], lambda member, _: member == "a")
    found = federation.run()
    assert [list(members) for members in federation.left] == [["a"]]
    others = {name: model for name, model in found.items() if name != "a"}
    assert len(set(others.values())) == (3 if kind == "peer" else 1)
    assert (found["a"] == federation.start.floats.tobytes()) == (kind == "peer")
