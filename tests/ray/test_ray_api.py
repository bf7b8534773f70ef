"""Runs from Python, one after the other in a process: each on a Ray of its own, or all on the caller's."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ward_tasks
from ray_runs import SUPPORT, tree

import hierfl

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def config(tmp_path: Path, ray_temp: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give a federation whose task is a class of the session, as a notebook has it."""
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("RAY_TMPDIR", str(ray_temp))
    own = dataclass(frozen=True)(type("Own", (ward_tasks.Wards,), {"__module__": "__main__"}))
    monkeypatch.setattr(sys.modules["__main__"], "Own", own, raising=False)
    return {
        "task": {"kind": own},
        "training": {"lr": 0.1, "batch_size": 4},
        "federation": tree(2),
        "runtime": {"kind": "ray", "num_workers": 2, "num_cpus": 2},
        "output": {"dir": str(tmp_path), "tensorboard": False},
    }


def test_each_ends_the_ray_that_it_has_started_and_leaves_no_trace(config: dict[str, Any]) -> None:
    import ray

    before = dict(os.environ), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async def inside() -> str | None:
        return hierfl.run(config).digest

    def stop(rounds_done: int, metrics: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        hierfl.run(config, progress=stop)
    folder = stopped.value.__notes__[0].partition("hierfl.resume('")[2].removesuffix("')")
    assert not ray.is_initialized()
    digests = {hierfl.resume(folder).digest, asyncio.run(inside()), hierfl.run(config, ["runtime.kind=local"]).digest}
    assert len(digests) == 1
    assert not ray.is_initialized()
    assert before == (dict(os.environ), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])


def test_they_use_the_caller_s_ray_and_leave_it(config: dict[str, Any]) -> None:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    try:
        cpus = ray.available_resources()["CPU"]  # type: ignore[no-untyped-call]
        assert hierfl.run(config).digest == hierfl.run(config).digest is not None
        assert ray.is_initialized()
        assert ray.cluster_resources()["CPU"] == cpus  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()
