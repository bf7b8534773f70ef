"""What of a configuration the bits of a run follow from."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hierfl.config.schema import RunConfig

__all__ = ["settings_digest"]

SECTIONS = ("seed", "baseline", "task", "training", "arithmetic", "lora", "federation")


def settings_digest(config: RunConfig) -> str:
    """Give a digest of all from which the bits follow: a journal of other settings is of no use."""
    said = {key: config.resolved.get(key) for key in SECTIONS}
    said["federation"] = {key: value for key, value in config.resolved["federation"].items() if key != "rounds"}
    plain = json.loads(json.dumps(said, default=str), object_hook=_of_the_bits)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _of_the_bits(node: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a hub by how many processes it is served."""
    return {key: value for key, value in node.items() if key != "redundancy"} if "members" in node else node
