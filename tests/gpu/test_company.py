"""On a machine with CUDA: workers that share a card, a process each, have the bits of one alone and fit its memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from ray_runs import SUPPORT

from hierfl.config import from_mapping
from hierfl.lifecycle import run

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SYNTHETIC = {"kind": "synthetic", "network": "mlp", "num_parameters": 100_000, "num_samples_min": 128}
GREEDY = {"kind": "greedy_task:GreedyTask"}


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers find the task."""
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))


def trained(folder: Path, task: Mapping[str, Any], steps: int, **card: Any) -> Mapping[str, Any]:
    """Train four sites for eight rounds on one card."""
    config = {
        "name": "company",
        "task": task,
        "training": {"batch_size": 16, "local_steps": steps},
        "federation": {"name": "world", "rounds": 8, "members": {"count": 4, "name": "site-{i}"}},
        "evaluation": {"every": 0},
        "runtime": {"kind": "ray", "device": "cuda", "num_cpus": 4, "num_gpus": 1}
        | {"devices": [{"name": "card", "gpus": 1, **card}]},
        "output": {"dir": str(folder), "tensorboard": False},
    }
    return run(from_mapping(config))


def events(summary: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    lines = (Path(summary["run_dir"]) / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def met(summary: Mapping[str, Any]) -> bool:
    """Say whether two workers ever trained at the same time."""
    spans = [(e["start_s"], e["end_s"], e["actor"]) for e in events(summary, "phase") if e["phase"] == "train"]
    return any(max(a[0], b[0]) < min(a[1], b[1]) and a[2] != b[2] for a, b in combinations(spans, 2))


def short_of_memory(summary: Mapping[str, Any]) -> list[str]:
    return [event["message"] for event in events(summary, "notice") if "out of memory" in event["message"]]


def test_company_has_the_bits_of_one_alone(tmp_path: Path) -> None:
    alone = trained(tmp_path, SYNTHETIC, 50)
    together = trained(tmp_path, SYNTHETIC, 50, places=4)
    assert together["model_digest"] == alone["model_digest"]
    assert met(together) and not met(alone)
    assert not short_of_memory(together)


def card_gib() -> float:
    return float(torch.cuda.get_device_properties(0).total_memory / 2**30)


def test_jobs_whose_measured_memory_does_not_fit_together_never_meet(tmp_path: Path) -> None:
    """Each takes 60% of the card, which is known from the first that has ended."""
    summary = trained(tmp_path, GREEDY, 4, places=2, memory_gib=card_gib())
    assert summary["status"] == "finished" and not short_of_memory(summary)
    assert not met(summary)


def test_who_runs_out_of_memory_beside_another_is_tried_again(tmp_path: Path) -> None:
    """The card is declared to be larger than it is, so that company is tried and fails."""
    alone = trained(tmp_path, GREEDY, 4)
    together = trained(tmp_path, GREEDY, 4, places=2, memory_gib=10 * card_gib())
    assert short_of_memory(together), "two at once take 120%"
    assert together["status"] == "finished" and together["model_digest"] == alone["model_digest"]
