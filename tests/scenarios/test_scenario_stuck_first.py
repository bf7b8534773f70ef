"""Several local workers, and the first site of all never comes to an end: its round closes without it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from small_runs import Listener, config_of, hub
from ward_tasks import Wards

from hierfl.lifecycle import run
from hierfl.monitor.records import Record, RoundClosed
from hierfl.runtime import chance

DEADLINE = {"kind": "deadline", "after_s": 1.0, "quorum": 0.6, "weight": 0.6, "staleness": 100}


def test_a_first_site_that_is_stuck_does_not_hold_its_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chance, "FIRST_S", 0.3)
    over, loss, begun = threading.Event(), Wards.loss, threading.Lock()

    def stuck(task: Wards, model: Any, batch: Any) -> Any:
        if begun.acquire(blocking=False):
            over.wait(120)
        return loss(task, model, batch)

    class Ends(Listener):
        def on(self, record: Record) -> None:
            super().on(record)
            if isinstance(record, RoundClosed) and record.round_number == 1:
                assert not over.is_set()
                over.set()

    monkeypatch.setattr(Wards, "loss", stuck)
    tree = hub("world", "a", "b", "c", rounds=2, participation=DEADLINE)
    monitor = Ends()
    try:
        summary = run(config_of(tmp_path, tree, runtime={"kind": "local", "num_workers": 2}), [monitor])
    finally:
        over.set()
    assert summary["status"] == "finished"
    [first, _] = monitor.of(RoundClosed)
    assert len(first.members) == 2, "the one that is stuck is late"
