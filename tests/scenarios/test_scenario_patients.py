"""Privacy of whole patients in local runs: who is counted, what is told, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from small_runs import config_of, foreseen, go, hub, site

from hierfl.errors import ConfigError, HierflError
from hierfl.lifecycle import resume
from hierfl.link.approval import plan_of
from hierfl.monitor.plain import closing_lines
from hierfl.monitor.records import Notice, SiteTrained
from hierfl.monitor.report import write_report
from hierfl.plan import knowledge, plan
from hierfl.planning.costs import site_works
from hierfl.tasks import _classifier
from hierfl.tree import paid, survey

pytest.importorskip("dp_accounting")

from hierfl.accountant import epsilon
from hierfl.learning.privacy import Release

NOISE: dict[str, Any] = {"kind": "dp_sgd", "noise_multiplier": 2.0, "max_grad_norm": 1.0, "unit": "patient"}
TASK = {"kind": "parquet", "features": ["x", "z"], "label": "sick", "patient": "pid"}
STEPS = {"lr": 0.1, "batch_size": 4, "local_steps": 3}
NUM_TRAIN = {"a": 8, "b": 16, "c": 12}
"""Patients who are trained on."""


@pytest.fixture
def sites(tmp_path: Path) -> list[dict[str, Any]]:
    """Three hospitals whose patients have one to five rows each."""
    made = []
    for number, (name, patients) in enumerate({"a": 10, "b": 20, "c": 15}.items()):
        random = np.random.RandomState(number)
        owners = np.repeat(np.arange(patients), random.randint(1, 6, patients))
        use = np.where(np.arange(patients)[owners] < NUM_TRAIN[name], "train", "test")
        x, z = random.randn(2, len(owners))
        rows = {"x": x, "z": z, "sick": (x + random.randn(len(x)) > 0).astype(int), "pid": owners, "use": use}
        order = random.permutation(len(owners))
        pa.parquet.write_table(pa.table({name: one[order] for name, one in rows.items()}), tmp_path / f"{name}.parquet")
        made.append(site(name, path=str(tmp_path / f"{name}.parquet")))
    return made


def private(*members: Any, privacy: Mapping[str, Any] = NOISE, **settings: Any) -> dict[str, Any]:
    return hub("world", *members, privacy=privacy, **settings)


def trial(folder: Path, root: Mapping[str, Any], **top: Any) -> Any:
    return go(folder, root, {**TASK, "split": "use"}, **{"training": STEPS, **top})


def refused(folder: Path, root: Mapping[str, Any], task: Any = TASK, **top: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(folder, root, task, **{"training": STEPS, **top})
    return str(caught.value)


def test_privacy_is_counted_on_patients(tmp_path: Path, sites: list[Any]) -> None:
    ran = trial(tmp_path, private(*sites))
    told = ran.summary["privacy"]["sites"]
    for name, number in NUM_TRAIN.items():
        assert told[f"world/{name}"]["sampling_rate"] == 4 / number
        once = epsilon([Release(4 / number, 2.0, 2 * 3)], 1e-5)
        assert told[f"world/{name}"]["epsilon"] == pytest.approx(once)
        assert ran.summary["nodes"][f"world/{name}"]["num_samples"] > number
    said = {one.node: one.message for one in ran.monitor.of(Notice)}
    assert "numbers of samples and of patients" in said["world"]
    assert "privacy of single patients: 3 of 3 sites, epsilon at most" in said["world"]
    assert "3 steps" not in said["world/b"] and "6 steps, each on 0.25 of its 16 patients" in said["world/b"]
    [line] = [line for line in closing_lines("finished", ran.summary, "") if line.startswith("privacy")]
    assert line.endswith(" at delta 1e-05 for any patient (world/a), the most of any site")
    assert "may tell of any one patient, at delta 1e-05" in write_report(ran.folder).read_text()
    assert json.loads((ran.folder / "privacy.json").read_text()) == {
        f"world/{name}": n for name, n in NUM_TRAIN.items()
    }


@pytest.mark.parametrize(("strategy", "more"), [("fednova", 0), ("scaffold", 0), ("fedrep", 5)])
def test_an_epoch_goes_over_patients(
    tmp_path: Path, sites: list[Any], strategy: str, more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = foreseen(monkeypatch)
    rule = {"kind": strategy, **({"personal": ["*bias"], "head_steps": more} if more else {})}
    tree = hub("us", *sites[:2]), {**sites[2], "training": {"batch_size": None}}
    ran = trial(tmp_path, private(*tree, strategy=rule), training={"lr": 0.1, "batch_size": 5, "local_epochs": 2})
    steps = {"world/us/a": 2 * 2, "world/us/b": 2 * 4, "world/c": 2 * 1}
    told = ran.summary["privacy"]["sites"]
    assert {path: one["steps_per_round"] - more for path, one in told.items()} == steps
    assert told["world/us/b"]["sampling_rate"] == 5 / 16 and told["world/c"]["sampling_rate"] == 1
    assert {(one.node, one.num_steps) for one in ran.monitor.of(SiteTrained)} == {*steps.items()}
    assert asked == [steps]
    assert resume(ran.folder, ["federation.rounds=3"], [])["privacy"]["sites"].keys() == told.keys()


def test_a_plan_says_that_patients_are_not_counted_yet(tmp_path: Path, sites: list[Any]) -> None:
    root, epochs = private(*sites), {"lr": 0.1, "batch_size": 4}
    config = config_of(tmp_path, root, TASK, training=epochs)
    with pytest.raises(
        ConfigError, match=r"the steps of world/a \(and 2 more sites\) are not known: its epochs go over"
    ):
        plan(config)
    ran = trial(tmp_path, root, training=epochs)
    works = site_works(config, knowledge(config, run_dir=ran.folder), "")
    assert {path: work.steps for path, work in works.items()} == {"world/a": 2, "world/b": 4, "world/c": 3}


def test_a_tree_has_the_bits_of_a_flat_federation_and_so_has_a_run_that_goes_on(
    tmp_path: Path, sites: list[Any]
) -> None:
    flat = trial(tmp_path, private(*sites))
    deep = private(hub("us", sites[0], hub("east", sites[1])), sites[2])
    assert trial(tmp_path, deep).digest == flat.digest
    half = trial(tmp_path, private(*sites, rounds=1))
    rest = resume(half.folder, ["federation.rounds=2"], [])
    assert rest["model_digest"] == flat.digest and rest["privacy"] == flat.summary["privacy"]
    by_record = trial(tmp_path, private(*sites, privacy={**NOISE, "unit": "record"}))
    assert by_record.digest != flat.digest
    assert by_record.summary["privacy"]["epsilon"] < flat.summary["privacy"]["epsilon"], "a record is in fewer steps"


def test_who_is_not_counted_before_the_run_is_not_taken_for_a_record(tmp_path: Path, sites: list[Any]) -> None:
    config = config_of(tmp_path, private(*sites), TASK, training=STEPS)
    assert "3 sites' patients are not counted yet" in paid(config)["world"]
    assert all(node.epsilon is None for node in survey(config).values())


def test_a_member_agrees_to_whom_the_yaml_takes_for_a_patient(tmp_path: Path, sites: list[Any]) -> None:
    linked = ({**one, "link": {"address": "hub.example.org:8443"}} for one in sites)
    config = config_of(tmp_path, private(*linked), TASK, training=STEPS)
    [said] = [line for line in plan_of(config, "world/a").leaves if line.startswith("world/a: noise hides")]
    assert said.startswith("world/a: noise hides single patients, one for each value of 'pid', in the change, dp_sgd")


def test_a_budget_is_held_before_anything_is_trained(tmp_path: Path, sites: list[Any]) -> None:
    with pytest.raises(ConfigError, match=r"world/a: privacy\.epsilon: is 0\.5, and the run costs"):
        trial(tmp_path, private(*sites, privacy={**NOISE, "epsilon": 0.5}))


def test_patients_who_change_during_a_run_end_it(
    tmp_path: Path, sites: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def owners(train: Any) -> Any:
        calls.append(len(train))
        return train.tensors[1] if len(calls) <= 3 else train.tensors[1] // 2

    monkeypatch.setattr(_classifier, "owners", owners)
    with pytest.raises(HierflError, match=r"has trained on \d+ patients, and what it pays for privacy is counted on"):
        trial(tmp_path, private(*sites))


def test_what_cannot_be_counted_by_patients_is_refused_by_name(tmp_path: Path, sites: list[Any]) -> None:
    nobody = {key: value for key, value in TASK.items() if key != "patient"}
    said = refused(tmp_path, private(*sites), nobody)
    assert "federation.privacy" in said and "does not say whose its records are: parquet's key patient" in said
    halves = {**sites[0], "split": 2}
    assert "leave split out" in refused(tmp_path, private(halves, *sites[1:]))
    public = {"key": "public", "basis": "open data", "data": {"path": str(tmp_path / "c.parquet")}}
    deep = hub("us", hub("east", *sites[:2]), shared=public)
    assert "data that 'us' shares: leave shared out" in refused(tmp_path, private(deep, sites[2]))
    assert "unit is 'patients' (did you mean 'patient'?" in refused(
        tmp_path, private(*sites, privacy={**NOISE, "unit": "patients"})
    )


def test_an_attack_turns_the_labels_round_and_not_the_patients(tmp_path: Path, sites: list[Any]) -> None:
    flip = {"kind": "label_flip", "num_classes": 2}
    little = {"privacy": {**NOISE, "noise_multiplier": 0.1}, "rounds": 6}
    honest = trial(tmp_path, private(*sites, **little))
    attacked = trial(tmp_path, private(*({**one, "attack": flip} for one in sites), **little))
    assert attacked.summary["privacy"]["sites"] == honest.summary["privacy"]["sites"]
    assert attacked.summary["nodes"]["world"]["auc"] < 0.5 < honest.summary["nodes"]["world"]["auc"]
