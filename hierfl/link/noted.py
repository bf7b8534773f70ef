"""What a member has masked, noted on its disk before it is: of each round of a run one update, in the sum of one set of
members; and what is trained from one model in one round in the sum of one set, whatever the run is called.

Where one set has a member more than another, the difference of their sums is that member's update. Within a run the
sums of a round may not differ so. Nor may those of two runs that begin from the same model: training repeats itself by
the seed, so that a run begun anew, with a member more or less, would give away the update of that one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hierfl.errors import LinkError
from hierfl.link import kept
from hierfl.link.files import write_private
from hierfl.link.masks import Terms
from hierfl.monitor.words import few

__all__ = ["MASKED", "Noted"]

MASKED, ROUNDS = "masked", "rounds.json"
"""In a member's folder, by a run's name: what was masked in each of its rounds, and among whom."""

SETS = "masked_sets.json"
"""In a member's folder: among whom it has masked what was trained from a model in a round, of all runs."""

MOST_NOTED = 1000


class Noted:
    """A member's, in its folder. `path`: the member's; `whole`: all members of its hub, which an entry means that names
    none.
    """

    def __init__(self, folder: Path, path: str, whole: tuple[str, ...]) -> None:
        self._folder = folder
        self._path = path
        self._whole = whole

    def members(self, terms: Terms) -> tuple[str, ...] | None:
        """Give the set in whose sum alone a round's update may be; None where any will do.

        Errors: LinkError where a run and another one before it have masked it in different ones.
        """
        held = self._held(terms)
        found = list(dict.fromkeys(held.values()))
        if len(found) > 1:
            file = self._rounds(terms)
            raise LinkError(self._said(terms, held[file], next(one for one in found if one != held[file]), file))
        return found[0] if found else None

    def note(self, terms: Terms, update: bytes) -> None:
        """Note what is about to be masked. Errors: LinkError where it is another update, or set, than before."""
        for file, members in self._held(terms).items():
            if members != terms.members:
                raise LinkError(self._said(terms, members, terms.members, file))
        file, number = self._rounds(terms), str(terms.round_number)
        known = _read(file)
        digest, oldest = _update(known[number]) if number in known else update.hex(), min(map(int, known), default=0)
        if digest != update.hex() or (number not in known and len(known) >= MOST_NOTED and int(number) < oldest):
            raise LinkError(
                f"round {int(number) + 1} of run {terms.run} is asked of {self._path} once more, and training gave"
                " another update than the one that was masked for it: the two sums would show how these differ; delete"
                f" {file} to let it count all the same"
            )
        if number not in known:
            known[number] = {"update": digest, "members": terms.members}
            newest = sorted(known.items(), key=lambda one: int(one[0]))[-MOST_NOTED:]
            write_private(file, json.dumps(dict(newest)).encode())
            kept.forget_all_before(self._folder / MASKED, terms.run)
        sets = _read(self._folder / SETS)
        if _start(terms) not in sets:
            newest = [*sets.items(), (_start(terms), terms.members)][-MOST_NOTED:]
            write_private(self._folder / SETS, json.dumps(dict(newest)).encode())

    def refusal(self, terms: Terms, members: tuple[str, ...]) -> str:
        """Say why an update is not masked as it is asked for, where its set is held to be this one."""
        held = self._held(terms)
        return self._said(terms, members, terms.members, next(file for file in held if held[file] == members))

    def _held(self, terms: Terms) -> dict[Path, tuple[str, ...]]:
        """Give the sets that are noted, by the file that has them."""
        rounds, sets, number = self._rounds(terms), self._folder / SETS, str(terms.round_number)
        known, starts = _read(rounds), _read(sets)
        found = {rounds: self._members(known[number], rounds)} if number in known else {}
        return {**found, **({sets: self._members(starts[_start(terms)], sets)} if _start(terms) in starts else {})}

    def _members(self, entry: Any, file: Path) -> tuple[str, ...]:
        """Read a set. Errors: LinkError."""
        said = entry.get("members") if isinstance(entry, dict) else entry
        if isinstance(said, str):
            return self._whole
        if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
            raise LinkError(f"{file} cannot be read, which says what was masked among whom; delete it to begin anew")
        return tuple(said)

    def _rounds(self, terms: Terms) -> Path:
        return self._folder / MASKED / terms.run / ROUNDS

    def _said(self, terms: Terms, before: tuple[str, ...], now: tuple[str, ...], file: Path) -> str:
        of = f"round {terms.round_number + 1} of run {terms.run}"
        if file.name == SETS:
            of = f"what is trained from this model in round {terms.round_number + 1}"
        return (
            f"{self._path} has masked {of} in the sum of {few(before)}, and in that of {few(now)} the difference would"
            f" be somebody's own update; go on once {few(before)} are there, begin from another model (another seed,"
            f" where that draws it), or delete {file} to let it count all the same"
        )


def _start(terms: Terms) -> str:
    """Name what a training starts from: the model, and the round, which draws its batches."""
    return f"{terms.round_number}:{terms.model.hex()}"


def _update(entry: Any) -> str:
    return str(entry.get("update") if isinstance(entry, dict) else entry)


def _read(file: Path) -> dict[str, Any]:
    """Read a file of notes, empty where there is none. Errors: LinkError."""
    try:
        said = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if not isinstance(said, Mapping):
            raise ValueError("it is no mapping")
        return dict(said)
    except (OSError, ValueError) as error:
        raise LinkError(f"{file} cannot be read, which says what was masked among whom: {error}") from error
