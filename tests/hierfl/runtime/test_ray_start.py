"""How a Ray of the run's own is started, and what a reply means, without any Ray."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import config_of, hub

from hierfl.config.schema import Runtime
from hierfl.errors import RuntimeUnavailable
from hierfl.runtime import ray_actors, ray_cluster, ray_processes, ray_start
from hierfl.runtime.driver import Done
from hierfl.runtime.opening import RAY_SKIPS, open_driver
from hierfl.stops import KEEPS_RAY_OUT, Stopped, Stops


@pytest.fixture(autouse=True)
def keep_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_IGNORE_UNHANDLED_ERRORS", *ray_start.BOUNDS):
        monkeypatch.setenv(name, "1")


@pytest.mark.parametrize("looks", [0, 3])
def test_a_start_may_take_its_time_while_its_raylet_lives(monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
    from ray._private import services

    left = [RuntimeError("no such node")] * looks

    def look(*given: object) -> dict[str, str]:
        if left:
            raise left.pop()
        return {"node": "up"}

    monkeypatch.setattr(services, "get_node", look)
    monkeypatch.setattr(ray_processes, "has_raylet", lambda: True)
    monkeypatch.setattr(ray_start, "init", lambda *words, **more: services.get_node("address", "id"))
    assert ray_cluster.connect(Runtime(kind="ray"))
    assert not left
    assert services.get_node is look


@pytest.fixture
def raylet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], list[dict[str, Any]]]:
    """Let raylets come up (+) or end (-) as they are started; give what they were started with, and what was noted."""
    from ray._private import services

    started: list[dict[str, Any]] = []

    def start(redis_address: str, node_id: str, session_dir: str, **ports: int) -> None:
        noted = {file.name: int(file.read_text()) for file in Path(session_dir).glob("*_port_*")}
        started.append({**ports, "noted": noted})

    def init(*words: object, **more: object) -> None:
        session = tmp_path / f"session-{len(started)}"
        session.mkdir()
        ports = dict.fromkeys(ray_start.AGENTS, 0)
        services.start_raylet("", "ab" * 28, session_dir=str(session), **ports)  # type: ignore[call-arg]
        services.get_node("address", "id")

    def script(ends: str) -> list[dict[str, Any]]:
        def look(*given: object) -> dict[str, str]:
            if ends[len(started) - 1] == "-":
                raise RuntimeError("no such node")
            return {"node": "up"}

        monkeypatch.setattr(services, "get_node", look)
        return started

    monkeypatch.setattr(services, "start_raylet", start)
    monkeypatch.setattr(ray_start, "init", init)
    monkeypatch.setattr(ray_processes, "has_raylet", lambda: False)
    monkeypatch.setattr(ray_processes, "end", lambda: None)
    monkeypatch.setattr(ray_processes, "logs", lambda: [tmp_path])
    (tmp_path / "raylet.out").write_text("a line\n C: bug in Ray. Check failed: Timed out waiting for file x\n")
    return script


def test_a_raylet_that_ended_is_started_once_more_and_told_where_its_agents_listen(
    raylet: Callable[[str], list[dict[str, Any]]],
) -> None:
    """It waits 15 seconds for agents to note their ports, which on a busy machine are still loading, and aborts."""
    started = raylet("-+")
    assert ray_cluster.connect(Runtime(kind="ray"))
    first, second = started
    assert first["noted"] == {} and not any(first[name] for name in ray_start.AGENTS)
    ports = {name: second[name] for name in ray_start.AGENTS}
    assert len(set(ports.values())) == 4 and min(ports.values()) > 0
    assert second["noted"] == {f"{name}_{'ab' * 28}": port for name, port in ports.items()}


def test_a_raylet_that_ends_again_is_told_with_its_last_words(
    raylet: Callable[[str], list[dict[str, Any]]],
) -> None:
    started = raylet("--")
    with pytest.raises(
        RuntimeUnavailable,
        match=r"Ray could not be started: its raylet has ended before it was up \(Timed out waiting for file x; .*"
        r"raylet\.out\); try runtime\.kind=local",
    ):
        ray_cluster.connect(Runtime(kind="ray"))
    assert len(started) == 2


def test_a_raylet_that_a_stop_has_ended_is_not_started_again(
    raylet: Callable[[str], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = raylet("-+")
    stops = Stops()
    stops.heard = signal.SIGTERM
    monkeypatch.setattr(ray_start, "heard", lambda: stops)
    monkeypatch.setattr(ray_cluster, "heard", lambda: stops)
    with pytest.raises(Stopped):
        ray_cluster.connect(Runtime(kind="ray"))
    assert len(started) == 1


def test_a_ray_of_the_runs_own_is_bounded_in_memory_and_logs_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cluster that is joined is somebody else's: its dashboard goes on showing what this run calls."""
    found: list[dict[str, str]] = []
    monkeypatch.setattr(ray_start, "init", lambda *words, **more: found.append(dict(os.environ)))
    monkeypatch.setattr(ray_cluster, "_join", lambda *words: found.append(dict(os.environ)))
    for name in ray_start.BOUNDS:
        monkeypatch.setenv(name, "x")  # so that it is put back
        monkeypatch.delenv(name)
    ray_cluster.connect(Runtime(kind="ray", address="head:6379"))
    monkeypatch.setenv("RAY_ROTATION_MAX_BYTES", "5")
    ray_cluster.connect(Runtime(kind="ray"))
    joined, own = found
    assert not ray_start.BOUNDS.keys() & joined.keys()
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
    monkeypatch.setattr(ray_start, "init", make)
    ray_cluster.connect(Runtime(kind="ray"))
    assert stat.S_IMODE(token.stat().st_mode) == (0o644 if had_one else 0o600)


def test_the_programs_own_signals_are_kept_from_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services, utils

    given: list[dict[str, Any]] = []
    monkeypatch.setattr(services, "ConsolePopen", lambda *words, **more: given.append(more))
    env = {"PATH": "/bin", KEEPS_RAY_OUT: "1"}
    monkeypatch.setattr(ray_start, "init", lambda *words, **more: services.ConsolePopen("raylet", env=env))
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
