"""Masks that cancel in a sum (Bonawitz et al. 2017, *Practical Secure Aggregation for Privacy-Preserving Machine
Learning*, section 4, for rounds that wait for all their members).

Sums are integers modulo 2^32 or 2^64 (see `hierfl.learning.ring`), and so are masks. Each two members u < v of a hub
agree on a key that nobody else has, and expand it to a vector m_uv of the sum's own shape, uniform in the ring. With
x_u the update of member u, the hub is sent

    y_u = x_u + sum over v > u of m_uv - sum over v < u of m_vu      (mod 2^k)

and the sum of all y is the sum of all x, bit for bit, in any order: each mask is added once and taken away once.
Whoever lacks one y has numbers that are uniform, whatever the x are, as long as the keys of two members are not known
to it.

A key is X25519 (RFC 7748) of two secrets that were drawn for this one attempt and are used for nothing else, through
HKDF-SHA256 (RFC 5869) with the `Terms` of the attempt as its salt; the mask is what AES-256 in counter mode makes of
zeros under it, read as little-endian integers: the floats' first, then those of the integer buffers. Members that do
not agree on the terms (the round, the model that they started from, who takes part) have masks that do not cancel: such
a hub learns nothing, not even a sum.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.learning import blocks as by

__all__ = ["ATTEMPT_BYTES", "SECRET_BYTES", "Terms", "masked", "new_secret", "pair_key", "public_of"]

ATTEMPT_BYTES = 16
SECRET_BYTES = 32
"""Of a secret, and of what is public of it."""

_TERMS, _SAID, _PAIR = b"hierfl masks 1: terms", b"hierfl masks 1: a member's key", b"hierfl masks 1: a pair"


@dataclass(frozen=True, slots=True)
class Terms:
    """What all members of one attempt at a masked sum must agree on; `members` are paths, in the hub's order.

    `config`: the configuration's digest; `hub`, `round_number`: whose sum it is; `opened_by`, `opened_round`,
    `total_weight`: its grid; `model`: the digest of what members start from; `shape`: the numbers of floats and
    integers of an update, and the floats' dtype; `attempt`: drawn anew by the hub for each attempt.
    """

    federation: str
    config: str
    run: str
    hub: str
    round_number: int
    opened_by: str
    opened_round: int
    total_weight: int
    model: bytes
    shape: tuple[int, int, str]
    attempt: bytes
    members: tuple[str, ...]

    @property
    def digest(self) -> bytes:
        """Give the SHA-256 of all of it."""
        numbers = (self.round_number, self.opened_round, self.total_weight, *self.shape[:2], len(self.members))
        words = (self.federation, self.config, self.run, self.hub, self.opened_by, self.shape[2], *self.members)
        return _hashed(_TERMS, self.model, self.attempt, *map(_number, numbers), *(word.encode() for word in words))

    def said(self, member: str, weight: int, public: bytes) -> bytes:
        """Give what a member signs: that this is its key for this attempt, and that its update has this weight."""
        return _hashed(_SAID, self.digest, member.encode(), _number(weight), public)


def new_secret() -> bytes:
    """Draw a secret for one attempt."""
    return secrets.token_bytes(SECRET_BYTES)


def public_of(secret: bytes) -> bytes:
    """Give what others may know of a secret."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def pair_key(terms: Terms, secret: bytes, own: str, other: str, public: bytes) -> bytes:
    """Give the key of two members, the same at both. `public`: the other's. Errors: ValueError for one that is weak."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    shared = X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))
    both = sorted([(terms.members.index(own), public_of(secret)), (terms.members.index(other), public)])
    info = _hashed(_PAIR, *(part for index, key in both for part in (terms.members[index].encode(), key)))
    return HKDF(SHA256(), 32, terms.digest, info).derive(shared)


def masked(
    floats: NDArray[Any], ints: NDArray[np.int64], own: str, members: Sequence[str], keys: Mapping[str, bytes]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Mask an update: `floats` (P,) int32 or int64, `ints` (Q,); `keys` by each other member. What is given stays."""
    assert floats.dtype.kind == "i" and set(keys) == set(members) - {own}
    place = members.index(own)
    found = [np.array(floats), np.array(ints)]
    streams = [
        (_stream(keys[one]), np.add if n > place else np.subtract) for n, one in enumerate(members) if n != place
    ]
    for vector in found:
        ring = vector.view(f"u{vector.itemsize}")
        for cut in by.blocks(vector.size):
            block = ring[cut]
            for stream, add in streams:
                add(block, np.frombuffer(stream(block.nbytes), block.dtype), out=block)
    return found[0], found[1]


def _stream(key: bytes) -> Callable[[int], bytes]:
    """Give what yields the next so many bytes of a key's stream."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.ciphers.modes import CTR

    encryptor = Cipher(AES256(key), CTR(bytes(16))).encryptor()
    zeros = memoryview(bytes(by.BLOCK * 8))
    return lambda size: encryptor.update(zeros[:size])


def _hashed(*parts: bytes) -> bytes:
    """Give the SHA-256 of parts, each with its length before it."""
    found = hashlib.sha256()
    for part in parts:
        found.update(_number(len(part)) + part)
    return found.digest()


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little")
