"""What a hub brings here of its members' vectors leaves no file behind, whether it has come or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from link_members import layout, payload_of, update

from hierfl.errors import PeerUnreached, RuntimeUnavailable
from hierfl.link.chunks import decode
from hierfl.link.payload import Incoming, Outgoing, Shape
from hierfl.link.remote import Remote
from hierfl.link.taking import Taker

LAYOUT = layout()


class Neighbours:
    """Gives so many chunks, and then no more."""

    def __init__(self, payload: Outgoing, num_chunks: int) -> None:
        self.payload, self.num_chunks = payload, num_chunks

    def take(self, holder: str, shape: Shape, digest: bytes, path: Path, limit: int | None = None) -> None:
        incoming = Incoming(path, shape, digest, limit)
        for message in list(self.payload.chunks(0, 0))[: self.num_chunks]:
            incoming.take(decode(message))
        incoming.close()
        if not incoming.is_whole:
            raise PeerUnreached(holder, "it is away")


def test_what_has_come_is_read_and_what_has_come_in_part_is_dropped(tmp_path: Path) -> None:
    payload = payload_of(LAYOUT)
    remote = Remote("ring/a", "sum-0", payload.shape, payload.digest, weight=3)
    for num_chunks in (0, 1):
        few: Any = Neighbours(payload, num_chunks)
        with pytest.raises(RuntimeUnavailable, match="it is away"):
            Taker(tmp_path, few).value(remote)
    all_of_it: Any = Neighbours(payload, 99)
    assert np.array_equal(Taker(tmp_path, all_of_it).value(remote).floats, update(LAYOUT)[0])
    assert list(tmp_path.iterdir()) == []
