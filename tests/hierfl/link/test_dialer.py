"""A member and its hub over real connections that are cut: what was moved is not moved again, nothing is done twice."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from link_dialers import LAYOUT, UPDATE, Member, part_of
from link_members import Pki, hub_on_loopback, job, layout, model, payload_of
from link_processes import Wire

from hierfl.errors import LinkError
from hierfl.learning.state import ModelState
from hierfl.link._wire import link_pb2 as wire_pb
from hierfl.link.desk import Abandoned
from hierfl.link.dialer import Dialer
from hierfl.link.lane import Lane
from hierfl.link.limits import Limits
from hierfl.link.payload import Shape
from hierfl.link.service import VERSIONS
from hierfl.link.times import Times
from hierfl.runtime.driver import Done


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the numbers of the attempts after which a member has waited; it waits next to nothing."""
    found: list[int] = []

    def back_off_s(times: Times, attempt: int, chance: Any) -> float:
        found.append(attempt)
        return 0.01

    monkeypatch.setattr(Times, "back_off_s", back_off_s)
    return found


@contextlib.contextmanager
def joined(pki: Pki, folder: Path) -> Iterator[tuple[Lane, queue.SimpleQueue[Done], Wire, Member]]:
    """A hub, a wire that can be cut, and a member that is prepared."""
    with hub_on_loopback(pki) as (service, lanes, done, _), Wire(service.port).open() as line:
        member = Member(pki, line.port, folder)
        try:
            lane = lanes["world/us"]
            lane.call(0, "prepare", (None, None))
            lane.call(1, "prepare", (LAYOUT, None))
            assert [done.get(timeout=300).ticket for _ in range(2)] == [0, 1]
            yield lane, done, line, member
        finally:
            member.close()


def test_a_round_over_a_real_connection(pki: Pki, tmp_path: Path) -> None:
    with joined(pki, tmp_path) as (lane, done, _, member):
        start = model(LAYOUT)
        lane.call(2, "train", (job(), start))
        lane.call(3, "collect", ("world", 0))
        report, collected = done.get(timeout=300), done.get(timeout=300)
        assert report.value[0].error is None
        assert np.array_equal(part_of(collected).floats, UPDATE[0])
        assert member.branch.starts == [float(start.floats[7])]


def test_cuts_on_the_way_down_and_up_cost_no_training(pki: Pki, tmp_path: Path) -> None:
    with joined(pki, tmp_path) as (lane, done, line, member):
        lane.call(2, "train", (job(), model(LAYOUT)))
        time.sleep(0.02)
        line.cut()
        line.mend()
        assert done.get(timeout=300).value[0].error is None
        lane.call(3, "collect", ("world", 0))
        for _ in range(2):
            time.sleep(0.02)
            line.cut()
            line.mend()
        assert np.array_equal(part_of(done.get(timeout=300)).floats, UPDATE[0])
        assert member.branch.trained == 1 and member.branch.prepared == 1


def test_a_process_that_was_killed_sends_its_update_and_trains_nothing(pki: Pki, tmp_path: Path) -> None:
    with joined(pki, tmp_path) as (lane, done, line, member):
        lane.call(2, "train", (job(), model(LAYOUT)))
        assert done.get(timeout=300).ticket == 2
        line.cut()  # it hears nothing any more
        member.close()
        line.mend()
        again = Member(pki, line.port, tmp_path, instance="b")
        try:
            lane.call(3, "collect", ("world", 0))
            assert np.array_equal(part_of(done.get(timeout=300)).floats, UPDATE[0])
            assert again.branch.trained == 0
        finally:
            again.close()


def test_a_hub_whose_disk_is_full_says_so_and_is_dialled_ever_more_slowly(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: list[int]
) -> None:
    """What cannot be written there comes once it can; until then nobody dials several times a second."""
    left = [4]
    receive = Lane.receive

    def full(lane: Lane, chunk: Any) -> tuple[bytes, bool]:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return receive(lane, chunk)

    monkeypatch.setattr(Lane, "receive", full)
    with hub_on_loopback(pki) as (service, lanes, done, heard):
        member = Member(pki, service.port, tmp_path)
        try:
            lane = lanes["world/us"]
            for ticket, method, arguments in (
                (0, "prepare", (None, None)),
                (1, "prepare", (LAYOUT, None)),
                (2, "train", (job(), model(LAYOUT))),
                (3, "collect", ("world", 0)),
            ):
                lane.call(ticket, method, arguments)
            found = [done.get(timeout=300) for _ in range(4)]
            assert np.array_equal(part_of(found[-1]).floats, UPDATE[0]) and member.branch.trained == 1
            assert turns == [1, 2, 3, 4]
            said = "world/us: its update cannot be written here, and is asked for again: No space left on device"
            assert heard.count(said) == 4
        finally:
            member.close()


def test_a_hub_whose_disk_takes_no_new_file_says_so_and_is_dialled_ever_more_slowly(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: list[int]
) -> None:
    """There is room for bytes, and none for another name: the update's file cannot even be begun."""
    opened = os.open

    def full(path: Any, flags: int, *mode: Any) -> int:
        if str(path).endswith(".update.partial") and "world__us" in str(path) and len(turns) < 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", full)
    with hub_on_loopback(pki) as (service, lanes, done, heard):
        member = Member(pki, service.port, tmp_path)
        try:
            lane = lanes["world/us"]
            lane.call(0, "prepare", (None, None))
            lane.call(1, "prepare", (LAYOUT, None))
            lane.call(2, "train", (job(), model(LAYOUT)))
            found = [done.get(timeout=300) for _ in range(3)]
            lane.call(3, "collect", ("world", 0))
            found.append(done.get(timeout=300))
            assert np.array_equal(part_of(found[-1]).floats, UPDATE[0]) and member.branch.trained == 1
            assert turns == [0, 1, 2, 3, 4]
            said = "world/us: its update cannot be written here, and is asked for again: No space left on device"
            assert heard.count(said) == 4 and not any("failed" in line for line in heard)
        finally:
            member.close()


@pytest.mark.parametrize("limited", ["Fetch", "Deliver"])
def test_a_call_beyond_the_limits_is_made_again_ever_more_slowly(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: list[int], limited: str
) -> None:
    left = [4]
    enter = Limits.enter

    def full(limits: Limits, node: str, call: str) -> str | None:
        if call == limited and left[0]:
            left[0] -= 1
            return "too many"
        return enter(limits, node, call)

    monkeypatch.setattr(Limits, "enter", full)
    with joined(pki, tmp_path) as (lane, done, _, member):
        lane.call(2, "train", (job(), model(LAYOUT)))
        lane.call(3, "collect", ("world", 0))
        assert done.get(timeout=300).value[0].error is None
        assert np.array_equal(part_of(done.get(timeout=300)).floats, UPDATE[0])
        assert turns == [1, 2, 3, 4] and member.branch.trained == 1


def test_a_hub_that_asks_again_is_answered_from_what_is_kept(pki: Pki, tmp_path: Path) -> None:
    with joined(pki, tmp_path) as (lane, done, _, member):
        for ticket in (2, 4):
            lane.call(ticket, "train", (job(), model(LAYOUT)))
            lane.call(ticket + 1, "collect", ("world", 0))
            assert done.get(timeout=300).ticket == ticket
            assert np.array_equal(part_of(done.get(timeout=300)).floats, UPDATE[0])
        assert member.branch.trained == 1


def test_a_hub_that_falls_silent_is_dialled_anew(pki: Pki, tmp_path: Path) -> None:
    """A wire that swallows everything without closing: each side takes the other for gone, and they meet again."""
    with hub_on_loopback(pki, deadline_s=4.0) as (service, lanes, done, _), Wire(service.port).open() as line:
        member = Member(pki, line.port, tmp_path, deadline_s=4.0)
        try:
            lanes["world/us"].call(0, "prepare", (None, None))
            assert done.get(timeout=300).ticket == 0
            line.swallow()
            first = lanes["world/us"].session
            while lanes["world/us"].session is first:
                time.sleep(0.05)
            line.cut()
            line.mend()
            lanes["world/us"].call(1, "prepare", (LAYOUT, None))
            assert done.get(timeout=300).ticket == 1
        finally:
            member.close()


def test_what_a_hub_has_given_up_is_dropped_and_done_when_it_is_asked_anew(pki: Pki, tmp_path: Path) -> None:
    with joined(pki, tmp_path) as (lane, done, line, member):
        line.cut()
        lane.call(2, "train", (job(), model(LAYOUT)))
        line.mend()
        lane.reset()  # before the model has come
        lane.call(3, "train", (job(1), model(LAYOUT, seed=5)))
        assert done.get(timeout=300).ticket == 3
        lane.call(4, "train", (job(), model(LAYOUT)))
        assert done.get(timeout=300).ticket == 4
        assert member.branch.trained in (2, 3)  # three where the first model came before it was given up


def test_a_second_connection_cannot_write_under_the_first(pki: Pki, tmp_path: Path) -> None:
    """Chunks of one transfer over two calls at once: each chunk counts once, and the file is only ever its own."""
    from hierfl.link.chunks import decode
    from hierfl.link.payload import Incoming, Outgoing

    outgoing = Outgoing(*UPDATE)
    incoming = Incoming(tmp_path / "update", outgoing.shape, outgoing.digest)
    refused: list[str] = []

    def send() -> None:
        for message in outgoing.chunks(1, 0):
            try:
                incoming.take(decode(message))
            except LinkError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert incoming.is_whole
    assert len(refused) == 3 * -(-outgoing.shape.num_bytes // 2**20)


def test_what_crosses_may_be_compressed_where_both_sides_say_so(pki: Pki, tmp_path: Path) -> None:
    with hub_on_loopback(pki, compression="gzip") as (service, lanes, done, _):
        member = Member(pki, service.port, tmp_path, packed="gzip")
        lane = lanes["world/us"]
        lane.call(0, "prepare", (None, None))
        lane.call(1, "prepare", (LAYOUT, None))
        lane.call(2, "train", (job(), ModelState(np.zeros(LAYOUT.num_floats, np.float32), np.zeros(1, np.int64))))
        lane.call(3, "collect", ("world", 0))
        found = [done.get(timeout=300) for _ in range(4)]
        assert np.array_equal(part_of(found[-1]).floats, UPDATE[0])
        member.close()
    with hub_on_loopback(pki) as (service, _, _, _):  # a hub that does not want it unpacks nothing
        member = Member(pki, service.port, tmp_path, packed="gzip", instance="d")
        while not any("is not reached" in said for said in member.heard):
            time.sleep(0.02)
        assert not member.dialer.run
        member.close()


def test_a_member_hears_that_the_federation_has_ended(pki: Pki, tmp_path: Path) -> None:
    with joined(pki, tmp_path) as (_, _, _, member):
        pass
    with hub_on_loopback(pki) as (service, lanes, done, _):
        member = Member(pki, service.port, tmp_path / "other", instance="c")
        lanes["world/us"].call(0, "prepare", (None, None))
        done.get(timeout=300)
    member.thread.join(120.0)
    assert member.last == "the test is over"
    member.close()


def test_a_hub_that_refuses_is_told_at_once(pki: Pki, tmp_path: Path) -> None:
    with hub_on_loopback(pki) as (service, _, _, _):
        hello = wire_pb.Hello(
            versions=VERSIONS, federation="heart", node="world/us", config_digest="x", task_digest="task"
        )
        dialer = Dialer(
            pki.kit("world/us"), "world", [f"localhost:{service.port}"], hello, 5.0, "none", lambda *said: None
        )
        with pytest.raises(LinkError, match="both need the same YAML and overrides"):
            dialer.serve()


@pytest.mark.parametrize("deadline_s", [5.0, pytest.param(600.0, marks=pytest.mark.slow)])
def test_a_cut_of_six_tenths_of_the_deadline_costs_no_work(pki: Pki, tmp_path: Path, deadline_s: float) -> None:
    """Of 600 s six minutes: while the model comes down, and with the update on its way up; the hub gives nobody up."""
    cut_s = 0.6 * deadline_s
    with hub_on_loopback(pki, deadline_s) as (service, lanes, done, _), Wire(service.port).open() as line:
        member, lane = Member(pki, line.port, tmp_path, deadline_s), lanes["world/us"]

        def cut() -> None:
            line.cut()
            mended = threading.Timer(cut_s, line.mend)
            mended.start()
            while mended.is_alive():  # the supervisor looks at its members as it does in every wait
                lane.look()
                time.sleep(deadline_s / 100)

        try:
            lane.call(0, "prepare", (None, None))
            lane.call(1, "prepare", (LAYOUT, None))
            assert [done.get(timeout=300).ticket for _ in range(2)] == [0, 1]
            lane.call(2, "train", (job(), model(LAYOUT)))
            cut()
            report = done.get(timeout=300)
            assert report.crashed is None and report.value[0].error is None
            lane.call(3, "collect", ("world", 0))
            cut()
            collected = done.get(timeout=300)
            assert collected.crashed is None and np.array_equal(part_of(collected).floats, UPDATE[0])
            assert member.branch.trained == 1 and member.branch.prepared == 1 and done.empty()
        finally:
            member.close()


class Channel:
    """Gives what it is asked for, or raises it."""

    def __init__(self, *given: Any) -> None:
        self.given = list(given)

    def unary_stream(self, *_: Any, **__: Any) -> Any:
        found = self.given.pop(0)

        def call(*_: Any, **__: Any) -> Any:
            if isinstance(found, Exception):
                raise found
            return found

        return call


def fetching(tmp_path: Path, *given: Any) -> Dialer:
    kit: Any = type("Kit", (), {"path": "world/us"})()
    dialer = Dialer(kit, "world", ["localhost:1"], wire_pb.Hello(), 0.02, "none", lambda level, said: None)
    dialer._channel = Channel(*given)
    return dialer


def test_a_model_goes_on_where_its_connection_was_closed_just_before(tmp_path: Path) -> None:
    payload = payload_of(layout(9))
    dialer = fetching(tmp_path, ValueError("Cannot invoke RPC on closed channel!"), payload.chunks(0, 0))
    dialer.fetch(payload.shape, payload.digest, tmp_path / "model")
    assert (tmp_path / "model").stat().st_size == payload.shape.num_bytes


def test_a_model_that_finds_no_room_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError("no room")

    payload, opened, closed = payload_of(layout(9)), list[int](), list[int]()
    make, end = os.open, os.close
    monkeypatch.setattr(os, "open", lambda *given: opened.append(make(*given)) or opened[-1])
    monkeypatch.setattr(os, "close", lambda handle: closed.append(handle) or end(handle))
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="no room"):
        fetching(tmp_path, payload.chunks(0, 0)).fetch(payload.shape, payload.digest, tmp_path / "model")
    monkeypatch.undo()
    assert opened and set(opened) <= set(closed)


def test_a_member_that_leaves_gives_up_what_it_waits_for(pki: Pki, tmp_path: Path) -> None:
    """As given up, and not as an error of this member's."""
    member = Member(pki, 1, tmp_path)
    member.dialer.leave("the test is over")
    with pytest.raises(Abandoned, match="the member is leaving"):
        member.dialer.fetch(Shape(6, 0, "float32"), b"d" * 32, tmp_path / "model")
    member.close()
