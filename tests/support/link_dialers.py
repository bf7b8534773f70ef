"""A member's process that dials a hub over a real connection, but for its training: it has one update ready."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from link_members import Pki, layout, update

from hierfl.learning.ring import PartialSum
from hierfl.learning.state import ModelState
from hierfl.link._wire import link_pb2 as wire_pb
from hierfl.link.desk import Desk
from hierfl.link.dialer import Dialer
from hierfl.link.service import VERSIONS
from hierfl.link.store import Store
from hierfl.runtime.driver import Done

__all__ = ["LAYOUT", "UPDATE", "Member", "hello_of", "part_of"]

LAYOUT = layout(6_000_000)
UPDATE = update(LAYOUT, largest=2**18)


class FakeBranch:
    """Trains by giving one update; counts how often it was asked."""

    config: Any = type("Config", (), {"hubs": {}})()
    path, layout = "world/us", LAYOUT
    heed: Any = staticmethod(lambda: None)

    def __init__(self) -> None:
        self.trained = 0
        self.prepared = 0
        self.starts: list[float] = []

    def enter(self, number: int) -> None:
        assert number == 0

    def prepare(self, run: str, scale: Any) -> None:
        self.prepared += 1

    def describe(self) -> Any:
        return type("Inventory", (), {"num_train": 10})()

    def train(self, asked: Any, start: ModelState) -> tuple[int, PartialSum]:
        self.trained += 1
        self.starts.append(float(start.floats[7]))
        return 10, PartialSum(*UPDATE, 10)


def hello_of(instance: str) -> wire_pb.Hello:
    """What a process of the member says first."""
    return wire_pb.Hello(
        versions=VERSIONS,
        federation="heart",
        node="world/us",
        config_digest="config",
        task_digest="task",
        instance=instance,
    )


class Member:
    """A member's process, but for its training."""

    def __init__(
        self, pki: Pki, port: int, folder: Path, deadline_s: float = 20.0, instance: str = "a", packed: str = "none"
    ) -> None:
        self.branch, self.heard = FakeBranch(), []
        kit = pki.kit("world/us", name=f"kit-{instance}")
        tell: Callable[[str, str], None] = lambda level, said: self.heard.append(said)  # noqa: E731
        self.dialer = Dialer(kit, "world", [f"localhost:{port}"], hello_of(instance), deadline_s, packed, tell)
        make: Any = lambda: self.branch  # noqa: E731
        self.desk = Desk(make, Store(folder), self.dialer.say, self.dialer.fetch, tell, lambda: None)
        self.dialer.asked, self.dialer.offered = self.desk.asked, self.desk.offered
        self.last = ""
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        self.last = self.dialer.serve()

    def close(self) -> None:
        self.dialer.leave("the test is over")
        self.desk.close(10.0)
        self.thread.join(10.0)
        assert self.desk.failed is None, self.desk.failed


def part_of(done: Done) -> PartialSum:
    part: PartialSum = done.beside[0]
    return part
