"""On a machine with CUDA: the device's path trains, repeats itself bit for bit, and measures what it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hierfl.config import from_mapping
from hierfl.lifecycle import evaluate, resume, run

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def config(folder: Path, *overrides: str, **sections: Any) -> Any:
    """Give four hospitals under two hubs, on CUDA."""
    whole = {
        "name": "cuda",
        "task": {"kind": "heart_disease", "network": "mlp"},
        "training": {"optimizer": "adam", "lr": 0.01, "batch_size": 16, "local_epochs": 2},
        "federation": {
            "name": "world",
            "rounds": 4,
            "members": [
                {"name": "us", "members": [{"name": "cleveland"}, {"name": "long_beach"}]},
                {"name": "europe", "members": [{"name": "budapest"}, {"name": "zurich_basel"}]},
            ],
        },
        "runtime": {"kind": "local", "device": "cuda"},
        "output": {"dir": str(folder), "tensorboard": False},
    } | sections
    return from_mapping(whole, overrides)


def test_a_run_on_cuda_repeats_itself(tmp_path: Path) -> None:
    first = run(config(tmp_path))
    second = run(config(tmp_path, "runtime.num_workers=3"))
    assert first["model_digest"] == second["model_digest"]
    assert first["nodes"]["world"]["auc"] > 0.8


def test_cuda_and_cpu_learn_alike(tmp_path: Path) -> None:
    cuda = run(config(tmp_path))
    cpu = run(config(tmp_path, "runtime.device=cpu"))
    assert cuda["nodes"]["world"]["loss"] == pytest.approx(cpu["nodes"]["world"]["loss"], abs=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains(tmp_path: Path, precision: str) -> None:
    summary = run(config(tmp_path, f"training.precision={precision}"))
    plain = run(config(tmp_path))
    assert summary["model_digest"] != plain["model_digest"]
    assert summary["nodes"]["world"]["auc"] > 0.8


def test_a_resumed_run_on_cuda_has_the_same_bits(tmp_path: Path) -> None:
    whole = run(config(tmp_path))
    part = run(config(tmp_path, "federation.rounds=2"))
    rest = resume(Path(part["run_dir"]), ["federation.rounds=4"])
    assert rest["model_digest"] == whole["model_digest"]
    measured = evaluate(Path(part["run_dir"]))
    assert measured["world"]["auc"] == rest["nodes"]["world"]["auc"]


def test_a_run_says_how_much_its_gpu_was_used(tmp_path: Path) -> None:
    pytest.importorskip("pynvml")
    summary = run(config(tmp_path, "runtime.num_workers=1"))
    [found] = summary["schedule"]["gpus"].values()
    assert 0.0 <= found["utilisation"] <= 1.0 and 0 < found["peak_memory_bytes"] <= found["memory_bytes"]
    assert found["gpu"] == torch.cuda.get_device_name()
