"""A cluster that asks for its token, as `ray start --head` with RAY_AUTH_MODE=token makes one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_heads import Cluster, head
from ray_runs import HIERFL, SUPPORT, digest_in, finish, run, started, tree, write_config

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with head(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="e1f0" * 8) as made:
        yield made


@pytest.fixture
def config(tmp_path: Path) -> Path:
    shutil.copy(SUPPORT / "faulty_task.py", tmp_path)
    return write_config(tmp_path, tree(rounds=2))


def said(cluster: Cluster, folder: Path, *words: str, **variables: str) -> tuple[int, str, str]:
    with started([*HIERFL, *words], folder, cluster.env | variables) as going:
        return finish(going, 180)


def test_who_has_the_token_submits(cluster: Cluster, config: Path) -> None:
    expected = run(config, "runtime.kind=local")["model_digest"]
    shutil.rmtree(config.parent / "runs")
    returned, out, err = said(cluster, config.parent, "submit", config.name, "--address", cluster.dashboard)
    assert returned == 0, (out, err)
    (folder,) = (config.parent / "runs").iterdir()
    assert digest_in(folder) == expected


@pytest.mark.parametrize(
    "variables",
    [{"RAY_AUTH_TOKEN": "f" * 32}, {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}],
    ids=["another token", "no token"],
)
def test_who_has_not_is_told(cluster: Cluster, config: Path, variables: dict[str, str]) -> None:
    words = ["submit", config.name, "--address", cluster.dashboard]
    returned, out, err = said(cluster, config.parent, *words, **variables)
    assert returned == 1, (out, err)
    assert "token" in err.lower() and "Traceback" not in err
    assert not (config.parent / "runs").exists()


def test_a_run_joins_with_the_token(cluster: Cluster, config: Path) -> None:
    words = ["run", config.name, "runtime.kind=ray", f"runtime.address={cluster.address}", "--plain"]
    returned, out, err = said(cluster, config.parent, *words)
    assert returned == 0, (out, err)
