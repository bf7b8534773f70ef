"""What a sound configuration is read as."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from hierfl.config import from_mapping, load, write
from hierfl.config.schema import Runtime, Training
from hierfl.errors import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs"
HEART = CONFIGS / "heart.yaml"


@dataclasses.dataclass(frozen=True)
class Anything:
    """A task whose `data` takes anything."""

    def model(self) -> Any: ...
    def data(self, site: str, **source: Any) -> Any: ...
    def loss(self, model: Any, batch: Any) -> Any: ...
    def predict(self, model: Any, batch: Any) -> Any: ...


def synthetic(members: object, **more: object) -> dict[str, object]:
    """A configuration in which any name is a site."""
    federation = {"name": "w", "members": members, **more.pop("federation", {})}  # type: ignore[dict-item]
    return {"task": "synthetic", "federation": federation, **more}


def anything(members: object, **more: object) -> dict[str, object]:
    """The same with `data:` of any kind."""
    return {**synthetic(members, **more), "task": f"{__name__}:Anything"}


def test_heart_is_read_as_written() -> None:
    config = load(HEART)
    assert (config.name, config.seed, config.task_kind) == ("heart", 0, "heart_disease")
    assert list(config.sites) == [
        "world/us/cleveland",
        "world/us/long_beach",
        "world/hungary/budapest",
        "world/switzerland/zurich_basel",
    ]
    assert list(config.hubs) == ["world", "world/us", "world/hungary", "world/switzerland"]
    assert config.federation.root.rounds == 15
    training = Training(optimizer="sgd", lr=0.01, batch_size=4, local_steps=100)
    assert all(site.training == training for site in config.sites.values())
    assert config.sites["world/us/cleveland"].key == "cleveland"
    assert config.runtime == dataclasses.replace(Runtime(kind="ray"), policy=config.runtime.policy)
    assert type(config.runtime.policy).__name__ == "ChainFirst"


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.yaml")))
def test_a_run_written_back_loads_to_the_same_run(name: str, tmp_path: Path) -> None:
    config = load(CONFIGS / name)
    path = tmp_path / "config.yaml"
    path.write_text(write(config.resolved))
    again = load(path)
    assert again == config
    assert again.resolved == config.resolved
    assert from_mapping(config.resolved) == config


def test_what_is_written_back_is_written_back_once_more_in_the_same_words(tmp_path: Path) -> None:
    """Else a run that is taken up again would keep the file for another configuration."""
    path = tmp_path / "config.yaml"
    path.write_text(write(from_mapping(synthetic([{"name": "a"}], federation={"on_failure": "continue"})).resolved))
    assert write(load(path).resolved) == path.read_text()


def test_what_yaml_would_misread_is_written_back_in_quotes(tmp_path: Path) -> None:
    sites = [{"name": name} for name in ("1e3", "no", "2020-01-01", "12", "st. mary", "${x}", "null", "~")]
    sites[5]["name"] = "\\${x}"
    config = from_mapping(synthetic(sites, name="1e-3", federation={"name": "0x1f"}))
    assert "0x1f/${x}" in config.sites
    path = tmp_path / "config.yaml"
    path.write_text(write(config.resolved))
    assert load(path) == config


def test_numbers_are_read_as_omegaconf_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "task: synthetic\ntraining: {lr: 1e-3, batch_size: '8'}\nfederation: {name: w, members: [{name: 7}]}"
    )
    config = load(path)
    assert config.name == "run"
    assert config.sites["w/7"].training == Training(lr=0.001, batch_size=8)


def test_a_number_with_zeros_before_it_is_a_name_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "task: synthetic\ntraining: {batch_size: 010, lr: 01.5}\nseed: 0x1F\n"
        "federation: {name: 12:30, rounds: 1_000, members: [{name: 0417}, {name: 8, data: {key: 007}}]}"
    )
    config = load(path, ["federation.members.0417.weight=02", "federation.members.+={name: 0010}"])
    assert list(config.sites) == ["12:30/0417", "12:30/8", "12:30/0010"]
    assert config.sites["12:30/8"].key == "007"
    assert config.sites["12:30/0417"].training == Training(lr=1.5, batch_size=10)
    assert (config.seed, config.federation.root.rounds) == (31, 1000)
    path.write_text(write(config.resolved))
    assert load(path) == config
    others = yaml.safe_load(path.read_text())["federation"]
    assert (others["name"], others["members"][0]["name"], others["rounds"]) == ("12:30", "0417", 1000)


def test_a_name_that_reads_as_a_number_stays_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "task: synthetic\nname: 2.50\nruntime: {devices: [{name: 1e1}]}\n"
        "federation: {name: 1e3, members: [{name: 1.10}, {name: 1.1}, {name: 0x1F}, {name: 1_000, data: {key: +5}}]}"
    )
    config = load(path, ["federation.members[1.10].weight=2", "federation.members.+={name: .5}"])
    assert list(config.sites) == [f"1e3/{name}" for name in ("1.10", "1.1", "0x1F", "1_000", ".5")]
    assert (config.name, config.runtime.devices[0].name, config.sites["1e3/1_000"].key) == ("2.50", "1e1", "+5")
    path.write_text(write(config.resolved))
    assert load(path) == config
    assert yaml.safe_load(path.read_text())["federation"]["members"][0]["name"] == "1.10"
    renamed = load(path, ["name=1.10", "federation.name=1e5", "federation.members.1.name=7.0"])
    assert (renamed.name, list(renamed.sites)[:2]) == ("1.10", ["1e5/1.10", "1e5/7.0"])


@pytest.mark.parametrize("member", ["us", "site-1"])
def test_null_takes_no_member_away_and_points_at_how_it_leaves(tmp_path: Path, member: str) -> None:
    path = tmp_path / "run.yaml"
    members = '[{name: us, members: [{name: x}]}, {count: 2, name: "site-{i}"}]'
    path.write_text("task: synthetic\nfederation: {name: world, members: " + members + "}")
    with pytest.raises(ConfigError, match=f"federation.members.{member}.leaves_at=ROUND"):
        load(path, [f"federation.members.{member}=null"])


def test_training_is_inherited_key_by_key() -> None:
    members = [
        {"name": "a", "training": {"lr": 0.5}},
        {
            "name": "h",
            "training": {"local_epochs": 2},
            "members": [{"name": "b"}, {"name": "c", "training": {"local_steps": 7, "clip_norm": None}}],
        },
        {"name": "d", "training": {"optimizer": "SGD"}},
        {"name": "e", "training": {"optimizer": "adam"}},
    ]
    options = {"momentum": 0.9}
    top = {"lr": 0.1, "local_steps": 5, "clip_norm": 1.0, "optimizer_options": options}
    sites = from_mapping(synthetic(members, training=top)).sites
    base = Training(lr=0.1, local_steps=5, clip_norm=1.0, optimizer_options=options)
    assert sites["w/a"].training == dataclasses.replace(base, lr=0.5)
    assert sites["w/h/b"].training == dataclasses.replace(base, local_steps=None, local_epochs=2)
    assert sites["w/h/c"].training == dataclasses.replace(base, local_steps=7, clip_norm=None)
    assert sites["w/d"].training == dataclasses.replace(base, optimizer="SGD")
    assert sites["w/e"].training == dataclasses.replace(base, optimizer="adam", optimizer_options={})


def test_failure_quorum_data_and_strategy_go_down_rounds_and_topology_do_not() -> None:
    inner = {"name": "i", "members": [{"name": "a", "data": {"key": "k", "x": 2}}, {"name": "b"}], "weight": 3}
    outer = {"name": "o", "on_failure": "continue", "rounds": 4, "data": {"x": 1, "y": 1}, "members": [inner]}
    strict = {"name": "s", "on_failure": "stop", "quorum": 0.9, "members": [{"name": "a", "weight": 2}]}
    strategy = {"kind": "fedprox", "mu": 0.1, "weights": "given"}
    config = from_mapping(anything([outer, strict], federation={"strategy": strategy}))
    hubs = config.federation.hubs
    assert [(hub.keep_going, hub.quorum, hub.rounds) for hub in hubs.values()] == [
        (False, 1.0, 1),
        (True, 0.5, 4),
        (True, 0.5, 1),
        (False, 0.9, 1),
    ]
    assert config.sites["w/o/i/a"].source == {"x": 2, "y": 1}
    assert config.sites["w/o/i/a"].key == "k"
    assert config.sites["w/o/i/b"].source == {"x": 1, "y": 1}
    assert config.sites["w/o/i/b"].key == "b"
    assert (config.hubs["w/o/i"].weight, config.sites["w/s/a"].weight, config.hubs["w"].weight) == (3.0, 2.0, 1.0)
    assert config.hubs["w/o/i"].strategy.objective().mu == 0.1
    assert config.hubs["w/o/i"].strategy.weights == "given"


def test_an_inner_hub_without_a_strategy_steps_without_the_server_optimiser() -> None:
    members = [{"name": "h", "members": [{"name": "a"}]}]
    hubs = from_mapping(synthetic(members, federation={"strategy": "fedadam"})).hubs
    assert (hubs["w"].strategy.linear, hubs["w/h"].strategy.linear) == (False, True)


def test_overrides_reach_every_corner() -> None:
    overrides = [
        "training.lr=1e-1",
        "federation.members.us.rounds=2",
        "federation.members.1.rounds=3",
        "federation.members[2].members[zurich_basel].training.batch_size=null",
        "federation.members.us.members.cleveland.training.optimizer_options.momentum=0.5",
        "federation.strategy=fedavgm",
        "federation.strategy.momentum=0.7",
        "runtime.policy=fifo",
        "runtime.resources_per_worker={a: 1}",
        "stopping={metric: auc, patience: 3}",
        "name=${federation.name}-${seed}",
        "output.dir=a=b",
    ]
    config = load(HEART, overrides)
    assert [hub.rounds for hub in config.federation.hubs.values()] == [15, 2, 3, 1]
    assert config.sites["world/us/cleveland"].training.optimizer_options == {"momentum": 0.5}
    assert config.sites["world/us/long_beach"].training.optimizer_options == {}
    assert config.sites["world/switzerland/zurich_basel"].training.batch_size is None
    assert all(site.training.lr == 0.1 for site in config.sites.values())
    assert config.hubs["world"].strategy.momentum == 0.7  # type: ignore[attr-defined]
    assert type(config.runtime.policy).__name__ == "Fifo"
    assert config.runtime.resources_per_worker == {"a": 1.0}
    assert config.stopping.patience == 3
    assert config.name == "world-0"
    assert config.output.dir == "a=b"


def test_null_puts_a_key_back() -> None:
    config = load(
        HEART, ["training.local_steps=null", "training.local_epochs=2", "name=null", "federation.rounds=null"]
    )
    assert config.sites["world/us/cleveland"].training.local_epochs == 2
    assert config.name == "heart"
    assert config.federation.root.rounds == 1


def test_overrides_of_a_template_and_of_one_it_makes() -> None:
    config = load(
        CONFIGS / "scale.yaml",
        [
            "federation.members.count=3",
            "federation.members.members.count=2",
            "federation.members.hub-001.members.hub-001-site-001.training.lr=7",
            "federation.members.hub-001.rounds=5",
        ],
    )
    assert len(config.sites) == 6
    assert [hub.rounds for hub in config.federation.root.members] == [1, 5, 1]  # type: ignore[union-attr]
    assert {path: site.training.lr for path, site in config.sites.items() if site.training.lr != 0.1} == {
        "world/hub-001/hub-001-site-001": 7.0
    }
    assert from_mapping(config.resolved) == config


def test_a_list_may_hold_templates_beside_nodes() -> None:
    sites = {"count": 2, "start": 5, "name": "{parent}-{i:02d}", "data": {"path": "x/{parent}/{name}.{i}.{z}"}}
    config = from_mapping(anything([{"name": "a"}, sites]))
    assert list(config.sites) == ["w/a", "w/w-05", "w/w-06"]
    assert config.sites["w/w-06"].source == {"path": "x/w/w-06.6.{z}"}
    again = from_mapping(anything([{"name": "a"}, sites]), ["federation.members.w-06.training.lr=3"])
    assert again.sites["w/w-06"].training.lr == 3.0
    assert again.sites["w/w-06"].source == config.sites["w/w-06"].source


def test_interpolation_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIERFL_TEST_N", "3")
    members = {"count": "${oc.env:HIERFL_TEST_N}", "name": "${name}-{i}", "training": "${fast}"}
    mapping = synthetic(members, name="x", seed="${oc.decode:${oc.env:HIERFL_TEST_SEED,4}}")
    with pytest.raises(ConfigError, match="fast"):
        from_mapping(mapping)
    members["training"] = {"lr": "${training.lr}"}
    config = from_mapping(mapping, ["training.lr=0.25", "federation.members.x-1.training.lr=2"])
    assert config.seed == 4
    assert [site.training.lr for site in config.sites.values()] == [0.25, 2.0, 0.25]
    assert list(config.sites) == ["w/x-0", "w/x-1", "w/x-2"]


def test_a_resolver_of_ones_own_stands_in_the_module_of_the_task(tmp_path: Path) -> None:
    (tmp_path / "resolved_wards.py").write_text(
        "import omegaconf\nfrom omegaconf import OmegaConf\nfrom ward_tasks import Wards\n"
        "OmegaConf.clear_resolver('wards')\n"
        "is_old = omegaconf.__version__.startswith('2.3')\n"  # which of its two ways is deprecated
        "register = OmegaConf.register_new_resolver if is_old else OmegaConf.register_resolver\n"
        "register('wards', lambda n: [{'name': f'ward-{i}', 'weight': i + 1} for i in range(int(n))])\n"
    )
    path = tmp_path / "run.yaml"
    text = 'task: {kind: "resolved_wards:Wards"}\nfederation: {name: world, members: "${wards:3}"}\n'
    path.write_text(text)
    assert {name: site.weight for name, site in load(path, ["federation.members.ward-1.weight=9"]).sites.items()} == {
        "world/ward-0": 1.0,
        "world/ward-1": 9.0,
        "world/ward-2": 3.0,
    }
    path.write_text(text.replace("wards:3", "bards:3"))
    with pytest.raises(ConfigError, match=r"there is no resolver 'bards'.* registered in the module of your own task"):
        load(path)


def test_a_dictconfig_is_a_mapping() -> None:
    from omegaconf import OmegaConf

    mapping = OmegaConf.create(synthetic([{"name": "a"}], seed="${training.batch_size}", training={"batch_size": 9}))
    assert from_mapping(mapping).seed == 9  # type: ignore[arg-type]


def test_ten_thousand_sites_load_in_a_second_or_two(tmp_path: Path) -> None:
    start = time.process_time()
    config = load(CONFIGS / "scale.yaml")
    assert time.process_time() - start < 3.0
    assert (len(config.sites), len(config.hubs)) == (10_000, 101)
    assert len({id(site.training) for site in config.sites.values()}) == 1
    path = tmp_path / "long.yaml"
    hubs = [{"name": f"h{i}", "members": [{"name": f"s{j}"} for j in range(100)]} for i in range(100)]
    path.write_text(write(synthetic(hubs)))
    start = time.process_time()
    config = load(path, ["federation.members.h7.members.s9.training.lr=5"])
    assert time.process_time() - start < 5.0
    assert config.sites["w/h7/s9"].training.lr == 5.0


def test_a_tree_five_hundred_tiers_deep(tmp_path: Path) -> None:
    node: dict[str, object] = {"name": "s"}
    for depth in range(499):
        node = {"name": f"h{depth}", "members": [node, {"name": "t"}]}
    config = from_mapping({"task": "synthetic", "federation": node})
    assert config.federation.num_tiers == 500
    path = tmp_path / "deep.yaml"
    path.write_text(write(config.resolved))
    assert list(load(path).sites) == list(config.sites)


def test_a_task_of_ones_own_beside_the_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "task_of_ones_own.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from nowhere import Nothing\n"
        "@dataclass(frozen=True)\nclass Own:\n    columns: tuple[str, ...]\n    odd: Nothing = None\n"
        "    def model(self): ...\n    def data(self, site, **source): ...\n"
        "    def loss(self, model, batch): ...\n    def predict(self, model, batch): ...\n"
    )
    path = tmp_path / "own.yaml"
    path.write_text(
        "task: {kind: 'task_of_ones_own:Own', columns: [a, b], odd: {x: 1}}\n"
        "federation: {name: w, members: [{name: a}]}"
    )
    config = load(path)
    assert config.task.columns == ("a", "b")  # type: ignore[attr-defined]
    assert config.task.odd == {"x": 1}  # type: ignore[attr-defined]
    assert from_mapping(config.resolved) == config


def test_a_limit_of_time_holds_for_the_sites_below_it_that_have_none_of_their_own() -> None:
    inner = {"name": "h", "site_timeout_s": 20, "members": [{"name": "b"}, {"name": "c", "site_timeout_s": 5}]}
    mapping = synthetic([{"name": "a"}, inner]) | {"runtime": {"kind": "ray", "site_timeout_s": 60}}
    limits = {path: settings.timeout_s for path, settings in from_mapping(mapping).sites.items()}
    assert limits == {"w/a": 60.0, "w/h/b": 20.0, "w/h/c": 5.0}
