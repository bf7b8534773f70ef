"""The model that a site uses itself, where that is not the federation's."""

from __future__ import annotations

from collections.abc import Mapping

from hierfl.config.schema import RunConfig
from hierfl.errors import ConfigError
from hierfl.kinds import name_of, nearest
from hierfl.learning.fine_tune import FineTuned, used
from hierfl.learning.local import LocalRule, State
from tiers.federation import parent

__all__ = ["is_measured", "of_site"]


def is_measured(config: RunConfig, rule: LocalRule | None) -> bool:
    """Say whether the figures of a run's nodes are of the model by this rule, None: of the federation's. They are not
    of what sites have fine-tuned, nor of a federation's that no site uses.
    """
    if rule is not None:
        return not isinstance(rule, FineTuned)
    hubs = {parent(path) or "" for path, site in config.sites.items() if site.counts}
    return not all(config.hubs[hub].strategy.objective().is_personal for hub in hubs)


def of_site(config: RunConfig, kept: Mapping[str, State], site: str) -> tuple[LocalRule, State]:
    """Give the rule by which a site makes the federation's model its own, and what it keeps for that.

    Errors: ConfigError for a site that has no model of its own, and why.
    """
    if site not in config.sites:
        what = "is a hub" if site in config.hubs else "is no site"
        raise ConfigError(f"{site} {what} of this run{nearest(site, config.sites)}")
    own, strategy = kept.get(site, {}), config.hubs[parent(site) or ""].strategy
    objective = strategy.objective()
    rule = used(objective if objective.is_personal else None, own)
    if rule is None:
        raise ConfigError(
            f"{site} has no model of its own: under {name_of(type(strategy))} it uses the federation's, and it was not"
            " fine-tuned (evaluation.fine_tune); leave out --site"
        )
    if not own:
        raise ConfigError(f"{site} has no model of its own yet: it has not trained, or keeps it elsewhere, over a link")
    return rule, own
