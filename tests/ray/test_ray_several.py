"""`hierfl run ONE OTHER` as a person uses it: one Ray for both, which nothing of is left; one stop for both."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ray_runs import HIERFL, SUPPORT, digest_in, environment, finish, run, started, tree, wait_gone, write_config

from hierfl.monitor.joint import read_joint

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NAMES = ("one", "other")


@pytest.fixture
def configs(tmp_path: Path) -> list[Path]:
    for name in NAMES:
        (tmp_path / name).mkdir()
    return [write_config(tmp_path / name, tree(rounds=3), name=name) for name in NAMES]


def command(configs: list[Path]) -> list[str]:
    return [*HIERFL, "run", *map(str, configs), "runtime.kind=ray", "runtime.num_cpus=2"]


def run_dir(config: Path) -> Path:
    (folder,) = (config.parent / "runs").iterdir()
    return folder


@pytest.mark.parametrize(
    ("words", "devices"),
    [
        ([], {"worker-0", "worker-1"}),
        (["runtime.num_gpus=1", "runtime.devices=[{name: half, count: 2, gpus: 0.5}]"], {"half-0", "half-1"}),
    ],
    ids=["workers", "halves of one GPU"],
)
def test_both_have_the_bits_that_each_has_alone(
    words: list[str], devices: set[str], configs: list[Path], tmp_path: Path, ray_temp: Path
) -> None:
    (tmp_path / "alone").mkdir()
    alone = run(write_config(tmp_path / "alone", tree(rounds=3)), "runtime.kind=local")["model_digest"]
    env = environment(ray_temp, PYTHONPATH=str(SUPPORT))
    with started([*command(configs), *words], tmp_path, env) as going:
        returned, out, err = finish(going)
    assert returned == 0, (out, err)
    assert [digest_in(run_dir(config)) for config in configs] == [alone, alone]
    assert all(f"[{name}] round {number}/3" in out for name in NAMES for number in (1, 2, 3))
    assert all("address: null" in (run_dir(config) / "config.yaml").read_text() for config in configs)
    assert set(read_joint([run_dir(config) for config in configs]).joint.wanted) == devices
    together = [line for line in out.splitlines() if line.startswith("together busy ")]
    assert len(together) == 1 and "(one " in together[0] and ", other " in together[0], out
    wait_gone(ray_temp)


def test_ctrl_c_stops_both_and_each_keeps_its_last_commit(configs: list[Path], tmp_path: Path, ray_temp: Path) -> None:
    """Site d takes three steps a round and waits in its first step of the second."""
    for config in configs:
        (config.parent / "hold-d").write_text("3")
    env = environment(ray_temp, PYTHONPATH=str(SUPPORT))
    with started(command(configs), tmp_path, env) as going:
        for config in configs:
            wait_for_second_round(config, going)
        os.killpg(going.pid, signal.SIGINT)
        time.sleep(1.0)
        for config in configs:
            (config.parent / "hold-d").unlink()
        returned, out, err = finish(going)
    assert returned == 130, (out, err)
    assert "Traceback" not in out + err
    for name, config in zip(NAMES, configs, strict=True):
        assert [path.name for path in (run_dir(config) / "checkpoints").iterdir()] == ["round-000001"]
        assert f"[{name}] stopped; the last commit is " in err and f"resume {run_dir(config)}" in err
    wait_gone(ray_temp)


def wait_for_second_round(config: Path, process: subprocess.Popen[str]) -> None:
    steps = config.parent / "steps-d"
    deadline = time.monotonic() + 400
    while not steps.exists() or len(steps.read_text().splitlines()) < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
