"""On Ray what leaves a site compressed is small where it lies, and the bits are those of threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray_runs import run, write_config

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]

DENSE = 4 * (4 * 20_000 + 20_000 + 4 * 20_000 + 2 * 20_000 + 2)
"""Bytes of the model's floats: a layer, batch norm with its running statistics, a layer of two."""

TREE: dict[str, Any] = {
    "name": "world",
    "rounds": 2,
    "members": [{"name": "us", "rounds": 2, "members": [{"name": "a"}, {"name": "b"}]}, {"name": "c"}],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "share"),
    [
        pytest.param("{kind: quantize, bits: 2}", 0.3, id="quantize"),
        pytest.param("{kind: top_k, fraction: 0.01}", 0.35, id="top_k"),
    ],
)
def test_what_travels_is_small_and_has_the_bits_of_threads(
    kind: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from hierfl.runtime.relay import Relay

    sizes: list[int] = []
    deliver = Relay.handed_up

    def weigh(relay: Relay, result: Any) -> None:
        sizes.append(ray.experimental.get_object_locations([result.part])[result.part]["object_size"])
        deliver(relay, result)

    task = {"kind": "ward_tasks:Deep", "hidden": 20_000}
    config = write_config(tmp_path, TREE, task=task, training={"lr": 0.1, "batch_size": None, "local_steps": 1})
    small = f"federation.compression={kind}"
    in_threads = run(config, "runtime.kind=local", small)
    monkeypatch.setattr(Relay, "handed_up", weigh)
    on_ray = run(config, "runtime.kind=ray", "runtime.num_workers=2", small)
    assert on_ray["model_digest"] == in_threads["model_digest"]
    assert on_ray["traffic"] == in_threads["traffic"] and on_ray["traffic"]["bytes_spared"] > 0
    assert len(sizes) == 2 * (2 * 2 + 1) and 0 < max(sizes) < share * DENSE
    monkeypatch.setattr(Relay, "handed_up", deliver)
    whole = run(config, "runtime.kind=local")["traffic"]
    assert whole["bytes_spared"] == 0
