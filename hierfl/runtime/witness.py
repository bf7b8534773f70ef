"""A replica that signs what it answers, and those who check it.

A replica makes its Ed25519 key (RFC 8032) in its process when it begins; the private half never leaves it. What is
signed says whose answer it is and to what: the hub, the replica and its life, the index of what it was told, who counts
in the rounds that it has closed, and digests of its header and of the vectors beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hierfl.runtime.digests import digest
from hierfl.runtime.jobs import HubSpec, Outcome, Post

__all__ = ["INTRODUCE", "Signed", "Witness", "is_signed", "witnessed"]

INTRODUCE = "introduce"
"""What a replica is asked first: its public key."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A hub's answer and the digest of the vectors beside it, signed."""

    outcome: Outcome
    vectors: bytes
    signature: bytes

    @property
    def digest(self) -> bytes:
        """What replicas that agree have in common."""
        return digest(self.outcome, self.vectors)


class Witness:
    """Serves a hub as `serving` does, and signs each answer."""

    def __init__(self, spec: HubSpec, post: Post, serving: Any) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._path = spec.path
        self._post = post
        self._next = post.first
        self._serving = serving
        self._key = Ed25519PrivateKey.generate()

    def introduce(self) -> bytes:
        """Give the public key, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def __getattr__(self, method: str) -> Callable[..., Any]:
        """Give a method of the aggregator, whose answer is signed."""
        return _Method(self, method)

    def answer(self, method: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Let the aggregator answer, and sign it."""
        index, self._next = self._next, self._next + 1
        outcome, *vectors = getattr(self._serving, method)(*arguments)
        beside = digest(*vectors)
        signature = self._key.sign(_statement(self._path, self._post, index, outcome, beside))
        return Signed(outcome, beside, signature), *vectors


class _Method:
    """A method of an aggregator that is witnessed, named as the aggregator's own."""

    def __init__(self, witness: Witness, name: str) -> None:
        self._witness = witness
        self.__name__ = name

    def __call__(self, *arguments: Any) -> tuple[Any, ...]:
        return self._witness.answer(self.__name__, arguments)


def witnessed(spec: HubSpec, post: Post, serving: Any) -> Any:
    """Let what serves a hub sign its answers, where its replicas vote."""
    return Witness(spec, post, serving) if spec.redundancy.mode == "vote" else serving


def is_signed(path: str, post: Post, index: int, said: Signed, key: bytes) -> bool:
    """Say whether an answer is signed by the key that a replica has introduced itself with."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    statement = _statement(path, post, index, said.outcome, said.vectors)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(said.signature, statement)
    except (InvalidSignature, ValueError):
        return False
    return True


def _statement(path: str, post: Post, index: int, outcome: Outcome, vectors: bytes) -> bytes:
    """Give what is signed."""
    return digest(path, post.replica, post.life, index, outcome.closed, digest(outcome), vectors)
