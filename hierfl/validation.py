"""A configuration that is sound, and what is to be known of it before it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierfl.fault import rehearsed

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig

__all__ = ["COUNTS", "NOTES", "told_of"]

COUNTS = ("hubs", "sites", "tiers")
NOTES = (
    *(
        "promises",
        "strategies",
        "runtime",
        "doubles",
        "compression",
        "shared",
        "statistics",
        "privacy",
        "secure_aggregation",
        "redundancy",
        "journal",
    ),
    "faults",
)
"""What is told of nodes, each a sentence by path."""


def told_of(config: RunConfig) -> dict[str, Any]:
    """Say what a configuration is, and of its nodes what the rules hold off, what is sent small, and the like.

    Errors: ConfigError for what cannot be served over links, where it has such, for schedules that torch refuses, and
    for privacy that costs more than its budget.
    """
    from hierfl.doubles import doubles
    from hierfl.learning.schedules import try_out
    from hierfl.link.served import check_links
    from hierfl.promises import promises
    from hierfl.told import doubts, for_ray
    from hierfl.tree import handed_out, hidden_in_sums, not_kept, paid, records_told, sent_small, served_by

    if config.links:
        check_links(config)
    try_out(config)
    federation = config.federation
    return {
        "valid": True,
        "name": config.name,
        "task": config.task_kind,
        **dict(zip(COUNTS, (len(federation.hubs), len(federation.sites), federation.num_tiers), strict=True)),
        "promises": promises(config),
        "strategies": doubts(config),
        "runtime": for_ray(config),
        "doubles": doubles(config),
        "compression": sent_small(config),
        "shared": handed_out(config),
        "statistics": records_told(config),
        "privacy": paid(config),
        "secure_aggregation": hidden_in_sums(config),
        "redundancy": served_by(config),
        "journal": not_kept(config),
        "faults": rehearsed(config.faults),
    }
