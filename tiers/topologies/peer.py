"""Peer to peer: each member keeps a model of its own, trains it, and mixes it with its neighbours' (decentralised
averaging: Lian et al. 2017, "Can Decentralized Algorithms Outperform Centralized Algorithms?"; with several local steps
a round Sun, Li & Wang 2022, "Decentralized Federated Averaging").

    z_i = x_i + the change of i's training         x_i <- sum_j W_ij z_j      `gossip_steps` times

The hub's own model, which is measured and handed up, is the members' mean, weighted as the hub weighs its members. On a
complete graph with one gossip step every member has that very model, and it has the bits of a star's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from scheduler.participations._fields import at_least, fraction, one_of
from tiers import graphs
from tiers.graphs import Graph
from tiers.plan import Mix, Partners, Plan, Train

__all__ = ["Peer"]

GRAPHS = ("complete", "ring", "torus", "small_world", "erdos_renyi", "given")
WEIGHTS = ("metropolis", "given")
MOST_EDGES = 100_000
ODD = 1e-9


@dataclass(frozen=True, slots=True)
class Peer:
    """Members mix with their neighbours; there is no common model."""

    sequential: ClassVar[bool] = False
    has_centre: ClassVar[bool] = False
    keeps_models: ClassVar[bool] = True

    graph: str = "complete"
    """Who exchanges with whom: complete, ring, torus, small_world, erdos_renyi (both drawn from the seed), or given."""

    gossip_steps: int = 1
    """How often a round's models are mixed, one time after the other."""

    weights: str = "metropolis"
    """How much of whose model: metropolis, by the members' weights and those of their neighbours, or given in `edges`.
    """

    neighbours: int = 4
    """Of small_world: neighbours of each before any is rewired, an even number."""

    rewire: float = 0.1
    """Of small_world: the probability with which an edge ends elsewhere."""

    probability: float = 0.5
    """Of erdos_renyi: the probability of each edge."""

    edges: Mapping[str, Mapping[str, float] | tuple[str, ...]] | None = None
    """Of graph given: {a: [b, c], c: [d]}, each edge once; with weights given {a: {b: 0.25, c: 0.5}, c: {d: 0.25}}, and
    each keeps of its own model what is left to 1."""

    def __post_init__(self) -> None:
        one_of("graph", self.graph, GRAPHS)
        one_of("weights", self.weights, WEIGHTS)
        at_least("gossip_steps", self.gossip_steps, 1)
        at_least("neighbours", self.neighbours, 2)
        if self.neighbours % 2:
            raise ValueError(f"neighbours is {self.neighbours}; an even number, half of them on each side")
        if not 0.0 <= self.rewire <= 1.0:
            raise ValueError(f"rewire is {self.rewire}; from 0 to 1")
        fraction("probability", self.probability)
        if (self.graph == "given") != bool(self.edges):
            raise ValueError(f"edges belong to graph given, and it needs some; graph is {self.graph}")
        if self.weights == "given":
            self._check_given()

    def plan(self, partners: Partners) -> Plan:
        """Yield a Train for each member from its own model, and for each gossip step a Mix at each."""
        names, own = list(partners.weights), partners.weights
        whole = self._graph(partners)
        graph = {name: tuple(other for other in whole[name] if other in own) for name in names}
        rows = graphs.metropolis(graph, own) if self.weights == "metropolis" else self._rows(graph)
        mixes = []
        for name in names:
            of = tuple(other for other in names if other == name or other in graph[name])
            mixes.append((of, name, tuple(rows[name][other] for other in of)))
        steps = (Mix(of, at, weights=taken, turn=turn) for turn in range(self.gossip_steps) for of, at, taken in mixes)
        return Plan((*(Train(name, name) for name in names), *steps))

    def misfit(self, partners: Partners) -> str:
        """Say which members have no way to the others, or are not there."""
        names, known = list(partners.weights), partners.members or tuple(partners.weights)
        named = {one for edge in self._pairs() for one in edge}
        strangers = sorted(named - set(known))
        if strangers:
            return f"edges names {', '.join(strangers[:3])}, which the hub has not (its members: {_few(list(known))})"
        if self.graph == "complete" and len(names) ** 2 > 2 * MOST_EDGES:
            return (
                f"{len(names)} members make more than {MOST_EDGES:,} edges: choose another graph, or hubs between them"
            )
        left_out = graphs.cut_off(self._ways(names, partners))
        if not left_out:
            return ""
        ways = {
            "erdos_renyi": f"raise probability ({self.probability:g}) or take another seed ({partners.seed})",
            "small_world": f"raise neighbours ({self.neighbours}) or take another seed ({partners.seed})",
        }
        way_out = ways.get(self.graph, "add edges")
        if self.weights == "given":
            way_out += ", or weights above 0"
        said = f"no way from {names[0]} to {_few(left_out)}"
        return f"the graph of those who train is not connected: {said}; {way_out}"

    def _ways(self, names: list[str], partners: Partners) -> Graph:
        """Give the graph over these names alone, without edges of weight 0, over which nothing comes."""
        graph = self._graph(replace(partners, members=tuple(names)))
        if self.weights != "given":
            return graph
        pairs = self._pairs()
        return {
            one: tuple(two for two in others if pairs[min(one, two), max(one, two)]) for one, others in graph.items()
        }

    def _graph(self, partners: Partners) -> Graph:
        """Lay the graph over all members; who takes no part in a round is missing with its edges."""
        names = partners.members or tuple(partners.weights)
        match self.graph:
            case "ring":
                return graphs.ring(names)
            case "torus":
                return graphs.torus(names)
            case "small_world":
                return graphs.small_world(names, self.neighbours, self.rewire, partners.seed, partners.hub)
            case "erdos_renyi":
                return graphs.erdos_renyi(names, self.probability, partners.seed, partners.hub)
            case "given":
                return graphs.given(names, self.edges or {})
        return graphs.complete(names)

    def _pairs(self) -> dict[tuple[str, str], Fraction]:
        """Read the given edges, each under its sorted names, with its weight, 0 where there is none."""
        found: dict[tuple[str, str], Fraction] = {}
        for one, others in (self.edges or {}).items():
            for two in others:
                weight = Fraction(str(others[two])) if isinstance(others, Mapping) else Fraction(0)
                key = (min(one, two), max(one, two))
                if found.setdefault(key, weight) != weight:
                    raise ValueError(
                        f"edges give {one} and {two} two weights, {float(found[key]):g} and {float(weight):g}"
                    )
        return found

    def _check_given(self) -> None:
        """Refuse given weights that are no symmetric, row-stochastic matrix. Errors: ValueError."""
        if self.graph != "given":
            raise ValueError(f"weights are given with the edges of graph given; graph is {self.graph}")
        if any(not isinstance(others, Mapping) for others in (self.edges or {}).values()):
            raise ValueError("edges need their weights: {a: {b: 0.25}}, or weights: metropolis")
        rows: dict[str, Fraction] = {}
        for (one, two), weight in self._pairs().items():
            if not 0 <= weight <= 1:
                raise ValueError(f"the weight of {one} and {two} is {float(weight):g}; from 0 to 1")
            for name in {one, two}:
                rows[name] = rows.get(name, Fraction(0)) + weight
        for name, total in rows.items():
            if total > 1 + Fraction(ODD):
                raise ValueError(f"the weights of {name} add up to {float(total):g}; at most 1")

    def _rows(self, graph: Graph) -> dict[str, dict[str, Fraction]]:
        """Give the rows of given weights; what a missing neighbour would have had is one's own."""
        pairs, rows = self._pairs(), {}
        for name, others in graph.items():
            taken = {other: pairs[min(name, other), max(name, other)] for other in others}
            rows[name] = {name: 1 - sum(taken.values(), start=Fraction(0)), **taken}
        return rows


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
