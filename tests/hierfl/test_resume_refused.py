"""`hierfl resume` of a run that another process leads: what is refused is refused before that one is fenced."""

from __future__ import annotations

import io
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ward_tasks
from link_members import Pki
from small_runs import Listener, config_of, go, hub
from torch import nn
from ward_tasks import Wards

from hierfl.errors import ConfigError, DataError, HierflError, LinkError, OutputError, Overtaken, RuntimeUnavailable
from hierfl.journal import Lead, LocalStore
from hierfl.lifecycle import go_on, resume, run
from hierfl.link.driver import LinkedDriver
from hierfl.link.log import Log
from hierfl.link.serving import Serving, serve
from hierfl.monitor.records import RoundCommitted
from hierfl.reopen import reopened
from hierfl.rundir import RunDir
from hierfl.runtime.driver import Seat
from hierfl.runtime.local import LocalDriver
from scheduler import Device
from tiers.lease import LEADS, LEFT, Lease

TREE = hub("world", "a", "b", rounds=3)


class Led:
    """A run that was stopped after two rounds, and somebody who leads it since."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.store = run_dir, LocalStore(run_dir / "journal")
        self.leader = Lead.take(self.store, 3600.0)
        self.before = self.files()

    def files(self) -> set[tuple[str, bytes]]:
        """All that the run has, but for leases."""
        files = (path for path in self.run_dir.rglob("*") if path.is_file() and not path.name.startswith("lease-"))
        return {(path.relative_to(self.run_dir).as_posix(), path.read_bytes()) for path in files}

    def assert_in_peace(self) -> None:
        assert self.store.epoch() == self.leader.epoch and self.files() == self.before
        self.leader.check()
        assert Lease.read(self.store.lease(self.leader.epoch) or b"").state == LEADS


def test_a_configuration_that_was_emptied_is_named(tmp_path: Path) -> None:
    ran = go(tmp_path / "runs", hub("world", "a", rounds=1))
    (ran.folder / "config.yaml").write_text("")
    for words in ((), ("federation.rounds=2",)):
        with pytest.raises(ConfigError, match=r"^the configuration /.*/config\.yaml is empty; it must be a mapping"):
            resume(ran.folder, words)


@pytest.fixture
def led(tmp_path: Path) -> Iterator[Led]:
    with pytest.raises(KeyboardInterrupt):
        run(config_of(tmp_path / "runs", TREE), [Listener(until=(RoundCommitted, 2))])
    [run_dir] = (tmp_path / "runs").iterdir()
    found = Led(run_dir)
    yield found
    found.leader.close(LEFT, "it was stopped")


def fails(error: Exception) -> Any:
    def raises(*_: Any, **__: Any) -> Any:
        raise error

    return raises


REFUSALS: dict[str, tuple[Any, str, Any, type[HierflError], str]] = {
    "the runtime is not there": (
        LocalDriver,
        "start",
        fails(RuntimeUnavailable("no Ray")),
        RuntimeUnavailable,
        "no Ray",
    ),
    "data are not there": (ward_tasks, "patients", fails(FileNotFoundError("no ward")), DataError, "no ward"),
    "another version of the task": (Wards, "model", lambda task: nn.Linear(5, 1), OutputError, "of another model than"),
    "its folder cannot be written": (
        tempfile,
        "TemporaryFile",
        fails(OSError(30, "Read-only file system")),
        OutputError,
        "cannot be written: Read-only file system; whoever leads the run goes on",
    ),
    "a journal of other bytes": (LocalStore, "read", fails(ValueError("no journal")), OutputError, "cannot be read"),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_what_is_refused_leaves_the_leader_in_peace(led: Led, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    where, name, instead, kind, words = REFUSALS[why]
    with monkeypatch.context() as patch:
        patch.setattr(where, name, instead)
        with pytest.raises(kind, match=words):
            resume(led.run_dir)
    led.assert_in_peace()
    assert resume(led.run_dir)["model_digest"] == go(led.run_dir.parent / "whole", TREE).digest
    assert led.store.epoch() == led.leader.epoch + 1, "what is not refused takes the run over"


def test_a_run_that_goes_on_at_the_last_moment_is_given_back_to_nobody(
    led: Led, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader commits a round between the last look and the claim: it is fenced, and the run is anybody's."""
    claim = LocalStore.claim

    def late(store: LocalStore, epoch: int) -> None:
        claim(store, epoch)
        (led.run_dir / "checkpoints" / "round-000002").rename(led.run_dir / "checkpoints" / "round-000003")

    monkeypatch.setattr(LocalStore, "claim", late)
    with reopened(led.run_dir) as left, pytest.raises(Overtaken, match="take it up once more"):
        go_on(left)
    assert Lease.read(led.store.lease(led.leader.epoch + 1) or b"").state == LEFT


def test_a_run_without_a_checkpoint_left_is_not_begun_again_in_silence(tmp_path: Path) -> None:
    ran = go(tmp_path, TREE)
    before = {
        path: path.read_bytes() for path in ran.folder.rglob("*") if path.is_file() and "checkpoints" not in path.parts
    }
    shutil.rmtree(ran.folder / "checkpoints")
    with pytest.raises(OutputError, match=r"has done \d rounds, says its summary.json, and has no checkpoint left"):
        resume(ran.folder, ["federation.rounds=9"])
    assert {path: path.read_bytes() for path in before} == before


def test_a_root_whose_port_is_taken_leaves_the_leader_in_peace(tmp_path: Path) -> None:
    """The mistake is made on the leader's own machine."""
    with socket.create_server(("localhost", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        tree = hub("world", hub("us", "a", "b", link={"address": address}), "c")
        config = config_of(tmp_path, tree, name="heart")
        led = Led(RunDir.create(config).path)
        serving = Serving(config, Pki(tmp_path / "pki").kit("world"), Log(io.StringIO()), address)
        with pytest.raises(LinkError, match=f"cannot listen at {address}: .*; --listen takes another address"):
            serve(serving, [], led.run_dir)
        led.assert_in_peace()
        led.leader.close()


@pytest.mark.parametrize("at_once", [False, True])
def test_members_may_come_once_the_first_of_them_is_called(at_once: bool) -> None:
    """Before then the run need not be this process's."""
    heard: list[str] = []

    class Base:
        kind = "local"

        def start(self, spec: Any, num_hubs: int) -> tuple[Seat, ...]:
            return (Seat("worker", Device("worker", "process", frozenset())),)

        def call(self, actor: str, method: str, *arguments: Any) -> int:
            heard.append(f"{actor} {method}")
            return 1

    class Lane:
        def enter(self, epoch: int) -> None:
            """Every epoch is this one's."""

        def call(self, ticket: int, method: str, arguments: Any) -> None:
            heard.append(f"lane {method}")

    def open_links(done: Any, base: Any) -> Any:
        heard.append("listens")
        return object(), {"world/us": Lane()}

    driver = LinkedDriver(Base(), ["world/us"], open_links, *[lambda *_: None] * 3, at_once=at_once)  # type: ignore[arg-type]
    seats = driver.start(type("Spec", (), {"sites": {"world/us": None}})(), 1)  # type: ignore[arg-type]
    assert [seat.worker for seat in seats] == ["world/us"]
    for method in ("initial", "describe", "describe"):
        driver.call("world/us", method)
    wanted = ["worker initial", "lane describe", "lane describe"]
    wanted.insert(0 if at_once else 1, "listens")
    assert heard == wanted
