"""Differential privacy in whole local runs: the same bits, what is told, what is refused, and what is paid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import config_of, go, hub, site
from torch.utils.data import TensorDataset
from ward_tasks import Doses

from hierfl.budget import costs, keep_counts
from hierfl.errors import ConfigError, HierflError, OutputError
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.task import SiteData
from hierfl.lifecycle import cross_site, evaluate, resume, run
from hierfl.monitor.plain import closing_lines
from hierfl.monitor.records import Notice, SiteTrained
from hierfl.runtime.loading import Loader
from hierfl.tree import paid, survey

pytest.importorskip("dp_accounting")

from hierfl.accountant import epsilon
from hierfl.learning.privacy import Release

DOSES = "ward_tasks:Doses"
NOISE: dict[str, Any] = {"kind": "dp_sgd", "noise_multiplier": 2.0, "max_grad_norm": 1.0}
SITES = [site("a", n=12), site("b", n=20), site("c", n=16)]
STEPS = {"lr": 0.1, "batch_size": 4, "local_steps": 3}


def private(*members: Any, privacy: Mapping[str, Any] | None = NOISE, **settings: Any) -> dict[str, Any]:
    return hub("world", *(members or SITES), **({"privacy": privacy} if privacy else {}), **settings)


def trial(folder: Path, root: Mapping[str, Any], **top: Any) -> Any:
    return go(folder, root, DOSES, **{"training": STEPS, **top})


def refused(folder: Path, root: Mapping[str, Any], **top: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(folder, root, top.pop("task", DOSES), **{"training": STEPS, **top})
    return str(caught.value)


def test_a_tree_has_the_bits_of_a_flat_federation_and_a_seed_repeats_itself(tmp_path: Path) -> None:
    flat = trial(tmp_path, private())
    deep = private(hub("us", SITES[0], hub("east", SITES[1])), SITES[2])
    assert trial(tmp_path, deep).digest == flat.digest
    assert trial(tmp_path, private(), seed=1).digest != flat.digest
    assert trial(tmp_path, private(privacy=None)).digest != flat.digest
    loop = trial(tmp_path, private(privacy={**NOISE, "method": "loop"}))
    assert loop.digest != flat.digest, "a setting is a part of what noise is drawn for"


def test_models_of_a_round_that_nobody_pays_for_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = trial(
        tmp_path, hub("world", {**SITES[0], "privacy": NOISE}, hub("us", {**SITES[1], "privacy": NOISE}), SITES[2])
    )
    assert evaluate(ran.folder)["world"]["num_test"], "which trains nothing"
    alone = trial(tmp_path, private(), baseline="local")
    assert "world/a" in cross_site(alone.folder).models, "a baseline hides nothing, and trains no more"
    monkeypatch.setattr("hierfl.lifecycle.open_driver", lambda *_: pytest.fail("nothing is opened"))
    said = rf"^world/a and 1 more: privacy: .* train a round more, .*; `hierfl evaluate {ran.folder}` measures"
    with pytest.raises(ConfigError, match=said):
        cross_site(ran.folder)
    assert not (ran.folder / "cross_site.json").exists()


def test_a_resumed_run_has_the_bits_of_an_unbroken_one_and_counts_what_was_paid_before(tmp_path: Path) -> None:
    whole = trial(tmp_path, private(rounds=4))
    half = trial(tmp_path, private(rounds=2))
    rest = resume(half.folder, ["federation.rounds=4"], [])
    assert rest["model_digest"] == whole.digest
    found = {"half": half.summary, "whole": whole.summary, "rest": rest}
    spent = {name: said["privacy"]["sites"]["world/b"]["epsilon"] for name, said in found.items()}
    assert spent["rest"] == spent["whole"] == epsilon([Release(4 / 20, 2.0, 12)], 1e-5)
    assert spent["half"] == epsilon([Release(4 / 20, 2.0, 6)], 1e-5) < spent["whole"]
    changes = "federation.privacy.noise_multiplier=4", "training.batch_size=2", "training.local_steps=1"
    for change in (*changes, "federation.members.b.role=evaluation"):
        with pytest.raises(ConfigError, match="a run keeps it to its end"):
            resume(whole.folder, ["federation.rounds=5", change], [])
    counts = json.loads((whole.folder / "privacy.json").read_text())
    (whole.folder / "privacy.json").write_text(json.dumps({**counts, "world/c": 99}))
    with pytest.raises(ConfigError, match=r"world/c has 16 training records, and what it pays .* is counted on 99"):
        resume(whole.folder, ["federation.rounds=5"], [])


def test_who_has_left_or_cannot_be_loaded_any_more_has_paid_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loud = {**site("a", n=12), "leaves_at": 2, "privacy": {**NOISE, "noise_multiplier": 0.5}}
    half = trial(tmp_path, private(loud, *SITES[1:], rounds=2, on_failure="continue"))
    rest = resume(half.folder, ["federation.rounds=3"], [])
    whole = trial(tmp_path, private(loud, *SITES[1:], rounds=3, on_failure="continue"))
    assert rest["privacy"] == whole.summary["privacy"]
    left = whole.summary["privacy"]["sites"]["world/a"]["epsilon"]
    assert left == epsilon([Release(4 / 12, 0.5, 3)], 1e-5) == whole.summary["privacy"]["epsilon"]
    alone = trial(tmp_path, private(loud, *SITES[1:], privacy=None, rounds=2))
    assert resume(alone.folder, ["federation.rounds=3"], [])["privacy"]["sites"]["world/a"]["epsilon"] == left
    load = Doses.data

    def data(self: Doses, site: str, **given: Any) -> SiteData:
        if site == "b":
            raise OSError("the disk has failed")
        return load(self, site, **given)

    monkeypatch.setattr(Doses, "data", data)
    without = resume(half.folder, ["federation.rounds=4"], [])["privacy"]["sites"]
    assert without["world/a"]["epsilon"] == left
    assert without["world/b"]["epsilon"] == epsilon([Release(4 / 20, 2.0, 12)], 1e-5)


def test_what_was_spent_stands_in_every_record_and_the_training_loss_in_none(tmp_path: Path) -> None:
    inner = private(hub("us", SITES[0], SITES[1], rounds=3), SITES[2], privacy=None)
    inner["members"][0]["privacy"] = NOISE
    done = trial(tmp_path, inner)
    rows = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    told = {(row["round"], row["node"]): row.get("epsilon") for row in rows}
    for number in (1, 2):
        a, b = (epsilon([Release(4 / n, 2.0, 9 * number)], 1e-5) for n in (12, 20))
        assert told[number, "world/us/a"] == told[number, "world/us"] == told[number, "world"] == a > b
        assert told[number, "world/us/b"] == b and told[number, "world/c"] is None
    assert done.summary["privacy"]["epsilon"] == told[2, "world"]
    closing = "\n".join(closing_lines("finished", done.summary, ""))
    assert f"privacy  epsilon {told[2, 'world']:.3g} at delta 1e-05 (world/us/a), the most of any site" in closing
    losses = {record.node: record.loss for record in done.monitor.of(SiteTrained)}
    assert losses["world/us/a"] is None is losses["world/us/b"] and losses["world/c"] is not None
    [said] = [note.message for note in done.monitor.of(Notice) if "2 of 3 sites" in note.message]
    assert "not covered:" in said and "this is a simulation" in said


def test_noise_over_links_is_nobodys_to_repeat(tmp_path: Path) -> None:
    config = config_of(tmp_path, private(), DOSES, training=STEPS)
    seeded, one, two = (run(replace(config, is_served=secret), []) for secret in (False, True, True))
    assert len({found["model_digest"] for found in (seeded, one, two)}) == 3


@pytest.mark.parametrize("strategy", ["fedprox", "scaffold", "feddyn", "fednova", "median"])
def test_strategies_train_under_it(strategy: str, tmp_path: Path) -> None:
    assert trial(tmp_path, private(strategy=strategy, rounds=1)).summary["privacy"]["epsilon"] > 0


@pytest.mark.parametrize(
    ("strategy", "steps"),
    [({"kind": "ditto"}, 6), ({"kind": "fedrep", "personal": ["bias"], "head_steps": 5}, 8), ({"kind": "fedavg"}, 3)],
)
def test_every_pass_over_the_records_is_paid_for(strategy: Mapping[str, Any], steps: int, tmp_path: Path) -> None:
    done = trial(tmp_path, private(strategy=strategy, rounds=2))
    [paid_by] = {one["steps_per_round"] for one in done.summary["privacy"]["sites"].values()}
    assert paid_by == steps


def test_a_rule_that_takes_more_steps_than_it_says_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hierfl.learning.strategies.ditto._Personal.num_steps", lambda self, steps: steps)
    with pytest.raises(HierflError, match="_Personal takes 6 steps, and says num_steps 3"):
        trial(tmp_path, private(strategy="ditto"))


def test_a_budget_is_held_before_anything_starts_and_says_what_fits(tmp_path: Path) -> None:
    tight = private(SITES[0], privacy={**NOISE, "epsilon": 1.0}, rounds=40)
    config = config_of(tmp_path, tight, DOSES, training={**STEPS, "batch_size": None})
    with pytest.raises(ConfigError, match=r"world/a: privacy.epsilon: is 1, and the run costs .*noise_mult") as said:
        run(config, [])
    assert not list(tmp_path.glob("*/checkpoints")), "nothing was trained"
    noise = float(str(said.value).partition("noise_multiplier ")[2].partition(" ")[0])
    assert epsilon([Release(1.0, noise, 120)], 1e-5) <= 1.0 < epsilon([Release(1.0, noise - 0.01, 120)], 1e-5)
    fits = private(SITES[0], privacy={**NOISE, "epsilon": 20.0}, rounds=1000)
    config = config_of(tmp_path, fits, DOSES, training={**STEPS, "batch_size": None})
    with pytest.raises(ConfigError, match=r" \d+ rounds fit") as said:
        run(config, [])
    rounds = int(str(said.value).partition(" rounds fit")[0].rpartition(" ")[2])
    assert [epsilon([Release(1.0, 2.0, 3 * more)], 1e-5) <= 20.0 for more in (rounds, rounds + 1)] == [True, False]


def test_validate_and_tree_say_what_it_will_cost(tmp_path: Path) -> None:
    task = {"kind": "heart_disease", "standardise": "federated"}
    members = ("cleveland", {"name": "budapest", "privacy": {**NOISE, "noise_multiplier": 4.0, "delta": 0.01}})
    config = config_of(tmp_path, private(*members, rounds=3), task, training=STEPS)
    said = paid(config)
    assert "2 of 2 sites" in said["world"] and "mean and deviation (standardise: federated)" in said["world"]
    assert "delta 0.01 promises nothing to 172 records" in said["world"]
    assert "9 steps, each on 0.0201 of its 199 records, with noise 2 times" in said["world/cleveland"]
    nodes = survey(config)
    assert nodes["world/budapest"].epsilon == epsilon([Release(4 / 172, 4.0, 9)], 0.01)
    assert nodes["world"].epsilon is None
    unknown = paid(config_of(tmp_path, private(), DOSES, training=STEPS))
    assert "3 sites' records are not counted yet" in unknown["world"] and len(unknown) == 1


def test_what_breaks_the_promise_is_refused_by_name(tmp_path: Path) -> None:
    said = refused(
        *(tmp_path, private()),
        training={**STEPS, "clip_norm": 1.0},
        evaluation={"auc": "exact", "fine_tune": {"steps": 1}},
    )
    assert all(place in said for place in ("federation.privacy", "evaluation.auc", "evaluation.fine_tune"))
    assert "mixed" not in said
    assert "precision bfloat16" in refused(tmp_path, private(), training={**STEPS, "precision": "bfloat16"})
    with pytest.raises(ConfigError, match=r"the layer .* BatchNorm1d, mixes records"):
        go(tmp_path, private(rounds=1), "ward_tasks:Deep")
    with pytest.raises(HierflError, match="method: loop"):
        go(tmp_path, private(rounds=1))
    assert go(tmp_path, private(rounds=1, privacy={**NOISE, "method": "loop"})).summary["status"] == "finished"


def test_sites_that_train_on_the_same_records_are_refused_where_any_hides_them(tmp_path: Path) -> None:
    def twice(**other: Any) -> dict[str, Any]:
        return hub(
            "world", hub("us", site("a", n=12)), hub("eu", {**site("a", n=12), **other}, SITES[1]), privacy=NOISE
        )

    said = refused(tmp_path, twice())
    assert (
        "federation.members.eu.members.a.name: 'a' trains on the records of 'a' (federation.members.us.members" in said
    )
    again = {"name": "z", "data": {"key": "a", "n": 12}}
    assert "members.z.data.key: 'z' trains on the records of 'a'" in refused(tmp_path, twice(**again))
    bare = {**twice(**again), "privacy": None}
    config_of(tmp_path, bare, DOSES, training=STEPS)
    bare["members"][0]["privacy"] = NOISE
    assert "'z' trains on the records of 'a'" in refused(tmp_path, bare)
    for other in ({**again, "role": "evaluation"}, {"name": "z", "data": {"key": "a", "n": 13}}):
        config_of(tmp_path, twice(**other), DOSES, training=STEPS)
    linked = twice()
    for member in linked["members"]:
        member["link"] = {"address": "fl.example.org:8443"}
    config_of(tmp_path, linked, DOSES, training=STEPS)


@pytest.mark.parametrize("content", ["[1, 2]", "null", '{"world/a": "12"}', '{"world/a": 12', ""])
def test_counts_that_are_damaged_are_refused_by_name(content: str, tmp_path: Path) -> None:
    config = config_of(tmp_path, private(), DOSES, training=STEPS)
    found = costs(config, {"world/a": 12})
    assert keep_counts(tmp_path, found) == {"world/a": 12} == keep_counts(tmp_path, {})
    (tmp_path / "privacy.json").write_text(content)
    with pytest.raises(OutputError, match=r"privacy\.json, on which .*; put it back as it was, or start"):
        keep_counts(tmp_path, found)


def test_without_the_accountants_package_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hierfl.config.privacy.find_spec", lambda name: None)
    assert "pip install 'hierfl[privacy]'" in refused(tmp_path, private())


def test_a_site_that_has_other_records_than_it_pays_for_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, seen = Loader.get, []

    def fewer(loader: Loader, path: str) -> SiteData:
        data = get(loader, path)
        seen.append(path)
        if path != "world/b" or seen.count(path) == 1:
            return data
        return SiteData(TensorDataset(*data.train[:10]), data.test)

    monkeypatch.setattr(Loader, "get", fewer)
    with pytest.raises(HierflError, match=r"world/b has trained on 10 records, and what it pays .* is counted on 20"):
        trial(tmp_path, private())


class Uncounted:
    """A rule of somebody's own that says nothing of its steps."""

    keeps = is_personal = False

    def channels(self, num_floats: int) -> Mapping[str, int]:
        return {}


def test_a_strategy_whose_steps_nobody_knows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FedAvg, "objective", lambda self: Uncounted())
    assert "cannot count the steps of FedAvg" in refused(tmp_path, private())


def test_baselines_train_without_noise_and_promise_nothing(tmp_path: Path) -> None:
    config = config_of(tmp_path, private(), DOSES, training=STEPS, baseline="local")
    assert paid(config) == {} and all(one.privacy is None for one in config.sites.values())
