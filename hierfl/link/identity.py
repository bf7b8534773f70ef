"""Who a party is: its role and its place in the federation, as a certificate says them.

A certificate's subject alternative names hold one URI per role, `hierfl://heart/member/world/us`, and for a hub a DNS
name that is made of its place, for a peer another. Whoever dials checks that name, so that it knows the other side by
what it is and not by where it is reached: addresses may change, and no member can pass for a hub, or for another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from hierfl.config.schema import RunConfig
from tiers.federation import parent

__all__ = [
    "HUB",
    "MEMBER",
    "PEER",
    "Identity",
    "exchanging",
    "hub_of",
    "members_of",
    "parties",
    "peers_of",
    "server_name",
    "server_of",
    "uris_in",
]

HUB = "hub"
"""Serves members by links."""

MEMBER = "member"
"""Is served by its hub over a link."""

PEER = "peer"
"""Hands vectors to members of its hub, which has no centre, or takes them from there."""

ROLES = (HUB, MEMBER, PEER)
SCHEME = "hierfl"


@dataclass(frozen=True, slots=True)
class Identity:
    """A role at a node of a federation. Errors: ValueError for a role that there is not."""

    role: str
    federation: str
    path: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role {self.role!r}; allowed: {', '.join(ROLES)}")

    @property
    def uri(self) -> str:
        """Write it as a URI."""
        return f"{SCHEME}://{quote(self.federation, safe='')}/{self.role}/{quote(self.path)}"

    @classmethod
    def parse(cls, uri: str) -> Identity:
        """Read what `uri` has written, and nothing else. Errors: ValueError."""
        scheme, _, rest = uri.partition("://")
        federation, role, path = [*rest.split("/", 2), "", ""][:3]
        found = cls(role, unquote(federation), unquote(path))
        if scheme != SCHEME or not found.federation or not found.path or found.uri != uri:
            raise ValueError(f"{uri!r} names no party; a party reads like {cls(MEMBER, 'heart', 'world/us').uri}")
        return found


def uris_in(signed: Any) -> list[str]:
    """Read the URIs that a certificate, or a request for one, has as alternative names. Errors: x509.ExtensionNotFound
    where it has none; ValueError.
    """
    from cryptography.x509 import SubjectAlternativeName, UniformResourceIdentifier

    names = signed.extensions.get_extension_for_class(SubjectAlternativeName).value
    found: list[str] = names.get_values_for_type(UniformResourceIdentifier)
    return found


def server_name(federation: str, path: str, role: str = HUB) -> str:
    """Give the DNS name in the certificate of who serves in a role: a hub, or a peer."""
    digest = hashlib.sha256(Identity(role, federation, path).uri.encode()).hexdigest()
    return f"{digest[:40]}.{role}.hierfl.internal"


def server_of(config: RunConfig, path: str) -> str:
    """Name the node whose process serves a member: the nearest one above it that has a process of its own."""
    above = parent(path)
    while above is not None and above not in config.links:
        above = parent(above)
    return above or config.federation.root.name


def members_of(config: RunConfig, path: str) -> tuple[str, ...]:
    """List the members that the process of a node serves by links, in the order of the tree."""
    links = config.links
    return tuple(node for node in config.federation.nodes if node in links and server_of(config, node) == path)


def parties(config: RunConfig) -> Mapping[str, tuple[str, ...]]:
    """Give the roles of every node that has a process of its own: the root, and the members with a link."""
    root = config.federation.root.name
    serving = {root, *(server_of(config, path) for path in config.links)}
    nodes = [path for path in config.federation.nodes if path == root or path in config.links]
    roles = {HUB: serving, MEMBER: set(config.links), PEER: {path for path in nodes if peers_of(config, path)}}
    return {path: tuple(role for role in ROLES if path in roles[role]) for path in nodes}


def exchanging(config: RunConfig, path: str) -> bool:
    """Say whether a member with a link belongs to a hub without a centre, whose members hand each other vectors."""
    above = parent(path)
    return path in config.links and above is not None and not config.federation.hubs[above].topology.has_centre


def peers_of(config: RunConfig, path: str) -> tuple[str, ...]:
    """List whose vectors a node's process may take: the other members of its hub, where that has no centre.

    Whoever serves such a hub takes from its members, too, where it needs what comes of it, or does the work of members
    beside. At a root all of whose members have links it does not, and may not.
    """
    found = dict[str, None]()
    for hub, node in config.federation.hubs.items():
        if node.topology.has_centre:
            continue
        linked = [one for one in (f"{hub}/{member.name}" for member in node.members) if one in config.links]
        convenes = hub_of(config, hub) == path and not (parent(hub) is None and len(linked) == len(node.members))
        if path in linked or convenes:
            found.update(dict.fromkeys(linked))
    return tuple(member for member in found if member != path)


def hub_of(config: RunConfig, path: str) -> str:
    """Name the node whose process convenes the members of a hub."""
    return path if path in config.links else server_of(config, path)
