"""A member that stays away: a round that has gone on without it is not held up by it a second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from link_inside import Inside, let_several_run
from small_runs import Listener, config_of, hub, site

from hierfl.monitor.records import Notice, RoundClosed
from hierfl.runtime import engine

TIMEOUT_S = 4.0


class Leaves(Listener):
    """Cuts a member off as the first round has closed; nobody hears of it again."""

    def __init__(self, inside: Inside) -> None:
        super().__init__()
        self.inside = inside

    def on(self, record: Any) -> None:
        super().on(record)
        lane = self.inside.lanes["world/e"] if self.inside.lanes else None
        if isinstance(record, RoundClosed) and record.node == "world" and lane is not None:
            lane.deadline_s = 0.2
            if lane.session is not None:
                lane.left(lane.session)


def gone(folder: Path, **evaluation: Any) -> tuple[str, list[Notice], list[RoundClosed]]:
    """Run two rounds, the second one without e; give the digest, what was said of e, and the rounds."""
    link = {"address": "hub.example.org:8443"}
    world = hub("world", "c", "d", {**site("e"), "link": link}, rounds=2, on_failure="continue")
    runtime = {"kind": "local", "num_workers": 1, "device_timeout_s": TIMEOUT_S}
    inside = Inside(config_of(folder / "runs", world, runtime=runtime, evaluation=evaluation), folder / "linked")
    monitor = Leaves(inside)
    digest = inside.go(monitor)["model_digest"]
    said = [one for one in monitor.of(Notice) if one.node == "world/e" and one.level == "error"]
    return str(digest), said, [one for one in monitor.of(RoundClosed) if one.node == "world"]


def test_a_round_that_went_on_without_a_member_does_not_wait_for_it_as_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_several_run(monkeypatch)
    monkeypatch.setattr(engine, "LOOK_S", 0.1)
    digest, said, closed = gone(tmp_path / "measured", every=1)
    assert [set(one.members) for one in closed] == [{"c", "d", "e"}, {"c", "d"}]
    away = "no device can take it: world/e is not there"
    waited = f"{away}, and none has come within {TIMEOUT_S:g} s (runtime.device_timeout_s)"
    second = [f"could not be trained: {waited}", f"could not be measured: {away}, as in this round's training"]
    assert [one.message for one in said] == [f"could not be measured: {waited}", *second]
    assert digest == gone(tmp_path / "trained", every=0)[0]
