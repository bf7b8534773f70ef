"""A hub below the root that two processes may serve, with members of its own over links: either may be lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from link_processes import Links, free_port

pytestmark = pytest.mark.slow

ROUNDS = 6
LEASE_S = 4.0
SITES = ("cleveland", "long_beach")


class Inner(Links):
    """The root at work, with us at two processes, first and second, and each site of us in a process of its own."""

    def __init__(self, folder: Path) -> None:
        root, self.ports = free_port(), {"first": free_port(), "second": free_port()}
        below = {
            "address": f"localhost:{self.ports['first']}",
            "standbys": [f"localhost:{self.ports['second']}"],
            "deadline_s": 30.0,
        }
        us: dict[str, Any] = {
            "name": "us",
            "link": {"address": f"localhost:{root}", "deadline_s": 60.0},
            "strategy": {"kind": "fedavgm"},
            "members": [{"name": site, "link": below} for site in SITES],
        }
        others = [{"name": "hungary", "members": [{"name": "budapest"}]}]
        super().__init__(folder, {"rounds": ROUNDS, "members": [us, *others]}, redundancy={"lease_s": LEASE_S})
        self.serve()
        self.take_part("first", "us", *self.of_us("first"))
        self.until("first", "has joined world")
        self.take_part("second", "us", *self.of_us("second"))
        self.until("second", "number 1, leads")
        for site in SITES:
            self.take_part(site, f"us__{site}")

    def of_us(self, name: str) -> tuple[str, ...]:
        return "--state", "shared", "--standby", "--listen", f"localhost:{self.ports[name]}"

    def take_part(self, name: str, node: str, *words: str) -> None:
        plan = self.plan(node.replace("__", "/"))
        self.start(name, "join", "--kit", f"pki/kits/world__{node}", "--approve", plan, *words)

    def assert_as_simulated(self) -> None:
        for name in ("world", "second", *SITES):
            assert self.wait(name) == 0, self.said(name)
        assert self.digest == self.simulated()
        for site in SITES:
            for number in range(1, ROUNDS + 1):
                assert self.said(site).count(f"round {number}: an update of weight") == 1, self.said(site)


@pytest.fixture
def inner(tmp_path: Path) -> Iterator[Inner]:
    with Inner(tmp_path) as links:
        yield links


def test_a_standby_takes_a_hub_over_that_was_killed_in_mid_round(inner: Inner) -> None:
    inner.until("cleveland", "round 2: an update")
    inner.kill("first")
    inner.assert_as_simulated()
    assert "serves world/us from shared: nothing was heard of" in inner.said("second")
    assert "led by number 2" in inner.said("cleveland")


def test_an_update_that_was_ready_is_sent_by_the_standby_as_it_is(inner: Inner) -> None:
    """The hub is killed once it has added its members' updates up; nobody does so again."""
    inner.until("first", "round 3: an update")
    inner.kill("first")
    inner.assert_as_simulated()
    assert "round 3: an update" not in inner.said("second")


def test_a_hub_that_was_stopped_and_comes_back_is_fenced(inner: Inner) -> None:
    """SIGSTOP for more than three leases: root and members have gone on with the standby when it wakes."""
    inner.until("long_beach", "round 2: an update")
    os.kill(inner.processes["first"].pid, signal.SIGSTOP)
    stopped_s = time.monotonic()
    inner.until("second", "has joined world")
    time.sleep(max(0.0, stopped_s + 3 * LEASE_S - time.monotonic()))
    os.kill(inner.processes["first"].pid, signal.SIGCONT)
    assert inner.wait("first") == 3, inner.said("first")
    inner.assert_as_simulated()


def test_a_hub_that_is_asked_to_end_hands_over_at_once_and_both_end_with_the_federation(inner: Inner) -> None:
    inner.until("cleveland", "round 1: an update")
    inner.processes["cleveland"].send_signal(signal.SIGSTOP)  # no round ends before the first stands by
    inner.processes["first"].terminate()
    assert inner.wait("first") == 143, inner.said("first")
    inner.take_part("first", "us", *inner.of_us("first"))
    inner.until("first", "number 2, leads")
    inner.processes["cleveland"].send_signal(signal.SIGCONT)
    inner.assert_as_simulated()
    assert "has left: it was stopped" in inner.said("second")
    assert inner.wait("first") == 0, inner.said("first")
