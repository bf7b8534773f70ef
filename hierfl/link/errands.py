"""What a hub knows of one member: the calls that are not answered, and the updates that it has ready."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from hierfl.learning.state import Layout
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.answers import limit_of
from hierfl.link.kit import folder_name
from hierfl.link.payload import Incoming, Outgoing, Shape
from hierfl.link.session import Session
from hierfl.link.spool import Spool
from hierfl.runtime.hub import grid_of
from hierfl.runtime.jobs import TrainJob
from tiers.messages import Share, Update

__all__ = ["EVER", "PARTED", "PLACE", "Call", "Member", "Offer"]

EVER = range(sys.maxsize)
"""All epochs of a tree."""

PARTED = "its part is done: the federation goes on without it"
"""What a member is told that has left for good."""

PLACE = "at its place"
"""The method of calls to a member's place; their argument is a `PlaceCall`."""

OUTLIVED_KEPT = 64


@dataclass
class Call:
    """A call of the supervisor's that is not answered; `strayed_s`: since when its member breaks the rules instead."""

    ticket: int
    method: str
    arguments: tuple[Any, ...]
    epoch: int = 0
    begun_s: float = 0.0
    ask: wire.Ask | None = None
    offers: dict[bytes, Outgoing] = field(default_factory=dict)
    strayed_s: float | None = None


@dataclass
class Offer:
    """An update that a member has ready: for which job, with which weight, and what its payload is.

    `digest`: empty as long as a masked one is not announced; `asked`: what the member was asked to train; `refused_at`:
    the furthest byte from which a chunk was refused. Of masked ones, `attempt`: at which sum; `instance`: of the
    process that knows the key, until its update is whole.
    """

    job: TrainJob
    weight: int
    shape: Shape
    layout: Layout
    digest: bytes
    asked: wire.Ask
    is_masked: bool = False
    transfer: int = 0
    refused_at: int = -1
    incoming: Incoming | None = None
    attempt: bytes = b""
    instance: str = ""

    def begin(self, attempt: bytes) -> None:
        """Take part in an attempt at a masked sum: what has come for another one is of no use."""
        if attempt != self.attempt:
            self.drop()
            self.attempt, self.digest, self.instance, self.transfer = attempt, b"", "", 0

    def drop(self) -> None:
        """Let go of what has come."""
        if self.incoming is not None:
            self.incoming.discard()
            self.incoming = None

    def limit(self, num_sites: int) -> int:
        """Give the largest magnitude of its numbers; so many sites are at and below the member."""
        return limit_of(grid_of(self.job.opening), self.weight, num_sites)

    def comes(self, spool: Spool, path: str, num_sites: int) -> Incoming:
        """Give what takes it; two members may send the same bits."""
        if self.incoming is None:
            kind, limit = ("masked", None) if self.is_masked else ("update", self.limit(num_sites))
            own = spool.folder / f"{folder_name(path)}-{self.digest.hex()}.{kind}"
            self.incoming = Incoming(own, self.shape, self.digest, limit, spool)
        return self.incoming

    def header(self, path: str, num_bytes: int) -> Update:
        """Give the header of the member's update."""
        share = Share(path.rpartition("/")[2], self.weight)
        return Update(self.job.hub, self.job.round_number, (share,), num_bytes)


@dataclass
class Member:
    """What is known of the process at the other end."""

    session: Session | None = None
    prepared_by: str = ""
    heard_s: float = 0.0
    has_joined: bool = False
    number: int = 0
    line: str = ""
    sent_to: Session | None = field(default=None, repr=False)
    instance: str = ""
    outlived: deque[str] = field(default_factory=lambda: deque(maxlen=OUTLIVED_KEPT), repr=False)
    """Processes that others have come after, whichever line they count in: two that dial do not take turns."""

    def succeeded(self, session: Session, path: str) -> str:
        """Say who has succeeded a process that would join; where nobody has, it is empty, and it is the latest."""
        if session.line == self.line and session.number < self.number:
            return f"number {self.number} serves {path} since, and this is number {session.number}"
        if session.instance in self.outlived:
            return f"another process, which came after this one, serves {path}"
        if self.instance not in ("", session.instance):
            self.outlived.append(self.instance)
        self.line, self.number, self.instance = session.line, session.number, session.instance
        return ""
