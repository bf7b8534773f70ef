"""Who leads a run: numbers, leases, and what a process that has lost its run can still do to it, which is nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import Listener, go, hub

from hierfl import checkpoint, commits
from hierfl.checkpoint import Checkpoint
from hierfl.errors import ConfigError, DataError, Fenced, Overtaken, RuntimeUnavailable
from hierfl.journal import Lead, LocalStore, Store, Writer, leading, open_store
from hierfl.learning.state import Layout, ModelState
from hierfl.lifecycle import go_on, resume
from hierfl.monitor.records import Notice, RunEnded
from hierfl.reopen import reopened
from hierfl.standby import Standby, see, watched
from tiers.journal import Barrier, GaveUp, Head, join
from tiers.lease import FAILED, FINISHED, LEAD, LEADS, LEFT, Lease, Seen

LAYOUT = Layout.of({"weight": ((3,), "float32")})
TREE = hub("world", "a", "b", rounds=4)


class GoesOn(Exception):
    pass


@pytest.fixture(params=["folder", "address"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    place = tmp_path / "journal"
    return open_store(str(place) if request.param == "folder" else f"file://{place}")


def until(over: Any) -> None:
    end = time.monotonic() + 60
    while not over():
        assert time.monotonic() < end
        time.sleep(0.005)


def lease_of(store: Store, epoch: int) -> Lease:
    while True:
        content = store.lease(epoch)
        with contextlib.suppress(ValueError):  # half of it, where it is not written at once
            return Lease.read(content or b"")


# --- numbers and leases


def test_whether_a_run_may_be_gone_on_with_is_asked_before_it_is_claimed_and_once_it_is(store: Store) -> None:
    """Somebody may have gone on with it in between."""
    lead, asked = Lead(store, lease_s=60.0), list[int]()
    lead.holds = lambda: asked.append(store.epoch())
    lead.claim()
    lead.close()
    assert asked == [0, 1]


def test_a_leader_beats_until_it_ends_and_says_how_that_was(store: Store) -> None:
    with leading(store, 0.06, GoesOn) as lead:
        lead.tells = lambda: {"address": "a:1", "members": 2}
        until(lambda: lease_of(store, 1).beat > 3 and lease_of(store, 1).members == 2)
        lead.heed()
        lead.check()
        assert lease_of(store, 1).state == LEADS and lease_of(store, 1).address == "a:1"
    assert lease_of(store, 1).state == FINISHED


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (DataError("site a has no data\nand more"), FAILED),
        (RuntimeUnavailable("no Ray"), LEFT),
        (KeyboardInterrupt(), LEFT),
        (GoesOn(), LEADS),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_the_lease_says_whether_the_run_is_anybodys(tmp_path: Path, error: BaseException, state: str) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(type(error)), leading(store, 60.0, GoesOn):
        raise error
    assert lease_of(store, 1).state == state
    assert "and more" not in lease_of(store, 1).reason


def test_who_was_succeeded_hears_of_it_at_the_next_renewal(store: Store) -> None:
    heard: list[str] = []
    first = Lead.take(store, 0.06)
    first.lost = lambda: heard.append("first")
    second = Lead.take(store, 60.0)
    second.lost = lambda: heard.append("second")
    try:
        until(lambda: not first._thread.is_alive())  # type: ignore[union-attr]
        assert heard == ["first"]
        with pytest.raises(Fenced, match="this one, number 1, ends, and what it does counts no more"):
            first.heed()
        with pytest.raises(Fenced):
            first.check()
        second.heed()
        second.check()
        first.close(FINISHED, "it thinks so")
        assert lease_of(store, 1).state == LEADS and lease_of(store, 2).state == LEADS
    finally:
        second.close()
    assert heard == ["first"]


def test_who_else_leads_is_named(store: Store) -> None:
    me = f"{socket.gethostname()}:{os.getpid()}"
    first = Lead.take(store, 60.0)
    assert (first.before, first.other()) == ("", "")
    second = Lead.take(store, 60.0)
    assert (second.before, second.other()) == (f"{me}, number 1", "")
    with pytest.raises(Fenced, match=rf"counts no more; {me}, number 2, goes on with it$"):
        first.check()
    second.close(LEFT, "it was stopped")
    assert first.other() == ""
    third = Lead.take(store, 60.0)
    assert third.before == "", "it has said that it left"
    third.close()
    first.close()


def test_one_that_hung_asks_before_it_goes_on(tmp_path: Path) -> None:
    """Its thread has not run yet: a process that was stopped and goes on may come to its rounds first."""
    store = LocalStore(tmp_path)
    first = Lead.take(store, 60.0)
    store.claim(2)
    first.heed()  # nothing says so yet
    first._renewed_s -= 61.0
    with pytest.raises(Fenced):
        first.heed()
    first.close()


def test_one_number_goes_to_one_process(tmp_path: Path) -> None:
    class Late(LocalStore):
        def epoch(self) -> int:
            return 0

    lead = Lead.take(LocalStore(tmp_path), 60.0)
    with pytest.raises(Overtaken, match="at the same time"):
        Lead.take(Late(tmp_path), 60.0)
    lead.close()


def test_without_a_journal_nobody_counts_and_nobody_can_stand_by() -> None:
    lead = Lead.take(None, 1.0)
    lead.heed()
    lead.check()
    lead.close(FINISHED)
    assert lead.epoch == 0
    with pytest.raises(ConfigError, match="this run keeps none"):
        watched(None)


# --- what one that was succeeded can still do


def test_nobody_deletes_what_a_later_one_wrote(store: Store) -> None:
    def write(segment: int, epoch: int) -> None:
        stream = store.open(segment, epoch)
        stream.append([b"x"])
        stream.close()

    for segment, epoch in ((5, 1), (5, 2), (6, 2), (7, 3)):
        write(segment, epoch)
    store.drop(6, 2)
    assert store.writers() == {(6, 2), (7, 3)}
    store.drop(None, 1)
    assert store.writers() == {(6, 2), (7, 3)}
    store.drop(None, 3)
    assert store.writers() == set() and not store.read(7)


def test_who_takes_a_run_up_says_so_in_its_segment_before_all_else(store: Store) -> None:
    first = Writer(store, 1)
    first.begin(Head(0, "s"))
    first.append(lambda: (GaveUp("world", "one"), ()))
    first.flush()
    found = join(store.read(0))
    second = Writer(store, 2)
    second.begin(Head(0, "s"), Barrier(2, found.before))
    second.flush()
    first.append(lambda: (GaveUp("world", "two"), ()))
    first.close()
    said = [entry.record for entry in join(store.read(0)).entries if isinstance(entry.record, GaveUp)]
    assert said == [GaveUp("world", "one")]
    second.close()
    assert store.writers() == {(0, 1), (0, 2)}


def saved(run_dir: Path, rounds: int, writer: int, keep: int = 9, **settings: Any) -> Path:
    model = ModelState(np.full(3, writer, np.float32), np.zeros(0, np.int64))
    return checkpoint.save(run_dir, Checkpoint(rounds, 0, 0, LAYOUT, model, writer=writer), keep, **settings)


def value(folder: Path) -> float:
    return float(checkpoint.load(folder).model.floats[0])


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def test_a_checkpoint_replaces_an_earlier_processs_and_never_a_later_ones(tmp_path: Path) -> None:
    saved(tmp_path, 6, 1)
    folder = saved(tmp_path, 6, 2)
    assert value(folder) == 2
    with pytest.raises(Fenced, match="another process has written"):
        saved(tmp_path, 6, 1)
    assert value(folder) == 2 and names(tmp_path) == ["round-000006"]


def test_one_that_was_succeeded_drops_no_checkpoint(tmp_path: Path) -> None:
    def fence() -> None:
        raise Fenced("not any more")

    saved(tmp_path, 5, 1)
    with pytest.raises(Fenced):
        saved(tmp_path, 6, 1, keep=1, fence=fence)
    assert names(tmp_path) == ["round-000005", "round-000006"]


def test_what_one_wrote_after_it_was_succeeded_does_not_count(tmp_path: Path) -> None:
    """The second went on from round 5; the first adds round 6 and is not stopped in time."""
    for rounds, writer in ((4, 1), (5, 1), (6, 1)):
        saved(tmp_path, rounds, writer)
    assert commits.void(tmp_path, {(5, 1)}) == []
    assert commits.void(tmp_path, {(5, 2)}) == ["round-000006"]
    assert names(tmp_path) == ["fenced-round-000006", "round-000004", "round-000005"]
    saved(tmp_path, 6, 2)
    saved(tmp_path, 7, 2)
    assert commits.void(tmp_path, {(5, 2), (7, 2)}) == []


def test_a_later_processs_rounds_are_not_set_aside(tmp_path: Path) -> None:
    for rounds, writer in ((5, 1), (6, 1), (7, 3)):
        saved(tmp_path, rounds, writer)
    (tmp_path / "checkpoints" / ".round-000008.1.partial").mkdir()
    (tmp_path / "checkpoints" / ".round-000008.3.partial").mkdir()
    commits.set_aside(tmp_path, 5, 2)
    assert names(tmp_path) == [".round-000008.3.partial", "round-000005", "round-000007", "spoilt-round-000006"]


def test_a_run_that_went_on_while_it_was_taken_up_is_left_alone(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE)
    for number in (3, 4):
        folder = ran.folder / "checkpoints" / f"round-{number:06d}"
        folder.rename(folder.with_name(f"later-{number}"))
    (ran.folder / "model.safetensors").unlink()
    before = (ran.folder / "summary.json").read_bytes()
    with reopened(ran.folder) as left:
        (ran.folder / "checkpoints" / "later-3").rename(ran.folder / "checkpoints" / "round-000003")
        LocalStore(ran.folder / "journal").put_lease(1, Lease(1, "vm:7").write())
        heard = Listener()
        with pytest.raises(Overtaken, match="take it up once more, or, if vm:7, number 1, is at work on it") as caught:
            go_on(left, [heard])
        assert caught.value.exit_code == 3 and not heard.of(RunEnded), "it has nothing to tell of the run's end"
    assert LocalStore(ran.folder / "journal").epoch() == 1, "who leads it is left alone, too"
    assert (ran.folder / "summary.json").read_bytes() == before
    assert resume(ran.folder)["model_digest"] == ran.digest


# --- who stands by


class Acted(LocalStore):
    """A journal whose leader does something each time that it is looked at; None cannot be read."""

    def __init__(self, folder: Path, script: list[Any]) -> None:
        super().__init__(folder)
        self.script = script

    def epoch(self) -> int:
        if self.script:
            act = self.script.pop(0)
            if act is None:
                raise OSError(5, "no such storage")
            act()
        return super().epoch()


def test_a_standby_waits_for_a_run_and_then_for_its_leader(tmp_path: Path) -> None:
    """Played through with made-up time: no run, a leader that beats, storage that is away, a leader that is silent."""
    lease, clock, told, runs = Lease(1, "alpha:7", members=0), [0.0], list[str](), [None, None, tmp_path]

    def beat() -> None:
        nonlocal lease
        lease = lease.next()
        store.put_lease(1, lease.write())

    store = Acted(tmp_path, [lambda: store.claim(1), beat, beat, None, None, *[beat] * 4])
    standby = Standby(
        lambda: runs.pop(0) if len(runs) > 1 else runs[0], lambda run_dir: store, 6.0, told.append, takes_any=False
    )
    run_dir, verdict = standby.wait(lambda: clock[0], lambda wait_s: clock.__setitem__(0, clock[0] + wait_s))
    assert run_dir == tmp_path and verdict.what == LEAD
    assert verdict.reason == "nothing was heard of alpha:7, number 1, for 6 s"
    assert clock[0] == 2 + 8 + 6  # two looks without a run, the script's nine, and a lease since its last beat
    assert [said.rpartition(": ")[2] for said in told] == [
        "stands by; there is no run yet",
        "number 1 is said to lead",
        "alpha:7, number 1, leads",
        "the lease cannot be read",
        "alpha:7, number 1, leads",
    ]


def test_half_a_lease_is_no_lease_and_no_error(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert see(store) == Seen(0)
    store.claim(1)
    assert see(store, 2) == Seen(1, None, 2)
    store.put_lease(1, Lease(1, "a").write()[:9])
    assert see(store) == Seen(1)


def test_who_takes_a_run_up_that_another_process_may_lead_says_so(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE)
    journal = LocalStore(ran.folder / "journal")
    told = "vm:7, number {}, has led this run and did not say that it ended: if it is at work still, it ends"
    for rounds, state in ((5, LEADS), (6, LEFT)):
        newest = journal.epoch()
        journal.put_lease(newest, Lease(newest, "vm:7", state=state).write())
        heard = Listener()
        resume(ran.folder, [f"federation.rounds={rounds}"], [heard])
        said = [record.message for record in heard.of(Notice) if "vm:7" in record.message]
        assert said == ([told.format(newest)] if state == LEADS else [])
