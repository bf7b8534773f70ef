"""A Ray whose first raylet ended before it was up, as on a machine that is too busy for its agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hierfl.config.schema import Runtime

pytestmark = [pytest.mark.ray, pytest.mark.slow]  # Ray looks for a raylet for half a minute, whether it lives or not


def test_the_second_start_tells_agents_their_ports_and_the_ray_works(
    ray_temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from hierfl.runtime import ray_processes, ray_start
    from hierfl.runtime.ray_cluster import connect, disconnect

    monkeypatch.setenv("RAY_TMPDIR", str(ray_temp))
    raylets: list[int] = []
    begin = ray_start.init

    def end_the_first(*words: Any, **more: Any) -> None:
        from ray._private import services

        look = services.get_node

        def end(*given: Any) -> Any:
            if not raylets:
                own = [child for child in ray_processes.psutil.Process().children() if child.name() == "raylet"]
                raylets.extend(child.pid for child in own)
                for child in own:
                    child.kill()
            return look(*given)

        monkeypatch.setattr(services, "get_node", end)
        begin(*words, **more)

    monkeypatch.setattr(ray_start, "init", end_the_first)
    connect(Runtime(kind="ray", num_cpus=1))
    try:
        assert len(raylets) == 1
        node = ray.nodes()[0]
        assert node["Alive"]
        [latest] = ray_temp.rglob("session_latest")
        notes = {file.name.rpartition("_")[0]: int(file.read_text()) for file in latest.glob("*_port_*")}
        told = {
            name: node[ours]
            for name, ours in zip(
                ray_start.AGENTS,
                ("MetricsAgentPort", "MetricsExportPort", "DashboardAgentListenPort", "RuntimeEnvAgentPort"),
                strict=True,
            )
        }
        assert told.items() <= notes.items()
        assert ray.get(ray.remote(lambda word: len(word)).remote("four")) == 4
    finally:
        disconnect()
