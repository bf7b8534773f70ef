"""What whole local runs say of how a model does: at every node, in the summary and in the report."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import config_of, go, hub, site
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hierfl.errors import ConfigError
from hierfl.leave_out import FILE, leave_out, table, without
from hierfl.lifecycle import cross_site, run
from hierfl.monitor.cross_site import read_matrix
from hierfl.monitor.fairness import held_out_lines
from hierfl.monitor.plain import closing_lines
from hierfl.monitor.records import Notice
from hierfl.monitor.report import write_report


def test_calibration_of_every_node_adds_up_and_is_drawn(tmp_path):
    ran = go(tmp_path, hub("world", hub("us", "a", "b"), "c"))
    nodes = ran.summary["nodes"]
    for path in ("world", "world/us", "world/us/a", "world/us/b", "world/c"):
        rows = nodes[path]["reliability"]
        assert sum(number for number, _, _ in rows) == nodes[path]["num_test"]
        gaps = sum(abs(hits - number * mean) for number, hits, mean in rows)
        assert nodes[path]["ece"] == pytest.approx(gaps / nodes[path]["num_test"], abs=1e-9)
    hits = {path: sum(row[1] for row in nodes[path]["reliability"]) for path in nodes}
    assert (
        hits["world"] == hits["world/us"] + hits["world/c"] == hits["world/us/a"] + hits["world/us/b"] + hits["world/c"]
    )
    page = write_report(ran.folder).read_text()
    assert "Calibration" in page and "calibration error" in page
    assert (ran.folder / "calibration.png").stat().st_size > 10_000


def test_where_no_scores_are_told_nothing_is_made_of_them_and_nothing_breaks(tmp_path):
    members = hub("us", "a", site("b", role="evaluation")), "c"
    evaluation = {"auc": "none", "fine_tune": {"steps": 2}}
    config = config_of(tmp_path, hub("world", *members), overrides=["output.tensorboard=true"], evaluation=evaluation)
    folder = Path(run(config)["run_dir"])
    kept = (folder / "metrics.jsonl").read_text() + (folder / "summary.json").read_text()
    assert all(f'{name}"' not in kept for name in ("ece", "reliability")) and '"held_out_accuracy"' in kept
    assert '"personal_accuracy"' in kept
    page = write_report(folder).read_text()
    assert "Calibration" not in page and "calibration error" not in page and not (folder / "calibration.png").exists()
    log = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert "calibration" not in log.Tags()["images"] and not any(tag.endswith("ece") for tag in log.Tags()["scalars"])
    stopping = {"metric": "ece", "patience": 1}
    with pytest.raises(ConfigError, match=r"is ece, but evaluation\.auc is none: measure it"):
        config_of(tmp_path, hub("world", "a"), evaluation={"auc": "none"}, stopping=stopping)


def test_calibration_of_every_auc_is_that_of_its_scores(tmp_path):
    found = {
        auc: go(tmp_path / auc, hub("world", "a", "b"), evaluation={"auc": auc}).summary["nodes"]["world"]
        for auc in ("histogram", "exact")
    }
    assert found["histogram"]["ece"] == pytest.approx(found["exact"]["ece"], abs=0.5 / 256)


def test_the_end_says_how_evenly_the_model_serves_the_sites(tmp_path):
    ran = go(tmp_path, hub("world", hub("us", "a", site("b", test=11)), site("c", labels=1)))
    nodes, found = ran.summary["nodes"], ran.summary["fairness"]
    sites = {path: nodes[path] for path in ("world/us/a", "world/us/b", "world/c")}
    assert found["loss"]["worst_value"] == max(scalars["loss"] for scalars in sites.values())
    assert found["loss"]["weighted_mean"] == pytest.approx(nodes["world"]["loss"])  # of what adds over samples
    assert (found["auc"]["num_sites"], found["auc"]["num_undefined"]) == (2, 1)
    assert sum(line.startswith("sites ") for line in closing_lines("finished", ran.summary, "")) == 3
    assert f"<td>{found['loss']['worst']}</td>" in write_report(ran.folder).read_text()


def test_a_held_out_site_is_measured_beside_the_others_and_leaves_no_trace_in_the_model(tmp_path):
    with_it = go(tmp_path / "with", hub("world", hub("us", "a", site("b", role="evaluation", test=11)), "c"))
    without = go(tmp_path / "without", hub("world", hub("us", "a"), "c"))
    assert with_it.digest == without.digest
    nodes, before = with_it.summary["nodes"], without.summary["nodes"]
    assert (nodes["world/us/b"]["role"], nodes["world/us/b"]["num_samples"]) == ("evaluation", 0)
    for path in ("world", "world/us"):
        assert {name: nodes[path][name] for name in before[path]} == before[path]
        apart = {name: nodes[path][f"held_out_{name}"] for name in ("num_test", "accuracy", "auc", "loss", "ece")}
        assert apart == {name: nodes["world/us/b"][name] for name in apart}
    assert "world/us/b" not in str(with_it.summary["fairness"])
    assert any(line.startswith("held out world/us/b: accuracy") for line in closing_lines("", with_it.summary, ""))
    assert "held-out AUC" in write_report(with_it.folder).read_text()


def test_held_out_sites_add_up_over_the_tree_as_others_do(tmp_path):
    roots = [
        hub("world", *(hub(name, site(name.upper(), role=role), f"{name}1") for name in ("x", "y")))
        for role in ("evaluation", "training")
    ]
    roots[1]["members"] = [{**outer, "members": outer["members"][:1]} for outer in roots[1]["members"]]
    apart = go(tmp_path, roots[0]).summary["nodes"]["world"]
    assert apart["held_out_num_test"] == 12 == go(tmp_path, roots[1]).summary["nodes"]["world"]["num_test"]


def test_a_site_that_gives_statistics_moves_the_standardisation_and_nothing_else(tmp_path):
    task = {"kind": "ward_tasks:Wards", "standardise": "federated"}
    alone = go(tmp_path, hub("world", "a", "b"), task)
    beside = go(tmp_path, hub("world", "a", "b", site("c", role="evaluation")), task)
    giving = go(tmp_path, hub("world", "a", "b", site("c", role="statistics")), task)
    assert alone.digest == beside.digest != giving.digest
    assert giving.summary["nodes"]["world/c"] == {"num_samples": 0, "role": "statistics"}
    assert giving.summary["nodes"]["world"]["num_test"] == 12


def test_a_federation_that_nobody_trains_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="has no site that trains"):
        config_of(tmp_path, hub("world", site("a", role="evaluation")))
    with pytest.raises(ConfigError, match="did you mean 'evaluation'"):
        config_of(tmp_path, hub("world", "a", site("b", role="evaluate")))


def test_a_rule_against_bad_members_counts_those_that_train(tmp_path):
    three = [site(name) for name in "abc"]
    rule = {"strategy": {"kind": "median", "num_byzantine": 1}}
    config_of(tmp_path, {**hub("world", *three), **rule})
    three[0]["role"] = "evaluation"
    with pytest.raises(ConfigError, match="num_byzantine"):
        config_of(tmp_path, {**hub("world", *three), **rule})


def test_every_model_is_measured_at_every_site_and_the_diagonal_is_what_the_run_measured(tmp_path):
    root = hub("world", hub("us", "a", "b"), "c", site("d", role="evaluation"), strategy={"kind": "ditto"})
    ran = go(tmp_path, root)
    matrix = cross_site(ran.folder)
    sites = ["world/us/a", "world/us/b", "world/c"]
    assert list(matrix.models) == ["world", "world/us", *sites]
    assert matrix.columns == ["world", *sites, "world/d"]
    for path in sites:
        own, measured = matrix.models[path][path], ran.summary["nodes"][path]
        assert {name: own[name] for name in ("accuracy", "auc", "loss")} == {
            name: measured[name] for name in ("accuracy", "auc", "loss")
        }
        assert own != matrix.models["world"][path]
    everywhere = [matrix.models["world/c"][path] for path in sites]
    assert matrix.models["world/c"]["world"]["loss"] == pytest.approx(
        sum(s["loss"] * s["num_test"] for s in everywhere) / 18
    )
    assert read_matrix(ran.folder).record() == json.loads(json.dumps(matrix.record()))
    assert "Across sites" in write_report(ran.folder).read_text()


def test_tensorboard_has_fairness_calibration_the_cross_site_table_and_the_sites_left_out(tmp_path):
    path = tmp_path / "wards.yaml"
    path.write_text(json.dumps(config_of(tmp_path / "runs", hub("world", "a", "b", "c")).resolved))
    whole, others = without(path, ["output.tensorboard=true", "federation.rounds=1"], "world/c")
    answer = leave_out(whole, others, run)
    folder = Path(answer["run_dir"])
    cross_site(folder)
    log = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0}).Reload()
    summary = json.loads((folder / "summary.json").read_text())["fairness"]["accuracy"]
    for tag, name in (("worst", "worst_value"), ("best", "best_value"), ("mean", "mean"), ("deviation", "std")):
        [point] = log.Scalars(f"fairness/accuracy/{tag}")
        assert point.step == 1 and point.value == pytest.approx(summary[name])
    assert {"calibration", "cross_site", "tree"} <= set(log.Tags()["images"])
    [left_out] = log.Tensors("left_out")
    assert b"| world/c | " in left_out.tensor_proto.string_val[0]
    [of_others] = log.Tensors("left_out/others")
    assert b"| world/c | " in of_others.tensor_proto.string_val[0] != left_out.tensor_proto.string_val[0]
    found = answer["sites"]["world/c"]
    for which, where in (("with", folder), ("without", Path(found["run_dir"]))):
        nodes = json.loads((where / "summary.json").read_text())["nodes"]
        for name in ("accuracy", "auc", "loss"):
            mean = (nodes["world/a"][name] + nodes["world/b"][name]) / 2
            assert found["others"][which][name] == pytest.approx(mean), "each of the others counts once"
    page = write_report(folder).read_text()
    assert page.index("Each site left out") < page.index("What a site gives to the others")
    before = json.loads((folder / FILE).read_text())
    del before["sites"]["world/c"]["others"]  # as runs of before have it
    (folder / FILE).write_text(json.dumps(before))
    assert "What a site gives to the others" not in write_report(folder).read_text()


def test_what_is_undefined_in_a_run_without_a_site_counts_in_neither_mean_of_the_others(tmp_path):
    def ran(auc: float | None, loss: float) -> dict[str, Any]:
        nodes = {"world/a": {"auc": auc, "loss": loss}, "world/b": {"auc": 0.5, "loss": 2 * loss}, "world/c": {}}
        return {"run_dir": str(tmp_path), "nodes": nodes}

    runs = iter([ran(0.75, 1.0), ran(None, 3.0)])
    config = config_of(tmp_path, hub("world", "a", "b", "c"))
    answer = leave_out(config, {"world/c": config}, lambda _: next(runs))
    assert answer["sites"]["world/c"]["others"] == {
        "with": {"auc": 0.5, "loss": 1.5},
        "without": {"auc": 0.5, "loss": 4.5},
    }
    assert table(answer, others=True) == {
        "world/c": {"AUC without": 0.5, "AUC with": 0.5, "loss without": 4.5, "loss with": 1.5}
    }


def test_under_plain_averaging_the_models_of_the_round_that_comes_stand_beside_the_federations(tmp_path):
    ran = go(tmp_path, hub("world", "a", "b", strategy={"kind": "feddyn"}))
    assert "Across sites" not in write_report(ran.folder).read_text()
    matrix = cross_site(ran.folder)
    assert list(matrix.models) == ["world", "world/a", "world/b"]
    assert matrix.models["world"]["world/a"]["loss"] == ran.summary["nodes"]["world/a"]["loss"]


@pytest.mark.parametrize("topology", ["star", "cyclic"])
def test_the_local_baseline_trains_each_site_as_if_it_were_alone(tmp_path, topology):
    root = hub("world", hub("us", "a", "b", rounds=2), "c", rounds=3, topology=topology)
    ran = go(tmp_path / "all", root, baseline="local")
    start = go(tmp_path / "start", {**root, "rounds": 1}, baseline="local")
    assert ran.digest == start.digest  # the hub's model has not moved
    single = go(tmp_path / "single", hub("world", "c", rounds=3)).summary["nodes"]["world/c"]
    nodes = ran.summary["nodes"]
    for name in ("accuracy", "auc", "loss", "brier"):
        assert nodes["world/c"][name] == pytest.approx(single[name], abs=1e-6)  # but for the ring's rounding
    everybody = ran.summary["on_all_data"]["sites"]
    assert list(everybody) == ["world/us/a", "world/us/b", "world/c"]
    assert {found["num_test"] for found in everybody.values()} == {18}
    assert everybody["world/c"]["loss"] == read_matrix(ran.folder).models["world/c"]["world"]["loss"]
    assert any("of their own models on all data" in line for line in closing_lines("", ran.summary, ""))


def test_the_pooled_baseline_is_one_site_with_all_training_data(tmp_path):
    task = {"kind": "ward_tasks:Wards", "standardise": "federated"}
    root = hub("world", hub("us", "a", site("b", n=7)), "c", site("d", role="evaluation"))
    training = {"lr": 0.1, "batch_size": None, "local_steps": 3}
    pooled = go(tmp_path, root, task, baseline="pooled", training=training)
    federated = go(tmp_path, root, task, training={**training, "local_steps": 1}, federation={**root, "rounds": 6})
    nodes, other = pooled.summary["nodes"], federated.summary["nodes"]
    assert nodes["world/pooled"] == {"num_samples": 31}
    assert nodes["world"]["num_test"] == other["world"]["num_test"] == 18
    for path in other:  # one full-batch step per round is the gradient on the union, 6 rounds or 2 of 3 steps
        assert nodes[path]["loss"] == pytest.approx(other[path]["loss"], abs=1e-5)
    said = [notice.message for notice in pooled.monitor.of(Notice)]
    assert any("put together on this machine" in message for message in said)
    assert not any("no training samples" in message for message in said)


def test_what_forbids_to_pool_is_told_with_its_place(tmp_path):
    root = hub("world", "pooled", {**site("b"), "residency": ["de"]})
    devices = {"kind": "local", "devices": [{"name": "d", "labels": ["de"]}]}
    config_of(tmp_path, root, runtime=devices)
    with pytest.raises(ConfigError) as told:
        config_of(tmp_path, root, runtime=devices, baseline="pooled")
    assert [problem.path for problem in told.value.problems] == [
        "federation.members.b.residency",
        "federation.members.pooled.name",
    ]
    with pytest.raises(ConfigError, match="did you mean 'pooled'"):
        config_of(tmp_path, hub("world", "a"), baseline="pool")


def test_each_site_is_left_out_once_and_compared_with_the_whole(tmp_path):
    path = tmp_path / "wards.yaml"
    members = [{"name": "us", "members": {"count": 2, "name": "s{i}"}}, {"name": "st. c", "split": 2}]
    given = config_of(tmp_path / "runs", {"name": "world", "members": members}).resolved
    path.write_text(json.dumps(given))
    whole, others = without(path, ["federation.rounds=1"], "each")
    assert list(others) == ["world/us/s0", "world/us/s1", "world/st. c"]
    answer = leave_out(whole, others, run)
    runs = {
        site: json.loads((Path(found["run_dir"]) / "summary.json").read_text())
        for site, found in answer["sites"].items()
    }
    for left in ("world/us/s0", "world/us/s1"):
        node = runs[left]["nodes"][left]
        assert node["role"] == "evaluation" and answer["sites"][left]["without"]["loss"] == node["loss"]
    assert {found[which]["num_test"] for found in answer["sites"].values() for which in ("with", "without")} == {6}
    rows = table(answer)["world/us/s0"]
    assert list(rows) == [f"{name} {which}" for name in ("accuracy", "AUC", "loss") for which in ("without", "with")]
    assert rows["loss without"] != rows["loss with"]
    kept = Path(answer["run_dir"])
    assert json.loads((kept / "leave_out.json").read_text())["sites"].keys() == others.keys()
    shown = write_report(kept).read_text()
    assert "Each site left out" in shown and "<td>world/us/s0</td>" in shown and "<th>loss without</th>" in shown


def test_metrics_of_a_tasks_own_stand_beside_the_loss_of_a_site_that_is_left_out(tmp_path):
    path = tmp_path / "doses.yaml"
    doses = config_of(tmp_path / "runs", hub("world", "a", "b", "c", rounds=1), {"kind": "ward_tasks:Doses"})
    path.write_text(json.dumps(doses.resolved))
    ends = []
    answer = leave_out(*without(path, [], "world/c"), lambda config: ends.append(run(config)) or ends[-1])
    whole, apart = (end["nodes"]["world/c"]["absolute_error"] for end in ends)
    [row] = table(answer).values()
    assert (row["absolute_error without"], row["absolute_error with"]) == (apart, whole) and apart != whole
    [held_out] = held_out_lines(ends[1]["nodes"])
    assert held_out.startswith("held out world/c: loss ") and "absolute_error" in held_out


def test_what_cannot_be_left_out_is_told_before_anything_runs(tmp_path):
    path = tmp_path / "wards.yaml"
    path.write_text(json.dumps(config_of(tmp_path, hub("world", "a", "b")).resolved))
    for overrides, which, said in (
        ([], "world/c", "no such site"),
        (["baseline=local"], "each", "there is none"),
        (["federation.members.b.role=statistics"], "each", "world/a alone"),
    ):
        with pytest.raises(ConfigError, match=said):
            without(path, overrides, which)
