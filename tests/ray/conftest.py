"""One Ray for the tests that do not end it; every other test starts its own, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_runs import SUPPORT, Drivers, run, wait_gone, write_config

os.environ["RAY_AUTH_MODE"] = (
    "disabled"  # in this process alone: Ray keeps its first mode for good; programs get their own
)


@pytest.fixture
def ray_temp() -> Iterator[Path]:
    """Give a short path for a Ray session (sockets allow 107 characters) and see that no process of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="hfl-", dir="/tmp"))
    yield folder
    wait_gone(folder, 120)  # Ray's own agents outlive a driver that was killed by a minute
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def shared_ray() -> Iterator[None]:
    """Keep one Ray with four logical CPUs and GPUs for a module's runs, which join it."""
    from hierfl.config.schema import Runtime
    from hierfl.runtime.ray_cluster import connect, disconnect

    folder = Path(tempfile.mkdtemp(prefix="hfl-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SUPPORT))  # for the workers: the run's own folder is not where the task lies
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_IGNORE_UNHANDLED_ERRORS", "1")
        patch.setenv("RAY_TMPDIR", str(folder))
        connect(Runtime(kind="ray", num_cpus=4, num_gpus=4))
        try:
            yield
        finally:
            disconnect()
    assert "RAY_ADDRESS" not in os.environ
    wait_gone(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write the federation of three tiers that most tests strike."""
    return write_config(tmp_path)


@pytest.fixture
def digest(config: Path, tmp_path: Path) -> str:
    """Give the digest of its run to which nothing happens; what sites noted is gone."""
    undisturbed = str(run(config, "runtime.kind=local")["model_digest"])
    for notes in tmp_path.glob("steps-*"):
        notes.unlink()
    return undisturbed


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch) -> Drivers:
    """Reach the processes of a run in this process."""
    return Drivers(monkeypatch)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a cluster whose head has one CPU, to which nodes can be added, and of which they can be taken."""
    import ray
    from ray.cluster_utils import Cluster

    from hierfl.runtime.ray_start import patient

    folder = Path(tempfile.mkdtemp(prefix="hfl-", dir="/tmp"))
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    head = {"num_cpus": 1, "temp_dir": str(folder), "include_dashboard": False}
    with patient():
        made = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        wait_gone(folder, 60)
        shutil.rmtree(folder, ignore_errors=True)
