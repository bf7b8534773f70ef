"""What a hub asks of its members, as one order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hierfl.learning.local import adds_up
from hierfl.runtime.jobs import HubSpec, Order
from tiers.federation import Hub
from tiers.messages import Opening, Shortfall, TrainMember

__all__ = ["of_hub", "ordered"]


def ordered(
    spec: HubSpec,
    asked: Sequence[TrainMember],
    opening: Opening | None,
    above: Order | None = None,
    then: tuple[str, ...] = (),
) -> Order:
    """Bundle what a machine asks of members. `above`: the order that the hub works for; `then`: as of an order."""
    assert opening is not None
    members = tuple((command.member, command.weight) for command in asked)
    objective, short = spec.strategy.objective(), _shortfalls(spec, asked, above)
    return Order(spec.path, asked[0].round_number, members, opening, objective, then, short)


def of_hub(order: Order | None, hub: Hub) -> tuple[Shortfall, ...] | None:
    """Give which of a hub's own updates did not count whole above, where that concerns its members: what they keep has
    to add up to what a hub above keeps. None where it does not.

    What became of several rounds in one of the parent's is not told.
    """
    if order is None or order.shortfalls is None or not adds_up(order.objective) or hub.rounds > 1:
        return None
    return order.shortfalls.get(hub.name, ())


def _shortfalls(
    spec: HubSpec, asked: Sequence[TrainMember], above: Order | None
) -> Mapping[str, tuple[Shortfall, ...]] | None:
    """Say which members' updates did not count whole, here or as parts of this hub's own; None where all do."""
    if of_hub(above, spec.hub) is None and not spec.hub.may_leave_out:
        return None
    return {command.member: command.shortfalls for command in asked if command.shortfalls}
