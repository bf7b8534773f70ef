"""What the supervisor knows of one hub: what its replicas were told, what they said, and whose answer counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hierfl.errors import HierflError
from hierfl.runtime.digests import digest
from hierfl.runtime.driver import Done, Handle
from hierfl.runtime.jobs import HubSpec, Memory, Order, Outcome, Post
from hierfl.runtime.witness import Signed, is_signed
from tiers.messages import Update
from tiers.replica_messages import FAILED, Answered, Forged, Rebased, Stopped
from tiers.replicas import Replicas

__all__ = ["Answer", "Kept", "Life", "Told"]

Told: TypeAlias = tuple[str, tuple[Any, ...]]
"""A method of an aggregator and its arguments."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a hub remembers, and the payloads of the updates that it holds, in the order of `memory.standing.held`."""

    memory: Memory
    payloads: tuple[Handle, ...] = ()

    def given_up(self) -> Kept | None:
        """Give what is left where the rounds that followed are given up: which updates did not count."""
        standing = self.memory.standing.given_up()
        return Kept(Memory(standing)) if standing.matters else None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one replica has said; `vectors`: the digest of what lies beside, where it was signed."""

    outcome: Outcome | None
    beside: Sequence[Handle]
    error: HierflError | None
    vectors: bytes | None
    started_s: float
    ended_s: float


@dataclass
class Life:
    """One hub: what it was told since it was idle, from the call `replicas.first` on.

    `keys`: each replica's public key and the life that it is of; `answers`: by index and replica, until one counts.
    """

    spec: HubSpec
    running: bool = False
    model: Handle = None
    order: Order | None = None
    kept: Kept | None = None
    told: list[Told] = field(default_factory=list)
    keys: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    answers: dict[int, dict[int, Answer]] = field(default_factory=dict)
    num_stops: int = 0

    def __post_init__(self) -> None:
        said = self.spec.redundancy
        self.replicas = Replicas(said.replicas, "vote" if said.mode == "vote" else "crash", said.lease_s)

    @property
    def votes(self) -> bool:
        """Whether replicas sign."""
        return self.replicas.mode == "vote"

    def post(self, replica: int) -> Post:
        """Say which replica it is, in its present life."""
        return Post(replica, self.replicas.lives[replica], self.replicas.first)

    def answered(self, replica: int, life: int, index: int, done: Done, now: float) -> Answered:
        """Keep an answer until it is known whether it counts."""
        said, signed, agreed = done.value, True, FAILED
        vectors = None
        if done.error is None and self.votes:
            assert isinstance(said, Signed)
            lived, key = self.keys.get(replica, (life, b""))
            signed = lived == life and is_signed(self.spec.path, Post(replica, life), index, said, key)
            agreed, vectors, said = said.digest, said.vectors, said.outcome
        elif done.error is None:
            agreed = digest(said) if self.replicas.num_replicas > 1 else b""
        answer = Answer(said, done.beside, done.error, vectors, done.started_s, done.ended_s)
        if index >= self.replicas.carried_out:
            self.answers.setdefault(index, {})[replica] = answer
        return Answered(replica, life, index, agreed, now, signed)

    def take(self, index: int, replicas: Sequence[int], get: Callable[[Handle], Any]) -> tuple[Answer, list[Forged]]:
        """Take the answer that counts, from the first of these replicas whose vectors are what it has signed.

        `get`: fetches a vector. The others' are let go. Beside it: whose were not.
        """
        said, forged = self.answers.pop(index), list[Forged]()
        for replica in replicas:
            answer = said[replica]
            if answer.vectors is None or digest(*map(get, answer.beside)) == answer.vectors:
                return answer, forged
            forged.append(Forged(replica, self.replicas.lives[replica], index))
        raise HierflError(f"{self.spec.path}: no vector is what {len(forged)} replicas have signed alike")

    def idle(self, index: int, memory: Memory | None) -> Rebased:
        """After this call no round is open: recalling the memory replaces all calls up to it."""
        first = self.replicas.first
        _, arguments = self.told[index - first]
        payloads = (
            dict(zip(map(_key, self.kept.memory.standing.held), self.kept.payloads, strict=True)) if self.kept else {}
        )
        if len(arguments) > 1 and isinstance(arguments[0], Update):  # without a centre a hub is told headers alone
            payloads.setdefault(_key(arguments[0]), arguments[1])
        del self.told[: index + 1 - first]
        self.kept = None
        if memory is None:
            return Rebased(index + 1, recalls=False)
        self.kept = Kept(memory, tuple(payloads[_key(update)] for update in memory.standing.held))
        self.told.insert(0, ("recall", (self.kept.memory, *self.kept.payloads)))
        return Rebased(index, recalls=True)

    def stop(self) -> None:
        """All that was told is void; what is left of what the hub remembered is to be recalled."""
        self.running, self.model, self.kept = False, None, self.kept.given_up() if self.kept is not None else None
        self.told.clear()
        self.answers.clear()
        self.num_stops += 1
        self.replicas.handle(Stopped())


def _key(update: Update) -> tuple[int, str]:
    """Tell a held update from others."""
    return update.round_number, update.shares[0].member if update.shares else ""
