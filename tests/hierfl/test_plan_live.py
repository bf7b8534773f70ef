"""The benchmark of live schedules: policies take turns in both orders, and a row is a contender of the newest turn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import live_schedule
from benchmarks.common import Size, measure
from benchmarks.contenders.live_runs import NUM_DEVICES, mapping
from hierfl.config import from_mapping


def test_policies_take_turns_in_both_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[list[str]] = []

    def watch(command: list[str], **options: Any) -> tuple[str, int, float]:
        asked = json.loads(command[-1])
        orders.append(asked["policies"])
        live = {name: 3.0 * len(orders) for policy in asked["policies"] for name in (policy, f"{policy}, simulated")}
        return "chatter\n" + json.dumps({"bound": 2.0 * len(orders), **live}), 0, 0.0

    monkeypatch.setattr(live_schedule, "watch", watch)
    (work,) = live_schedule.works(Size(quick=True, turns=2))
    rows = {row.contender: row for row in measure(work, 2, lambda said: None)}
    assert orders == [["fifo", "longest_first", "chain_first"], ["chain_first", "longest_first", "fifo"]]
    assert list(rows)[:3] == ["bound", "fifo", "fifo, simulated"] and len(rows) == 7
    assert rows["bound"].turns == [2.0, 4.0] and rows["chain_first"].turns == [3.0, 6.0]
    assert rows["chain_first"].ratio == 1.5, "one over the efficiency"


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_its_federation_is_sound(kind: str) -> None:
    config = from_mapping(mapping("runs", "fifo", 3, 0.1, kind))
    assert len(config.sites) == 16 and config.runtime.devices[0].count == NUM_DEVICES
    seconds = [4 * settings.source["step_s"] for settings in config.sites.values()]
    assert sum(seconds) == pytest.approx(16 * 0.1, rel=1e-3)
