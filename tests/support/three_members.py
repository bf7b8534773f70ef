"""A hub of three members with weights of 100, 60 and 40, and their updates."""

from __future__ import annotations

from typing import Any

from scheduler.participation import Participation
from tiers import Hub, HubRounds, Site
from tiers.messages import Arrived, Share, Update

__all__ = ["BUSY", "LATE", "WEIGHTS", "arrived", "machine", "update"]

WEIGHTS = {"a": 100, "b": 60, "c": 40}
BUSY = "still at work for round 0, which closed without it"
LATE = "late: still at work when the round closed"


def machine(participation: Participation, weights: dict[str, int] = WEIGHTS, **settings: Any) -> HubRounds:
    hub = Hub("h", tuple(Site(name) for name in weights), participation=participation, **settings)
    return HubRounds(hub, weights, path="w/h", seed=3)


def update(name: str, number: int, weight: int | None = None) -> Update:
    return Update("h", number, (Share(name, WEIGHTS.get(name, 1) if weight is None else weight),))


def arrived(name: str, number: int, weight: int | None = None) -> Arrived:
    return Arrived(update(name, number, weight))
