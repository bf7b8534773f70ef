"""Whole federations over links without a network: the bits of the simulation, and nothing that may not cross."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from link_inside import Inside, records_in, several_runs  # noqa: F401
from small_runs import config_of, hub, site

from hierfl.config.schema import RunConfig
from hierfl.errors import QUOTED, ConfigError, DataError, RoundFailed, SiteFailed, StrategyFailed, told_above
from hierfl.frames import spelt
from hierfl.held import OwnAttack, OwnCompression
from hierfl.lifecycle import run
from hierfl.link.branch import what_is_said
from hierfl.link.served import as_served

LINK = {"address": "hub.example.org:8443"}

WARDS = [
    hub("north", "a", site("b", n=20), link=LINK),
    {**site("c", n=9), "link": LINK},
    hub("south", "d", {**site("e"), "link": LINK}),
]


def tree(**settings: Any) -> dict[str, Any]:
    return hub("world", *WARDS, rounds=3, **settings)


CASES: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedavgm": {"strategy": {"kind": "fedavgm", "momentum": 0.9}},
    "uniform": {"strategy": {"kind": "fedavg", "weights": "uniform"}},
    "scaffold": {"strategy": "scaffold"},
    "feddyn": {"strategy": "feddyn"},
    "ditto": {"strategy": "ditto"},
    "median": {"strategy": "median"},
    "cyclic": {"topology": "cyclic"},
    "schedule": {"training": {"lr_schedule": {"kind": "ExponentialLR", "gamma": 0.5}}},
    "sample": {"participation": {"kind": "sample", "fraction": 0.6}},
}


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize("name", CASES)
def test_links_end_with_the_bits_of_the_simulation(tmp_path: Path, name: str) -> None:
    config = config_of(tmp_path / "runs", tree(**CASES[name]))
    simulated = run(config)
    linked = Inside(config, tmp_path / "linked").go()
    assert linked["model_digest"] == simulated["model_digest"]
    for path in ("world", "world/north", "world/c", "world/south/e"):
        assert linked["nodes"][path] == simulated["nodes"][path], path


@pytest.mark.usefixtures("several_runs")
def test_linked_hubs_below_linked_hubs(tmp_path: Path) -> None:
    deep = hub(
        "world", hub("north", hub("city", "a", {**site("b"), "link": LINK}, link=LINK), "c", link=LINK), rounds=2
    )
    deep["members"][0] |= {"rounds": 2, "training": {"lr_schedule": {"kind": "StepLR", "step_size": 1}}}
    config = config_of(tmp_path / "runs", deep, {"kind": "ward_tasks:Wards", "standardise": "federated"})
    assert Inside(config, tmp_path / "linked").go()["model_digest"] == run(config)["model_digest"]


@pytest.mark.usefixtures("several_runs")
def test_where_all_members_are_elsewhere_the_devices_are_the_links(tmp_path: Path) -> None:
    config = config_of(tmp_path / "runs", hub("world", *WARDS[:2], rounds=2))
    linked = Inside(config, tmp_path / "linked").go()
    assert linked["model_digest"] == run(config)["model_digest"]
    assert sorted(linked["schedule"]["devices"]) == ["world/c", "world/north"]


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize("topology", ["swarm", "allreduce"])
def test_a_hub_without_a_centre_may_stand_below_a_link(tmp_path: Path, topology: str) -> None:
    north = hub("north", "a", site("b", n=20), link=LINK, topology=topology)
    config = config_of(tmp_path / "runs", hub("world", north, "c", rounds=2))
    assert Inside(config, tmp_path / "linked").go()["model_digest"] == run(config)["model_digest"]


@pytest.mark.usefixtures("several_runs")
def test_what_is_compressed_at_a_site_adds_up_to_the_same_bits(tmp_path: Path) -> None:
    config = config_of(tmp_path / "runs", tree(compression={"kind": "top_k", "fraction": 0.5}))
    assert Inside(config, tmp_path / "linked").go()["model_digest"] == run(config)["model_digest"]


@pytest.mark.usefixtures("several_runs")
def test_adapters_and_shared_data_are_the_same_over_links(tmp_path: Path) -> None:
    shared = {"key": "open", "basis": "open data", "fraction": 0.5}
    config = config_of(tmp_path / "runs", tree(shared=shared), lora={"rank": 2, "whole": ["bias"]})
    linked, simulated = Inside(config, tmp_path / "linked").go(), run(config)
    assert linked["model_digest"] == simulated["model_digest"] and linked["lora"] == simulated["lora"]
    assert linked["nodes"]["world/c"] == simulated["nodes"]["world/c"]


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize("strategy", ["fedavg", "ditto"])
def test_sites_behind_links_fine_tune_as_in_the_simulation(tmp_path: Path, strategy: str) -> None:
    config = config_of(
        tmp_path / "runs", tree(strategy=strategy), evaluation={"fine_tune": {"steps": 2, "at": "every"}}
    )
    linked, simulated = Inside(config, tmp_path / "linked").go(), run(config)
    assert linked["model_digest"] == simulated["model_digest"]
    for path in ("world", "world/north", "world/c", "world/south/e"):
        assert linked["nodes"][path] == simulated["nodes"][path], path
    assert "personal_accuracy" in linked["nodes"]["world/north"]


@pytest.mark.usefixtures("several_runs")
def test_no_record_leaves_a_site(tmp_path: Path) -> None:
    """Every byte that crosses is searched for the wards' records."""
    config = config_of(tmp_path / "runs", tree())
    inside = Inside(config, tmp_path / "linked")
    inside.go()
    crossed = b"".join(inside.up)
    assert len(inside.up) > 10 and len(inside.down) > 3
    assert not records_in(crossed, {"a": 18, "b": 26, "c": 15, "e": 18})
    for name in ("world/north/a", "world/north/b"):
        assert name.encode() not in crossed, "of a linked hub nothing is said of one site"


@pytest.mark.usefixtures("several_runs")
def test_nothing_that_crosses_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> Any:
        raise AssertionError("something was unpickled")

    config = config_of(tmp_path / "runs", tree(strategy="scaffold"))
    inside = Inside(config, tmp_path / "linked")
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    assert inside.go()["status"] == "finished"


@pytest.mark.usefixtures("several_runs")
def test_a_mistake_in_a_members_task_is_told_without_what_it_says(tmp_path: Path) -> None:
    broken = hub("world", "a", {**site("b", fault="raise"), "link": LINK})
    inside = Inside(config_of(tmp_path / "runs", broken), tmp_path / "linked")
    with pytest.raises(SiteFailed, match="the task's code failed at world/b; what it said is in the log there"):
        inside.go()
    assert b"a ward's own mistake" not in b"".join(inside.up)


@pytest.mark.usefixtures("several_runs")
def test_a_member_that_measures_something_else_is_named(tmp_path: Path) -> None:
    root = hub("world", "a", "c", {**site("b", odd=True), "link": LINK})
    task = {"kind": "odd_task:Unlike", "differs": "names"}
    inside = Inside(config_of(tmp_path / "runs", root, task), tmp_path / "linked")
    with pytest.raises(
        SiteFailed, match=r"^world/b could not be measured: it measures extra, mae, and 2 sites \(.*\) mae"
    ):
        inside.go()


def test_what_a_tasks_code_makes_of_an_error_of_ours_stays_where_it_is() -> None:
    ours = DataError(f"a.csv: column 'x' has 3 values that are no category of it{QUOTED}'Mueller' is the first")
    assert told_above(str(ours)) == (
        "a.csv: column 'x' has 3 values that are no category of it; what is wrong there is in the log of that site"
    )

    def wraps() -> None:
        raise ValueError(f"Mueller: {ours}") from ours

    with pytest.raises(ValueError, match="Mueller") as raised:
        wraps()
    assert told_above(spelt(raised.value)) is None and told_above(f"{ours}\nMueller") is None


@pytest.mark.parametrize(
    ("said", "above"),
    [
        ("site 'e': /home/ann/e.csv: has no column 'x'", "site 'e': e.csv: has no column 'x'"),
        ("site 'e': /mnt/our records/e.csv: at /mnt/x", "site 'e': e.csv: at x"),
        (
            "[Errno 2] No such file or directory: '/mnt/our records/e.csv'",
            "[Errno 2] No such file or directory: 'e.csv'",
        ),
        ("there is no file ~/wards/e.csv (file=/a/b/c)", "there is no file e.csv (file=c)"),
        (
            "there is no file wards/e.csv at world/us/e, 1/2 of it",
            "there is no file wards/e.csv at world/us/e, 1/2 of it",
        ),
        ("it is told at https://x.org/a/b", "it is told at https://x.org/a/b"),
    ],
)
def test_a_file_is_told_above_by_its_last_part(said: str, above: str) -> None:
    assert told_above(said) == above


@pytest.mark.usefixtures("several_runs")
def test_what_is_wrong_with_a_members_records_is_told_without_any_of_them(tmp_path: Path) -> None:
    for name, town in (("a", "ulm"), ("b", "secret place")):
        (tmp_path / f"{name}.csv").write_text("town,ill\n" + f"ulm,0\n{town},1\n" * 10)
    members = [site(name, path=str(tmp_path / f"{name}.csv")) for name in "ab"]
    task = {"kind": "parquet", "features": ["town"], "label": "ill", "categories": {"town": ["ulm"]}}
    config = config_of(tmp_path / "runs", hub("world", members[0], {**members[1], "link": LINK}), task)
    inside = Inside(config, tmp_path / "linked")
    with pytest.raises(DataError, match=r"10 values that are no category of it; .*; what is wrong there is in the log"):
        inside.go()
    crossed = b"".join(inside.up)
    assert b"no category" in crossed and b"secret place" not in crossed
    with pytest.raises(DataError, match=r"(?s)no category of it.*in detail: 'secret place' is the first"):
        run(config)


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize("fault", ["raise", "no file", "raise measured"])
@pytest.mark.parametrize("quorum", [None, 0.5, 1.0], ids=["a site", "a hub", "a hub that needs both its sites"])
def test_what_a_members_task_says_stays_there_where_its_hub_goes_on(
    tmp_path: Path, quorum: float | None, fault: str
) -> None:
    bad = site("b", fault=fault)
    member = {**bad, "link": LINK} if quorum is None else hub("north", bad, "e", link=LINK, quorum=quorum)
    world = hub("world", "a", member, "d", on_failure="continue", quorum=0.5, rounds=2)
    inside = Inside(config_of(tmp_path / "runs", world), tmp_path / "linked")
    inside.go()
    crossed = b"".join(inside.up)
    assert b"ward's own mistake" not in crossed and b"mistake in measuring" not in crossed
    assert b"b.csv" not in crossed and b"Error" not in crossed
    is_told = (quorum, fault) in [(None, "raise"), (1.0, "raise"), (1.0, "no file")]
    assert (b"the task's code failed; what it said is in the log there" in crossed) == is_told


@pytest.mark.usefixtures("several_runs")
def test_a_federation_goes_on_without_a_member_that_fails(tmp_path: Path) -> None:
    broken = hub("world", "a", {**site("b", fault="raise"), "link": LINK}, on_failure="continue", quorum=0.5)
    config = config_of(tmp_path / "runs", broken)
    assert Inside(config, tmp_path / "linked").go()["model_digest"] == run(config)["model_digest"]


@pytest.mark.usefixtures("several_runs")
@pytest.mark.parametrize("alone", [True, False])
def test_a_federation_goes_on_without_a_member_whose_data_cannot_be_loaded(tmp_path: Path, alone: bool) -> None:
    bad = site("b", fault="no file")
    member = {**bad, "link": LINK} if alone else hub("north", bad, "c", link=LINK)
    config = config_of(tmp_path / "runs", hub("world", "a", member, "d", on_failure="continue", quorum=0.5, rounds=2))
    linked, simulated = Inside(config, tmp_path / "linked").go(), run(config)
    assert linked["model_digest"] == simulated["model_digest"]
    assert linked["nodes"]["world"] == simulated["nodes"]["world"]


@pytest.mark.usefixtures("several_runs")
def test_a_linked_hub_below_its_quorum_ends_the_run_of_a_hub_that_needs_it(tmp_path: Path) -> None:
    north = hub("north", site("b", fault="raise"), on_failure="continue", link=LINK)
    inside = Inside(config_of(tmp_path / "runs", hub("world", "a", north)), tmp_path / "linked")
    with pytest.raises((SiteFailed, RoundFailed), match="world/north"):
        inside.go()


def test_a_process_sees_its_own_part_of_the_tree(tmp_path: Path) -> None:
    config: RunConfig = config_of(tmp_path, tree())
    assert list(as_served(config, "world").federation.nodes) == [
        *("world", "world/north", "world/c", "world/south", "world/south/d", "world/south/e"),
    ]
    assert list(as_served(config, "world").sites) == ["world/north", "world/c", "world/south/d", "world/south/e"]
    north = as_served(config, "world/north")
    assert list(north.federation.nodes) == ["world", "world/north", "world/north/a", "world/north/b"]
    assert list(as_served(config, "world/south/e").federation.nodes) == ["world", "world/south", "world/south/e"]


@pytest.mark.parametrize(("baseline", "instead"), [("local", "evaluation.fine_tune"), ("pooled", "may lie together")])
def test_what_links_cannot_do_is_told_with_what_to_do_instead(tmp_path: Path, baseline: str, instead: str) -> None:
    with pytest.raises(ConfigError, match=rf"^baseline: is {baseline}, which .*hierfl run.*{instead}"):
        as_served(config_of(tmp_path, tree(), baseline=baseline), "world")


def test_members_of_a_hub_without_a_centre_need_an_address_for_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"members.north.link.peers: is missing: the members of world hand vectors"):
        as_served(config_of(tmp_path, hub("world", *WARDS, topology="swarm")), "world")
    dialled = {**site("c"), "link": {**LINK, "peers": "ward.example.org:8444"}}
    with pytest.raises(ConfigError, match="world has one, and nobody dials it"):
        as_served(config_of(tmp_path, hub("world", "a", dialled)), "world")
    everybody = hub("world", dialled, {**dialled, "name": "d"}, topology="allreduce")
    with pytest.raises(ConfigError, match="lora: adapters are written into their base where the model lies"):
        as_served(config_of(tmp_path, everybody, lora={"rank": 2, "whole": ["bias"]}), "world")


def test_a_held_out_site_needs_its_own_link(tmp_path: Path) -> None:
    config = config_of(tmp_path, hub("world", hub("north", "a", site("b", role="evaluation"), link=LINK)))
    with pytest.raises(ConfigError, match="give it one, and none above"):
        as_served(config, "world")


class Telling:
    """A compression, and an attack, whose code quotes what it is handed."""

    error_feedback, knows_honest = False, False

    def compress(self, change: Any, random: Any) -> Any:
        raise ValueError(f"patient 4711: {change[0]} is too large")

    def num_bytes(self, size: int, item_bytes: int) -> Any:
        return "4711"

    def change(self, own: Any, honest: Any, num_bad: int) -> Any:
        raise SystemExit(f"patient 4711: {own[0]}")

    def poison(self, data: Any) -> Any:
        return 4711


def test_what_a_compression_or_an_attack_of_ones_own_says_goes_up_no_link() -> None:
    one = np.ones(1, np.float32)
    own: Any = (OwnCompression(Telling()), OwnAttack(Telling()))
    for ask, above, here in (
        (
            lambda: own[0].compress(one, None),
            "its compress() failed",
            "ValueError: patient 4711: 1.0 is too large (test",
        ),
        (lambda: own[0].num_bytes(1, 4), "its num_bytes() gave a str; needed: a whole number", "'4711'"),
        (lambda: own[1].change(one, one, 1), "its change() failed", "SystemExit: patient 4711: 1.0 (test_links_inside"),
        (lambda: own[1].poison(one), "its poison() gave a int; needed: a torch Dataset", "4711"),
    ):
        with pytest.raises(StrategyFailed) as raised:
            ask()
        said = what_is_said(raised.value, "world/us")
        assert said.startswith(above) and "4711" not in said and said.endswith("is in the log of that site")
        assert f"{QUOTED}{here}" in str(raised.value)
