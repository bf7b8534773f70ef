"""Runs that join a Ray which others keep: by address, through the environment, and as submitted jobs."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_heads import Cluster, free_port, head
from ray_runs import HIERFL, SUPPORT, digest_in, finish, run, started, tree, write_config

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with head(RAY_AUTH_MODE="disabled") as made:
        yield made


@pytest.fixture
def config(tmp_path: Path) -> Path:
    shutil.copy(SUPPORT / "faulty_task.py", tmp_path)
    return write_config(tmp_path, tree(rounds=2))


@pytest.fixture
def digest(config: Path) -> str:
    unbroken = str(run(config, "runtime.kind=local")["model_digest"])
    shutil.rmtree(config.parent / "runs")
    return unbroken


def command(config: Path, *overrides: str) -> list[str]:
    return [*HIERFL, "run", config.name, "runtime.kind=ray", *overrides, "--plain"]


def digests(config: Path) -> list[str]:
    return [digest_in(folder) for folder in (config.parent / "runs").iterdir()]


def nothing_left(cluster: Cluster) -> None:
    deadline = time.monotonic() + 60
    while left := cluster.workers():
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    assert cluster.answers()


@pytest.mark.parametrize("how", ["address", "auto"])
def test_a_run_joins_and_leaves(config: Path, digest: str, cluster: Cluster, how: str) -> None:
    env = cluster.env | ({"RAY_ADDRESS": cluster.address} if how == "auto" else {})
    address = cluster.address if how == "address" else "auto"
    (config.parent / "here").mkdir()
    with started(command(config, f"runtime.address={address}", "task.folder=here"), config.parent, env) as going:
        returned, out, err = finish(going)
    assert returned == 0, err
    assert "2 workers (ray)" in out
    assert (config.parent / "here" / "steps-a").exists(), "relative to where the run was started"
    assert digests(config) == [digest]
    nothing_left(cluster)


def test_two_runs_share_a_cluster(config: Path, digest: str, cluster: Cluster) -> None:
    both = command(config, f"runtime.address={cluster.address}")
    with started(both, config.parent, cluster.env) as one, started(both, config.parent, cluster.env) as other:
        ends = [finish(one), finish(other)]
    assert [returned for returned, _, _ in ends] == [0, 0], ends
    assert digests(config) == [digest, digest]
    nothing_left(cluster)


def test_a_run_that_is_killed_leaves_no_actor_behind(config: Path, cluster: Cluster) -> None:
    (config.parent / "hold-d").write_text("0")
    with started(command(config, f"runtime.address={cluster.address}"), config.parent, cluster.env) as going:
        deadline = time.monotonic() + 90
        while not (config.parent / "steps-d").exists():
            assert going.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        assert cluster.workers()
        going.kill()
        going.wait(10)
    nothing_left(cluster)


def test_more_workers_than_the_cluster_has(config: Path, cluster: Cluster) -> None:
    asked = command(config, f"runtime.address={cluster.address}", "runtime.num_workers=3")
    with started(asked, config.parent, cluster.env) as going:
        returned, _, err = finish(going)
    assert returned == 1
    assert "3 workers need 3 CPU, the Ray cluster has 2" in err
    nothing_left(cluster)


def test_the_dashboards_port_is_not_rays(config: Path, cluster: Cluster) -> None:
    address = cluster.dashboard.removeprefix("http://")
    with started(command(config, f"runtime.address={address}"), config.parent, cluster.env) as going:
        returned, _, err = finish(going)
    assert returned == 1
    assert "what answers there is not Ray" in err


def submit(cluster: Cluster, folder: Path, *words: str, timeout_s: float = 180) -> tuple[int, str, str]:
    with started([*HIERFL, "submit", *words, "--address", cluster.dashboard], folder, cluster.env) as going:
        return finish(going, timeout_s)


def test_a_starter_is_submitted_with_its_own_task(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    subprocess.run([*HIERFL, "init", str(folder)], check=True, env=cluster.env, capture_output=True, timeout=60)
    kept = tmp_path / "kept"
    returned, out, err = submit(cluster, folder, "federation.yaml", "federation.rounds=2", f"output.dir={kept}")
    assert returned == 0, (out, err)
    assert "round 1/2" in out and "round 2/2" in out
    (run_dir,) = kept.iterdir()
    assert digest_in(run_dir) in out
    nothing_left(cluster)


def test_a_job_that_fails_hands_its_exit_code_on(cluster: Cluster, config: Path) -> None:
    (config.parent / "fail-d").touch()
    returned, out, err = submit(cluster, config.parent, config.name)
    assert returned == 1, (out, err)
    assert "world/eu/d could not be trained" in out and "site d was told to fail" in out, (out, err)
    returned, out, err = submit(cluster, config.parent, config.name, "training.nonsense=1", "--no-check")
    assert returned == 2, (out, err)
    assert "training.nonsense" in out
    nothing_left(cluster)


def test_a_dashboard_that_does_not_answer(config: Path, cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (silent.getsockname()[1], free_port() + 7):
            words = [*HIERFL, "submit", config.name, "--address", f"http://127.0.0.1:{port}"]
            with started(words, config.parent, cluster.env) as going:
                returned, _, err = finish(going)
            assert returned == 1, err
            assert f"no Ray job server answers at http://127.0.0.1:{port}" in err and "Traceback" not in err
