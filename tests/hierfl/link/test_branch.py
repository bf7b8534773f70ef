"""A member's part: what it keeps from round to round survives its process, and a hub that went back finds it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from link_fuzz import Member, questions
from small_runs import config_of, hub, site

from hierfl.config.terms import Terms
from hierfl.errors import ConfigError, LinkError, Problem
from hierfl.learning.metrics import Curve, Tally
from hierfl.learning.ring import PartialSum
from hierfl.learning.state import ModelState
from hierfl.link.branch import Asked, Branch, what_is_said
from hierfl.link.ledger import Ledger
from hierfl.link.served import as_served, num_rounds
from hierfl.monitor.records import Notice, Record
from hierfl.runtime.local import LocalDriver

LINK = {"address": "hub.example.org:8443"}


class Process:
    """One process of a member, with its runtime."""

    def __init__(
        self, folder: Path, path: str, run: str = "run-1", stay: Mapping[str, int] = MappingProxyType({}), **root: Any
    ) -> None:
        self.run = run
        self.told: list[Notice] = []
        members = [hub("north", "a", site("b", n=20), link=LINK), {**site("c"), **stay, "link": LINK}]
        tree = hub("world", *members, **{"rounds": 5, **root})
        config = as_served(config_of(folder, tree), path)
        self.driver = LocalDriver(config.runtime)
        self.branch = Branch(config, path, self.driver, folder / "states", self._hear, Ledger(folder / "privacy.jsonl"))
        self.channels = config.hubs["world"].strategy.objective().channels(self.branch.layout.num_floats)

    def __enter__(self) -> Process:
        self.branch.prepare(self.run, None)
        return self

    def _hear(self, record: Record) -> None:
        if isinstance(record, Notice) and record.level == "warning":
            self.told.append(record)

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


def test_a_state_that_a_power_loss_has_spoilt_is_told_and_the_one_before_it_is_used(tmp_path: Path) -> None:
    def spoil(*rounds: int) -> None:
        for number in rounds:
            file = tmp_path / f"states/run-1/checkpoints/round-{number:06d}/sites.safetensors"
            file.write_bytes(file.read_bytes()[:-1] + b"\x07")

    with Process(tmp_path, "world/c", strategy="scaffold") as process:
        second = [process.train(number).floats.copy() for number in range(3)][1]
    spoil(2, 3)
    with Process(tmp_path, "world/c", strategy="scaffold") as process:
        assert [one.message.rpartition("; ")[2] for one in process.told] == ["that of round 1 is used in its place"] * 2
        assert "round-000003 is corrupt" in process.told[0].message
        assert np.array_equal(process.train(1).floats, second)
    spoil(1, 2, 3)
    with Process(tmp_path, "world/c", strategy="scaffold") as process:
        assert {one.message.rpartition("; ")[2] for one in process.told} == {"what is kept begins anew in its place"}
        assert np.array_equal(process.train(1).floats, process.train(1).floats)


def test_what_is_kept_of_runs_that_were_left_goes_once_two_newer_ones_were_left(tmp_path: Path) -> None:
    for number in range(1, 5):
        with Process(tmp_path, "world/c", f"run-{number}", strategy="scaffold") as process:
            process.train(0)
            (tmp_path / f"states/run-{number}").touch()
    assert sorted(path.name for path in (tmp_path / "states").iterdir()) == ["run-2", "run-3", "run-4"]


def test_terms_that_cannot_be_read_are_not_kept(tmp_path: Path) -> None:
    def broken() -> Terms:
        raise ConfigError([Problem("", "/kit/terms.yaml: rounds: must be a whole number"), Problem("", "until: a day")])

    with Process(tmp_path, "world/c") as process:
        process.branch._terms = broken
        with pytest.raises(
            LinkError, match=r"cannot be read\n  in detail: /kit/terms.yaml: .*; until: a day"
        ) as refused:
            process.branch.heed()
        said = "the terms of world/c cannot be read; what is wrong there is in the log of that site"
        assert what_is_said(refused.value, "world/c") == said


def test_an_order_of_another_hub_is_refused(tmp_path: Path) -> None:
    with Process(tmp_path, "world/north") as process:
        start = ModelState(np.zeros(5, np.float32), np.zeros(0, np.int64))
        for hub_name, opened_by in (("world/south", "world"), ("world", "world/south"), ("world/north", "world")):
            with pytest.raises(LinkError, match="world/north works for world"):
                process.branch.train(Asked(hub_name, 0, 1, opened_by, 0, 100), start)


def test_no_rounds_are_trained_but_those_of_the_plan(tmp_path: Path) -> None:
    with Process(tmp_path, "world/c", rounds=2) as process:
        for number in (0, 1, 1):
            process.train(number)
        for number in (2, 999_999):
            with pytest.raises(LinkError, match=f"round {number + 1} of world is asked for, and the plan has 2"):
                process.train(number)
        nothing = ModelState(np.zeros(0, np.float32), np.zeros(0, np.int64))
        with pytest.raises(LinkError, match="round 3 of world is asked for, and the plan has 2"):
            process.branch.train(Asked("world", 0, 1, "world", 2, 100), nothing)


def test_inner_rounds_are_counted_through(tmp_path: Path) -> None:
    inner = hub("north", {**site("a"), "link": LINK}, rounds=3)
    config = config_of(tmp_path, hub("world", inner, "b", rounds=2))
    seen = as_served(config, "world/north/a")
    assert num_rounds(config, "world") == num_rounds(seen, "world") == 2
    assert num_rounds(config, "world/north") == num_rounds(seen, "world/north") == 6


def test_no_rounds_are_trained_before_a_member_joins_and_after_it_has_left(tmp_path: Path) -> None:
    with Process(tmp_path, "world/c", stay={"joins_at": 2, "leaves_at": 4}) as process:
        for number in (0, 3, 4):
            said = f"round {number + 1} of world is asked for, and world/c takes part from round 2 to round 3"
            with pytest.raises(LinkError, match=said):
                process.train(number)
        for number in (1, 2):
            process.train(number)


def test_a_site_that_has_left_is_not_trained_with_the_members_of_before(tmp_path: Path) -> None:
    members = [hub("north", "a", {**site("b"), "leaves_at": 3}, link=LINK), {**site("c"), "link": LINK}]
    seen = as_served(config_of(tmp_path, hub("world", *members, rounds=4)), "world/north")
    driver = LocalDriver(seen.runtime)
    branch = Branch(seen, "world/north", driver, tmp_path / "states", lambda _: None, Ledger(tmp_path / "p.jsonl"))
    branch.prepare("run-1", None)
    start = ModelState(np.zeros(branch.layout.num_floats, np.float32), np.zeros(branch.layout.num_ints, np.int64))
    with pytest.raises(LinkError, match="round 3 of world is asked for with the members of another"):
        branch.train(Asked("world", 2, 20, "world", 2, 100), start)
    branch.enter(1)
    branch.train(Asked("world", 2, 20, "world", 2, 100), start)
    driver.close()


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


def test_a_histogram_that_no_message_can_hold_is_told_with_a_way_that_helps(tmp_path: Path) -> None:
    """Of 600 labels each with 3,000 scores: it is a histogram as it is."""
    chance = np.random.default_rng(0)
    curves = tuple(Curve.of(chance.beta(0.3, 8, 3000), chance.random(3000) < 0.1, 2048) for _ in range(600))
    member = Member(tmp_path, Tally(1_800_000, confusion=np.array([[1_800_000, 0], [0, 0]]), curves=curves))
    assert member.hear(questions()["evaluate"].SerializeToString()) == "taken"
    said = member.last.evaluated.error
    assert "evaluation.bins" in said and "evaluation.auc: histogram" not in said
    member.close()


def test_a_table_of_classes_that_no_message_can_hold_is_told(tmp_path: Path) -> None:
    member = Member(tmp_path, Tally(2048, confusion=np.eye(2048, dtype=np.int64)))
    assert member.hear(questions()["evaluate"].SerializeToString()) == "taken"
    assert "its table of 2048 true and predicted classes has 4194309" in member.last.evaluated.error
    member.close()
