"""How a Ray of the run's own is started, and what a reply means, without any Ray."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from small_runs import config_of, hub

from hierfl.config.schema import Runtime
from hierfl.errors import RuntimeUnavailable
from hierfl.runtime import ray_actors, ray_cluster, ray_processes
from hierfl.runtime.driver import Done
from hierfl.runtime.opening import RAY_SKIPS, open_driver
from hierfl.stops import KEEPS_RAY_OUT


@pytest.fixture(autouse=True)
def keep_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_IGNORE_UNHANDLED_ERRORS", *ray_cluster.BOUNDS):
        monkeypatch.setenv(name, "1")


@pytest.mark.parametrize(("looks", "lives", "up"), [(3, True, True), (3, False, False), (0, True, True)])
def test_a_start_may_take_its_time_while_its_raylet_lives(
    monkeypatch: pytest.MonkeyPatch, looks: int, lives: bool, up: bool
) -> None:
    from ray._private import services

    left = [RuntimeError("no such node")] * looks

    def look(*given: object) -> dict[str, str]:
        if left:
            raise left.pop()
        return {"node": "up"}

    monkeypatch.setattr(services, "get_node", look)
    monkeypatch.setattr(ray_processes, "has_raylet", lambda: lives)
    monkeypatch.setattr(ray_cluster, "_init", lambda *words, **more: services.get_node("address", "id"))
    if up:
        assert ray_cluster.connect(Runtime(kind="ray"))
    else:
        with pytest.raises(
            RuntimeUnavailable, match=r"Ray could not be started: no such node; try runtime\.kind=local"
        ):
            ray_cluster.connect(Runtime(kind="ray"))
    assert services.get_node is look


def test_a_ray_of_the_runs_own_is_bounded_in_memory_and_logs_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cluster that is joined is somebody else's: its dashboard goes on showing what this run calls."""
    found: list[dict[str, str]] = []
    monkeypatch.setattr(ray_cluster, "_init", lambda *words, **more: found.append(dict(os.environ)))
    monkeypatch.setattr(ray_cluster, "_join", lambda *words: found.append(dict(os.environ)))
    for name in ray_cluster.BOUNDS:
        monkeypatch.setenv(name, "x")  # so that it is put back
        monkeypatch.delenv(name)
    ray_cluster.connect(Runtime(kind="ray", address="head:6379"))
    monkeypatch.setenv("RAY_ROTATION_MAX_BYTES", "5")
    ray_cluster.connect(Runtime(kind="ray"))
    joined, own = found
    assert not ray_cluster.BOUNDS.keys() & joined.keys()
    assert own["RAY_task_events_report_interval_ms"] == "0" and own["RAY_ROTATION_BACKUP_COUNT"] == "1"
    assert own["RAY_ROTATION_MAX_BYTES"] == "5"


@pytest.mark.parametrize("had_one", [False, True])
def test_a_token_that_ray_makes_is_its_owners_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, had_one: bool
) -> None:
    """Ray leaves it readable to all on the machine; one from before is as its owner wants it."""
    token = tmp_path / ".ray" / "auth_token"
    monkeypatch.setenv("HOME", str(tmp_path))

    def make(*words: Any, **more: Any) -> None:
        token.parent.mkdir(exist_ok=True)
        token.write_text("secret")
        token.chmod(0o644)

    if had_one:
        make()
    monkeypatch.setattr(ray_cluster, "_init", make)
    ray_cluster.connect(Runtime(kind="ray"))
    assert stat.S_IMODE(token.stat().st_mode) == (0o644 if had_one else 0o600)


def test_the_programs_own_signals_are_kept_from_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services, utils

    given: list[dict[str, Any]] = []
    monkeypatch.setattr(services, "ConsolePopen", lambda *words, **more: given.append(more))
    env = {"PATH": "/bin", KEEPS_RAY_OUT: "1"}
    monkeypatch.setattr(ray_cluster, "_init", lambda *words, **more: services.ConsolePopen("raylet", env=env))
    before = services.ConsolePopen, utils.set_sigterm_handler
    ray_cluster.connect(Runtime(kind="ray"))
    assert given == [{"env": {"PATH": "/bin"}, "process_group": 0}]
    assert (services.ConsolePopen, utils.set_sigterm_handler) == before


def test_the_reply_to_what_was_taken_back_says_nothing_in_whatever_order_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = object.__new__(ray_actors.RayDriver)
    driver._lives = {"worker-0": 0}
    driver._pending = {name: (number, "worker-0", "worker-0", 0, ()) for number, name in enumerate(("done", "taken"))}
    replies = {"done": (None, 1.0, 2.0), "taken": (None, 0.0, 0.0)}
    monkeypatch.setattr(ray_actors.ray, "get", replies.__getitem__)
    assert driver._fetch("done") == Done(0, "worker-0", started_s=1.0, ended_s=2.0)
    assert driver._fetch("taken") is None


@pytest.mark.parametrize("rehearses", [False, True])
def test_what_ray_prints_of_a_worker_that_died_on_purpose_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rehearses: bool
) -> None:
    from ray._private.ray_logging import LogDeduplicator

    faults = [{"kind": "kill", "node": "world/a", "step": "training"}] if rehearses else []
    config = config_of(tmp_path, hub("world", "a"), runtime={"kind": "ray"}, faults=faults)
    monkeypatch.setattr("hierfl.runtime.ray_actors.RayDriver", lambda *_: None)
    monkeypatch.setenv(RAY_SKIPS, "")  # so that it is as it was afterwards
    monkeypatch.delenv(RAY_SKIPS)
    open_driver(config, tmp_path)
    assert (RAY_SKIPS in os.environ) == rehearses
    said = ["A worker died or was killed while executing a task by an unexpected system error. To", "No room left"]
    prints = LogDeduplicator(5, None, os.environ.get(RAY_SKIPS))
    [batch] = prints.deduplicate({"pid": "raylet", "is_err": False, "lines": said})  # type: ignore[arg-type]
    assert batch["lines"] == said[rehearses:]
