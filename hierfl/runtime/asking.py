"""What a worker is asked: a method and its arguments, by the kind of work."""

from __future__ import annotations

from typing import Any

from hierfl.runtime.jobs import TrainJob
from hierfl.runtime.keeper import Keeper
from hierfl.runtime.results import Group

__all__ = ["BUILDING", "PHASES", "WARMING_UP", "asked"]

PHASES = {"describe": "load", "collect": "transfer", "train_keeping": "train", "fine_tune": "evaluate"}
"""What a worker's time with a call counts as, where that is not the method's name."""

BUILDING = ("initial", "merged")
WARMING_UP = ("prepare", *BUILDING)
"""What a worker does before it can work, and which no site is to blame for."""


def asked(group: Group, sites: tuple[str, ...], keeper: Keeper) -> tuple[str, tuple[Any, ...]]:
    """Give the call that does a group's work for some of its sites, with what these keep where it is needed."""
    if group.kind == "describe":
        return "describe", (sites,)
    if group.kind == "evaluate":
        if group.rule is None:
            return "evaluate", (group.hub, sites, group.model, group.round_number)
        places, handles = keeper.of(sites)
        return "evaluate", (group.hub, sites, group.model, group.round_number, group.rule, places, *handles)
    if group.kind == "fine_tune":
        places, handles = keeper.of(sites)
        return "fine_tune", (group.hub, sites, group.model, group.round_number, group.rule, places, *handles)
    order = group.order
    assert order is not None
    weights = tuple((site, group.weights[site]) for site in sites)
    cohort = tuple(group.sizes) if group.is_masked else ()  # with every call: a thousand names would weigh
    what = group.hub, group.round_number, weights, order.opening, order.objective, group.name, cohort
    if not group.keeps:
        return "train", (TrainJob(*what), group.model)
    short = order.shortfalls
    if short is not None:
        names = {site: site.rpartition("/")[2] for site in sites}
        short = {site: short[name] for site, name in names.items() if name in short}
    job = TrainJob(*what, short)
    places, handles = keeper.of(sites)
    return "train_keeping", (job, group.model, places, *handles)
