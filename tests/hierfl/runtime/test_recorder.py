"""What a recorder makes of a journal that it finds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hierfl.runtime.bits import settings_digest
from hierfl.runtime.keeper import Keeper
from hierfl.runtime.recorder import Recorder
from hierfl.runtime.underway import Before, Unreadable
from tiers import Federation, Hub, Site
from tiers.journal import MAGIC, Barrier, Head, Told, frame
from tiers.messages import Lost

TREE = Federation(Hub("w", (Site("a"), Hub("i", (Site("b"),)))))
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
