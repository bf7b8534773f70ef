"""Groups of work that were asked of the crew and are not all accounted for yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hierfl.runtime.crew import Crew
from hierfl.runtime.results import Group

__all__ = ["OpenWork"]


class OpenWork:
    """Knows which sites are still to be heard of; a group that is all accounted for is forgotten."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._open: dict[str, tuple[Group, set[str]]] = {}

    def __bool__(self) -> bool:
        """Whether any site is still to be heard of."""
        return bool(self._open)

    def ask(self, group: Group) -> None:
        """Ask the crew for a group's work, if it has any."""
        if group.sizes:
            self._open[group.name] = (group, set(group.sizes))
            self._crew.ask(group)

    def account(self, group: Group, sites: Iterable[str]) -> None:
        """Cross sites off a group."""
        if group.name in self._open:
            waiting = self._open[group.name][1]
            waiting.difference_update(sites)
            if not waiting:
                del self._open[group.name]
                self._crew.finish(group.name)

    def lose(self, group: Group, sites: Mapping[str, str]) -> None:
        """Cross sites off that give nothing, each with the reason; members that mask go on without them."""
        if group.is_masked:
            self._crew.leave_out(group, sites)
        self.account(group, sites)

    def take_back(self, site: str, round_number: int) -> bool:
        """Let a site's work for a hub's round go if it still waits for a device; say whether it did."""
        for group, waiting in list(self._open.values()):
            if group.round_number == round_number and site in waiting:
                taken = self._crew.take_back(group.name, [site])
                self.account(group, taken)
                return bool(taken)
        return False

    def withdraw(self, hub: str) -> None:
        """Let all work of a hub go; what is under way ends unheard."""
        for name in [name for name, (group, _) in self._open.items() if group.hub == hub]:
            self._crew.withdraw(name)
            del self._open[name]
