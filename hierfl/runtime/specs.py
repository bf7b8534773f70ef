"""What hubs and workers are for a whole run; a hub: its members' public weights, its arithmetic, what it passes up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hierfl.config.schema import RunConfig
from hierfl.learning.state import Layout
from hierfl.runtime.jobs import HubSpec, WorkerSpec
from scheduler.participations.sample import Sample
from tiers.federation import Hub, parent, rounds_per_round

__all__ = [
    "ONE",
    "hub_layouts",
    "hub_spec",
    "is_carrier",
    "knowing_hub",
    "member_weights",
    "passes_up",
    "weight_of",
    "worker_spec",
]

ONE = 2**20
"""A weight of 1 where weights are cut in parts: given ones, and those of late updates."""


def hub_spec(
    config: RunConfig, path: str, layout: Layout, num_samples: Mapping[str, int], absent: Mapping[str, str]
) -> HubSpec:
    """Fix a hub. `num_samples`: training samples by path, hubs rolled up; `absent`: members that are not there, why."""
    hub, strategy = knowing_hub(config, path, num_samples), config.hubs[path].strategy
    above = parent(path)
    sums = passes_up(config, path)
    weights = member_weights(config, path, num_samples)
    arithmetic = config.arithmetic
    return HubSpec(
        *(path, hub, strategy, arithmetic.width, arithmetic.clip, weights, *hub_layouts(config, path, layout)),
        is_root=above is None,
        passes_up=sums,
        absent=absent,
        seed=config.seed,
        compression=None if sums or above is None else config.hubs[path].compression,
        redundancy=config.hubs[path].redundancy,
    )


def knowing_hub(config: RunConfig, path: str, num_samples: Mapping[str, int]) -> Hub:
    """Give a hub whose policy, where it draws by samples, knows them. `num_samples`: as for `hub_spec`."""
    hub = config.federation.hubs[path]
    if type(hub.participation) is not Sample:
        return hub
    samples = {member.rpartition("/")[2]: num_samples[member] for member in config.federation.members(path)}
    return replace(hub, participation=hub.participation.knowing(samples))


def hub_layouts(config: RunConfig, path: str, layout: Layout) -> tuple[Layout, Layout]:
    """Give the layouts of what a hub is given and gives its parent, and of what goes down from it; see `HubSpec`."""
    wire = layout.with_channels(config.hubs[path].strategy.objective().channels(layout.num_floats))
    return wire if is_carrier(config, path) else layout, wire


def is_carrier(config: RunConfig, path: str) -> bool:
    """Say whether a hub hands down and up what a strategy above sends beside the model: all hubs below one do."""
    above = parent(path)
    return above is not None and bool(config.hubs[above].strategy.objective().channels(1))


def passes_up(config: RunConfig, path: str) -> bool:
    """Say whether a hub hands its parent the exact sum of its members' updates, and takes no step of its own."""
    hub, strategy, above = config.federation.hubs[path], config.hubs[path].strategy, parent(path)
    return (
        above is not None
        and not hub.participation.may_close_early
        and hub.rounds == 1
        and not (hub.topology.sequential or hub.topology.keeps_models)
        and strategy.linear
        and strategy.weights == "samples"
        and config.hubs[above].strategy.weights == "samples"
    )


def member_weights(config: RunConfig, path: str, num_samples: Mapping[str, int]) -> dict[str, int]:
    """Give the public integer weights of a hub's members by name. `num_samples`: as for `hub_spec`."""
    members = config.federation.members(path)
    return {member.rpartition("/")[2]: weight_of(config, member, num_samples[member]) for member in members}


def worker_spec(config: RunConfig) -> WorkerSpec:
    """Give what every worker needs."""
    runtime, tree = config.runtime, config.federation
    return WorkerSpec(
        *(config.task, config.seed, config.sites, config.evaluation, runtime.device, runtime.threads_per_worker),
        rules={path: hub.strategy.objective() for path, hub in config.hubs.items()},
        lora=config.lora,
        rounds={path: rounds for path in tree.hubs if (rounds := rounds_per_round(tree, path)) > 1},
        secret=config.is_served,
        statistics=config.statistics,
    )


def weight_of(config: RunConfig, path: str, num_samples: int) -> int:
    """Give a member's public integer weight at its hub; 0 where there is nothing to train on."""
    above = parent(path) or ""
    weights = config.hubs[above].strategy.weights
    if num_samples == 0 or weights == "samples":
        return num_samples
    if weights == "uniform":
        return ONE if config.federation.hubs[above].participation.may_close_early else 1
    settings = config.sites.get(path) or config.hubs[path]
    return max(1, round(settings.weight * ONE))
