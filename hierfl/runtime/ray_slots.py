"""How many workers a Ray cluster has room for, without starting any."""

from __future__ import annotations

from hierfl.config.schema import Runtime
from hierfl.runtime.ray_cluster import connect, disconnect, num_workers, with_gpus

__all__ = ["count_slots"]


def count_slots(runtime: Runtime) -> int:
    """Count the workers that a run on this runtime would have now. Errors: RuntimeUnavailable."""
    owns = connect(runtime)
    try:
        return num_workers(with_gpus(runtime))
    finally:
        if owns:
            disconnect()
