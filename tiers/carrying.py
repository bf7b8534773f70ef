"""Which hubs go on with their rounds when a run is taken up from a checkpoint at which these were under way.

A hub goes on if the one above still waits for it: it was asked in a round of that one's that has closed without it, or
in one that is under way as well. Of the latter kind it is asked once more as that one is told again; a hub of the
former kind is begun by whoever takes the run up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tiers.journal import Record, Told, answers
from tiers.messages import Begin
from tiers.standing import Errand

__all__ = ["going_on"]


def going_on(
    told: Mapping[str, Sequence[Record]], asked_in: Mapping[str, int], errands: Mapping[str, Mapping[str, Errand]]
) -> dict[str, bool]:
    """List the hubs that go on, each with whether its beginning follows from what the hub above is told again.

    `told`: what each hub whose rounds are under way was told since it last was idle; `asked_in`: in which round of the
    hub above; `errands`: who was at work when a hub was last idle.
    """
    found: dict[str, bool] = {}
    for hub in sorted(told, key=lambda path: path.count("/")):
        above, _, name = hub.rpartition("/")
        number, records = asked_in[hub], told.get(above, ())
        if (above in told and above not in found) or (number, name) in answers(records):
            continue
        events = (record.event for record in records if isinstance(record, Told))
        begun = next((event.round_number for event in events if isinstance(event, Begin)), None)
        errand = errands.get(above, {}).get(name)
        if begun is not None and number >= begun:
            found[hub] = True
        elif errand is not None and errand.round_number == number:
            found[hub] = False
    return found
