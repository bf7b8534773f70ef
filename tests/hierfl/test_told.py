"""What is said before the first round: of strategies that count on plain steps of SGD where sites take others, of keys
for Ray where there is none, of sites that have nothing to test on, and of those that have the same data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import config_of, go, hub, site

from hierfl.config import load
from hierfl.config.document import field_docs
from hierfl.config.membership import epochs
from hierfl.config.schema import DeviceGroup, Runtime
from hierfl.doubles import doubles
from hierfl.link.served import as_served
from hierfl.monitor.records import Notice
from hierfl.runtime.jobs import Inventory
from hierfl.told import OF_RAY, doubts, for_ray
from hierfl.untested import untested
from hierfl.validation import told_of

ADAM = {"optimizer": "adam"}
MOMENTUM = {"optimizer_options": {"momentum": 0.9}}


def found(folder: Path, strategy: str, *members: Any, **training: Any) -> dict[str, str]:
    root = hub("world", *members, strategy=strategy)
    return doubts(config_of(folder, root, training={"lr": 0.1, "batch_size": 4, "local_steps": 2, **training}))


@pytest.mark.parametrize("strategy", ["scaffold", "fednova"])
@pytest.mark.parametrize(("training", "how"), [(ADAM, "adam"), (MOMENTUM, "momentum")], ids=["adam", "momentum"])
def test_other_steps_than_plain_ones_are_warned_of_at_the_hub_of_the_sites(
    tmp_path: Path, strategy: str, training: dict[str, Any], how: str
) -> None:
    members = hub("up", "a", "b"), "c"
    told = found(tmp_path, strategy, *members, **training)
    assert list(told) == ["world/up", "world"]
    assert (
        told["world/up"].startswith(f"{strategy} counts on plain steps")
        and f"with {how} at world/up/a" in (told["world/up"])
    )
    assert found(tmp_path, strategy, *members) == {}
    one = found(tmp_path, strategy, "a", site("b", training=training), site("d", role="evaluation", training=training))
    assert list(one) == ["world"] and f"with {how} at world/b it may" in one["world"]


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "feddyn"])
def test_who_needs_no_plain_steps_is_not_warned_of(tmp_path: Path, strategy: str) -> None:
    assert found(tmp_path, strategy, "a", "b", **ADAM) == {}


def test_it_is_said_by_validate_and_as_the_run_begins(tmp_path: Path) -> None:
    root = hub("world", "a", "b", strategy="scaffold", rounds=1)
    training = {"lr": 0.01, "batch_size": 4, "local_steps": 2, **ADAM}
    [(node, said)] = told_of(config_of(tmp_path, root, training=training))["strategies"].items()
    ran = go(tmp_path, root, training=training)
    notices = [(one.level, one.node, one.message) for one in ran.monitor.of(Notice)]
    assert node == "world" and ("warning", node, said) in notices


def test_two_doubts_of_one_hub_are_both_said(tmp_path: Path) -> None:
    root = hub("world", hub("up", "a", "b", rounds=2), "c", strategy="scaffold", participation={"kind": "all"})
    root |= {"on_failure": "continue"}
    config = config_of(tmp_path, root, training={"lr": 0.1, "batch_size": 4, "local_steps": 2, **ADAM})
    assert "beside the optimum" in doubts(config)["world"] and "; and scaffold counts on" in doubts(config)["world"]


GPUS = {"gpus_per_worker": 0.5, "resources_per_worker": {"hospital_a": 1}, "share": False}
SAID = "set for runtime.kind: ray, and without effect on local, as here: runtime."


def test_keys_for_ray_are_named_on_the_local_runtime_by_validate_and_as_the_run_begins(tmp_path: Path) -> None:
    root, runtime = hub("world", "a", rounds=1), {"kind": "local", "num_workers": 1, **GPUS}
    said = f"{SAID}share, runtime.gpus_per_worker, runtime.resources_per_worker"
    assert told_of(config_of(tmp_path, root, runtime=runtime))["runtime"] == {"world": said}
    ran = go(tmp_path, root, runtime=runtime)
    notices = [(one.level, one.node, one.message) for one in ran.monitor.of(Notice)]
    assert notices.count(("info", "world", said)) == 1


def test_so_are_those_of_groups_of_devices(tmp_path: Path) -> None:
    groups = [{"name": "a", "memory_gib": 8, "places": 2}, {"name": "b", "gpus": 1, "resources": {"x": 1}}]
    config = config_of(tmp_path, hub("world", "a"), runtime={"kind": "local", "devices": groups})
    assert for_ray(config) == {"world": f"{SAID}devices[1].gpus, runtime.devices[1].resources"}


def test_on_ray_nothing_is_said_of_them_nor_where_none_is_set(tmp_path: Path) -> None:
    root = hub("world", site("a") | {"link": {"address": "world:8443"}})
    assert for_ray(config_of(tmp_path, root, runtime={"kind": "ray", **GPUS})) == {}
    usual = config_of(tmp_path, root, runtime={"kind": "local", "share": True, "device": "cpu", "num_workers": 2})
    assert for_ray(usual) == {}
    served = as_served(usual, "world")
    assert served.runtime.gpus_per_worker == 0 and for_ray(served) == {}, "it set that itself"


@pytest.mark.parametrize("cls", [Runtime, DeviceGroup])
def test_these_are_the_keys_whose_words_say_that_they_are_for_ray(cls: type) -> None:
    of_ray = [name for name, said in field_docs(cls).items() if said.startswith("ray")]
    assert [name for name in of_ray if name != "site_timeout_s"] == list(OF_RAY[cls])


BARE = {"test": 0}
ALL_ASKED = {
    "evaluation": {"operating_point": {"sensitivity": 0.9}},
    "stopping": {"metric": "auc", "patience": 1},
}


def of_tests(folder: Path, *members: Any, **top: Any) -> list[tuple[str, str, str]]:
    """Run a federation, and give what is said of records to test on."""
    ran = go(folder, hub("world", *members), **top)
    told = [(one.level, one.node, one.message) for one in ran.monitor.of(Notice)]
    return [one for one in told if "test records" in one[2]]


def test_sites_that_have_nothing_to_test_on_are_named_once(tmp_path: Path) -> None:
    told = of_tests(tmp_path / "one", "a", hub("up", "b", site("c", **BARE)))
    assert told == [("info", "world", "world/up/c has no test records and is not measured")]
    beside = site("e", role="evaluation", **BARE), site("s", role="statistics", **BARE)
    told = of_tests(tmp_path / "two", site("a", **BARE), "b", *beside)
    assert told == [("info", "world", "world/a, world/e have no test records and are not measured")]
    assert of_tests(tmp_path / "off", site("a", **BARE), "b", evaluation={"every": 0}) == []
    assert of_tests(tmp_path / "told", site("a", **BARE), "b", statistics={"only": True}) == []
    pooled = of_tests(tmp_path / "pooled", site("a", **BARE), "b", baseline="pooled")
    assert pooled == [("info", "world", "world/a has no test records and is not measured")]


def test_where_no_site_has_anything_to_test_on_it_is_said_what_is_missing(tmp_path: Path) -> None:
    bare = site("a", **BARE), site("b", **BARE)
    way = "; let the task's data have some to test on, or leave measuring out (evaluation.every: 0)"
    [told] = of_tests(tmp_path / "plain", *bare)
    assert told == ("warning", "world", f"no site has test records: there are no metrics{way}")
    [(_, _, said)] = of_tests(tmp_path / "asked", *bare, **ALL_ASKED)
    assert "no metrics, no threshold (evaluation.operating_point), no auc to stop by, so that patience" in said
    [(_, _, said)] = of_tests(tmp_path / "beside", *bare, site("e", role="evaluation"))
    assert said.startswith("no site but those of role: evaluation has test records: there are no metrics but theirs;")
    [(_, _, said)] = of_tests(tmp_path / "later", *bare, {**site("d"), "joins_at": 2})
    assert said.startswith("no site has test records so far: ")
    wide = {"kind": "breast_cancer", "num_sites": 1, "test_fraction": 0}
    [(_, _, said)] = of_tests(tmp_path / "drawn", "site-0", task=wide)
    assert "; let task.test_fraction be above 0, or" in said


def test_of_ten_thousand_sites_without_test_records_a_few_are_named(tmp_path: Path) -> None:
    root = {"name": "world", "members": {"count": 10_000, "name": "s{i}"}}
    config = config_of(tmp_path, root)
    counted = {path: Inventory(path, 10, int(path.endswith("s9"))) for path in config.sites}
    counted["world/s0"] = Inventory("world/s0", 0, 0, error="it is not there")
    [(_, _, said)] = untested(config, epochs(config)[0], counted)
    named = ", ".join(f"world/s{place}" for place in range(1, 6))
    assert said == f"{named} and 9993 more have no test records and are not measured"


TABLES = {"kind": "parquet", "features": ["x"], "label": "y"}
WARDS = "ward_tasks:Wards"


def same(folder: Path, *members: Any, task: Any = WARDS, **top: Any) -> str:
    """Say which sites have the same data."""
    return doubles(config_of(folder, hub("world", *members), task, **top)).get("world", "")


def test_a_file_that_two_sites_read_is_told_by_validate_and_as_the_run_begins(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{place % 7},{place % 2}\n" for place in range(40)))
    root = hub("world", site("a", path=f"{tmp_path}/a.csv"), hub("up", site("b", path=f"{tmp_path}/./a.csv")))
    [(node, said)] = told_of(config_of(tmp_path / "runs", root, TABLES))["doubles"].items()
    assert node == "world" and said.startswith(f"world/a, world/up/b have the same records ({tmp_path}/a.csv): these")
    assert "count once for each site, and one may train on what another tests on; unless that is meant" in said
    ran = go(tmp_path / "runs", root, TABLES)
    assert [one.level for one in ran.monitor.of(Notice) if (one.node, one.message) == (node, said)] == ["warning"]
    other = site("a", path="a.csv"), site("b", path="b.csv"), site("c", path="a.csv", role="evaluation")
    assert same(tmp_path, *other, task=TABLES) == ""


def test_a_key_that_two_sites_have_is_told(tmp_path: Path) -> None:
    twice = hub("us", "cleveland", "long_beach"), hub("hungary", site("budapest", key="cleveland"))
    for top in ({}, {"baseline": "local"}, {"baseline": "pooled"}):
        said = same(tmp_path, *twice, task="heart_disease", **top)
        assert said.startswith(
            "world/us/cleveland, world/hungary/budapest have the same records (key: cleveland): these"
        )
        assert "tests on" not in said, "they are split alike"
    named = hub("north", "a", site("b", n=12)), hub("south", "a", site("b", n=13))
    said = same(tmp_path, *named)
    assert said.startswith("world/north/a, world/south/a have the same records (key: a): these")
    told = same(tmp_path, site("a", key="x", n=5), site("b", key="x", n=5))
    assert told.startswith("world/a, world/b have the same records (key: x, n: 5)")


def test_what_is_meant_to_have_the_same_data_or_has_not_is_not_told(tmp_path: Path) -> None:
    x = {"data": {"key": "x"}}
    assert same(tmp_path, {"name": "a", "split": 3, **x}) == "", "its parts are those of one site"
    assert same(tmp_path, {"name": "a", "split": 3, **x}, {"name": "b", **x}).startswith("world/a, world/b have")
    a, b = {"name": "a", **x}, {"name": "b", **x}
    assert same(tmp_path, a, {**b, "attack": "sign_flip"}) == ""
    assert same(tmp_path, a, {**b, "role": "evaluation"}) == same(tmp_path, a, {**b, "role": "statistics"}) == ""
    assert same(tmp_path, {**a, "leaves_at": 2}, {**b, "joins_at": 2}, "c") == "", "one takes the other's place"
    assert same(tmp_path, {**a, "leaves_at": 3}, {**b, "joins_at": 2}, "c").startswith("world/a, world/b have")
    assert same(tmp_path, site("a", n=5), site("b", n=5)) == "", "a task of one's own makes of a key what it likes"


def test_the_same_path_on_other_machines_is_other_data(tmp_path: Path) -> None:
    config = config_of(tmp_path, hub("world", hub("up", site("a", path="d.csv")), site("b", path="d.csv")), TABLES)
    assert doubles(config)
    kept = replace(config.sites["world/b"], labels=frozenset({"eu"}))
    assert doubles(replace(config, sites={**config.sites, "world/b": kept})) == {}
    assert doubles(replace(config, links={"world/up": None})) == {}
    assert doubles(replace(config, links={"world": None})), "both lie at the one who serves them"


@dataclass(frozen=True)
class Shared:
    """Reads one file for all sites of a ward; of "odd" it does not know where that is."""

    def model(self) -> None: ...
    def loss(self, model: Any, batch: Any) -> None: ...
    def predict(self, model: Any, batch: Any) -> None: ...
    def data(self, site: str, ward: str) -> None: ...

    def records_at(self, site: str, ward: str) -> str:
        if ward == "odd":
            raise KeyError(ward)
        return f"{ward}.xlsx"


def test_a_task_of_ones_own_may_say_where_it_reads(tmp_path: Path) -> None:
    members = [site(f"{ward}-{place}", ward=ward) for ward in ("icu", "odd", "er", "ob", "ent") for place in range(9)]
    said = same(tmp_path, *members, task={"kind": Shared})
    assert [said.count(f"({ward}.xlsx)") for ward in ("icu", "er", "ob", "ent", "odd")] == [1, 1, 1, 0, 0]
    assert "world/icu-4 and 4 more have the same records" in said and "; and 1 more like these: " in said


def test_of_ten_thousand_sites_on_the_same_data_a_few_are_named(tmp_path: Path) -> None:
    members = {"count": 100, "name": "h{i}", "members": {"count": 100, "name": "s{i}"}}
    config = config_of(tmp_path, {"name": "world", "members": members}, "synthetic")
    [said] = doubles(config).values()
    assert len(config.sites) == 10_000 and len(said) < 600 and "; and 97 more like these: " in said


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml")), ids=lambda one: one.stem
)
def test_the_federations_that_come_along_have_data_of_their_own(path: Path) -> None:
    assert doubles(load(path, [])) == {}
