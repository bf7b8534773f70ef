"""A member with several addresses: it goes on from one that does not lead, and follows nobody who was succeeded."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from link_members import AGREED, Pki, hub_on_loopback
from link_processes import Wire, free_port

from hierfl.errors import Fenced, LinkError
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.dialer import Dialer
from hierfl.link.leaders import Leaders, Outranked
from hierfl.link.service import VERSIONS
from hierfl.link.standby import NOT_LEADING, Waiting
from tiers.lease import LEAD, WAIT, Lease, Seen, Verdict, Watch

MEMBERS = ("world/us", "world/them")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def until(over: Callable[[], Any]) -> None:
    end = time.monotonic() + 300
    while not over():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def dialling(pki: Pki, ports: Sequence[int], leaders: Leaders, **said: Any) -> Iterator[tuple[Dialer, list[str]]]:
    """A member at work on its way to these ports; what it ends with is heard last. `said`: of its first words."""
    heard: list[str] = []
    first = {"instance": "a", **said}
    hello = wire.Hello(
        versions=VERSIONS, federation="heart", node="world/us", config_digest="config", task_digest="task", **first
    )
    addresses = [f"localhost:{port}" for port in ports]
    tell = lambda level, said: heard.append(said)  # noqa: E731
    dialer = Dialer(pki.kit("world/us"), "world", addresses, hello, 20.0, "none", tell, leaders)

    def serve() -> None:
        try:
            dialer.serve()
        except Fenced as error:
            heard.append(f"fenced: {error}")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield dialer, heard
    finally:
        dialer.leave("the test is over")
        thread.join(30.0)


@contextlib.contextmanager
def standing_by(pki: Pki) -> Iterator[Waiting]:
    waiting = Waiting(pki.kit("world", name="second"), "127.0.0.1:0", "heart", MEMBERS)
    try:
        yield waiting
    finally:
        waiting.close()


def test_a_standby_sends_a_member_on_and_counts_it(pki: Pki) -> None:
    leads = replace(AGREED, leader=1)
    with standing_by(pki) as second, hub_on_loopback(pki, agreed=leads) as (service, lanes, _, _):
        assert second.callers(60.0) == 0
        with dialling(pki, [second.port, service.port], Leaders()) as (dialer, heard):
            until(lambda: dialer.is_up)
            assert NOT_LEADING in heard[0] and "led by number 1" in heard[-1]
            assert second.callers(60.0) == 1 and second.callers(-1.0) == 0
            until(lambda: lanes["world/us"].session is not None)


def test_a_member_follows_the_process_that_takes_the_run_up(pki: Pki, tmp_path: Path) -> None:
    """Its leader goes, nobody leads for a while, then another does, at the other address."""
    leaders = Leaders(tmp_path / "leaders.json")
    second = standing_by(pki)
    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(second)
        first = contextlib.ExitStack()
        service, *_ = first.enter_context(hub_on_loopback(pki, agreed=replace(AGREED, leader=1)))
        stack.enter_context(first)
        ports = [service.port, waiting.port]
        dialer, heard = stack.enter_context(dialling(pki, ports, leaders))
        until(lambda: dialer.is_up)
        service.close("it is gone", final=False)
        until(lambda: waiting.callers(60.0))
        waiting.close()
        listen = f"localhost:{ports[1]}"
        agreed = replace(AGREED, leader=2)
        stack.enter_context(hub_on_loopback(pki, agreed=agreed, listen=listen))
        until(lambda: any("led by number 2" in said for said in heard))
    assert Leaders(tmp_path / "leaders.json").last == (AGREED.run, 2)


def test_a_hub_that_was_succeeded_is_refused_by_name_and_told_so(pki: Pki, tmp_path: Path) -> None:
    """The member knows of number 3, though it was started anew since."""
    Leaders(tmp_path / "leaders.json").follow(AGREED.run, 3, "b:1")
    with hub_on_loopback(pki, agreed=replace(AGREED, leader=2)) as (service, lanes, _, said):
        with dialling(pki, [service.port], Leaders(tmp_path / "leaders.json")) as (dialer, heard):
            until(lambda: len(heard) >= 2)
            assert not dialer.is_up and not dialer.run
            assert all("number 2 does not lead any more" in one for one in heard)
        assert any(
            "knows of number 3, which leads the run since; this is number 2. Where none does" in one for one in said
        )
        assert lanes["world/us"].session is None


def test_a_hub_that_does_not_ask_is_refused_all_the_same(pki: Pki, tmp_path: Path, monkeypatch: Any) -> None:
    """A hub that counts no processes says no number, and cannot know better."""
    monkeypatch.setattr("hierfl.link.service.Agreed.is_outranked", lambda *_: False)
    leaders = Leaders()
    leaders.follow(AGREED.run, 3, "b:1")
    with hub_on_loopback(pki) as (service, _, _, _), dialling(pki, [service.port], leaders) as (dialer, heard):
        until(lambda: len(heard) >= 2)
        assert not dialer.run
        assert (
            f"localhost:{service.port} led run-1 as number 0; number 3 leads it since; it is not followed" in heard[0]
        )


def test_a_hub_whose_folder_was_deleted_counts_anew_and_is_followed(pki: Pki) -> None:
    leaders = Leaders()
    leaders.follow(f"{AGREED.run} old", 3, "b:1")
    with hub_on_loopback(pki, agreed=replace(AGREED, leader=1, line="new")) as (service, *_):
        with dialling(pki, [service.port], leaders) as (dialer, _):
            until(lambda: dialer.is_up)
        assert leaders.last == (f"{AGREED.run} new", 1) and dialer.run == AGREED.run
    with hub_on_loopback(pki, agreed=replace(AGREED, leader=2, line="old")) as (service, *_):
        leaders.follow(f"{AGREED.run} old", 3, "b:1")
        with dialling(pki, [service.port], leaders) as (dialer, heard):
            until(lambda: heard)
            assert not dialer.run and "number 2 does not lead any more" in heard[0]


def test_of_two_processes_of_a_member_the_hub_hears_the_later(pki: Pki) -> None:
    """The first is still connected when the second comes; it may not come back, and ends."""
    with hub_on_loopback(pki) as (service, lanes, _, said), contextlib.ExitStack() as stack:
        line = {"line": "x"}
        first, heard = stack.enter_context(dialling(pki, [service.port], Leaders(), number=1, **line))
        until(lambda: first.is_up)
        before = lanes["world/us"].session
        second, _ = stack.enter_context(dialling(pki, [service.port], Leaders(), instance="b", number=2, **line))
        until(lambda: heard[-1].startswith("fenced: "))
        assert "number 2 serves world/us since, and this is number 1; this process ends" in heard[-1]
        assert second.is_up and lanes["world/us"].session is not before
        assert any("was refused: number 2 serves world/us since" in one for one in said)


def test_two_processes_of_a_member_that_know_nothing_of_each_other_do_not_take_turns(pki: Pki) -> None:
    """As from two machines by mistake: the later stays, the first ends and says why."""
    with hub_on_loopback(pki) as (service, _, _, said), contextlib.ExitStack() as stack:
        first, heard = stack.enter_context(dialling(pki, [service.port], Leaders(), number=1, line="x"))
        until(lambda: first.is_up)
        second, _ = stack.enter_context(dialling(pki, [service.port], Leaders(), instance="b", number=1, line="y"))
        until(lambda: heard[-1].startswith("fenced: "))
        assert "another process, which came after this one, serves world/us; this process ends" in heard[-1]
        assert second.is_up
        assert any("was refused: another process" in one for one in said)
        assert sum("has joined from 127.0.0.1:" in one or "has joined from [::1]:" in one for one in said) == 2


def test_the_highest_number_of_each_run_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "leaders.json"
    leaders = Leaders(file)
    assert leaders.last == ("", 0)
    for run, number in (("a", 1), ("a", 4), ("b", 1)):
        leaders.follow(run, number, "x:1")
    assert Leaders(file).last == ("b", 1)
    with pytest.raises(Outranked, match="the hub at y:2 led a as number 3; number 4 leads it since"):
        Leaders(file).follow("a", 3, "y:2")
    for number in range(20):
        leaders.follow(f"run-{number}", 1, "x:1")
    leaders.follow("a", 1, "x:1")  # long ago
    assert len(file.read_text()) < 500
    file.write_text("[")
    with pytest.raises(LinkError, match="any hub of the run is followed"):
        Leaders(file)


def test_one_that_never_answers_is_passed_by(pki: Pki) -> None:
    """A process that was stopped takes connections and says nothing."""
    import socket

    with socket.create_server(("localhost", 0)) as silent:
        port = int(silent.getsockname()[1])
        with hub_on_loopback(pki) as (hub, *_), dialling(pki, [port, hub.port], Leaders()) as (dialer, _):
            until(lambda: dialer.is_up)
            assert dialer.address == f"localhost:{hub.port}"


def test_an_address_that_nobody_listens_at_is_passed_by(pki: Pki) -> None:
    with hub_on_loopback(pki) as (hub, *_), dialling(pki, [free_port(), hub.port], Leaders()) as (dialer, _):
        until(lambda: dialer.is_up)


def test_members_that_are_cut_from_their_leader_make_the_standby_lead(pki: Pki) -> None:
    """The leader beats on; what counts is whom its members reach, for a while."""
    with contextlib.ExitStack() as stack:
        second = stack.enter_context(standing_by(pki))
        service, lanes, *_ = stack.enter_context(hub_on_loopback(pki, agreed=replace(AGREED, leader=1)))
        line = stack.enter_context(Wire(service.port).open())
        dialer, _ = stack.enter_context(dialling(pki, [line.port, second.port], Leaders()))
        until(lambda: dialer.is_up and any(lane.session is not None for lane in lanes.values()))
        watch, lease = Watch(3600.0, patience_s=0.5), Lease(1, "alpha:7")

        def look() -> Verdict:
            nonlocal lease
            lease = lease.next(members=sum(lane.session is not None for lane in lanes.values()))
            return watch.look(time.monotonic(), Seen(1, lease, second.callers(6.0)))

        assert look().what == look().what == WAIT and lease.members == 1
        line.cut()
        until(lambda: look().what == LEAD)
        assert look().reason == "1 members call here, 0 are in touch with alpha:7, number 1"
        line.mend()
