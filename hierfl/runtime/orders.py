"""What a hub asks of its members, as one order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hierfl.learning.local import adds_up
from hierfl.runtime.jobs import HubSpec, Order
from tiers.messages import Opening, Shortfall, TrainMember

__all__ = ["ordered"]


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


def _shortfalls(
    spec: HubSpec, asked: Sequence[TrainMember], above: Order | None
) -> Mapping[str, tuple[Shortfall, ...]] | None:
    """Say which members' updates did not count whole: here, or above as parts of this hub's own, where what they keep
    is the business of a hub above; None where all do. What became of several rounds in one of the parent's is not told.
    """
    inherited = None
    if above is not None and adds_up(above.objective) and spec.hub.rounds == 1:
        inherited = above.shortfalls
    if inherited is None and not spec.hub.may_leave_out:
        return None
    of_hub = (inherited or {}).get(spec.hub.name, ())
    found = {command.member: (*of_hub, *command.shortfalls) for command in asked}
    return {member: short for member, short in found.items() if short}
