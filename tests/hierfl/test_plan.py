"""`hierfl plan`: federations small enough to be recomputed, levers whose overrides do what they say, clear mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hierfl.cli import app
from hierfl.config import from_mapping, load
from hierfl.errors import ConfigError
from hierfl.plan import Plan, knowledge, plan
from hierfl.planning.lever import Lever, place_of
from hierfl.runtime import ray_slots
from hierfl.runtime.estimates import Estimates

STEPS = {"large": 60, "middle": 20, "small": 20}


def site(name: str, steps: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "training": {"local_steps": steps}, **more}


def mapping(*members: dict[str, Any], **runtime: Any) -> dict[str, Any]:
    """Sites under one hub; one step takes 0.01 s by guess, so 60 steps are 0.6 s."""
    return {
        "name": "trial",
        "task": {"kind": "synthetic", "num_samples_min": 120},
        "training": {"batch_size": 4},
        "federation": {
            "name": "world",
            "rounds": 5,
            "members": [*members] or [site(name, steps) for name, steps in STEPS.items()],
        },
        "runtime": {"kind": "local", "num_workers": 2, **runtime},
    }


def planned(*members: dict[str, Any], **runtime: Any) -> Plan:
    return plan(from_mapping(mapping(*members, **runtime)))


def lever(found: Plan, kind: str) -> Lever:
    return next(lever for lever in found.levers if lever.kind == kind)


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "trial.yaml"
    path.write_text(yaml.safe_dump(mapping()))
    return path


def test_two_devices_and_three_sites_by_hand() -> None:
    """0.6 s against 0.2 + 0.2: a round takes 0.6 s, of 1.2 device-seconds 0.2 are idle, and no order changes that."""
    found = planned()
    rows = {row.policy: row for row in found.policies}
    assert set(rows) == {"chain_first", "fifo", "greedy", "longest_first", "round_robin", "static"}
    own = rows["chain_first"].figures
    assert rows["chain_first"].is_configured and not rows["fifo"].is_configured
    assert own.round_s == pytest.approx(0.6) and own.efficiency == pytest.approx(1.0)
    assert own.idle == pytest.approx(1 / 6) and own.floor == pytest.approx(1 / 6) and own.avoidable == pytest.approx(0)
    assert found.is_guess and "guessed: 0.01 s per step" in found.durations


def test_an_order_that_matters_by_hand() -> None:
    """0.2, 0.2 and 0.6 s first in, first out: the longest begins after 0.2 s and ends at 0.8; longest first at 0.6."""
    found = planned(*(site(name, STEPS[name]) for name in ("small", "middle", "large")), policy="fifo")
    rows = {row.policy: row.figures for row in found.policies}
    assert rows["fifo"].round_s == pytest.approx(0.8) and rows["longest_first"].round_s == pytest.approx(0.6)
    assert rows["fifo"].idle == pytest.approx(1 - 1.0 / 1.6) and rows["fifo"].floor == pytest.approx(1 / 6)
    better = lever(found, "policy")
    assert better.time_gain == pytest.approx(1 / 4) and "21% of the devices' time idle" in better.reason
    assert from_mapping(mapping(), better.overrides).runtime.policy is not None


def test_the_configured_policy_keeps_its_keys_and_is_listed_once() -> None:
    found = planned(policy={"kind": "chain_first", "bucket": 0.3})
    own = [row.policy for row in found.policies if row.policy.startswith("chain_first")]
    assert own == ["chain_first (bucket=0.3)"]


def test_split_gains_what_it_says_and_its_override_works(config: Path) -> None:
    """60 steps over two devices: 30 each, and 20 beside them: 0.5 s on either, none idle."""
    found = lever(planned(), "split")
    assert found.what == "split large over 2 devices"
    assert found.reason == "large takes 100% of the round; the other device waits 33% of it"
    assert found.overrides == ("federation.members.large.split=2",)
    assert found.after.round_s == pytest.approx(0.5) and found.after.idle == pytest.approx(0.0)
    changed = load(config, found.overrides)
    assert [changed.sites[f"world/large/part-{i}"].training.local_steps for i in range(2)] == [30, 30]
    again = plan(changed)
    assert again.policies[0].figures.round_s == pytest.approx(found.after.round_s)
    assert not any(other.kind == "split" for other in again.levers)


def test_a_site_in_a_template_and_a_name_with_a_dot_are_split_too() -> None:
    members = [{"name": "st. mary", "members": [site("a.b", 90), {"count": 3, "name": "s{i}", **drop(site("", 5))}]}]
    found = lever(planned(*members, num_workers=3), "split")
    assert found.overrides == ("federation.members[st. mary].members[a.b].split=3",)
    changed = from_mapping(mapping(*members), [*found.overrides, f"{place_of('world/st. mary/s1')}.split=2"])
    assert {"world/st. mary/a.b/part-2", "world/st. mary/s1/part-1"} <= set(changed.sites)


def drop(made: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in made.items() if key != "name"}


def test_residency_bounds_how_far_a_site_is_split() -> None:
    """Two of four devices may have the large site's data."""
    devices = [{"name": "berlin", "count": 2, "labels": ["de"]}, {"name": "paris", "count": 2}]
    members = [site("large", 80, residency=["de"]), *(site(f"s{i}", 10) for i in range(3))]
    config = mapping(*members, devices=devices)
    del config["runtime"]["num_workers"]
    found = lever(plan(from_mapping(config)), "split")
    assert found.overrides == ("federation.members.large.split=2",)
    assert found.after.round_s == pytest.approx(0.4)


def test_devices_more_and_less(config: Path) -> None:
    """Two sites, one of 0.9 s, need no third device: 1 s of work in 0.9 s. Three like sites need no round of two."""
    lonely = planned(site("large", 90), site("small", 10), num_workers=3)
    less = lever(lonely, "devices")
    assert less.what == "one device less" and less.overrides == ("runtime.num_workers=2",)
    assert less.time_gain == pytest.approx(0.0) and less.idle_gain == pytest.approx(1 / 1.8 - 1 / 2.7)
    even = planned(*(site(f"s{i}", 10) for i in range(3)))
    more = lever(even, "devices")
    assert more.what == "one device more" and more.time_gain == pytest.approx(0.5)
    groups = [{"name": "a", "count": 2}, {"name": "b", "labels": ["x"]}]
    declared = mapping(*(site(f"s{i}", 10) for i in range(4)), devices=groups)
    del declared["runtime"]["num_workers"]
    named = [found for found in plan(from_mapping(declared)).levers if found.kind == "devices"]
    changes = {("runtime.devices.a.count=3",), ("runtime.devices.b.count=2",), ("runtime.devices.a.count=1",)}
    assert {found.overrides for found in named} == changes, "four like sites take two rounds of two or three devices"
    assert [group.count for group in from_mapping(declared, ["runtime.devices.a.count=3"]).runtime.devices] == [3, 1]


def test_a_second_federation_fills_the_gaps() -> None:
    """Twice 1 s of work on two devices cannot take less than 1 s, and takes no more: nothing is idle."""
    found = lever(planned(), "company")
    assert found.overrides == () and found.after.round_s == pytest.approx(1.0, rel=0.1)
    assert found.after.idle == pytest.approx(0.0, abs=0.1) and found.time_gain > 0.1


def test_a_deadline_leaves_the_slowest_behind_and_says_what_that_costs(config: Path) -> None:
    """Of six like sites one takes ten times as long; five are 83% of the members and of the weight."""
    members = [site("slow", 100), *(site(f"s{i}", 10) for i in range(5))]
    found = lever(planned(*members), "deadline")
    assert "17% of its weight is then late" in found.what
    assert 0.3 < found.after.round_s <= 0.5 + 1e-9, "five of 0.1 s on two devices, or on one that the slow one leaves"
    changed = from_mapping(mapping(*members), found.overrides)
    policy: Any = changed.federation.root.participation
    assert type(policy).__name__ == "Deadline" and policy.after_s == pytest.approx(0.3, rel=0.01)
    assert policy.weight == 0.8 and policy.staleness >= 2
    again = plan(changed)
    assert again.policies[0].figures.round_s == pytest.approx(found.after.round_s), "what was promised is planned"
    assert "not all are waited for" in again.notes[0] and not any(one.kind == "deadline" for one in again.levers)


@pytest.mark.parametrize("topology", ["cyclic", "swarm", "allreduce", "peer"])
def test_a_deadline_is_no_lever_where_nothing_late_could_be_carried(topology: str, config: Path) -> None:
    members = mapping(site("slow", 100), *(site(f"s{i}", 10) for i in range(5)))
    members["federation"]["topology"] = topology
    assert "deadline" not in {one.kind for one in plan(from_mapping(members)).levers}


def test_inner_rounds_are_a_lever_either_way(config: Path) -> None:
    hubs = [
        {"name": "long", "rounds": 3, "members": [site("a", 20)]},
        {"name": "short", "members": [site("b", 10)]},
    ]
    found = {one.overrides: one for one in planned(*hubs).levers if one.kind == "kappa"}
    less, more = found["federation.members.long.rounds=2",], found["federation.members.short.rounds=2",]
    assert less.time_gain == pytest.approx(1 / 3) and more.time_gain == pytest.approx(0.0)
    assert more.idle_gain == pytest.approx(0.1 / 1.2) and "2 rounds of short in place of 1" in more.what
    assert from_mapping(mapping(*hubs), less.overrides).federation.hubs["world/long"].rounds == 2


def test_levers_stand_in_the_order_of_their_gain_and_each_gains_enough() -> None:
    found = planned().levers
    gains = [one.time_gain + one.idle_gain for one in found if one.kind != "policy"]
    assert gains == sorted(gains, reverse=True) and len(gains) >= 2
    assert all(one.time_gain > 0.02 or one.idle_gain > 0.01 for one in found)


def test_a_tree_that_is_well_packed_has_few_levers() -> None:
    found = planned(*(site(f"s{i}", 10) for i in range(40)))
    assert found.policies[0].figures.idle == pytest.approx(0.0)
    assert {one.kind for one in found.levers} <= {"devices"}


def test_it_says_what_it_is_at_and_tries_nothing_that_cannot_gain() -> None:
    """Two equal sites keep two devices busy: one alone takes twice as long, and a second federation its turn."""
    said: list[str] = []
    plan(from_mapping(mapping()), say=said.append)
    assert said[0] == "simulating chain_first" and {"split large", "a second federation beside it"} < set(said)
    said.clear()
    found = plan(from_mapping(mapping(site("a", 20), site("b", 20))), say=said.append)
    assert "one device more" in said and "a second federation beside it" not in said and not found.levers


def test_measured_durations_come_from_estimates(tmp_path: Path) -> None:
    """Steps cost 0.1 s at large and 0.01 s elsewhere; a site that was never seen takes the line of all."""
    kept = Estimates("synthetic", tmp_path / "kept.json")
    for _ in range(8):
        for name, seconds in {"large": 6.0, "middle": 0.3, "small": 0.1}.items():
            kept.durations.observe("train", f"world/{name}", STEPS[name], seconds, "process", "synthetic")
    kept.save()
    config = from_mapping(mapping())
    found = plan(config, knowledge(config, estimates=tmp_path / "kept.json"))
    assert not found.is_guess and found.policies[0].figures.round_s == pytest.approx(6.0, rel=0.05)
    split = lever(found, "split")
    assert 3.0 <= split.after.round_s < 4.0, "a part takes after its whole, not after others with as many steps"
    again = from_mapping(mapping(estimates=str(tmp_path / "kept.json")))
    assert plan(again).durations == found.durations, "runtime.estimates is read without being asked for"
    more = from_mapping(mapping(*(site(name, 10) for name in ("large", "unseen"))))
    assert "1 of 2 sites were not seen" in plan(more, knowledge(more, estimates=tmp_path / "kept.json")).durations


def test_steps_of_a_task_that_cannot_count_must_come_from_somewhere(tmp_path: Path) -> None:
    silent = mapping({"name": "a"}, {"name": "b"}) | {"task": {"kind": "ward_tasks:Wards"}}
    with pytest.raises(ConfigError, match=r"world/a \(and 1 more sites\) are not known.*--run RUN_DIR"):
        plan(from_mapping(silent))
    assert plan(from_mapping(silent, ["training.local_steps=5"])).policies[0].figures.round_s == pytest.approx(0.05)


def test_json_has_all_that_a_person_sees(config: Path) -> None:
    result = call("plan", config, "--seconds-per-step", "0.5", "--rounds", "2", "--devices", "3", "--json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert (answer["sites"], answer["hubs"], answer["rounds"], answer["simulated_rounds"]) == (3, 1, 5, 2)
    assert answer["devices"] == {"process": 3} and answer["devices_from"] == "--devices"
    assert answer["durations_are_guessed"] is True
    (own,) = [row for row in answer["policies"] if row["is_configured"]]
    assert set(own) == {"policy", "is_configured", "round_s", "idle", "floor", "avoidable", "efficiency"}
    assert own["round_s"] == pytest.approx(30.0)
    split = next(row for row in answer["levers"] if row["kind"] == "split")
    assert split["overrides"] == ["federation.members.large.split=2"] and 0 < split["time_gain"] < 1


def test_a_person_sees_a_table_and_how_to_pull_the_levers(config: Path) -> None:
    lines = call("plan", config).stdout.splitlines()
    assert lines[0] == "trial: 3 sites, 1 hub, 5 rounds (5 simulated)"
    assert lines[1] == "2 devices of kind process (runtime.num_workers)"
    assert lines[2].startswith("durations are guessed: 0.01 s per step; --run RUN_DIR")
    assert lines[3].split() == ["policy", "a", "round", "idle", "floor", "avoidable", "efficiency"]
    assert "chain_first *" in "".join(lines)
    end = "5 rounds of training in 3.00 s (guessed); measuring and start-up come on top"
    assert f"* the configuration's policy: {end}" in lines
    assert any(line.startswith("floor: the idle time that no order of the work avoids") for line in lines)
    assert any("both take 17% less than one after the other, each 67% longer than alone" in line for line in lines)
    assert "split large over 2 devices: idle 17 -> 0%, a round 0.60 s -> 0.50 s" in lines
    assert "    federation.members.large.split=2" in lines


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--devices", "0"), "--devices 0: 1 or more"),
        (("--rounds", "0"), "--rounds 0: 1 or more"),
        (("--seconds-per-step", "0"), "--seconds-per-step 0: a number above 0"),
        (("--seconds-per-step", "1", "--estimates", "x"), "--estimates and --seconds-per-step all say"),
        (("--estimates", "nowhere.json"), "--estimates: there is no file nowhere.json"),
        (("--devices", "2", "runtime.num_workers=null", "runtime.devices=[{name: a}]"), "runtime.devices.a.count=2"),
        (("task.num_samples_min=0", "federation.members=[{name: a}]"), "nothing to plan"),
    ],
)
def test_mistakes_are_the_configurations(config: Path, words: tuple[str, ...], said: str) -> None:
    result = call("plan", config, *words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stdout == ""


def test_estimates_of_another_task_and_runs_that_are_none_are_told(config: Path, tmp_path: Path) -> None:
    Estimates("other", tmp_path / "kept.json").save()
    result = call("plan", config, "--estimates", tmp_path / "kept.json")
    assert result.exit_code == 2 and "knows nothing of training 'synthetic'" in result.stderr
    result = call("plan", config, "--run", tmp_path)
    assert result.exit_code == 2 and "has no config.yaml: not the folder of a run" in result.stderr
    assert call("plan").exit_code == 2


def test_a_cluster_is_asked_only_where_nothing_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_slots, "count_slots", lambda runtime: 7)
    cluster = mapping(kind="ray", address="auto", num_workers=None)
    found = plan(from_mapping(cluster))
    assert found.devices == {"cpu": 7} and found.devices_from == "the Ray cluster at auto"
    assert plan(from_mapping(cluster), num_devices=2).devices == {"cpu": 2}


@pytest.mark.parametrize(
    ("runtime", "num"),
    [
        ({"kind": "local"}, 4),
        ({"kind": "ray"}, 16),
        ({"kind": "ray", "cpus_per_worker": 4}, 4),
        ({"kind": "ray", "num_cpus": 6, "cpus_per_worker": 0.5, "num_gpus": 2}, 2),
        ({"kind": "ray", "num_gpus": 2, "gpus_per_worker": 0.5}, 4),
    ],
)
def test_this_machine_has_what_the_runtime_would_take(
    monkeypatch: pytest.MonkeyPatch, runtime: dict[str, Any], num: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    assert sum(plan(from_mapping(mapping(num_workers=None, **runtime))).devices.values()) == num


def test_places_count_as_far_as_sharing_was_measured_to_gain() -> None:
    devices = [{"name": "gpu", "kind": "a100", "places": 3}]
    config = mapping(*(site(f"s{i}", 10) for i in range(4)), devices=devices)
    del config["runtime"]["num_workers"]
    parsed = from_mapping(config)
    alone = plan(parsed)
    assert alone.policies[0].figures.round_s == pytest.approx(0.4) and "3 places" in alone.notes[0]
    known = knowledge(parsed)
    measured = Estimates("synthetic")
    for _ in range(8):
        measured.colocation.observe("synthetic", [], 1.0, "a100")
        measured.colocation.observe("synthetic", ["synthetic"], 0.8, "a100")
        for name in range(4):
            measured.durations.observe("train", f"world/s{name}", 10, 0.1, "a100", "synthetic")
    units = dict.fromkeys((f"world/s{name}" for name in range(4)), 10.0)
    known = type(known)("a test", estimates=measured, units=units)
    both = plan(parsed, known)
    assert both.policies[0].figures.round_s == pytest.approx(0.4 / 1.6, rel=0.01), "two at once, each at 80%"
