"""A connection that falls silent in the midst of an update, which fills it: its member goes on, and may leave."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from link_dialers import LAYOUT, UPDATE, Member, part_of
from link_members import Pki, hub_on_loopback, job, model
from link_processes import Wire

from hierfl.link.lane import Lane
from hierfl.link.limits import AT_ONCE
from hierfl.link.patience import Patience

LIMIT_S = 60.0


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@contextlib.contextmanager
def uploading(
    pki: Pki, folder: Path, monkeypatch: pytest.MonkeyPatch, deadline_s: float = 8.0, after: Sequence[int] = (2,)
) -> Iterator[tuple[Member, Any, threading.Event]]:
    """A member whose connection falls silent as some chunks of its update have come, and what becomes of its calls."""
    has_fallen, num = threading.Event(), [0]
    receive = Lane.receive

    def falls_silent(lane: Lane, chunk: Any) -> tuple[bytes, bool]:
        num[0] += 1
        if num[0] in after:
            line.strand()
            has_fallen.set()
        return receive(lane, chunk)

    monkeypatch.setattr(Lane, "receive", falls_silent)
    with hub_on_loopback(pki, deadline_s) as (service, lanes, done, _), Wire(service.port).open() as line:
        member, lane = Member(pki, line.port, folder, deadline_s), lanes["world/us"]
        try:
            lane.call(0, "prepare", (None, None))
            lane.call(1, "prepare", (LAYOUT, None))
            lane.call(2, "train", (job(), model(LAYOUT)))
            lane.call(3, "collect", ("world", 0))
            assert [done.get(timeout=LIMIT_S).ticket for _ in range(3)] == [0, 1, 2]
            yield member, done, has_fallen
        finally:
            member.close()


def test_an_update_goes_on_where_its_connection_has_fallen_silent(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with uploading(pki, tmp_path, monkeypatch) as (member, done, _):
        assert np.array_equal(part_of(done.get(timeout=LIMIT_S)).floats, UPDATE[0])
        assert member.branch.trained == 1


def test_updates_whose_connections_have_vanished_do_not_keep_the_next_one_out(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub ends what went over a connection with the session there: three times as many as it takes at once."""
    after = range(2, 2 + 2 * 3 * AT_ONCE["Deliver"], 2)
    with uploading(pki, tmp_path, monkeypatch, deadline_s=4.0, after=after) as (member, done, _):
        assert np.array_equal(part_of(done.get(timeout=LIMIT_S)).floats, UPDATE[0])
        assert member.branch.trained == 1
        assert not any("calls of Deliver open" in said for said in member.heard)


def test_a_member_leaves_though_its_update_fills_a_silent_connection(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with uploading(pki, tmp_path, monkeypatch, deadline_s=20.0) as (member, _, has_fallen):
        assert has_fallen.wait(LIMIT_S)
        member.dialer.leave("the test is over")
        member.thread.join(LIMIT_S / 2)
        assert not member.thread.is_alive()


def test_patience_is_shorter_once_something_was_heard() -> None:
    over = threading.Event()
    with Patience(0.2, over.set, first_s=LIMIT_S) as patience:
        patience.heard()
        assert over.wait(LIMIT_S / 2)


def test_patience_with_a_farewell_ends_whatever_is_heard() -> None:
    over = threading.Event()
    with Patience(LIMIT_S, over.set) as patience:
        patience.at_most(0.1)
        patience.heard()
        assert over.wait(LIMIT_S / 2)


def test_patience_that_is_over_gives_nothing_up() -> None:
    over = threading.Event()
    with Patience(0.1, over.set):
        pass
    assert not over.wait(0.3)
