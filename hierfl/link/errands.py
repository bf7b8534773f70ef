"""What a hub knows of one member: the calls that are not answered, and the updates that it has ready."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hierfl.link._wire import link_pb2 as wire
from hierfl.link.payload import Incoming, Outgoing, Shape
from hierfl.link.session import Session
from hierfl.runtime.jobs import TrainJob

__all__ = ["Call", "Member", "Offer"]


@dataclass
class Call:
    """A call of the supervisor's that is not answered."""

    ticket: int
    method: str
    arguments: tuple[Any, ...]
    begun_s: float = 0.0
    ask: wire.Ask | None = None
    offers: dict[bytes, Outgoing] = field(default_factory=dict)


@dataclass
class Offer:
    """An update that a member has ready: for which job, with which weight, and what its payload is."""

    job: TrainJob
    weight: int
    shape: Shape
    digest: bytes
    transfer: int = 0
    incoming: Incoming | None = None


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
