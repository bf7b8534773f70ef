"""The remaining chain of a run: how long what must follow a hub's round will take, whatever the devices do.

A round of a hub takes at least what its slowest member takes; a member that is a hub takes its `rounds` of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from tiers.federation import Federation, Hub, parent

__all__ = ["Chains"]


class Chains:
    """Predicted seconds from a hub's barrier to the end of the run, by hub; learned anew at each round of the root."""

    def __init__(self, federation: Federation) -> None:
        self._tree = federation
        self._round_s: dict[str, float] = {}
        self._above_s: dict[str, float] = {}

    def begin(self, round_number: int, predict: Callable[[str], float | None]) -> None:
        """A round of the root begins. `predict`: a site's seconds, None if unknown, which counts as nothing."""
        hubs = self._tree.hubs
        for path in reversed(list(hubs)):
            self._round_s[path] = max(self._member_s(member, predict) for member in self._tree.members(path))
        for path in hubs:
            above = parent(path)
            if above is None:
                self._above_s[path] = (hubs[path].rounds - 1 - round_number) * self._round_s[path]
            else:
                grand = parent(above)
                left = (hubs[above].rounds - 1) * self._round_s[above] if grand is not None else 0.0
                self._above_s[path] = self._above_s[above] + left

    def remaining_s(self, path: str, round_number: int) -> float:
        """Predict the seconds from the end of a hub's round (in its own count) to the end of the run."""
        hub = self._tree.hubs[path]
        above = self._above_s.get(path, 0.0)
        if parent(path) is None:
            return above
        return above + (hub.rounds - 1 - round_number % hub.rounds) * self._round_s.get(path, 0.0)

    def _member_s(self, path: str, predict: Callable[[str], float | None]) -> float:
        node = self._tree.nodes[path]
        return node.rounds * self._round_s[path] if isinstance(node, Hub) else predict(path) or 0.0
