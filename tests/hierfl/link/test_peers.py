"""Members that take vectors from each other over mutual TLS: what they may, wherever it stops, and nothing else."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from link_members import Pki, layout, update
from link_processes import Wire, free_port

from hierfl.errors import LinkError
from hierfl.link.denied import LOOK_S
from hierfl.link.objects import Objects
from hierfl.link.payload import Outgoing, Shape, read
from hierfl.link.peers import Neighbours, PeerDoor

LAYOUT = layout(6_000_000)
SMALL = layout(1000)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@contextlib.contextmanager
def door(pki: Pki, objects: Objects, node: str = "ring/a", port: int = 0) -> Iterator[PeerDoor]:
    opened = PeerDoor(pki.kit(node), f"127.0.0.1:{port}", ["ring/b"], objects.find)
    try:
        yield opened
    finally:
        opened.close()


def neighbours(
    pki: Pki, port: int, heard: list[str], deadline_s: float = 20.0, caller: str = "ring/b", holder: str = "ring/a"
) -> Neighbours:
    address = {holder: f"localhost:{port}"}
    return Neighbours(pki.kit(caller), address, deadline_s, lambda level, said: heard.append(said))


def take(way: Neighbours, payload: Outgoing, folder: Path, holder: str = "ring/a", limit: int | None = None) -> Path:
    path = folder / "taken"
    way.take(holder, payload.shape, payload.digest, path, limit)
    return path


def received(partial: Path, num_bytes: int) -> int:
    """Read how much of a payload of so many bytes has come, which stands behind them."""
    try:
        with partial.open("rb") as file:
            file.seek(num_bytes)
            return int.from_bytes(file.read(8), "little")
    except FileNotFoundError:
        return 0


def test_a_vector_goes_on_from_where_it_was_cut(pki: Pki, tmp_path: Path) -> None:
    """24 MB, cut when a part has come: what was there is not sent again, and the whole is what was put there."""
    objects, heard = Objects(tmp_path / "place"), list[str]()
    payload = objects.put("sum-0", *update(LAYOUT))
    with door(pki, objects) as opened, Wire(opened.port).open() as wire:
        way = neighbours(pki, wire.port, heard)
        partial, cuts = tmp_path / "taken.partial", []

        def cut() -> None:
            while not (tmp_path / "taken").exists() and not cuts:
                come = received(partial, payload.shape.num_bytes)
                if 2 << 20 < come < 20 << 20:
                    wire.cut()
                    wire.mend()
                    cuts.append(come)

        for _ in range(10):  # it may be whole before the other thread has had its turn
            (tmp_path / "taken").unlink(missing_ok=True)
            cutter = threading.Thread(target=cut)
            cutter.start()
            taken = take(way, payload, tmp_path)
            cutter.join()
            if cuts:
                break
        way.close()
    assert cuts
    floats, ints = read(taken, payload.shape)
    assert np.array_equal(floats, update(LAYOUT)[0]) and np.array_equal(ints, update(LAYOUT)[1])


def test_who_is_away_is_tried_again_until_it_is_back(pki: Pki, tmp_path: Path) -> None:
    objects, heard, port = Objects(tmp_path / "place"), list[str](), free_port()
    payload = objects.put("sum-0", *update(SMALL))
    way = neighbours(pki, port, heard)
    coming = threading.Thread(target=take, args=(way, payload, tmp_path))
    coming.start()
    while not heard:
        coming.join(0.01)
    with door(pki, objects, port=port):
        coming.join(30.0)
    assert (tmp_path / "taken").exists()
    assert f"ring/a at localhost:{port} (link.peers) is not reached, and is tried again" in heard[0]


def test_a_connection_that_another_thread_has_given_up_is_opened_anew(pki: Pki, tmp_path: Path) -> None:
    """Several vectors come of one holder at a time, and a cut is told to each of them."""
    objects, heard = Objects(tmp_path / "place"), list[str]()
    payload = objects.put("sum-0", *update(SMALL))
    with door(pki, objects) as opened:
        way = neighbours(pki, opened.port, heard)
        first = way._channel("ring/a")
        first.close()
        assert take(way, payload, tmp_path).exists() and "hannel closed" in heard[0]
        second = way._channel("ring/a")
        way._forget("ring/a", first)  # told late: the new one goes on
        assert way._channel("ring/a") is second is not first
        way.close()


def test_who_is_never_reached_is_named_with_its_address(pki: Pki, tmp_path: Path) -> None:
    heard, port = list[str](), free_port()
    way = neighbours(pki, port, heard, deadline_s=0.2)
    with pytest.raises(LinkError, match=rf"ring/b has not reached ring/a at localhost:{port} \(link.peers\) for 0.2 s"):
        take(way, Outgoing(*update(SMALL)), tmp_path)


def test_only_who_may_takes_only_what_is_there(pki: Pki, tmp_path: Path) -> None:
    objects, heard = Objects(tmp_path / "place"), list[str]()
    payload = objects.put("sum-0", *update(SMALL))
    with door(pki, objects) as opened:
        with pytest.raises(LinkError, match=r"ring/a at .* refuses ring/b: it is not here, or not any more"):
            take(neighbours(pki, opened.port, heard), Outgoing(*update(SMALL, seed=2)), tmp_path)
        with pytest.raises(LinkError, match=r"refuses ring/c: .*ring/c may not call Hand about 'ring/c' here"):
            take(neighbours(pki, opened.port, heard, caller="ring/c"), payload, tmp_path)
        with pytest.raises(LinkError, match="none of those that ring/b takes vectors from"):
            take(neighbours(pki, opened.port, heard), payload, tmp_path, holder="ring/c")
        way = neighbours(pki, opened.port, heard)
        assert take(way, payload, tmp_path).exists()
        pki.authority.revoke("ring/b", datetime.now(UTC), "lost")
        (pki.folder / "ring__a" / "denied.json").write_bytes((pki.authority.folder / "denied.json").read_bytes())
        time.sleep(LOOK_S)
        (tmp_path / "taken").unlink()
        with pytest.raises(LinkError, match="refuses ring/b: the certificate is denied, or has run out"):
            take(way, payload, tmp_path)


def test_a_peer_with_a_wrong_certificate_is_not_believed(pki: Pki, tmp_path: Path) -> None:
    """Another member at that address, or one of another authority: neither handshake succeeds."""
    objects, heard = Objects(tmp_path / "place"), list[str]()
    payload = objects.put("sum-0", *update(SMALL))
    said = "its certificate is another node's", "its certificate is not believed: another authority signed it"
    for (node, authority), why in zip((("ring/c", pki), ("ring/a", Pki(tmp_path / "stranger"))), said, strict=True):
        kit = authority.kit(node, name="imposter")
        kit.put(authority=pki.authority.pem)
        opened = PeerDoor(kit, "127.0.0.1:0", ["ring/b"], objects.find)
        with pytest.raises(LinkError, match=rf"ring/b has not reached ring/a at .*{why}"):
            take(neighbours(pki, opened.port, heard, deadline_s=1.0), payload, tmp_path)
        opened.close()


def test_what_no_sum_may_hold_is_not_taken(pki: Pki, tmp_path: Path) -> None:
    objects, heard = Objects(tmp_path / "place"), list[str]()
    payload = objects.put("sum-0", *update(SMALL, largest=2**20))
    with door(pki, objects) as opened:
        with pytest.raises(LinkError, match=r"what comes is damaged: element .* its round allows 1000 at most"):
            take(neighbours(pki, opened.port, heard), payload, tmp_path, limit=1000)
        said = Shape(10, 0, "int32")
        with pytest.raises(LinkError, match=r"damaged|bytes at 0 come next"):
            neighbours(pki, opened.port, heard).take("ring/a", said, payload.digest, tmp_path / "other", None)


def test_objects_stay_until_they_are_dropped_and_commits_stay_longer(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    first, second = (objects.put(f"{name}-0", *update(SMALL, seed)) for name, seed in (("1a", 1), ("2b", 2)))
    again = Objects(tmp_path)  # a process that was killed
    assert again.find(first.digest) is not None and again.file(second.digest) is not None
    again.commit("run-1", 3, [update(SMALL, 1)], keep=1)
    again.drop(["1a-0", "2b-0", "../x", "*"])
    assert again.find(second.digest) is None and again.file(second.digest) is None
    assert again.file(first.digest) is not None, "a commit has it"
    again.commit("run-1", 4, [update(SMALL, 2)], keep=1)
    assert again.find(first.digest) is None and again.find(second.digest) is not None
    assert Objects(tmp_path).find(first.digest) is None and Objects(tmp_path).find(second.digest) is not None
    spoilt = objects.put("3c-0", *update(SMALL, 3))
    next(tmp_path.glob("*.3c-0.object")).write_bytes(b"x" * 4000)
    assert Objects(tmp_path).find(spoilt.digest) is None


def test_a_commit_is_on_disk_before_the_hub_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.add(os.fstat(handle).st_ino))
    place = Objects(tmp_path).commit("run-1", 3, [update(SMALL, 1), update(SMALL, 2)], keep=1)
    there = [place.parents[1], place.parent, place, *place.iterdir()]
    assert len(there) == 5
    assert [path for path in there if path.stat().st_ino not in flushed] == []
