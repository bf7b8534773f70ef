"""The processes in which hubs are served: which replica is in which, and on which machine each of them is.

Replicas of one hub are in processes of their own, on different machines where there are as many. Places of members
that are sites are in the processes of first replicas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from hierfl.runtime.driver import replica_of
from hierfl.runtime.places import PLACE
from hierfl.runtime.ray_nodes import Nodes
from scheduler.placement import choose

__all__ = ["HUB", "Rooms"]

HUB = "/hub-"
"""How the processes that serve hubs are called; no device's name holds a slash."""

MAX_AGGREGATORS = 16


class Rooms:
    """The processes. `num`: how many there may be, None for one for each hub up to a limit; `replicas`: of a hub at
    most.
    """

    def __init__(self, num: int | None, replicas: int) -> None:
        self._num = max(1, num // replicas) if num is not None else MAX_AGGREGATORS
        self._replicas = replicas
        self._cluster = Nodes()
        self._nodes: dict[str, str] = {}
        self._unheard: set[str] = set()

    def first(self, num_hubs: int) -> list[str]:
        """Name the processes of the first replicas of so many hubs."""
        return [f"{HUB}{number}" for number in range(min(num_hubs, self._num))]

    def choose(self, actor: str, slots: Mapping[str, str]) -> str:
        """Name the process of an actor that has none yet; `slots`: those of all others."""
        if actor.startswith(HUB):
            return actor
        of_hubs = [slot for name, slot in slots.items() if slot.startswith(HUB) and name[0] != "/"]
        if actor.startswith(PLACE):
            return of_hubs[sum(name.startswith(PLACE) for name in slots) % len(of_hubs)]
        for replica in range(1, self._replicas):
            path = actor.removeprefix(replica_of("", replica))
            if path != actor:
                return f"{slots[path]}.{replica}"
        return f"{HUB}{len(of_hubs) % self._num}"

    def serve(self, slots: Mapping[str, str]) -> dict[str, Sequence[str]]:
        """List the processes with the replicas in each."""
        found: dict[str, list[str]] = {}
        for actor, slot in slots.items():
            if slot.startswith(HUB) and actor != slot and not actor.startswith(PLACE):
                found.setdefault(slot, []).append(actor)
        return dict(found)

    def place(self, room: str, ready: Collection[str] = ()) -> str:
        """Choose the node of a process that is about to start: one of those that are there now, and not in doubt.

        `ready`: where one has begun already.
        """
        self._unheard.add(room)
        self._nodes.pop(room, None)
        nodes, here = self._cluster.there(), self._cluster.here
        own = room.partition(".")[0]
        beside = [node for other, node in self._nodes.items() if other.partition(".")[0] == own]
        ordered = sorted(nodes, key=lambda node: (node != here, nodes[node], node))
        while True:
            node = choose(ordered, beside, Counter(self._nodes.values()), ready)
            if len(ordered) == 1 or self._cluster.answers(node):
                break
            ordered.remove(node)
        self._nodes[room] = node
        return node

    def look(self) -> set[str]:
        """Look at the nodes, those that have come too; give those on which processes were placed."""
        return set(self._nodes.values()) & self._cluster.there().keys()

    def node(self, room: str) -> str:
        """Give the node on which a process was placed, by Ray's id."""
        return self._nodes[room]

    def busy(self, serving: Collection[str]) -> set[str]:
        """Give the nodes on which processes that serve somebody are starting."""
        return {self._nodes[room] for room in self._unheard if room in serving}

    def heard(self, room: str) -> None:
        """A process has said something: it has started."""
        self._unheard.discard(room)

    def doubt(self, room: str) -> list[str] | None:
        """Nothing is heard of a process. Give the others on its node that have said nothing yet; None: the node is
        beyond doubt.
        """
        node = self._nodes[room]
        if not self._cluster.doubt(node):
            return None
        return [other for other, at in self._nodes.items() if at == node and other != room and other in self._unheard]

    def stranded(self) -> set[str]:
        """Give the processes that will not start, as their nodes are gone."""
        gone = {node for node in {self._nodes[room] for room in self._unheard} if not self._cluster.answers(node)}
        return {room for room in self._unheard if self._nodes[room] in gone}

    def found(self, room: str, node: str) -> None:
        """A process says on which node it is: another one than was chosen, where that was about to end."""
        self._cluster.trust(node)
        if self._nodes.get(room) != node:
            self._cluster.there()
            self._nodes[room] = node

    def machine(self, room: str) -> str:
        """Name the machine of a process."""
        return self._cluster.name(self._nodes[room])
