"""What the hubs of a played run were told since they were last idle, of which a checkpoint takes along what it must."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from replicated_brain import Recall
from replicated_disk import Line

from tiers.carrying import going_on
from tiers.journal import Closed, Told, Vector
from tiers.messages import Begin
from tiers.replay import Replay
from tiers.standing import Errand, Standing

__all__ = ["VECTORS", "SinceIdle", "asked_in", "recalled"]

VECTORS: tuple[Vector, ...] = (("value", "int64", (1,)),)


class SinceIdle:
    """It does what the product's `hierfl.runtime.underway` does."""

    def __init__(self) -> None:
        self.lines: dict[str, list[tuple[int, Line]]] = {}
        self.number = 0

    def add(self, path: str, record: Told | Closed, value: int = 0, said: Any = None) -> None:
        self.lines.setdefault(path, []).append((self.number, (record, value, said)))
        self.number += 1

    def idle(self, path: str, num_left: int) -> None:
        told = [one for one in self.lines.pop(path, ()) if type(one[1][0]) is Told]
        if num_left:
            self.lines[path] = told[-num_left:]

    def drop(self, path: str) -> None:
        self.lines.pop(path, None)

    def carried(
        self, running: Sequence[str], orders: Mapping[str, tuple[int, int]], errands: Mapping[str, Mapping[str, Errand]]
    ) -> Iterator[Line]:
        """Give what hubs were told that go on with their rounds, the oldest first; with a beginning its model, where
        nobody is there to give it once more.
        """
        told = {path: [line[0] for _, line in self.lines[path]] for path in running}
        found = []
        for path, follows in going_on(told, {path: orders[path][0] for path in running}, errands).items():
            for number, line in self.lines[path]:
                record, value, said = line
                if isinstance(record, Told) and isinstance(record.event, Begin):
                    line = (replace(record, vectors=() if follows else VECTORS), value, said)
                found.append((number, line))
        return (line for _, line in sorted(found, key=lambda one: one[0]))


def recalled(
    path: str, kept: Mapping[str, Recall], errands: Mapping[str, Mapping[str, Errand]], replay: Replay[int] | None
) -> Recall | None:
    """Give what a hub remembers of the checkpoint, with who was at work."""
    if replay is not None and path in replay.forgotten:
        return None
    if path not in errands:
        return kept.get(path)
    before = kept.get(path) or Recall(Standing(max(one.round_number for one in errands[path].values())), {})
    return Recall(replace(before.standing, errands=dict(errands[path])), before.held)


def asked_in(path: str, errands: Mapping[str, Mapping[str, Errand]]) -> tuple[int, int]:
    """Give the round in which a hub was asked that goes on, and its weight in it."""
    above, _, name = path.rpartition("/")
    return errands[above][name].round_number, errands[above][name].weight
