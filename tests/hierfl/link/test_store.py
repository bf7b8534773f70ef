"""What a member keeps on disk: so much and no more, and nothing that is spoilt."""

from __future__ import annotations

import os
from pathlib import Path

from link_members import layout, payload_of, update

from hierfl.link._wire import link_pb2 as wire
from hierfl.link.codec import payload_out
from hierfl.link.store import ANSWERS_KEPT, MODELS_KEPT, Store

LAYOUT = layout(1000)


def keep(store: Store, number: int) -> bytes:
    """Keep the update of a round, as it was put, and the answer that tells of it; give its digest."""
    payload = store.put(*update(LAYOUT, seed=number))
    said = wire.Trained(weight=1, update=payload_out(payload.shape, payload.digest))
    store.keep(wire.Answer(id=number, trained=said))
    file = store.folder / "answers" / f"{number:016x}.answer"
    os.utime(file, ns=(number, number))  # clocks of disks are coarse
    return payload.digest


def test_the_newest_answers_and_their_updates_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digests = {number: keep(store, number) for number in range(1, ANSWERS_KEPT + 4)}
    store = Store(tmp_path)  # of another process
    for number, digest in digests.items():
        found = store.answer(number)
        assert (found is not None) == (store.outgoing(digest) is not None) == (number > 3)
    assert {len(list((tmp_path / name).iterdir())) for name in ("answers", "updates")} == {ANSWERS_KEPT}


def test_an_update_that_is_spoilt_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest, gone = keep(store, 1), keep(store, 2)
    whole = store.update(digest).read_bytes()
    store.update(digest).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    store.update(gone).unlink()
    for number, one in ((1, digest), (2, gone)):
        assert store.answer(number) is None and store.outgoing(one) is None
    assert keep(store, 1) == digest == payload_of(LAYOUT, seed=1).digest and store.answer(1) is not None


def test_the_newest_models_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(5):
        path = store.model(bytes([number]) * 32)
        path.write_bytes(b"model")
        os.utime(path, ns=(number, number))
    assert store.model(bytes([4]) * 32).exists()
    names = sorted(path.name[:2] for path in (tmp_path / "models").iterdir())
    assert names == [f"{number:02x}" for number in range(5 - MODELS_KEPT, 5)]
