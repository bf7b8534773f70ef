"""What a recorder makes of a journal that it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hierfl.errors import HierflError
from hierfl.learning.local import Objective
from hierfl.learning.ring import PartialSum
from hierfl.learning.state import ModelState
from hierfl.runtime.bits import settings_digest
from hierfl.runtime.hubs import Kept
from hierfl.runtime.jobs import Memory, Order
from hierfl.runtime.keeper import Keeper
from hierfl.runtime.recorder import Recorder
from hierfl.runtime.underway import Before, Unreadable, carried
from tiers import Federation, Hub, Site
from tiers.journal import MAGIC, Barrier, Entry, Head, Told, frame
from tiers.messages import Begin, Lost, Opening, Share, Update
from tiers.standing import Errand, Standing

TREE = Federation(Hub("w", (Site("a"), Hub("i", (Site("b"),)))))
MODEL = ModelState(np.ones(3, np.float32), np.zeros(0, np.int64))
CONFIG: Any = SimpleNamespace(federation=TREE, hubs={}, sites={}, resolved={"federation": {}}, seed=0)


def found(before: Before | Unreadable | None, settings: str = "") -> Recorder:
    """A recorder that has taken up a journal, which goes on from a checkpoint at which a hub was under way."""
    head = Head(1, settings or settings_digest(CONFIG), ("w/i",))
    frames = (frame(one) for one in (head, Barrier(1), Told("w", Lost(1, {"a": "ill"}))))
    stream = b"".join([MAGIC, *(bytes(buffer) for buffers in frames for buffer in buffers)])
    made = Recorder(CONFIG, SimpleNamespace(get=None), Keeper(), SimpleNamespace(), 1)  # type: ignore[arg-type]
    made.resume(SimpleNamespace(epoch=2), {1: memoryview(stream)}, before)  # type: ignore[arg-type]
    return made


def test_a_journal_counts_if_it_goes_on_from_what_the_checkpoint_has() -> None:
    usual = found(None)
    assert usual.replay is not None and "w" in usual.replay.hubs and usual.warnings == []
    blind = found(Unreadable("the head is torn"))
    assert blind.replay is None and blind.warnings == ["the head is torn"]


def test_a_journal_of_other_settings_does_not_count() -> None:
    other = found(None, "of before")
    assert other.replay is None and "the settings have changed" in other.warnings[0]


def test_a_checkpoint_takes_along_what_was_marked_at_its_own_rounds_end(tmp_path: Path) -> None:
    """A stop may find a round that is marked and not committed: the newest checkpoint is of the one before."""
    driver: Any = SimpleNamespace(get=lambda handle: handle)
    recorder = Recorder(CONFIG, driver, Keeper(), SimpleNamespace(), 1)  # type: ignore[arg-type]
    recorder.resume(SimpleNamespace(epoch=1, append=lambda *line: None), {}, None)  # type: ignore[arg-type]
    opening = Opening("w", 1, 32, 8.0, 9, "float32")
    order = Order("w", 1, (("i", 1),), opening, Objective())
    recorder.tell("w/i", "begin", (Begin(0), order, MODEL, None))
    awaited = Kept(Memory(Standing(2, {"i": Errand(1, 1)}), {1: opening}))
    recorder.mark(2, {"w": awaited}, {"w/i": MODEL})
    recorder.carry(1, tmp_path / "one")
    recorder.carry(2, tmp_path / "two")
    assert not (tmp_path / "one").exists()
    assert carried(tmp_path / "two").head.rounds_done == 2


class Segments:
    """A writer in memory: the records of each segment, behind its head."""

    epoch = 1
    failure = None
    payload: Sequence[memoryview] = ()

    def __init__(self) -> None:
        self.records: list[list[Any]] = []

    def begin(self, head: Head, before: Barrier | None = None) -> None:
        self.records.append([head])

    def append(self, line: Callable[[], Any], num_bytes: int = 0) -> None:
        record, self.payload = line()
        self.records[-1].append(record)

    def flush(self) -> None:
        """All is there at once."""

    def written(self) -> tuple[Entry, ...]:
        return tuple(Entry(record, memoryview(b"")) for record in self.records[-1])


def test_a_segment_begins_with_what_was_told_since_its_checkpoint_was_marked(tmp_path: Path) -> None:
    """And none begins for a checkpoint of other rounds than were marked last."""
    segments, lost = Segments(), [Lost(number, {"a": "ill"}) for number in range(5)]
    recorder = Recorder(CONFIG, SimpleNamespace(get=None), Keeper(), SimpleNamespace(failure=None), 1)  # type: ignore[arg-type]
    recorder.resume(segments, {}, None)  # type: ignore[arg-type]
    recorder.begin()
    for number in (2, 3):
        recorder.tell("w", "lose", (lost[number - 2],))
        recorder.mark(number, {}, {})
        recorder.tell("w", "lose", (lost[number - 1],))
        recorder.tell("w", "lose", (lost[number],))
        recorder.rotate(number - 1, tmp_path)
        assert len(segments.records) == number - 1
        recorder.rotate(number, tmp_path)
    told = [[record.event for record in records[1:]] for records in segments.records]
    assert told[1:] == [[*lost[1:3], lost[1], *lost[2:4]], lost[2:4]] and told[0] == lost[:3]
    assert [head.rounds_done for head, *_ in segments.records] == [1, 2, 3]


def recorder_of(get: Callable[[Any], Any], failure: str = "", segments: Segments | None = None) -> Recorder:
    made = Recorder(CONFIG, SimpleNamespace(get=get), Keeper(), SimpleNamespace(failure=failure), 1)  # type: ignore[arg-type]
    made.resume(segments or Segments(), {}, None)  # type: ignore[arg-type]
    made.begin()
    return made


def test_a_segment_that_has_grown_large_asks_for_a_checkpoint_and_the_next_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hierfl.runtime.recorder.FULL_BYTES", 20)
    recorder = recorder_of(lambda handle: handle)
    for number in range(2):
        assert not recorder.is_full
        part = PartialSum(np.zeros(3, np.int32), np.zeros(0, np.int64), 1)
        recorder.tell("w", "arrive", (Update("w", number, (Share("a", 1),), 10), part))
    assert recorder.is_full
    recorder.mark(2, {}, {})
    recorder.rotate(2, tmp_path)
    assert not recorder.is_full


def test_what_a_checkpoint_cannot_keep_is_said_once(tmp_path: Path) -> None:
    def gone(handle: Any) -> Any:
        raise HierflError("it is no longer there")

    recorder, opening = recorder_of(gone), Opening("w", 1, 32, 8.0, 9, "float32")
    order = Order("w", 1, (("i", 1),), opening, Objective())
    recorder.tell("w/i", "begin", (Begin(0), order, MODEL, None))
    recorder.mark(2, {"w": Kept(Memory(Standing(2, {"i": Errand(1, 1)}), {1: opening}))}, {"w/i": MODEL})
    recorder.carry(2, tmp_path / "it")
    [said] = recorder.complaints()
    assert "what is under way at w/i cannot be kept with the checkpoint: it is no longer there" in said
    assert recorder.complaints() == [] and not (tmp_path / "it").exists()


def test_a_run_that_nobody_could_claim_says_that_its_journal_cannot_be_written() -> None:
    [said] = recorder_of(lambda handle: handle, "no room").complaints()
    assert said.startswith("the journal cannot be written: no room; ")


def test_an_inner_hubs_update_is_written_whole_in_a_segment_that_has_not_its_beginning(tmp_path: Path) -> None:
    """Else what it was made of is told again, and it is made anew."""
    segments, sizes = Segments(), []
    recorder = recorder_of(lambda handle: handle, segments=segments)
    order = Order("w", 1, (("i", 1),), Opening("w", 1, 32, 8.0, 9, "float32"), Objective())
    recorder.tell("w/i", "begin", (Begin(0), order, MODEL, None))
    for number in (2, 3):
        part = PartialSum(np.zeros(3, np.int32), np.zeros(0, np.int64), 1)
        recorder.tell("w", "arrive", (Update("w", 1, (Share("i", 1),), 12), part))
        sizes.append(sum(view.nbytes for view in segments.payload))
        recorder.mark(number, {}, {})
        recorder.rotate(number, tmp_path)
    assert sizes[0] == 0 < 12 <= sizes[1]


def test_what_a_hub_was_told_before_it_was_stopped_is_not_taken_along(tmp_path: Path) -> None:
    recorder, opening = recorder_of(lambda handle: handle), Opening("w", 1, 32, 8.0, 9, "float32")
    for number in range(2):
        order = Order("w", 1, (("i", 1),), opening, Objective())
        recorder.tell("w/i", "begin", (Begin(number), order, MODEL, None))
        if not number:
            recorder.stop("w/i", ["w/i"], failed=False)
    recorder.mark(2, {"w": Kept(Memory(Standing(2, {"i": Errand(1, 1)}), {1: opening}))}, {"w/i": MODEL})
    recorder.carry(2, tmp_path / "it")
    assert [entry.record.event for entry in carried(tmp_path / "it").told] == [Begin(1)]  # type: ignore[union-attr]
