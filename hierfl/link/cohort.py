"""Whose updates are masked for whom: the members of a hub with `secure_aggregation`, as every process reads the YAML.

A masked sum is of all of them and of nobody else, so no hub can ask for the sum of fewer.
"""

from __future__ import annotations

from hierfl.config.schema import RunConfig
from tiers.federation import is_within, parent

__all__ = ["cohort", "masks"]


def cohort(config: RunConfig, hub: str) -> tuple[str, ...]:
    """List the paths of the members whose updates a hub sees masked; empty where it sees each by itself.

    Those that train nothing have no update.
    """
    if hub not in config.hubs or config.hubs[hub].secure_aggregation == "none":
        return ()
    trained = [site for site, settings in config.sites.items() if settings.trains]
    return tuple(path for path in config.federation.members(hub) if any(is_within(site, path) for site in trained))


def masks(config: RunConfig, path: str) -> bool:
    """Say whether a member masks its updates."""
    return path in cohort(config, parent(path) or "")
