"""Masked sums between real processes over mutual TLS whose members fail and die: the bits of a simulation with the same
members in each round, and nobody is missing without a word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from link_processes import Links, free_port

NAMES = ("a", "b", "c", "d")
STEPS = 4


class Wards(Links):
    """Four sites, each a member with a process of its own; their hub goes on with three of them."""

    def __init__(self, folder: Path, rounds: int, **runtime: Any) -> None:
        link = {"address": f"localhost:{free_port()}", "deadline_s": 2}
        tree = [{"name": name, "link": link, "data": {"patients": 8 + ord(name) % 8 * 8}} for name in NAMES]
        world = {"rounds": rounds, "on_failure": "continue", "quorum": 0.75, "members": tree}
        self.orders = folder / "orders"
        self.orders.mkdir()
        top = {
            "task": {"kind": "faulty_task:FaultyTask", "folder": str(self.orders)},
            "training": {"lr": 0.1, "batch_size": 8, "local_steps": STEPS},
            "runtime": {"kind": "local", "num_workers": 1, **runtime},
            "evaluation": {"every": 0},
        }
        super().__init__(folder, {**world, "secure_aggregation": "masks"}, **top)

    def missing(self) -> dict[int, dict[str, str]]:
        """Read who was missing in which round of the root, and why."""
        lines = map(json.loads, (self.run_dir / "events.jsonl").read_text().splitlines())
        return {line["round_number"]: line["missing"] for line in lines if line.get("missing")}

    def of_the_same(self, without: Mapping[str, int]) -> str:
        """Simulate it with members that fail, each in one round; give the model's digest."""
        orders = self.folder / "simulated_orders"
        orders.mkdir()
        for name, number in without.items():
            fail(orders, name, number)
        return self.simulated(f"task.folder={orders}")


def fail(orders: Path, name: str, in_round: int) -> None:
    """Let a site's own code fail in a round; it has not before."""
    (orders / f"fail-{name}").write_text(str(STEPS * (in_round - 1) + 1))


@pytest.mark.slow
def test_rounds_without_who_has_failed_or_died_have_the_bits_of_the_simulation(tmp_path: Path) -> None:
    """In round 2 a member's own code fails. In round 3 one dies that has masked, and is waited for; in round 4 it dies
    before anybody masks, and the others go on without it; then it is back.
    """
    with Wards(tmp_path, 6, device_timeout_s=25) as links:
        fail(links.orders, "c", 2)
        links.die("d", "masked", 3)
        links.serve()
        links.join(*NAMES)
        links.has_died("d")
        links.die("d", "told", 4)
        links.join("d")
        links.has_died("d")
        links.until("world", " 4/6 ")
        links.again("d")
        links.end("world", *NAMES)
        assert links.digest == links.of_the_same({"c": 2, "d": 4})
        assert links.said("d").count("round 3: an update") == 1, "it masks anew, and does not train anew"
        failed, away = "world/c: the task's code failed; what it said is in the log there", "world/d is not there"
        given_up = f"no device can take it: {away}, and none has come within 25 s (runtime.device_timeout_s)"
        assert links.missing() == {2: {"c": failed}, 4: {"d": given_up}}
        said = links.said("world")
        assert f"error: world/c: could not be trained: {failed}" in said and "was told to fail" not in said
        assert "warning: world/d: is away (not heard of for 2 s (link.deadline_s)) and is waited for" in said
        assert f"warning: world: world/d waits for a device: {away}" in said
        assert f"error: world/d: could not be trained: {given_up}" in said and "info: world/d: is back" in said
        assert "ValueError: site c was told to fail" in links.said("c"), "whose code it is reads all of it"


@pytest.mark.slow
def test_a_member_that_has_masked_and_stays_away_ends_the_run_by_its_name(tmp_path: Path) -> None:
    """The sum that it has masked in may not go on without it; the run goes on with it."""
    with Wards(tmp_path, 4, device_timeout_s=4) as links:
        links.die("d", "masked", 3)
        links.serve()
        links.join(*NAMES)
        links.has_died("d")
        assert links.wait("world") == 1, links.said("world")
        among = (
            "others may have masked this round in the sum of world/a, world/b, world/c, world/d, and do so in no other"
        )
        way = "without world/d there is none, and the run can be resumed once all of them are there"
        ended, way_on = links.said("world").splitlines()[-2:]
        quorum = "world: the round cannot be closed: below the quorum of 3 of 4 members"
        assert ended == f"error: {quorum}: a: {among}; {way}"
        assert way_on.startswith("the last commit is") and way_on.endswith(
            f"--resume {links.run_dir.relative_to(tmp_path)}"
        )
        links.resume()
        links.again("d")
        links.end("world", *NAMES)
        assert links.digest == links.of_the_same({})
        assert not list(links.run_dir.glob("config-*")), "it is the same configuration"
