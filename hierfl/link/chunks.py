"""Chunks of a payload as bytes: what `Chunk` of link.proto is in protobuf's encoding, written and read by hand.

protobuf would copy each MiB twice more. Only the one encoding that `encode` gives is read: all fields, in order.

A chunk is hashed once, by BLAKE3 (O'Connor et al. 2020), and its hash serves twice: the digest that names a payload is
the BLAKE3 of all chunks' hashes, and a chunk's check ties its data to their place in the payload of a digest. It finds
what was damaged or came to another place; against whoever would forge a chunk on its way stands TLS.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from hierfl.errors import LinkError

__all__ = ["CHUNK_BYTES", "MAX_MESSAGE_BYTES", "Chunk", "check_of", "decode", "digest_of", "encode", "hash_of"]

CHUNK_BYTES = 1 << 20

_HEAD = struct.Struct("<BQBQBB32sB")
_TAGS = (0x09, 0x11, 0x1A, 32, 0x22)
_LENGTH_BYTES = 3

MAX_MESSAGE_BYTES = _HEAD.size + _LENGTH_BYTES + CHUNK_BYTES
"""Of an encoded chunk."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a payload: `data` begins at byte `offset`; `check` is of `check_of`."""

    transfer: int
    offset: int
    check: bytes
    data: memoryview


def hash_of(*data: bytes | memoryview) -> bytes:
    """Give the hash, 32 bytes, of a chunk's data, which may lie in several places."""
    from blake3 import blake3

    found = blake3(data[0])
    for part in data[1:]:
        found.update(part)
    return found.digest()


def digest_of(hashes: Iterable[bytes]) -> bytes:
    """Give the digest, 32 bytes, of the payload whose chunks have these hashes, in order."""
    return hash_of(b"".join(hashes))


def check_of(digest: bytes, offset: int, hashed: bytes) -> bytes:
    """Give the check of the chunk with this hash at an offset of the payload of this digest."""
    return hash_of(digest + offset.to_bytes(8, "little") + hashed)


def encode(transfer: int, offset: int, check: bytes, *data: memoryview) -> bytes:
    """Write a chunk, whose data may lie in several places."""
    size = sum(part.nbytes for part in data)
    assert 0 < size <= CHUNK_BYTES and len(check) == 32
    head = _HEAD.pack(_TAGS[0], transfer, _TAGS[1], offset, _TAGS[2], _TAGS[3], check, _TAGS[4])
    return b"".join((head, _varint(size), *data))


def decode(message: bytes) -> Chunk:
    """Read a chunk without copying its data, whose checksum is the caller's to compare.

    Errors: LinkError for anything but what `encode` writes.
    """
    if len(message) <= _HEAD.size or len(message) > MAX_MESSAGE_BYTES:
        raise LinkError(f"a chunk of {len(message)} bytes; at most {MAX_MESSAGE_BYTES}")
    first, transfer, second, offset, third, length, check, fourth = _HEAD.unpack_from(message)
    if (first, second, third, length, fourth) != _TAGS:
        raise LinkError("a chunk whose fields are not transfer, offset, check and data, in this order")
    for size_bytes in range(1, _LENGTH_BYTES + 1):
        start = _HEAD.size + size_bytes
        size = len(message) - start
        if 0 < size <= CHUNK_BYTES and message[_HEAD.size : start] == _varint(size):
            return Chunk(transfer, offset, check, memoryview(message)[start:])
    raise LinkError("a chunk whose data are not as long as it says")


def _varint(number: int) -> bytes:
    """Write a number as protobuf does: seven bits a byte, the lowest first."""
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
