"""What `summary.json` says of a run: of every node, and of how its devices were used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hierfl.monitor.idle import IdleTime
from hierfl.monitor.records import Scalars
from hierfl.runtime.estimates import Estimates
from scheduler import Idle
from tiers.federation import Federation

__all__ = ["of_nodes", "of_schedule"]


def of_nodes(
    tree: Federation, metrics: Mapping[str, Scalars], num_samples: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Write every node's newest metrics, its training samples, and its test samples where it was measured."""
    return {
        path: {**metrics.get(path, {}), "num_samples": num_samples[path]}
        | ({"num_test": metrics[path]["num_samples"]} if path in metrics else {})
        for path in tree.nodes
    }


def of_schedule(idle: IdleTime, estimates: Estimates) -> dict[str, Any]:
    """Write busy and idle fractions beside the floor: of the run, of workers, devices and hubs; prediction errors."""
    total = idle.total()
    return {
        "workers": {worker: _shares(busy) for worker, busy in idle.workers().items()},
        "busy_fraction": 1.0 - total.idle,
        **_figures(total),
        "goodput": total.goodput,
        "schedule": {
            "devices": {device: _shares(busy) for device, busy in total.busy.items()},
            "hubs": {path: _figures(found) for path, found in idle.hubs().items()},
            "prediction_error": estimates.errors(),
        },
    }


def _shares(busy: float) -> dict[str, float]:
    return {"busy_fraction": busy, "idle_fraction": 1.0 - busy}


def _figures(idle: Idle) -> dict[str, float]:
    return {
        "idle_fraction": idle.idle,
        "idle_floor": idle.floor,
        "idle_avoidable": idle.avoidable,
        "efficiency": idle.efficiency,
    }
