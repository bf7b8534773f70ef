"""The hubs of a run, each replaceable: what a hub was told since its rounds began is kept until they are over.

A hub whose process is lost is made again and told the same once more. Its machine is deterministic, so it comes to the
same state and the same bits, and of its answers only those that were not carried out yet count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hierfl.errors import RuntimeUnavailable
from hierfl.runtime.driver import Done, Driver, Handle
from hierfl.runtime.jobs import HubSpec, Order, Outcome
from tiers.messages import Begin

__all__ = ["HubLost", "HubSaid", "Hubs"]

MAX_RESTARTS = 5
"""How often one hub's process is replaced within its rounds."""


@dataclass(frozen=True, slots=True)
class HubSaid:
    """A hub's answer to something it was told, to be carried out now."""

    path: str
    outcome: Outcome
    result: Handle
    state: Handle
    started_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class HubLost:
    """A hub's process died and was replaced."""

    path: str
    reason: str


@dataclass
class _Life:
    """One hub: what it was told since its rounds began, and how many of its answers are carried out."""

    spec: HubSpec
    number: int = 0
    running: bool = False
    model: Handle = None
    order: Order | None = None
    told: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    carried_out: int = 0
    restarts: int = 0


class Hubs:
    """Talks to hubs and keeps them replaceable."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._lives: dict[str, _Life] = {}
        self._calls: dict[int, tuple[str, int, int]] = {}

    def make(self, spec: HubSpec) -> None:
        """Make a hub's aggregator."""
        self._lives[spec.path] = _Life(spec)
        self._driver.start_hub(spec)

    def owns(self, ticket: int) -> bool:
        """Say whether a call was made here."""
        return ticket in self._calls

    def model(self, path: str) -> Handle:
        """Give the model that a hub's members train from now."""
        return self._lives[path].model

    def order(self, path: str) -> Order:
        """Give the parent's order that a hub works for."""
        order = self._lives[path].order
        assert order is not None, f"{path} has no parent"
        return order

    def begin(self, path: str, event: Begin, order: Order | None, model: Handle, state: Handle) -> None:
        """Begin a hub's rounds."""
        life = self._lives[path]
        assert not life.running, f"{path} has not ended its rounds"
        life.number += 1  # what was said to an earlier begin, and comes late, is dropped
        life.running, life.model, life.order = True, model, order
        life.told.clear()
        life.carried_out = life.restarts = 0
        self.tell(path, "begin", event, order, None if life.spec.passes_up else model, state)

    def tell(self, path: str, method: str, *arguments: Any) -> None:
        """Tell a hub something; one whose rounds are over does not listen."""
        life = self._lives[path]
        if life.running:
            life.told.append((method, arguments))
            self._call(path, len(life.told) - 1)

    def stop(self, path: str) -> None:
        """Give up a hub's rounds; a fresh aggregator will begin the next."""
        life = self._lives[path]
        if life.running:
            life.running = False
            self._renew(path)

    def handle(self, done: Done) -> Iterator[HubSaid | HubLost]:
        """Take the end of a call. Errors: HierflError of the hub; RuntimeUnavailable if it dies again and again."""
        path, number, index = self._calls.pop(done.ticket)
        life = self._lives[path]
        if number != life.number:
            return
        if done.crashed is not None:
            yield from self._replace(path, done.crashed)
        elif done.error is not None:
            raise done.error
        elif life.running and index >= life.carried_out:
            assert index == life.carried_out, f"{path} answered call {index} before call {life.carried_out}"
            life.carried_out += 1
            model, result, state = done.beside
            outcome: Outcome = done.value
            if outcome.has_model:
                life.model = model
            if outcome.finished is not None:
                life.running, life.model = False, None
                life.told.clear()
            yield HubSaid(path, outcome, result, state, done.started_s, done.ended_s)

    def _replace(self, path: str, reason: str) -> Iterator[HubLost]:
        """Replace a lost process; each of its hubs is told once more what it was told."""
        for lost in self._driver.restart(path):
            life = self._lives[lost]
            life.restarts += 1
            if life.restarts > MAX_RESTARTS:
                raise RuntimeUnavailable(f"the aggregator of {lost} died {life.restarts} times in one round: {reason}")
            self._renew(lost)
            for index in range(len(life.told) if life.running else 0):
                self._call(lost, index)
            yield HubLost(lost, reason)

    def _renew(self, path: str) -> None:
        """Put a fresh aggregator in the place of one; what the old one still says is dropped."""
        life = self._lives[path]
        life.number += 1
        self._driver.start_hub(life.spec)

    def _call(self, path: str, index: int) -> None:
        """Tell a hub the thing of this index."""
        life = self._lives[path]
        method, arguments = life.told[index]
        ticket = self._driver.call(path, method, *arguments)
        self._calls[ticket] = (path, life.number, index)
