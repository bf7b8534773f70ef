"""What hubs and members say to each other: frozen headers of a few numbers; tensors travel beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from tiers.plan import Gather, Mix

__all__ = [
    "Add",
    "Advance",
    "Arrived",
    "Begin",
    "Carry",
    "Close",
    "Command",
    "Dismiss",
    "Event",
    "Exchange",
    "Finish",
    "GiveUp",
    "Hold",
    "Left",
    "Lost",
    "Mixed",
    "Open",
    "Opening",
    "Refuse",
    "SetTimer",
    "Share",
    "Shortfall",
    "TimeUp",
    "TrainMember",
    "Update",
]


@dataclass(frozen=True, slots=True)
class Opening:
    """The public record that opens a round: the same for all who contribute to one sum.

    `hub` decodes the sum and `round_number` is its own; `width`, `clip` and `total_weight` fix the grid (see
    docs/arithmetic.md), `dtype` is the model's.
    """

    hub: str
    round_number: int
    width: int
    clip: float
    total_weight: int
    dtype: str


@dataclass(frozen=True, slots=True)
class Share:
    """One member's part in an update, with its integer weight."""

    member: str
    weight: int


@dataclass(frozen=True, slots=True)
class Update:
    """The header of an update to `hub` in its round: whose it is, and how many bytes travel beside it.

    More than one share: a worker has added up several sites of this hub. `spared_bytes`: how many more would travel if
    nothing were compressed. `checksum`: over what travels beside it; None: it is not known.
    """

    hub: str
    round_number: int
    shares: tuple[Share, ...]
    num_bytes: int = 0
    spared_bytes: int = 0
    checksum: int | None = None


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Of a member's update of a round only `counted` of its `weight` has counted: it came late, or was lost.

    With 0 that holds for all its updates from that round on.
    """

    round_number: int
    counted: int
    weight: int


@dataclass(frozen=True, slots=True)
class Begin:
    """Event: do `rounds` rounds, the first of them numbered `round_number` in this hub's own count.

    `forecast_s`: how long each member is predicted to take, in seconds, by name; without those that are not known.
    `shortfalls`: of the hub's own updates, where that concerns those who had a part in them.
    """

    round_number: int
    rounds: int = 1
    forecast_s: Mapping[str, float] = field(default_factory=dict)
    shortfalls: tuple[Shortfall, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrived:
    """Event: an update has come."""

    update: Update


@dataclass(frozen=True, slots=True)
class Lost:
    """Event: these members will send nothing for the round in which they were asked, each for a reason.

    `excused`: it is not they who failed. They were at work for a round that closed without them, and their work ended
    with the process that the run had.
    """

    round_number: int
    members: Mapping[str, str]
    excused: bool = False


@dataclass(frozen=True, slots=True)
class TimeUp:
    """Event: `elapsed_s` seconds have passed since the round opened, as a `SetTimer` asked to be told."""

    round_number: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Mixed:
    """Event: the members have done the exchange of this round."""

    round_number: int


@dataclass(frozen=True, slots=True)
class Left:
    """Event: these members, whose updates have come, cannot do their part in the exchange of this round, each for a
    reason.
    """

    round_number: int
    members: Mapping[str, str]


Event: TypeAlias = Begin | Arrived | Lost | TimeUp | Mixed | Left


@dataclass(frozen=True, slots=True)
class Open:
    """Command: open a round; `skipped` members do not take part, each for a reason.

    `total_weight` has room for all that may be added: who is asked in the first stage of the plan, and updates of
    earlier rounds that may still come.
    """

    round_number: int
    total_weight: int
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Advance:
    """Command: the next stage of the round's plan begins. The model takes on what is in the sum, if there is anything:
    a stage's members may all be lost. A new sum begins, with room for `total_weight`.
    """

    round_number: int
    total_weight: int


@dataclass(frozen=True, slots=True)
class TrainMember:
    """Command: ask a member for its update of this round.

    `shortfalls`: of what it has sent since its last update that counted whole.
    """

    round_number: int
    member: str
    weight: int
    shortfalls: tuple[Shortfall, ...] = ()


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Command: say `TimeUp` when `after_s` seconds have passed since the round opened, if it is still open."""

    round_number: int
    after_s: float


@dataclass(frozen=True, slots=True)
class Add:
    """Command: add this update's payload to the round's sum."""

    update: Update


@dataclass(frozen=True, slots=True)
class Hold:
    """Command: keep this late update's payload, for a reason; `Carry` or `Refuse` follows as the next round opens."""

    update: Update
    reason: str


@dataclass(frozen=True, slots=True)
class Carry:
    """Command: add a late update's payload, just come or held, to the open round's sum: with `weight` in place of its
    own, for a reason; it was made on the grid of the round that its header names.
    """

    update: Update
    weight: int
    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Command: do not count this update, for a reason."""

    update: Update
    reason: str


@dataclass(frozen=True, slots=True)
class Close:
    """Command: the last sum is complete; who reported, who is missing and why, and why the round closes now.

    `carried`: members whose updates of earlier rounds are in the sum, and how much they count.
    """

    round_number: int
    members: tuple[str, ...]
    missing: Mapping[str, str]
    weight: int
    reason: str
    carried: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exchange:
    """Command: the members do these steps with the updates of the round that has closed, whose weights are these; say
    `Mixed` when they have.

    `missing`: whose updates had come, and who take no part any more, each for a reason; what was done with these is
    void.
    """

    round_number: int
    weights: Mapping[str, int]
    steps: tuple[Mix | Gather, ...]
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Command: what these members were asked in this round can no longer count, each for a reason.

    Their work may be stopped. They are asked again once they have reported or are lost.
    """

    round_number: int
    members: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Finish:
    """Command: the last round asked for is closed; hand up this hub's own update, or publish at the root."""

    round_number: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Command: the round cannot be closed, for a reason; all that was asked or held is void."""

    round_number: int
    reason: str


Command: TypeAlias = (
    Open | Advance | TrainMember | SetTimer | Add | Hold | Carry | Refuse | Close | Exchange | Dismiss | Finish | GiveUp
)
