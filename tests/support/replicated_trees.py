"""The federations of drawn histories: one to three hubs, under policies that wait and such that close early."""

from __future__ import annotations

from typing import Any

from replicated_brain import Shape

from scheduler.participations.all import All
from scheduler.participations.buffered import Buffered
from scheduler.participations.deadline import Deadline
from tiers import Hub, Site

__all__ = ["EARLY", "TREES", "Tree", "stepped"]

MASK = (1 << 61) - 1


class Tree:
    """A federation: its hubs, the root first, and what its members are called by number."""

    def __init__(self, *shapes: Shape, rounds: int, loses: bool) -> None:
        self.shapes, self.rounds, self.loses = shapes, rounds, loses
        self.number = {f"{shape.path}/{name}": at for shape in shapes for at, name in enumerate(shape.weights)}
        self.is_calm = not loses and all(isinstance(shape.hub.participation, All) for shape in shapes)
        self.calm = self._calm() if self.is_calm else {}

    def value(self, path: str, number: int, model: int) -> int:
        """What a member makes of a model."""
        return hash((len(path), self.number[path], number, model)) & MASK

    def _calm(self) -> dict[int, int]:
        """What is published where nothing fails."""
        model, found = 1, {}
        for number in range(self.rounds):
            model, _ = self._round(self.shapes[0], number, model)
            found[number + 1] = model
        return found

    def _round(self, shape: Shape, number: int, model: int) -> tuple[int, int]:
        total = 0
        for name, weight in shape.weights.items():
            path = f"{shape.path}/{name}"
            inner = next((one for one in self.shapes if one.path == path), None)
            value = self.value(path, number, model) if inner is None else model
            for below in range(inner.hub.rounds) if inner is not None else ():
                value, _ = self._round(inner, number * inner.hub.rounds + below, value)  # type: ignore[arg-type]
            total += value * weight
        return stepped(model, total), total


def stepped(model: int, total: int) -> int:
    return hash((model, total)) & MASK


def _trees() -> list[Tree]:
    """A few federations that are valid, made once: drawing one takes no time."""
    found = []
    policies = (
        All(),
        Deadline(after_s=5.0, quorum=0.3, weight=0.3),
        Deadline(quorum=0.3, weight=0.3, late="refuse"),
        Buffered(goal=2),
    )
    for policy in policies:
        for loses, keep_going in ((False, False), (True, False), (True, True)):
            more: dict[str, Any] = {"keep_going": keep_going, "quorum": 0.3}
            two, three = {"a": 1, "b": 2}, {"a": 5, "b": 1, "c": 2}
            flat = Shape("w", Hub("w", tuple(map(Site, two)), 2, participation=policy, **more), two)
            broad = Shape("w", Hub("w", tuple(map(Site, three)), participation=policy, **more), three)
            found += [Tree(flat, rounds=2, loses=loses), Tree(broad, rounds=1, loses=loses)]
            for rounds, below in ((1, 2), (2, 1), (2, 1))[: 2 + keep_going]:
                own = {**more, "keep_going": keep_going and below > 1}  # or it gives up, and the root goes on
                inner = Hub("h", tuple(map(Site, two)), below, participation=policy, **own)
                top = Hub("w", (Site("x"), inner), rounds, **more)
                shapes = Shape("w", top, {"x": 2, "h": 3}, ("h",)), Shape("w/h", inner, two)
                found.append(Tree(*shapes, rounds=rounds, loses=loses))
    return [*found, *found, *_deep()]  # these take twice as long


def _deep() -> list[Tree]:
    """Three tiers, and roots that close early over hubs that are still at work, whose updates they carry over."""
    found = []
    early = Deadline(after_s=5.0, quorum=0.3, weight=0.1), Buffered(goal=1)
    two = {"a": 1, "b": 2}
    for top in (All(), *early):
        for loses, keep_going in ((False, False), (True, True)):
            more: dict[str, Any] = {"keep_going": keep_going, "quorum": 0.3}
            inner = Hub("h", tuple(map(Site, two)), 2, participation=early[0] if loses else All())
            if top.may_close_early:
                root = Hub("w", (Site("x"), inner), participation=top, **more)
                shapes = Shape("w", root, {"x": 2, "h": 3}, ("h",)), Shape("w/h", inner, two)
                found.append(Tree(*shapes, rounds=2, loses=loses))
            low = Hub("g", tuple(map(Site, two)))
            middle = Hub("h", (low,), participation=early[1] if loses else All(), **more)
            root = Hub("w", (Site("x"), middle), participation=top, **more)
            deep = Shape("w/h", middle, {"g": 3}, ("g",)), Shape("w/h/g", low, two)
            found.append(Tree(Shape("w", root, {"x": 2, "h": 3}, ("h",)), *deep, rounds=2, loses=loses))
    return found


def _broad() -> list[Tree]:
    """Roots that close early over a hub with a site and a hub of its own, and two rounds to do."""
    found = []
    two = {"a": 1, "b": 2}
    for policy in (Deadline(after_s=5.0, quorum=0.3, weight=0.1), Buffered(goal=1)):
        for loses in (False, True):
            more: dict[str, Any] = {"keep_going": loses, "quorum": 0.3}
            low = Hub("g", tuple(map(Site, two)))
            both = Hub("h", (Site("y"), low), 2, **more)
            top = Shape("w", Hub("w", (Site("x"), both), participation=policy, **more), {"x": 2, "h": 4}, ("h",))
            below = Shape("w/h", both, {"y": 1, "g": 3}, ("g",)), Shape("w/h/g", low, two)
            found.append(Tree(top, *below, rounds=3, loses=loses))
    return found


TREES = _trees()
EARLY = [tree for tree in TREES if len(tree.shapes) > 1 and tree.shapes[0].hub.participation.may_close_early]
EARLY += _broad()
