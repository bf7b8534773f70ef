"""The benchmark of live schedules: policies take turns in both orders, and a row sums up a policy's rounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import live_schedule
from benchmarks.contenders.live_runs import NUM_DEVICES, compare, mapping, turns
from hierfl.config import from_mapping

POLICIES = ["chain_first", "fifo", "greedy", "longest_first", "round_robin", "static"]


def test_policies_take_turns_in_both_orders() -> None:
    assert turns(2) == [*POLICIES, *POLICIES[::-1]] and turns(3) == [*turns(2), *POLICIES]


def test_rows_by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """First in, first out takes 4 s where 3 are needed, chain first 3.2; the simulator is 1% fast, and right."""
    asked: list[Any] = []

    def watch(command: list[str], **options: Any) -> tuple[str, int, float]:
        asked.append(json.loads(command[-1]))
        runs = {
            "fifo": [[{"live_s": 4.0, "simulated_s": 3.96, "bound_s": 3.0}] * 2] * 2,
            "chain_first": [[{"live_s": 3.2, "simulated_s": 3.2, "bound_s": 3.0}] * 2] * 2,
        }
        return "chatter\n" + json.dumps(runs), 0, 0.0

    monkeypatch.setattr(live_schedule, "watch", watch)
    kept = tmp_path / "kept.json"
    assert live_schedule.main(["--turns", "2", "--rounds", "3", "--json", str(kept)]) == 0
    assert asked == [{"policies": turns(2), "rounds": 3, "scale": 0.5, "kind": "ray"}]
    chain, fifo = json.loads(kept.read_text())["rows"]
    assert (chain["policy"], chain["num_rounds"], chain["over_fifo"]) == ("chain_first", 4, 0.8)
    assert fifo["efficiency"] == [0.75] * 3 and fifo["simulated"] == pytest.approx([0.99] * 3)
    assert "| fifo        | 4      | 4.000       | 0.750 [0.750, 0.750] |" in capsys.readouterr().out


def test_runs_are_live_and_simulated() -> None:
    """Three policies for two short rounds on threads: a round that counts each, none beyond its bound."""
    found = compare(["fifo", "static", "fifo"], rounds=2, scale=0.02, kind="local")
    assert {policy: [len(own) for own in runs] for policy, runs in found.items()} == {"fifo": [1, 1], "static": [1]}
    rounds = [one for runs in found.values() for own in runs for one in own]
    assert all(0.0 < one["bound_s"] <= one["simulated_s"] + 1e-9 for one in rounds)


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_its_federation_is_sound(kind: str) -> None:
    config = from_mapping(mapping("runs", "fifo", 3, 0.1, kind))
    assert len(config.sites) == 16 and config.runtime.devices[0].count == NUM_DEVICES
    seconds = [4 * settings.source["step_s"] for settings in config.sites.values()]
    assert sum(seconds) == pytest.approx(16 * 0.1, rel=1e-3)
