"""The federation as one process sees it: what is served elsewhere is one member, and nothing is above its own node.

A member behind a link is a leaf to the process of its hub, whatever is below it there: a site that only one "device"
may process, the link. So rounds, participation, strategies and the dispatcher work over links as they do without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

from hierfl.config.membership import Stay, epochs
from hierfl.config.places import join
from hierfl.config.schema import RunConfig, SiteSettings
from hierfl.errors import ConfigError, Problem
from hierfl.link.identity import exchanging, hub_of, members_of
from scheduler import Device
from tiers.federation import Federation, Hub, Member, Site, is_within, parent, rounds_per_round

__all__ = [
    "HERE",
    "LINK",
    "as_served",
    "check_links",
    "label_of",
    "link_device",
    "membership",
    "num_rounds",
    "num_sites",
    "sites_here",
    "stay_of",
]

HERE = "hierfl:here"
"""The label of what may not leave this process's own devices."""

LINK = "link"
"""The kind of device that a link is."""

OVER_LINKS = ("AllReduce", "Peer", "Swarm")
"""Topologies without a centre whose exchanges can go from institution to institution."""


def label_of(path: str) -> str:
    """Name the label of what only the member at the other end of a link may do."""
    return f"hierfl:link:{path}"


def link_device(path: str) -> Device:
    """Give the device that a link is to the dispatcher."""
    return Device(path, LINK, frozenset({label_of(path)}))


def num_sites(config: RunConfig, path: str) -> int:
    """Count the sites at and below a node."""
    return sum(1 for site in config.federation.sites if is_within(site, path))


def num_rounds(config: RunConfig, hub: str) -> int:
    """Count the rounds that a hub has in a whole run."""
    tree = config.federation
    return 0 if config.only_tells else tree.root.rounds * rounds_per_round(tree, hub)


def sites_here(config: RunConfig, path: str) -> list[str]:
    """List the sites at and below a node whose records are in its own process: not behind another link."""
    behind = [node for node in config.links if node != path and is_within(node, path)]
    sites = (site for site in config.sites if is_within(site, path))
    return [site for site in sites if not any(is_within(site, node) for node in behind)]


def membership(config: RunConfig, path: str) -> range:
    """Give the epochs of the tree in which a node is there, by their numbers."""
    there = [epoch.number for epoch in epochs(config) if path in epoch.config.federation.nodes]
    return range(there[0], there[-1] + 1) if there else range(0)


def stay_of(config: RunConfig, path: str) -> Stay:
    """Give the rounds of the root in which a node is a member: a hub as long as a site at or below it is."""
    below = [site for place, site in config.sites.items() if is_within(place, path)]
    ends = [site.leaves_at for site in below if site.leaves_at is not None]
    return Stay(min(site.joins_at for site in below), max(ends) if len(ends) == len(below) else None)


def as_served(config: RunConfig, path: str) -> RunConfig:
    """Cut the federation down to what the process of a node sees. Errors: ConfigError for what links cannot do."""
    members = members_of(config, path)
    check_links(config)
    root = config.federation.root
    top = _above(root, path.split("/")[1:], config, frozenset(members))
    tree = Federation(top, config.federation.epoch)
    sites = {site: _settings(config, site, members) for site in tree.sites}
    runtime = config.runtime
    if members:
        groups = [replace(group, labels=[*group.labels, HERE]) for group in runtime.devices]
        runtime = replace(runtime, devices=groups, share=False)
        if not set(tree.sites) - set(members):  # somebody has to build the model
            runtime = replace(runtime, devices=[], num_workers=1, gpus_per_worker=runtime.gpus_per_worker or 0)
    hubs = {hub: config.hubs[hub] for hub in tree.hubs}
    changes = _changes(config, [member for member in members if member in config.hubs])
    return replace(config, federation=tree, hubs=hubs, sites=sites, runtime=runtime, changes=changes, is_served=True)


def _changes(config: RunConfig, hubs: list[str]) -> Mapping[int, frozenset[str]]:
    """Give the rounds with which members change, and which of these hubs, served elsewhere, have others below then."""
    found = {}
    for before, epoch in pairwise(epochs(config)):
        moved = {*epoch.joined, *epoch.left}
        there = (before.config.federation.hubs.keys() & epoch.config.federation.hubs.keys()).intersection(hubs)
        found[epoch.first] = frozenset(hub for hub in there if any(site.startswith(f"{hub}/") for site in moved))
    return found


def _above(node: Hub, way: list[str], config: RunConfig, members: frozenset[str]) -> Hub:
    """Keep of the hubs above a node only the way to it."""
    path, chain = node.name, [node]
    for name in way:
        found = next(member for member in chain[-1].members if member.name == name)
        path = f"{path}/{name}"
        if isinstance(found, Site):
            return _chained(chain, found)
        chain.append(found)
    return _chained(chain[:-1], _cut(chain[-1], path, members))


def _chained(chain: list[Hub], below: Member) -> Hub:
    for hub in reversed(chain):
        below = replace(hub, members=(below,))
    assert isinstance(below, Hub)
    return below


def _cut(node: Hub, path: str, members: frozenset[str]) -> Hub:
    """Put a leaf in the place of every member that is served elsewhere; without recursion, since depth is unlimited."""
    order: list[tuple[Hub, str]] = [(node, path)]
    for hub, here in order:
        order.extend(
            (member, f"{here}/{member.name}")
            for member in hub.members
            if isinstance(member, Hub) and f"{here}/{member.name}" not in members
        )
    made: dict[str, Hub] = {}
    for hub, here in reversed(order):
        below = (f"{here}/{member.name}" for member in hub.members)
        found = (
            Site(member.name) if place in members else made.get(place, member)
            for member, place in zip(hub.members, below, strict=True)
        )
        made[here] = replace(hub, members=tuple(found))
    return made[path]


def _settings(config: RunConfig, path: str, members: tuple[str, ...]) -> SiteSettings:
    """Give a leaf's settings; those of a member elsewhere say its weight, and who may do its work."""
    if path not in members:
        own = config.sites[path]
        return replace(own, labels=own.labels | {HERE}) if members else own
    labels = frozenset({label_of(path)})
    if path in config.sites:
        return replace(config.sites[path], labels=labels)
    below = next(site for site in config.sites if site.startswith(f"{path}/"))
    stay, weight = stay_of(config, path), config.hubs[path].weight
    return SiteSettings(
        *(config.sites[below].training, path), weight=weight, labels=labels, joins_at=stay.first, leaves_at=stay.end
    )


def check_links(config: RunConfig) -> None:
    """Errors: ConfigError for what cannot be served over links, whichever process of the federation it is about."""
    problems = list(_problems(config))
    if problems:
        raise ConfigError(problems)


_BASELINES = {
    "pooled": "it trains on all sites' records in one place; `hierfl run` does it where they may lie together",
    "local": "each site trains alone; each institution does so by `hierfl run` on a configuration of its own sites, and"
    " evaluation.fine_tune measures models of the sites' own over links",
}
"""Why there are no baselines over links, and what there is instead."""


def _problems(config: RunConfig) -> Iterator[Problem]:
    if config.baseline is not None:
        yield Problem("baseline", f"is {config.baseline}, which does not go over links: {_BASELINES[config.baseline]}")
    alone = next((path for path in config.links if exchanging(config, path)), None)
    if alone is not None and len(epochs(config)) > 1:
        path = next(path for path, site in config.sites.items() if site.joins_at > 1 or site.leaves_at is not None)
        said = (
            f"members stay from start to end where models lie with them alone, as those of {parent(alone)} do, which"
            " have links and no centre; leave it out, or give that hub a topology with a centre; `hierfl run` simulates"
        )
        key = "joins_at" if config.sites[path].joins_at > 1 else "leaves_at"
        yield Problem(_place(path, key), f"{said} it here")
    yield from _of_peers(config)
    yield from _of_private(config)
    for path, site in config.sites.items():
        above = next((link for link in config.links if path.startswith(f"{link}/")), None)
        if site.is_held_out and above is not None:
            said = f"is measured beside the others, which the link at {above} cannot say; give it one, and none above"
            yield Problem(_place(path, "role"), said)


def _of_peers(config: RunConfig) -> Iterator[Problem]:
    """What is wrong with members that hand vectors to each other."""
    for path, link in config.links.items():
        hub = parent(path)
        assert hub is not None, "the root has no link"
        kind = type(config.federation.hubs[hub].topology).__name__
        place = f"{_place(path, 'link')}.peers"
        if not exchanging(config, path):
            if link.peers is not None:
                yield Problem(place, f"is for members of a hub without a centre; {hub} has one, and nobody dials it")
        elif kind not in OVER_LINKS:
            said = f"{kind} does not go over links; allreduce, peer and swarm do; leave the link out"
            yield Problem(_place(path, "link"), said)
        elif link.peers is None:
            said = (
                f"is missing: the members of {hub} hand vectors to each other, host:port at which they reach this one"
            )
            yield Problem(place, said)
    root = config.federation.root
    if config.lora is not None and not root.topology.has_centre and _all_linked(config, root.name):
        said = (
            f"adapters are written into their base where the model lies, and {root.name} is handed none; leave it out"
        )
        yield Problem("lora", said)


def _of_private(config: RunConfig) -> Iterator[Problem]:
    """Private sites whose models reach others before they are paid for: those beside members over links."""
    for path, site in config.sites.items():
        above = parent(path)
        assert above is not None
        if site.privacy is not None and path not in config.links and members_of(config, hub_of(config, above)):
            said = "what privacy costs is kept by who serves the site alone; give it a link, beside those members"
            yield Problem(_place(path, "privacy"), f"{said} of {hub_of(config, above)} that have one")


def _all_linked(config: RunConfig, hub: str) -> bool:
    members = config.federation.hubs[hub].members
    return all(f"{hub}/{member.name}" in config.links for member in members)


def _place(path: str, key: str) -> str:
    """Give the place in the YAML of a node's key."""
    return join("federation", *(part for name in path.split("/")[1:] for part in ("members", name)), key)
