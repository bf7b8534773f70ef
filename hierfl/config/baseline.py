"""What a federation is compared with: the same task and tree with no exchange, or with all data in one place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hierfl.config.places import join
from hierfl.config.schema import HubSettings, RunConfig, SiteSettings, Training
from hierfl.config.section import Report
from hierfl.config.tree import Node
from tiers.federation import Federation, Hub, Site

__all__ = ["BASELINES", "as_baseline", "check_baseline"]

BASELINES = {
    "local": "baseline local: every site trains alone, nothing is exchanged",
    "pooled": "baseline pooled, for simulation only: the data of all sites are put together on this machine",
}
"""Each with what is said of it when a run starts."""

_PLAIN: dict[str, Any] = {"compression": None, "handed": (), "privacy": None}

POOLED = "pooled"
"""The site that has all data, right under the root."""


def check_baseline(baseline: str | None, root: Node, report: Report) -> None:
    """Report what forbids to put all data together: residency, and a site of the pool's name."""
    if baseline != "pooled":
        return
    for node in root.walk():
        if node.own.settings.get("residency"):
            said = (
                "keeps its data to certain devices, and baseline: pooled puts all data together; leave out one of them"
            )
            report(join(node.place, "residency"), said)
    for member in root.members or ():
        if member.name == POOLED:
            report(join(member.place, "name"), f"{POOLED!r} is what baseline: pooled calls its site; rename it")


def as_baseline(config: RunConfig, training: Training) -> RunConfig:
    """Turn a federation into its baseline; `training`: what holds at the root.

    Nothing is compressed or hidden by noise, no public data are shared, and no site fine-tunes.

    local: every hub's strategy gives way to one under which sites keep all tensors. pooled: one site under the root has
    the training data of all sites that train, and these are measured only, so that the hubs' figures are of the same
    test samples as the federation's.
    """
    if config.baseline is not None:
        config = replace(config, evaluation=replace(config.evaluation, fine_tune=None))
    if config.baseline == "local":
        from hierfl.learning.strategies._alone import Alone

        return replace(
            config,
            hubs={path: HubSettings(Alone(), hub.weight) for path, hub in config.hubs.items()},
            sites={path: replace(site, **_PLAIN) for path, site in config.sites.items()},
        )
    if config.baseline == "pooled":
        return _pooled(config, training)
    return config


def _pooled(config: RunConfig, training: Training) -> RunConfig:
    """Put the pool beside the members of the root."""
    from hierfl.learning.strategies.fedavg import FedAvg

    root = config.federation.root
    pool = SiteSettings(
        training,
        POOLED,
        timeout_s=config.runtime.site_timeout_s,
        role="pooled",
        pools=tuple(site for site in config.sites.values() if site.trains),
    )
    sites = {
        path: replace(site, role="measured" if site.trains else site.role, **_PLAIN)
        for path, site in config.sites.items()
    }
    return replace(
        config,
        federation=Federation(Hub(root.name, (Site(POOLED), *root.members), rounds=root.rounds)),
        hubs={path: HubSettings(FedAvg(), hub.weight) for path, hub in config.hubs.items()},
        sites={f"{root.name}/{POOLED}": pool, **sites},
    )
