"""A member's part: what it keeps from round to round survives its process, and a hub that went back finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from link_fuzz import Member, questions
from small_runs import config_of, hub, site

from hierfl.errors import LinkError
from hierfl.learning.metrics import Tally
from hierfl.learning.ring import PartialSum
from hierfl.learning.state import ModelState
from hierfl.link.branch import Asked, Branch
from hierfl.link.served import as_served
from hierfl.runtime.local import LocalDriver

LINK = {"address": "hub.example.org:8443"}


class Process:
    """One process of a member, with its runtime."""

    def __init__(self, folder: Path, path: str, **root: Any) -> None:
        tree = hub("world", hub("north", "a", site("b", n=20), link=LINK), {**site("c"), "link": LINK}, **root)
        config = as_served(config_of(folder, tree), path)
        self.driver = LocalDriver(config.runtime)
        self.branch = Branch(config, path, self.driver, folder / "states", lambda record: None)
        self.channels = config.hubs["world"].strategy.objective().channels(self.branch.layout.num_floats)

    def __enter__(self) -> Process:
        self.branch.prepare("run-1", None)
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.close()

    def train(self, number: int) -> PartialSum:
        """Train from a model that is another one in each round."""
        size = self.branch.layout.num_floats + sum(self.channels.values())
        start = ModelState(np.full(size, number / 8, np.float32), np.zeros(self.branch.layout.num_ints, np.int64))
        weight = self.branch.describe().num_train
        return self.branch.train(Asked("world", number, weight, "world", number, 100), start)[1]


@pytest.mark.parametrize("path", ["world/north", "world/c"])
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "feddyn"])
def test_a_member_that_was_killed_goes_on_with_the_same_bits(tmp_path: Path, path: str, strategy: str) -> None:
    with Process(tmp_path / "whole", path, strategy=strategy) as process:
        whole = [process.train(number).floats.copy() for number in range(4)]
    with Process(tmp_path / "killed", path, strategy=strategy) as process:
        for number in range(2):
            assert np.array_equal(process.train(number).floats, whole[number])
    with Process(tmp_path / "killed", path, strategy=strategy) as process:
        for number in (2, 3):
            assert np.array_equal(process.train(number).floats, whole[number])
        for number in (2, 3):  # the hub has gone back to its checkpoint
            assert np.array_equal(process.train(number).floats, whole[number])


def test_an_order_of_another_hub_is_refused(tmp_path: Path) -> None:
    with Process(tmp_path, "world/north") as process:
        start = ModelState(np.zeros(5, np.float32), np.zeros(0, np.int64))
        for hub_name, opened_by in (("world/south", "world"), ("world", "world/south"), ("world/north", "world")):
            with pytest.raises(LinkError, match="world/north works for world"):
                process.branch.train(Asked(hub_name, 0, 1, opened_by, 0, 100), start)


@pytest.mark.parametrize("run", ["../../elsewhere", "/etc", "a/b", "..", "", ".x", "a\x00b"])
def test_a_run_is_kept_in_the_members_own_folder_whatever_its_hub_calls_it(tmp_path: Path, run: str) -> None:
    process = Process(tmp_path / "state", "world/c", strategy="scaffold")
    with process, pytest.raises(LinkError, match="is no name of a folder"):
        process.branch.prepare(run, None)
    assert not list(tmp_path.iterdir())


def test_a_measurement_that_no_message_can_hold_is_told(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    scores, labels = chance.random(500_000), chance.integers(0, 2, 500_000)
    member = Member(tmp_path, Tally.of(scores, labels, loss_sum=1.0, auc="exact"))
    assert member.hear(questions()["evaluate"].SerializeToString()) == "taken"
    assert "evaluation.auc: histogram takes few" in member.last.evaluated.error
    assert not member.last.evaluated.HasField("tally")
    member.close()
