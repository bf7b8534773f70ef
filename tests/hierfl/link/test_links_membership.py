"""Members behind links that join and leave between rounds: the bits of the simulation, and who is told what."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from link_inside import Inside, several_runs  # noqa: F401
from link_members import FakeMember, layout, model
from link_members import job as job_of
from small_runs import Listener, config_of, hub, site

from hierfl.config.membership import Stay, epochs
from hierfl.errors import ConfigError, LinkError
from hierfl.lifecycle import run
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.approval import plan_of
from hierfl.link.branch import Branch
from hierfl.link.errands import PARTED
from hierfl.link.lane import Lane
from hierfl.link.ledger import Ledger
from hierfl.link.served import as_served, membership, stay_of
from hierfl.link.shelf import Shelf
from hierfl.link.spool import Spool
from hierfl.monitor.records import MembershipChanged, Notice
from hierfl.runtime.driver import Done
from hierfl.runtime.local import LocalDriver

LINK = {"address": "hub.example.org:8443"}

NORTH = hub(
    "north",
    {**site("x"), "leaves_at": 3},
    {**site("y", n=30), "joins_at": 3},
    {**site("z"), "link": LINK, "joins_at": 2, "leaves_at": 4},
    link=LINK,
)
"""A linked hub below which a site leaves and another joins, and a site behind a link of its own does both."""

MEMBERS = [
    site("a", n=15),
    {**site("b", n=20), "link": LINK, "leaves_at": 3},
    {**site("c", n=9), "link": LINK, "joins_at": 2},
    NORTH,
    hub("late", "d", {**site("e"), "joins_at": 4}, link=LINK, joins_at=3),
]

FEDERATED = {"kind": "ward_tasks:Wards", "standardise": "federated"}


def tree(**settings: Any) -> dict[str, Any]:
    return hub("world", *MEMBERS, **{"rounds": 4, **settings})


STRATEGIES: list[Any] = [
    "scaffold",
    *(
        pytest.param(one, marks=pytest.mark.slow)
        for one in ("fedavg", "feddyn", "ditto", {"kind": "median", "num_byzantine": 0})
    ),
]


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_members_that_change_end_with_the_bits_of_the_simulation(tmp_path: Path, strategy: Any) -> None:
    """Also where the root is taken up in the midst: members find what they kept, in whichever epoch they are asked."""
    config = config_of(
        tmp_path / "runs",
        tree(strategy=strategy),
        FEDERATED,
        output={"dir": str(tmp_path / "runs"), "tensorboard": False, "keep": 9},
    )
    simulated, monitor, inside = run(config), Listener(), Inside(config, tmp_path / "linked")
    linked = inside.go(monitor)
    assert linked["model_digest"] == simulated["model_digest"]
    for path in ("world", "world/b", "world/c", "world/north", "world/late"):
        assert linked["nodes"][path] == simulated["nodes"][path], path
    assert inside.parted == {"world/b": PARTED, "world/north/z": PARTED}
    assert [(one.epoch, one.round_number, one.joined, one.left) for one in monitor.of(MembershipChanged)] == [
        (1, 2, ("world/c",), ()),
        (2, 3, ("world/late",), ("world/b",)),
        (3, 4, (), ()),
    ]
    said = [notice.message for notice in monitor.of(Notice)]
    words = "from round 4 on, epoch 3 of the tree: world/north, world/late with other members below; 4 sites"
    assert words in said
    folder = Path(linked["run_dir"])
    for cut in (folder / "checkpoints").glob("round-*"):
        if int(cut.name[-6:]) > 2:
            shutil.rmtree(cut)
    (folder / "model.safetensors").unlink()
    assert Inside(config, tmp_path / "linked").go(resumed=folder)["model_digest"] == simulated["model_digest"]


def test_each_process_has_the_epochs_of_the_whole_by_their_numbers(tmp_path: Path) -> None:
    config = config_of(tmp_path, tree())
    seen = {path: epochs(as_served(config, path)) for path in ("world", *config.links)}
    assert [(one.number, one.first, one.renewed) for one in seen["world"]] == [
        (0, 1, ()),
        (1, 2, ("world/north",)),
        (2, 3, ("world/north",)),
        (3, 4, ("world/north", "world/late")),
    ]
    assert [(one.number, one.joined, one.left) for one in seen["world/north"]] == [
        (0, (), ()),
        (1, ("world/north/z",), ()),
        (2, ("world/north/y",), ("world/north/x",)),
        (3, (), ("world/north/z",)),
    ]
    assert [one.number for one in seen["world/b"]] == [0, 1]
    assert [(one.number, one.sites) for one in seen["world/late"]] == [
        (2, ("world/late/d",)),
        (3, ("world/late/d", "world/late/e")),
    ]
    there = {path: membership(config, path) for path in config.links}
    assert (there["world/b"], there["world/c"], there["world/north"]) == (range(2), range(1, 4), range(4))
    assert (there["world/north/z"], there["world/late"]) == (range(1, 3), range(2, 4))
    assert stay_of(config, "world/late") == Stay(3) and stay_of(config, "world/north/z") == Stay(2, 4)


def test_a_plan_says_in_which_rounds_a_member_takes_part(tmp_path: Path) -> None:
    config = config_of(tmp_path, tree())
    said = {path: "\n".join(plan_of(config, path).lines()) for path in config.links}
    assert "per round, from round 2 until round 4 begins, the change of the model, this site's" in said["world/north/z"]
    assert "per round, from round 2 on, the change" in said["world/c"] and "once the numbers" in said["world/c"]
    assert "per round the change" in said["world/north"]
    assert "once, and anew with round 2, 3, 4, in which sites change, the numbers of training" in said["world/north"]


def test_members_that_hand_each_other_what_no_hub_has_stay(tmp_path: Path) -> None:
    ring = [{**site(name), "link": {**LINK, "peers": f"{name}.example.org:1"}} for name in "ab"]
    config = config_of(tmp_path, hub("world", hub("ring", *ring, topology="swarm"), {**site("c"), "joins_at": 2}))
    with pytest.raises(ConfigError, match=r"members\.c\.joins_at: members stay .* as those of world/ring do"):
        as_served(config, "world")


class Asked:
    """The hub's side of a member that is there in the epochs 1 and 2."""

    def __init__(self, folder: Path) -> None:
        self.done: list[Done] = []
        self.lane = Lane(
            *("world/us", "run-1", 60.0, 1, Spool(folder), Shelf(), self.done.append, lambda value: value),
            epochs=range(1, 3),
        )
        self.member = FakeMember()

    def asked(self) -> list[tuple[str, int]]:
        return [(str(one.ask.WhichOneof("what")), one.ask.epoch) for one in self.member.said if one.HasField("ask")]


def test_a_member_that_is_to_come_may_dial_at_once_and_is_asked_in_its_epoch(tmp_path: Path) -> None:
    hub_side = Asked(tmp_path)
    hub_side.lane.enter(0)
    hub_side.lane.joined(hub_side.member.session)
    hub_side.lane.call(0, "prepare", (None, None))
    hub_side.lane.call(1, "prepare", (layout(), None))
    assert [one.ticket for one in hub_side.done] == [0, 1] and not hub_side.asked() and not hub_side.lane.is_member
    hub_side.lane.enter(1)
    hub_side.lane.call(2, "describe", (("world/us",),))
    assert hub_side.asked() == [("describe", 1)] and hub_side.lane.is_member
    described = wire.Described(num_train=3, num_test=1)
    hub_side.lane.answered(wire.Answer(id=hub_side.member.last.ask.id, described=described))
    hub_side.lane.call(3, "train", (job_of(), model(layout())))
    assert hub_side.asked()[1:] == [("prepare", 1)]
    hub_side.lane.answered(wire.Answer(id=hub_side.member.last.ask.id, prepared=wire.Prepared()))
    assert hub_side.asked()[2:] == [("train", 1)]


def test_a_member_that_dials_in_its_epoch_only_is_asked_nothing_of_those_before(tmp_path: Path) -> None:
    hub_side = Asked(tmp_path)
    hub_side.lane.enter(0)
    hub_side.lane.call(0, "prepare", (None, None))
    hub_side.lane.call(1, "prepare", (layout(), None))
    hub_side.lane.enter(1)
    hub_side.lane.call(2, "describe", (("world/us",),))
    hub_side.lane.joined(hub_side.member.session)
    assert hub_side.asked() == [("describe", 1)]
    described = wire.Described(num_train=3, num_test=1)
    hub_side.lane.answered(wire.Answer(id=hub_side.member.last.ask.id, described=described))
    hub_side.lane.call(3, "train", (job_of(), model(layout())))
    assert hub_side.asked()[1:] == [("prepare", 1)]


def test_a_member_that_has_left_is_asked_nothing_and_told_so_now_or_once_it_comes(tmp_path: Path) -> None:
    hub_side = Asked(tmp_path)
    hub_side.lane.enter(2)
    hub_side.lane.joined(hub_side.member.session)
    hub_side.lane.call(0, "describe", (("world/us",),))
    hub_side.lane.enter(3)
    assert hub_side.member.ended == [PARTED] == [hub_side.lane.parting]
    assert [(one.ticket, one.crashed) for one in hub_side.done] == [(0, None)]
    hub_side.lane.enter(2)
    assert not hub_side.lane.parting, "a hub that went back needs it again"


@pytest.mark.usefixtures("several_runs")
def test_a_member_counts_for_the_epoch_that_it_is_asked_in(tmp_path: Path) -> None:
    config = as_served(config_of(tmp_path, tree()), "world/late")
    driver = LocalDriver(config.runtime)
    branch = Branch(
        config, "world/late", driver, tmp_path / "states", lambda record: None, Ledger(tmp_path / "privacy.jsonl")
    )
    try:
        counts = []
        for epoch in (2, 3, 2):
            branch.enter(epoch)
            counts.append(branch.describe().num_train)
        assert counts == [12, 24, 12]
        with pytest.raises(LinkError, match="epoch 0 of the tree, in which world/late is no member"):
            branch.enter(0)
    finally:
        driver.close()
