"""A round that takes long: what a person sees of it before its end."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import go, hub
from torch.nn.functional import binary_cross_entropy_with_logits
from ward_tasks import Wards


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let a site train until the event log says that it does, for half a minute at most; give what it saw there."""
    lines: list[str] = []
    until_s = time.monotonic() + 30.0

    def loss(self: Wards, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        while model.training and not any('"train"' in line for line in lines) and time.monotonic() < until_s:
            time.sleep(0.05)
            lines[:] = [line for log in tmp_path.rglob("events.jsonl") for line in log.read_text().split("\n")[:-1]]
        return binary_cross_entropy_with_logits(model(batch[0])[:, 0], batch[1].float())

    monkeypatch.setattr("hierfl.runtime.engine.LOOK_S", 0.1)
    monkeypatch.setattr(Wards, "loss", loss)
    return lines


def test_what_has_happened_in_a_round_is_on_disk_before_its_end(tmp_path: Path, seen: list[str]) -> None:
    go(tmp_path, hub("world", hub("up", "north", "south"), "east"))
    kinds = [(event["event"], event.get("kind"), event.get("state")) for event in map(json.loads, seen)]
    assert ("assigned", "train", None) in kinds and ("nodes_changed", None, "training") in kinds
    assert "round_committed" not in {kind for kind, *_ in kinds}
