"""On which machine an aggregator goes: replicas of one hub apart from each other, and all of them evenly."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

__all__ = ["choose", "crowded"]


def choose(machines: Sequence[str], beside: Sequence[str], load: Mapping[str, int], ready: Collection[str] = ()) -> str:
    """Choose the machine for one more replica: of those with the fewest other replicas of its hub (`beside`: where they
    are) one that is `ready` for it, if any is, of these the one that serves the fewest (`load`), of these the first.
    """
    order = {machine: number for number, machine in enumerate(machines)}
    return min(
        machines,
        key=lambda machine: (beside.count(machine), machine not in ready, load.get(machine, 0), order[machine]),
    )


def crowded(replicas: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Find the hubs whose replicas share a machine; by machine, those of which it has more than one.

    `replicas`: the machines of each hub's replicas, by the hub's path.
    """
    found: dict[str, list[str]] = {}
    for hub, machines in replicas.items():
        for machine in dict.fromkeys(machines):
            if machines.count(machine) > 1:
                found.setdefault(machine, []).append(hub)
    return found
