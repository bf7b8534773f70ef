"""The remaining chain of a run: how long what must follow a hub's round will take, whatever the devices do.

A round of a hub takes at least what its slowest member takes, or all of them one after another where its topology is
sequential; a member that is a hub takes its `rounds` of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tiers.federation import Federation, Hub, parent

__all__ = ["Chains"]


class Chains:
    """Predicted seconds from a hub's barrier to the end of the run, by hub; learned anew at each round of the root."""

    def __init__(self, federation: Federation) -> None:
        self._tree = federation
        self._round_s: dict[str, float] = {}
        self._member_s: dict[str, float] = {}
        self._above_s: dict[str, float] = {}

    def begin(self, round_number: int, predict: Callable[[str], float | None]) -> None:
        """A round of the root begins. `predict`: a site's seconds, None if unknown, which counts as nothing."""
        hubs = self._tree.hubs
        for path in reversed(list(hubs)):
            own = {member: self._predicted_s(member, predict) for member in self._tree.members(path)}
            self._round_s[path] = sum(own.values()) if hubs[path].topology.sequential else max(own.values())
            self._member_s.update(own)
        for path in hubs:
            above = parent(path)
            if above is None:
                self._above_s[path] = (hubs[path].rounds - 1 - round_number) * self._round_s[path]
            else:
                grand = parent(above)
                left = (hubs[above].rounds - 1) * self._round_s[above] if grand is not None else 0.0
                self._above_s[path] = self._above_s[above] + left

    def remaining_s(self, path: str, round_number: int, then: Iterable[str] = ()) -> float:
        """Predict the seconds from the end of a stage of a hub's round (in its own count) to the end of the run.

        `then`: the members, by name, whose turn comes afterwards in the same round.
        """
        hub = self._tree.hubs[path]
        after = self._above_s.get(path, 0.0) + sum(self._member_s.get(f"{path}/{name}", 0.0) for name in then)
        if parent(path) is None:
            return after
        return after + (hub.rounds - 1 - round_number % hub.rounds) * self._round_s.get(path, 0.0)

    def _predicted_s(self, path: str, predict: Callable[[str], float | None]) -> float:
        node = self._tree.nodes[path]
        return node.rounds * self._round_s[path] if isinstance(node, Hub) else predict(path) or 0.0
