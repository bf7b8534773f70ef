"""Undirected graphs over the members of a hub: who exchanges with whom, and how much of whose model each takes.

A graph maps each name to its neighbours, in the order of the names; nobody is its own neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import isqrt

from scheduler.draws import RANGE, draw

__all__ = ["Graph", "complete", "cut_off", "erdos_renyi", "given", "metropolis", "ring", "small_world", "torus"]

Graph = Mapping[str, tuple[str, ...]]


def complete(names: Sequence[str]) -> Graph:
    """Join each with each."""
    return {name: tuple(other for other in names if other != name) for name in names}


def ring(names: Sequence[str]) -> Graph:
    """Join each with the next, and the last with the first."""
    return _joined(names, zip(names, [*names[1:], *names[:1]], strict=True))


def torus(names: Sequence[str]) -> Graph:
    """Join each with the next in its row and in its column, wrapped around: as near to a square as their number allows.

    A prime number of names makes one row, a ring.
    """
    num = len(names)
    rows = next((rows for rows in range(isqrt(num), 0, -1) if num % rows == 0), 1)
    columns = num // rows
    edges = []
    for place, name in enumerate(names):
        row, column = divmod(place, columns)
        edges.append((name, names[row * columns + (column + 1) % columns]))
        edges.append((name, names[(row + 1) % rows * columns + column]))
    return _joined(names, edges)


def small_world(names: Sequence[str], neighbours: int, rewire: float, seed: int, hub: str) -> Graph:
    """Join each with the nearest `neighbours` on a ring, and let each of these edges end elsewhere with probability
    `rewire` (Watts & Strogatz 1998, "Collective dynamics of small-world networks").
    """
    num = len(names)
    edges = {frozenset((i, (i + k) % num)) for i in range(num) for k in range(1, neighbours // 2 + 1) if k < num}
    edges = {edge for edge in edges if len(edge) == 2}
    for k in range(1, neighbours // 2 + 1):
        for i in range(num):
            edge = frozenset((i, (i + k) % num))
            if edge not in edges or draw(seed, "rewire", hub, k, names[i]) >= rewire * RANGE:
                continue
            free = [j for j in range(num) if j != i and frozenset((i, j)) not in edges]
            if free:
                end = free[draw(seed, "end", hub, k, names[i]) % len(free)]
                edges = (edges - {edge}) | {frozenset((i, end))}
    return _joined(names, ((names[min(edge)], names[max(edge)]) for edge in edges))


def erdos_renyi(names: Sequence[str], probability: float, seed: int, hub: str) -> Graph:
    """Join each pair with a probability (Erdos & Renyi 1959); a pair's draw depends on its names alone."""
    pairs = ((one, two) for place, one in enumerate(names) for two in names[place + 1 :])
    drawn = (
        (one, two)
        for one, two in pairs
        if draw(seed, "edge", hub, 0, "/".join(sorted((one, two)))) < probability * RANGE
    )
    return _joined(names, drawn)


def given(names: Sequence[str], edges: Mapping[str, Iterable[str]]) -> Graph:
    """Join those that `edges` names together, as far as they are among the names."""
    known = set(names)
    pairs = ((one, two) for one, others in edges.items() for two in others if {one, two} <= known)
    return _joined(names, pairs)


def cut_off(graph: Graph) -> list[str]:
    """List the names that have no way to the first one; none in a connected graph."""
    seen: set[str] = set()
    stack = list(graph)[:1]
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            stack.extend(graph[name])
    return [name for name in graph if name not in seen]


def metropolis(graph: Graph, sizes: Mapping[str, int]) -> dict[str, dict[str, Fraction]]:
    """Give how much of each neighbour's model, and of its own, each takes: rows that add up to 1.

    Metropolis & Hastings' rule with proposals in proportion to the sizes n among each one's neighbours and itself:

        W_ij = n_j / max(N_i, N_j)  for neighbours      N_i = n_i + sum of the neighbours' n      W_ii = the rest

    n_i W_ij = n_j W_ji, so that the mean weighted by n stays as it is. With equal sizes these are the Metropolis
    weights 1 / (1 + max(d_i, d_j)) of Xiao, Boyd & Lall (2005); on a complete graph every row is n_j / sum of all n.
    """
    around = {name: sizes[name] + sum(sizes[other] for other in others) for name, others in graph.items()}
    rows: dict[str, dict[str, Fraction]] = {}
    for name, others in graph.items():
        taken = {other: Fraction(sizes[other], max(around[name], around[other])) for other in others}
        rows[name] = {name: 1 - sum(taken.values(), start=Fraction(0)), **taken}
    return rows


def _joined(names: Sequence[str], edges: Iterable[tuple[str, str]]) -> Graph:
    """Make a graph of edges, whichever way they are named."""
    found: dict[str, set[str]] = {name: set() for name in names}
    for one, two in edges:
        if one != two:
            found[one].add(two)
            found[two].add(one)
    order = {name: place for place, name in enumerate(names)}
    return {name: tuple(sorted(found[name], key=order.__getitem__)) for name in names}
