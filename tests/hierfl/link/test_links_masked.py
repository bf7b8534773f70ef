"""Federations whose members mask their updates, without a network: the bits of the simulation, and a hub that is sent
nothing from which one member's update could be read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from link_inside import Inside, several_runs  # noqa: F401
from small_runs import Listener, config_of, hub, site

from hierfl.errors import HierflError, RoundFailed, SiteFailed
from hierfl.lifecycle import run
from hierfl.link.approval import plan_of
from hierfl.monitor.records import RoundClosed
from hierfl.tree import hidden_in_sums

LINK = {"address": "hub.example.org:8443"}

WARDS = [
    hub("north", "a", site("b", n=20), link=LINK),
    {**site("c", n=9), "link": LINK},
    {**site("d"), "link": LINK},
]


def tree(**settings: Any) -> dict[str, Any]:
    return hub("world", *WARDS, rounds=3, secure_aggregation="masks", **settings)


CASES: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "scaffold": {"strategy": "scaffold"},
    "fedadam": {"strategy": {"kind": "fedadam", "lr": 0.1}, "arithmetic": {"width": 64}},
    "top_k": {"compression": {"kind": "top_k", "fraction": 0.5}},
}


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize("name", CASES)
def test_masked_updates_end_with_the_bits_of_the_simulation(tmp_path: Path, name: str) -> None:
    case = dict(CASES[name])
    more = {key: case.pop(key) for key in ("arithmetic",) if key in case}
    config = config_of(tmp_path / "runs", tree(**case), **more)
    simulated = run(config)
    linked = Inside(config, tmp_path / "linked").go()
    assert linked["model_digest"] == simulated["model_digest"]
    for path in ("world", "world/north", "world/c", "world/d"):
        assert linked["nodes"][path] == simulated["nodes"][path], path


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize("link", [{}, {"link": LINK}], ids=["in the root's process", "in its own"])
def test_an_inner_hub_learns_a_masked_sum_and_passes_it_up(tmp_path: Path, link: dict[str, Any]) -> None:
    wards = [{**site(name), "link": LINK} for name in "abd"]
    north = hub("north", *wards, secure_aggregation="masks", **link)
    config = config_of(tmp_path / "runs", hub("world", north, "c", rounds=2))
    simulated = run(config)
    assert Inside(config, tmp_path / "linked").go()["model_digest"] == simulated["model_digest"]


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize(("how", "end"), [("stop", SiteFailed), ("continue", RoundFailed)])
def test_why_an_update_is_refused_is_told_without_any_number_of_it(
    tmp_path: Path, how: str, end: type[HierflError]
) -> None:
    config = config_of(tmp_path / "runs", tree(on_failure=how), arithmetic={"clip": 2.0**-7})
    inside = Inside(config, tmp_path / "linked")
    with pytest.raises(
        end, match=r"a change is over the clip of 0\.0078125; lower training\.lr, .*; what is wrong there"
    ):
        inside.go()
    crossed = b"".join(inside.up)
    assert b"over the clip" in crossed and b"changed by" not in crossed and b"weight[" not in crossed


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize("word", ["masks", "none"])
def test_no_update_of_one_member_is_among_what_the_hub_is_sent(tmp_path: Path, word: str) -> None:
    """Every byte that goes up is searched for the updates that lie in the members' stores."""
    config = config_of(tmp_path / "runs", {**tree(), "secure_aggregation": word})
    inside = Inside(config, tmp_path / "linked")
    inside.go()
    crossed = b"".join(inside.up)
    updates = [file for path in ("north", "c", "d") for file in (tmp_path / f"linked/world__{path}/updates").iterdir()]
    assert len(updates) == 9
    seen = [file for file in updates if file.read_bytes()[:64] in crossed or bytes.fromhex(file.stem) in crossed]
    assert seen == ([] if word == "masks" else updates)


@pytest.mark.usefixtures("several_runs")
def test_a_member_that_fails_ends_the_run_by_its_name(tmp_path: Path) -> None:
    broken = hub("world", *WARDS[:2], {**site("d", fault="raise"), "link": LINK}, secure_aggregation="masks")
    with pytest.raises((SiteFailed, RoundFailed), match="world/d"):
        Inside(config_of(tmp_path / "runs", broken), tmp_path / "linked").go()


@pytest.mark.usefixtures("several_runs")
def test_a_member_without_data_is_told(tmp_path: Path) -> None:
    empty = hub("world", *WARDS, {**site("e", n=0), "link": LINK}, secure_aggregation="masks")
    with pytest.raises(HierflError, match="its round is asked without world/e"):
        Inside(config_of(tmp_path / "runs", empty), tmp_path / "linked").go()


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize(
    ("fault", "settings"),
    [
        ("raise", {}),
        ("no file", {}),
        ("raise", {"strategy": "scaffold"}),
    ],
    ids=["its code fails", "its data are missing", "what sites keep"],
)
def test_rounds_go_on_without_a_member_that_fails_to_the_bits_of_the_simulation(
    tmp_path: Path, fault: str, settings: dict[str, Any]
) -> None:
    wards = [*WARDS, {**site("e", fault=fault), "link": LINK}]
    world = hub("world", *wards, rounds=3, secure_aggregation="masks", on_failure="continue", **settings)
    config = config_of(tmp_path / "runs", world)
    simulated, monitor, inside = run(config), Listener(), Inside(config, tmp_path / "linked")
    linked = inside.go(monitor)
    assert linked["model_digest"] == simulated["model_digest"]
    closed = [(one.members, set(one.missing)) for one in monitor.of(RoundClosed) if one.node == "world"]
    assert [(set(members), missing) for members, missing in closed] == [({"north", "c", "d"}, {"e"})] * 3
    updates = [file for path in ("north", "c", "d") for file in (tmp_path / f"linked/world__{path}/updates").iterdir()]
    crossed = b"".join(inside.up)
    assert not [file for file in updates if file.read_bytes()[:64] in crossed]


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize("fault", ["raise", "no file"])
def test_two_of_four_have_no_sum_though_the_quorum_is_two(tmp_path: Path, fault: str) -> None:
    wards = [*WARDS[:2], *({**site(name, fault=fault), "link": LINK} for name in "de")]
    config = config_of(tmp_path / "runs", hub("world", *wards, secure_aggregation="masks", on_failure="continue"))
    with pytest.raises(RoundFailed, match="below the quorum") as caught:
        Inside(config, tmp_path / "linked").go()
    assert "masked sum" in str(caught.value)
    assert run(config)["rounds"] == 2


@pytest.mark.usefixtures("several_runs")
def test_a_member_that_stays_away_is_given_up_as_without_masks(tmp_path: Path) -> None:
    """It is gone once the first round has closed, for longer than the run waits for it."""
    digests = []
    for word in ("masks", "none"):
        world = hub("world", *WARDS, {**site("e"), "link": LINK}, secure_aggregation=word, on_failure="continue")
        runtime = {"kind": "local", "num_workers": 1, "device_timeout_s": 0.5}
        config = config_of(tmp_path / word, world, runtime=runtime, evaluation={"every": 0})
        inside = Inside(config, tmp_path / f"linked-{word}")

        class Leaves(Listener):
            def on(self, record: Any, inside: Inside = inside) -> None:
                super().on(record)
                lane = inside.lanes.get("world/e")
                if isinstance(record, RoundClosed) and record.node == "world" and lane is not None:
                    lane.deadline_s = 0.2
                    if lane.session is not None:
                        lane.left(lane.session)

        monitor = Leaves()
        digests.append(inside.go(monitor)["model_digest"])
        closed = [set(one.members) for one in monitor.of(RoundClosed) if one.node == "world"]
        assert closed == [{"north", "c", "d", "e"}, {"north", "c", "d"}], word
    assert digests[0] == digests[1]


@pytest.mark.usefixtures("several_runs")
def test_a_hub_above_goes_on_without_one_whose_members_have_no_sum(tmp_path: Path) -> None:
    wards = [{**site(name), "link": LINK} for name in "ab"]
    north = hub("north", *wards, {**site("d", fault="raise"), "link": LINK}, secure_aggregation="masks")
    config = config_of(tmp_path / "runs", hub("world", north, "c", "e", rounds=2, on_failure="continue"))
    monitor = Listener()
    Inside(config, tmp_path / "linked").go(monitor)
    said = [one.missing["north"] for one in monitor.of(RoundClosed) if one.node == "world"]
    assert len(said) == 2 and all("masked sum takes 3" in one for one in said)


def test_a_member_agrees_to_a_plan_that_says_who_is_hidden_among_whom(tmp_path: Path) -> None:
    config = config_of(tmp_path / "runs", tree())
    said = plan_of(config, "world/c").lines()
    assert any("masked: world learns the sum over north, c, d, and no single one" in line for line in said)
    wards = [*WARDS, {**site("e"), "link": LINK}]
    fewer = hub("world", *wards, secure_aggregation="masks", on_failure="continue", quorum=0.6)
    said = plan_of(config_of(tmp_path / "runs", fewer), "world/c").lines()
    assert any(
        "masked: world learns a round's sum over 3 or more of north, c, d, e, and no single one" in one for one in said
    )
    assert hidden_in_sums(config).keys() == {"world"}
    plain = config_of(tmp_path / "runs", {**tree(), "secure_aggregation": "none"})
    assert not any("masked" in line for line in plan_of(plain, "world/c").lines()) and not hidden_in_sums(plain)
