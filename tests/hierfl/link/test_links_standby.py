"""A root that two processes may serve: whichever is killed, stopped or cut off, the rounds go on to the same bits."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from link_processes import Links, Wire, free_port, members

ROUNDS = 6
LEASE_S = 4.0
"""Long enough that a machine with much else to do takes nobody for dead."""


TRAINING = {"lr": 0.01, "batch_size": 4, "local_steps": 1000}
"""Rounds of some tenths of a second: there is time to kill somebody before the last one is over."""


class Pair:
    """A leader called world, a standby called second, and members."""

    def __init__(
        self, folder: Path, names: Sequence[str], *, wire: Wire | None = None, port: int = 0, deadline_s: float = 30.0
    ) -> None:
        self.names = tuple(names)
        first, second = port or free_port(), free_port()
        dialled = first if wire is None else wire.port
        tree = members(names, dialled, deadline_s=deadline_s, standbys=[f"localhost:{second}"])
        output = {"dir": "runs", "tensorboard": False, "keep": 100}
        more = {"redundancy": {"lease_s": LEASE_S}, "output": output, "training": TRAINING}
        self.links = Links(folder, {"rounds": ROUNDS, "members": tree}, **more)
        self.first, self.second = first, second

    def __enter__(self) -> Links:
        try:
            self.links.serve("--listen", f"localhost:{self.first}")
            self.stand_by("second", self.second)
            self.links.join(*self.names)
            self.links.until("second", "number 1, leads")
        except BaseException:
            self.links.__exit__()
            raise
        return self.links

    def __exit__(self, *said: object) -> None:
        self.links.__exit__(*said)

    def stand_by(self, name: str, port: int) -> None:
        self.links.start(name, "serve", "--kit", "pki/kits/world", "--standby", "--listen", f"localhost:{port}")


def commits(run_dir: Path) -> dict[str, tuple[str, int]]:
    """What was committed, by round: the model's digest, and which process wrote it."""
    found = {}
    for file in sorted((run_dir / "checkpoints").glob("round-*/checkpoint.json")):
        said: dict[str, Any] = json.loads(file.read_text())
        found[file.parent.name] = (said["model_digest"], said["writer"])
    return found


def assert_as_simulated(links: Links, by_second: int) -> None:
    """Every round was committed once, with the model of an undisturbed run, and trained once at each member."""
    ran = commits(links.run_dir)
    digest = links.simulated()
    simulated = commits(next((links.folder / "simulated").glob("*/config.yaml")).parent)
    assert {name: found[0] for name, found in ran.items()} == {name: found[0] for name, found in simulated.items()}
    assert links.digest == digest and len(ran) == ROUNDS
    assert sum(writer > 1 for _, writer in ran.values()) >= by_second
    assert not list((links.run_dir / "checkpoints").glob("spoilt-*"))
    summary = json.loads((links.run_dir / "summary.json").read_text())
    assert summary["status"] == "finished"
    rows = [json.loads(line) for line in (links.run_dir / "metrics.jsonl").read_text().splitlines()]
    places = [(row["round"], row["node"]) for row in rows]
    assert len(places) == len(set(places)) and {number for number, _ in places} == set(range(1, ROUNDS + 1))


def assert_trained_once(links: Links, names: Sequence[str]) -> None:
    for name in names:
        for number in range(1, ROUNDS + 1):
            assert links.said(name).count(f"round {number}: an update of weight") == 1, links.said(name)


KILLS = {
    "before a member has trained": ("us", "has joined"),
    "with an update on its way": ("us", "round 2: an update"),
    "after a commit": ("world", f" 3/{ROUNDS} "),
    "late": ("world", f" 5/{ROUNDS} "),
}


@pytest.mark.slow
@pytest.mark.parametrize("when", KILLS)
def test_a_standby_goes_on_where_the_leader_was_killed(tmp_path: Path, when: str) -> None:
    pair = Pair(tmp_path, ["us"])
    with pair as links:
        links.until(*KILLS[when])
        links.kill("world")
        for name in ("second", "us"):
            assert links.wait(name) == 0, links.said(name)
        assert "takes up" in links.said("second") and "nothing was heard of" in links.said("second")
        assert "led by number 2" in links.said("us")
        assert_as_simulated(links, by_second=1)
        assert_trained_once(links, ["us"])


@pytest.mark.slow
def test_a_leader_that_was_stopped_and_comes_back_is_fenced(tmp_path: Path) -> None:
    """SIGSTOP for more than three leases; the standby has gone on when it wakes, and nothing of it counts."""
    pair = Pair(tmp_path, ["us", "hungary"])
    with pair as links:
        links.until("world", f" 2/{ROUNDS} ")
        os.kill(links.processes["world"].pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        links.until("second", f" 4/{ROUNDS} ")
        time.sleep(max(0.0, stopped_s + 3 * LEASE_S - time.monotonic()))
        os.kill(links.processes["world"].pid, signal.SIGCONT)
        assert links.wait("world") == 3, links.said("world")
        assert "another process has taken this run up" in links.said("world")
        assert "resume" not in (tmp_path / "world.err").read_text()
        for name in ("second", "us", "hungary"):
            assert links.wait(name) == 0, links.said(name)
        assert_as_simulated(links, by_second=3)
        assert_trained_once(links, ["us", "hungary"])


@pytest.mark.slow
def test_members_that_cannot_reach_the_leader_are_led_by_the_standby(tmp_path: Path) -> None:
    """The leader lives and renews its lease; both believe that they lead, and one is fenced."""
    port = free_port()
    with Wire(port).open() as wire:
        pair = Pair(tmp_path, ["us", "hungary"], wire=wire, port=port, deadline_s=20.0)
        with pair as links:
            links.until("world", f" 2/{ROUNDS} ")
            wire.cut()
            links.until("second", "2 members call here, 0 are in touch with")
            assert links.wait("world") == 3, links.said("world")
            wire.mend()
            for name in ("second", "us", "hungary"):
                assert links.wait(name) == 0, links.said(name)
            assert_as_simulated(links, by_second=1)
            assert_trained_once(links, ["us", "hungary"])


@pytest.mark.slow
def test_a_leader_that_leaves_hands_over_at_once_and_may_stand_by_itself(tmp_path: Path) -> None:
    """The first is asked to end, comes back as a standby, and leads again when the second is killed."""
    pair = Pair(tmp_path, ["us"])
    with pair as links:
        links.until("world", f" 1/{ROUNDS} ")
        links.processes["us"].send_signal(signal.SIGSTOP)  # no round ends before the first stands by
        links.processes["world"].terminate()
        assert links.wait("world") == 143
        links.until("second", "has left")
        pair.stand_by("world", pair.first)
        links.until("world", "number 2, leads")
        links.processes["us"].send_signal(signal.SIGCONT)
        links.until("second", f" 3/{ROUNDS} ")
        links.kill("second")
        for name in ("world", "us"):
            assert links.wait(name) == 0, links.said(name)
        assert "led by number 3" in links.said("us")
        assert_as_simulated(links, by_second=2)
        assert_trained_once(links, ["us"])
