"""A member's folder goes from process to process, and whoever stands by takes it once nobody serves from it."""

from __future__ import annotations

import io
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from link_members import Pki
from small_runs import config_of, hub, site

from hierfl.errors import ConfigError, Fenced, OutputError, Overtaken
from hierfl.journal import LocalStore
from hierfl.link import standby
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.desk import Desk
from hierfl.link.fits import check_state
from hierfl.link.handover import line_of, taken_over
from hierfl.link.log import Log
from hierfl.link.serving import Serving, member_journal
from hierfl.link.store import Store
from hierfl.runtime.jobs import Inventory
from tiers.lease import FAILED, FINISHED, LEADS, LEFT, Lease


def test_what_one_process_has_left_is_the_nexts_and_no_longer_its_own(tmp_path: Path) -> None:
    first = taken_over(tmp_path / "state", 1)
    line = line_of(first)
    (first / "update").write_text("bits")
    assert taken_over(tmp_path / "state", 1) == first, "by the same number it is the same"
    third = taken_over(tmp_path / "state", 3)  # the second died before it had taken it
    assert (third / "update").read_text() == "bits" and line_of(third) == line
    with pytest.raises(FileNotFoundError):
        (first / "update").write_text("other bits")
    second = taken_over(tmp_path / "state", 2)  # it had only been stopped
    assert list(second.iterdir()) == [] and line_of(second) != line
    fourth = taken_over(tmp_path / "state", 4)
    assert (fourth / "update").read_text() == "bits" and line_of(fourth) == line


def test_numbers_are_no_words(tmp_path: Path) -> None:
    (taken_over(tmp_path, 9999) / "update").write_text("bits")
    assert (taken_over(tmp_path, 10000) / "update").exists() and (taken_over(tmp_path, 10001) / "update").exists()


def test_of_two_that_take_over_at_once_the_later_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second renames the folder between the third's look and its own rename."""
    (taken_over(tmp_path, 1) / "update").write_text("bits")
    rename = Path.rename

    def late(path: Path, to: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        taken_over(tmp_path, 2)
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", late)
    assert (taken_over(tmp_path, 3) / "update").read_text() == "bits"


@pytest.mark.parametrize(("calls", "described"), [(1, 0), (2, 1)])
def test_a_process_that_was_succeeded_begins_nothing_and_says_nothing(
    tmp_path: Path, calls: int, described: int
) -> None:
    """What it says of a failure, too, might be its successor's doing."""
    said: list[wire.Answer] = []
    branch, ended, left = FakeBranch(), threading.Event(), [calls]

    def fence() -> None:
        left[0] -= 1
        if not left[0]:
            raise Fenced("not any more")

    tell: Any = lambda *words: None  # noqa: E731
    desk = Desk(lambda: branch, Store(tmp_path), said.append, tell, tell, ended.set, fence)  # type: ignore[arg-type,return-value]
    desk.asked("run", wire.Ask(id=1, describe=wire.Describe()))
    assert ended.wait(60.0) and isinstance(desk.failed, Fenced)
    assert branch.described == described and not said


def test_what_failed_is_tried_again_where_it_is_asked_again_and_what_was_done_is_not(tmp_path: Path) -> None:
    said, branch, tell = queue.SimpleQueue[wire.Answer](), FakeBranch(num_failures=1), lambda *words: None
    desk = Desk(lambda: branch, Store(tmp_path), said.put, tell, tell, lambda: None)  # type: ignore[arg-type,return-value]
    answers = []
    for _ in range(3):
        desk.asked("run", wire.Ask(id=1, describe=wire.Describe()))
        answers.append(said.get(timeout=60.0).described)
    desk.close(60.0)
    assert ["no file" in answer.error for answer in answers] == [True, False, False]
    assert [answer.num_train for answer in answers[1:]] == [4, 4] and branch.described == 2


@dataclass
class FakeBranch:
    described: int = 0
    num_failures: int = 0
    path: str = "world/us"

    def heed(self) -> None:
        pass

    def enter(self, number: int) -> None:
        assert number == 0

    def describe(self) -> Inventory:
        self.described += 1
        return Inventory(self.path, 4, 2, error="no file" if self.described <= self.num_failures else None)


class Turns:
    """A member's state, a standby of it, and what becomes of each turn in which it serves."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *ends: str | Exception) -> None:
        tree = hub("world", hub("us", "a", "b", link={"address": "hub.example.org:8443"}), "c")
        settings = config_of(folder, tree, name="heart", redundancy={"lease_s": 0.3})
        self.state, self.ends, self.stream = folder / "state", list(ends), io.StringIO()
        self.serving = Serving(settings, Pki(folder / "pki").kit("world/us"), Log(self.stream))
        self.stopping = threading.Event()
        monkeypatch.setattr(standby, "join", self.join)

    def join(self, serving: Serving, monitors: Any, state: Path, stopping: threading.Event, **said: Any) -> str:
        assert state == self.state
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    def leads(self, number: int, state: str, reason: str = "") -> None:
        check_state(self.state, "heart", "world/us")
        store = member_journal(self.state)
        store.claim(number)
        store.put_lease(number, Lease(number, "alpha:7", state=state, reason=reason).write())

    def __call__(self) -> str:
        return standby.join_in_turn(self.serving, list, self.state, self.stopping)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (None, "nobody has led it yet"),
        (LEADS, "nothing was heard of alpha:7, number 1, for 0."),
        (LEFT, "alpha:7, number 1, has left: it was stopped"),
        (FINISHED, "what alpha:7, number 1, led is over: it was stopped"),
    ],
)
def test_a_standby_serves_a_member_that_nobody_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str | None, why: str
) -> None:
    turns = Turns(tmp_path, monkeypatch, "the federation has finished")
    if state is not None:
        turns.leads(1, state, "it was stopped")
    assert turns() == "the federation has finished" and not turns.ends
    assert f"serves world/us from {turns.state}: {why}" in turns.stream.getvalue()


def test_who_loses_the_race_for_a_number_stands_by_again_and_who_is_fenced_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = Turns(tmp_path, monkeypatch, Overtaken("at the same time"), Fenced("not any more"))
    with pytest.raises(Fenced):
        turns()
    assert not turns.ends and "at the same time" in turns.stream.getvalue()


def test_a_standby_ends_with_who_serves_and_may_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(tmp_path, monkeypatch)

    class Ending(LocalStore):
        """It is led at the first look, and over at the next."""

        looks = 0

        def lease(self, epoch: int) -> bytes | None:
            Ending.looks += 1
            end = {"state": turns.kind, "reason": "it is over"} if Ending.looks > 1 else {}
            return Lease(1, "alpha:7", **end).write()

    turns.leads(1, LEADS)
    monkeypatch.setattr(standby, "member_journal", lambda state: Ending(state / "journal"))
    turns.kind = FINISHED  # type: ignore[attr-defined]
    assert turns() == "it is over"
    Ending.looks, turns.kind = 0, FAILED  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match="state has ended: it is over"):
        turns()
    Ending.looks = -1000
    turns.stopping.set()
    assert turns() == ""


def test_a_member_that_others_know_by_one_address_has_no_standby(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    links = [{"address": "hub.example.org:8443", "peers": f"{name}.example.org:8444"} for name in names]
    members = [{**site(name), "link": link} for name, link in zip(names, links, strict=True)]
    settings = config_of(tmp_path, hub("ring", *members, topology="allreduce"), name="heart")
    serving = Serving(settings, Pki(tmp_path / "pki").kit("ring/a"), Log(io.StringIO()))
    with pytest.raises(ConfigError, match=r"ring/a hands vectors to the other members of ring, .* has no standby"):
        standby.join_in_turn(serving, list, tmp_path / "state", threading.Event())
