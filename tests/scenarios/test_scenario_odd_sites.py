"""Sites unlike the others: predictions that are no numbers, one class, one sample, a task that breaks the rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import Ran, go, hub, site

from hierfl.errors import DataError, HierflError, SiteFailed
from hierfl.monitor.records import Notice
from hierfl.runtime import survey


def odd_run(folder: Path, south: Any, norm: bool = False, num_workers: int = 1, **odds: str) -> Ran:
    """Run two wards, of which south is odd."""
    task = {"kind": "odd_task:Odd", "odds": odds, "norm": norm}
    return go(folder, hub("world", "north", south), task, runtime={"kind": "local", "num_workers": num_workers})


def test_a_site_whose_predictions_are_no_numbers_is_named_once_and_left_out_above(tmp_path: Path) -> None:
    task = {"kind": "odd_task:Odd", "odds": {"predict": "nan"}}
    ran = go(tmp_path, hub("world", hub("up", "north", site("south", odd="mark")), "east"), task)
    told = [(notice.node, notice.message) for notice in ran.monitor.of(Notice) if notice.level == "warning"]
    assert [node for node, _ in told] == ["world/up/south"]
    assert told[0][1].startswith("its predictions are not finite: 6 of 6 samples; ")
    nodes = ran.summary["nodes"]
    assert nodes["world/up/south"]["accuracy"] is None
    for path, num_test in (("world/up", 12), ("world", 18)):
        assert nodes[path]["num_test"] == num_test and nodes[path]["num_left_out"] == 6
    assert nodes["world/up"]["accuracy"] == nodes["world/up/north"]["accuracy"]
    assert "num_left_out" not in nodes["world/east"]


def test_who_is_long_in_loading_is_named_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(after_s: float) -> list[tuple[str, str, str]]:
        monkeypatch.setattr(survey, "TOLD_AFTER_S", after_s)
        ran = go(tmp_path / str(after_s), hub("world", "north", "south"))
        return [(notice.level, notice.node, notice.message) for notice in ran.monitor.of(Notice)]

    first = "waits for the data of world/north, world/south; 0 of 2 sites have told theirs"
    assert told(0.0)[0] == ("info", "world", first)
    assert told(3600.0) == []


def test_counts_of_right_and_wrong_add_up_the_tree(tmp_path: Path) -> None:
    ran = go(tmp_path, hub("world", hub("up", "north", "south"), "east"))
    kinds = ("true_positives", "false_positives", "true_negatives", "false_negatives")
    nodes = ran.summary["nodes"]
    assert sum(nodes["world"][kind] for kind in kinds) == 18
    for kind in kinds:
        assert nodes["world"][kind] == sum(nodes[path][kind] for path in ("world/up", "world/east"))
    row = json.loads((ran.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert [row[kind] for kind in kinds] == [nodes[row["node"]][kind] for kind in kinds]


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ("tuple", r"gave a tuple; needed: SiteData"),
        ("none", r"gave nothing"),
        ("tensors", r"gave a tensor of shape \[12, 4\] as train; needed: a map-style Dataset"),
        ("columns", r"gave a tuple as train; .* the samples \(a TensorDataset\(x, y\), say\)"),
        ("iterable", r"gave a DataLoader as train"),
        ("stream", r"gave a Stream as train"),
    ],
)
def test_what_is_no_data_is_named_before_the_first_round(odd: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^world/south: the task's data\(\) {says}") as caught:
        odd_run(tmp_path, site("south", odd=odd))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("odds", "says"),
    [
        ({"loss": "float"}, r"trained: the task's loss\(\) gave a float; needed: a tensor without dimensions"),
        ({"loss": "vector"}, r"trained: the task's loss\(\) gave a tensor of shape \[4\]"),
        ({"loss": "none"}, r"trained: the task's loss\(\) gave nothing"),
        ({"loss": "detached"}, r"trained: the task's loss\(\) gave a tensor without a gradient"),
        ({"loss": "shape"}, r"trained: tensor 'weight' has shape \[2, 5\] float32, the federation's model \[1, 4\]"),
        ({"loss": "layer"}, r"trained: tensor 'extra\.weight' is not in the federation's model"),
        ({"predict": "tuple"}, r"measured: the task's predict\(\) gave a tuple; needed: Prediction"),
        ({"predict": "logits"}, r"measured: .*needed: probabilities.*\n.*they range from 0 to "),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_a_task_that_breaks_the_rules_is_told_in_a_sentence(odds: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(SiteFailed, match=rf"^world/south could not be {says}") as caught:
        odd_run(tmp_path, site("south", odd="mark"), num_workers=2, **odds)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ("none", "gave nothing; needed: a torch.nn.Module$"),
        ("class", "gave a type; needed: a torch.nn.Module$"),
        ("frozen", r"gave a module without a parameter that trains \(requires_grad\)$"),
        ("nan", "gave 'bias' with NaN or Inf in it"),
        ("mask", r"gave the buffer 'mask' with NaN or Inf in it, .*persistent=False"),
        ("tied", r"gave '0\.weight' and '1\.weight', which share memory .* 1\.weight = 0\.weight"),
        ("raise", r"failed: KeyError: 'hidden'\nTraceback [^\n]*\n  File [^\n]*odd_task.py"),
        ("exit", "failed: SystemExit: 3\n"),
    ],
)
def test_what_is_no_model_is_told(odd: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(SiteFailed, match=rf"^the task's model\(\) {says}"):
        odd_run(tmp_path, "south", model=odd)


@pytest.mark.parametrize("label", [5, -1, 0.5])
def test_a_label_that_is_no_class_is_named(label: float, tmp_path: Path) -> None:
    with pytest.raises(
        SiteFailed, match=rf"(?s)^world/south could not be measured: .*labels are no class.*label {label:.1f}"
    ) as caught:
        odd_run(tmp_path, site("south", odd=f"label {label}"))
    assert "Traceback" not in str(caught.value)


def test_sites_of_one_class_and_of_one_sample_take_part(tmp_path: Path) -> None:
    root = hub("world", "north", site("south", labels=1), site("lone", n=1, test=1))
    nodes = go(tmp_path, root).summary["nodes"]
    assert nodes["world/south"]["auc"] is None and nodes["world/south"]["accuracy"] is not None
    assert nodes["world/lone"]["num_samples"] == nodes["world/lone"]["num_test"] == 1
    assert nodes["world"]["auc"] is not None and nodes["world"]["num_test"] == 13


def test_data_sets_of_ones_own_have_the_bits_of_tensors_and_draw_nothing(tmp_path: Path) -> None:
    one, other = (odd_run(tmp_path / odd, site("south", odd=odd), num_workers=2) for odd in ("", "list"))
    assert one.summary["model_digest"] == other.summary["model_digest"]
    assert one.summary["nodes"] == other.summary["nodes"]


def test_batch_norm_over_a_batch_of_one_says_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(
        SiteFailed, match=r"^world/south could not be trained: batch normalisation .*training\.batch_size"
    ) as caught:
        odd_run(tmp_path, site("south", n=13), norm=True)
    assert "Traceback" not in str(caught.value)


def test_what_a_failing_site_drew_does_not_end_the_others(tmp_path: Path) -> None:
    task = {"kind": "odd_task:Odd", "odds": {"loss": "layer"}}
    root = hub("world", "north", site("south", odd="mark"), "east", on_failure="continue", quorum=0.5)
    ran = go(tmp_path, root, task, runtime={"kind": "local", "num_workers": 2})
    assert ran.summary["status"] == "finished"


def test_mixed_precision_that_a_cpu_does_not_have_is_said_when_a_run_starts(tmp_path: Path) -> None:
    members = [site("north", training={"precision": "bfloat16"}), "south"]
    ran = go(tmp_path, hub("world", *members, rounds=1), runtime={"kind": "local", "num_workers": 1, "device": "cpu"})
    [said] = [notice.message for notice in ran.monitor.of(Notice) if "precision" in notice.message]
    assert said.startswith("training.precision bfloat16 is for CUDA: on a CPU, as here, sites train in float32 (")
    assert "world/north" in said and "world/south" not in said


UNLIKE = {
    "names": r"it measures extra, mae, and 3 sites \(world/up/north, world/up/west, world/east\) mae; all measure",
    "classes": r"it measures 3 classes and mae, and 3 sites \(.*\) 2 classes and mae; ",
    "none": r"it measures mae, and 3 sites \(.*\) 2 classes and mae; ",
}


def unlike_run(folder: Path, kind: str, num_workers: int, **failing: Any) -> Ran:
    """Run four wards, of which south measures something else."""
    up = hub("up", "north", site("south", odd=True), "west", **failing)
    runtime = {"kind": "local", "num_workers": num_workers}
    return go(folder, hub("world", up, "east"), {"kind": "odd_task:Unlike", "differs": kind}, runtime=runtime)


@pytest.mark.parametrize("kind", UNLIKE)
def test_a_site_that_measures_something_else_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(SiteFailed, match=rf"^world/up/south could not be measured: {UNLIKE[kind]}") as caught:
        unlike_run(tmp_path, kind, 1)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("kind", UNLIKE)
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_run_goes_on_without_the_figures_of_a_site_that_measures_something_else(
    kind: str, num_workers: int, tmp_path: Path
) -> None:
    ran = unlike_run(tmp_path, kind, num_workers, on_failure="continue", quorum=0.5)
    nodes = ran.summary["nodes"]
    assert nodes["world"]["num_test"] == 18 and nodes["world/up"]["num_test"] == 12
    assert "num_test" not in nodes.get("world/up/south", {})
    told = [(notice.level, notice.node) for notice in ran.monitor.of(Notice)]
    assert told == [("error", "world/up/south")] * 2, "in each round, as whatever goes wrong in measuring"


def test_a_draw_at_one_site_alone_has_its_bits_with_one_worker_and_is_told_with_two(tmp_path: Path) -> None:
    root = hub("world", "north", "west", site("south", draws=True))

    def ran(name: str, num_workers: int) -> Ran:
        return go(tmp_path / name, root, "odd_task:Noisy", runtime={"kind": "local", "num_workers": num_workers})

    assert ran("one", 1).digest == ran("again", 1).digest
    with pytest.raises(HierflError, match=r"at some sites or in some steps only .*; set runtime\.num_workers: 1"):
        ran("two", 2)


def test_a_site_that_has_another_unit_is_warned_of_by_name_and_trained_on(tmp_path: Path) -> None:
    """Only where its moments are told: a site that scales its features by itself may count in any unit."""
    members = []
    for number, (name, scale) in enumerate({"a": 1.0, "b": 1.0, "c": 0.01}.items()):
        heights = np.random.RandomState(number).normal(170.0, 10.0, 50)
        rows = "".join(f"{height * scale:.4f},{int(height > 170)}\n" for height in heights)
        (tmp_path / f"{name}.csv").write_text(f"height,tall\n{rows}")
        members.append(site(name, path=str(tmp_path / f"{name}.csv")))
    task = {"kind": "parquet", "features": ["height"], "label": "tall"}
    told = {}
    for standardise in ("federated", "site"):
        ran = go(tmp_path, hub("world", *members, rounds=1), {**task, "standardise": standardise})
        told[standardise] = [notice for notice in ran.monitor.of(Notice) if "typically" in notice.message]
        assert ran.summary["status"] == "finished" and ran.summary["nodes"]["world/c"]["num_samples"] == 40
    [warning] = told["federated"]
    assert (warning.level, warning.node) == ("warning", "world/c") and not told["site"]
    assert warning.message.startswith("height is 1.") and "in the same unit" in warning.message


def test_a_site_that_joins_later_is_held_against_the_others_once(tmp_path: Path) -> None:
    members = []
    for number, (name, scale) in enumerate({"a": 1.0, "b": 1.0, "c": 0.01, "d": 0.01, "e": 1.0}.items()):
        heights = np.random.RandomState(number).normal(170.0, 10.0, 50)
        rows = "".join(f"{height * scale:.4f},{int(height > 170)}\n" for height in heights)
        (tmp_path / f"{name}.csv").write_text(f"height,tall\n{rows}")
        members.append(site(name, path=str(tmp_path / f"{name}.csv")))
    members[3]["joins_at"], members[4]["joins_at"], members[1]["leaves_at"] = 2, 2, 3
    task = {"kind": "parquet", "features": ["height"], "label": "tall"}
    ran = go(tmp_path, hub("world", *members, rounds=3), task)
    assert ran.summary["status"] == "finished"
    told = {one.node: one.message for one in ran.monitor.of(Notice) if "typically" in one.message}
    assert len([one for one in ran.monitor.of(Notice) if "typically" in one.message]) == 2
    assert told.keys() == {"world/c", "world/d"} and told["world/d"].startswith("height is 1."), "as it gives it"
