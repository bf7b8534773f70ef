"""Whose updates are masked for whom, as every process reads the YAML: the members of a hub with `secure_aggregation`,
and which of them may be summed without the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from hierfl.config.rules import FEWEST
from hierfl.config.schema import RunConfig
from hierfl.errors import LinkError
from hierfl.link.codec import text
from scheduler.participation import needed
from tiers.federation import is_within, parent

__all__ = ["cohort", "fewest", "masks", "members_in"]


def cohort(config: RunConfig, hub: str) -> tuple[str, ...]:
    """List the paths of the members whose updates a hub sees masked; empty where it sees each by itself.

    Those that train nothing have no update.
    """
    if hub not in config.hubs or config.hubs[hub].secure_aggregation == "none":
        return ()
    trained = [site for site, settings in config.sites.items() if settings.trains]
    return tuple(path for path in config.federation.members(hub) if any(is_within(site, path) for site in trained))


def fewest(config: RunConfig, hub: str) -> int:
    """Count the members that a masked sum of a hub takes at least: all, unless its rounds may go on without some."""
    node, number = config.federation.hubs[hub], len(cohort(config, hub))
    return max(FEWEST, needed(node.quorum, number)) if node.keep_going else number


def masks(config: RunConfig, path: str) -> bool:
    """Say whether a member masks its updates."""
    return path in cohort(config, parent(path) or "")


def members_in(names: Sequence[str], among: tuple[str, ...], least: int, own: str) -> tuple[str, ...]:
    """Take the members of a masked sum as another party names them.

    `among`: the cohort; `least`: as by `fewest`; `own`: who has to be one of them.

    Errors: LinkError for others, a name twice, another order, or too few.
    """
    found, hub = set(names), parent(own)
    strange = next((name for name in names if name not in among), None)
    if strange is not None:
        raise LinkError(f"a masked sum with {text(strange, 'a member')!r}, whose updates are not masked for {hub}")
    if tuple(names) != tuple(path for path in among if path in found):
        raise LinkError(f"a masked sum that names a member of {hub} twice, or not in the order of the YAML")
    if own not in found:
        raise LinkError(f"a masked sum without {own}, which is asked to be in it")
    if len(found) < least:
        raise LinkError(f"a masked sum of {len(found)} members, and one of {hub} takes {least} of its {len(among)}")
    return tuple(names)
