"""Who a party is: its role and its place in the federation, as a certificate says them.

A certificate's subject alternative names hold one URI per role, `hierfl://heart/member/world/us`, and for a hub a DNS
name that is made of its place. A member checks that name, so that it knows the hub by what it is and not by where it is
reached: addresses may change, and no member can pass for a hub.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from hierfl.config.schema import RunConfig
from tiers.federation import parent

__all__ = ["HUB", "MEMBER", "Identity", "members_of", "parties", "server_name", "server_of"]

HUB = "hub"
"""Serves members by links."""

MEMBER = "member"
"""Is served by its hub over a link."""

SCHEME = "hierfl"


@dataclass(frozen=True, slots=True)
class Identity:
    """A role at a node of a federation. Errors: ValueError for a role that there is not."""

    role: str
    federation: str
    path: str

    def __post_init__(self) -> None:
        if self.role not in (HUB, MEMBER):
            raise ValueError(f"role {self.role!r}; allowed: {HUB}, {MEMBER}")

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


def server_name(federation: str, path: str) -> str:
    """Give the DNS name in a hub's certificate."""
    digest = hashlib.sha256(Identity(HUB, federation, path).uri.encode()).hexdigest()
    return f"{digest[:40]}.hub.hierfl.internal"


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
    return {
        path: (*((HUB,) if path in serving else ()), *((MEMBER,) if path in config.links else ())) for path in nodes
    }
