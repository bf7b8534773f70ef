"""Protocols that leave one thing out, in the machines that every model of a run plays."""

from __future__ import annotations

from typing import Any

import pytest

from tiers.collecting import Collecting
from tiers.replay import Cue, Replay

__all__ = ["losses_that_ended_a_run_stay", "news_before_the_tape", "no_deduplication_of_updates"]

Patch = pytest.MonkeyPatch


def no_deduplication_of_updates(patch: Patch) -> None:
    """What a member sends twice counts twice."""
    seen = Collecting.refuse

    def lenient(self: Collecting, share: Any) -> str:
        if share.member in self.reported:
            self.waiting[share.member] = self.reported.pop(share.member)
            return ""
        return seen(self, share)

    patch.setattr(Collecting, "refuse", lenient)


def news_before_the_tape(patch: Patch) -> None:
    """What comes new is told before what was told already."""
    patch.setattr(Replay, "offer", lambda self, hub, event, live: [Cue(event, live), *self.start(hub)])


def losses_that_ended_a_run_stay(patch: Patch) -> None:
    """A run that gave up does so again, whenever it is taken up."""
    patch.setattr("tiers.replay._retried", lambda line, is_chain: line)
