"""Sites that make the federation's model their own, in whole local runs: against a plain loop, and what comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_loops import FULL, WARDS, Loop
from small_runs import Copied, Ran, config_of, go, hub, site

from hierfl import checkpoint
from hierfl.errors import ConfigError, SiteFailed
from hierfl.learning.fine_tune import FINE_TUNED
from hierfl.lifecycle import cross_site, evaluate, resume, run
from hierfl.monitor.plain import closing_lines
from hierfl.monitor.records import Evaluated, RoundCommitted
from hierfl.monitor.report import write_report

ROUNDS = 3
SITES = [site(name, n=n) for name, n in WARDS.items()]
TUNE = {"steps": 5}


def root(*members: Any, rounds: int = ROUNDS, **settings: Any) -> dict[str, Any]:
    return {**hub("world", *(members or SITES)), "rounds": rounds, **settings}


def tuning(folder: Path, *members: Any, tune: Any = TUNE, rounds: int = ROUNDS, task: Any = None, **top: Any) -> Ran:
    """Run with fine-tuning; whole batches, so that a loop can follow."""
    settings = {key: top.pop(key) for key in ("strategy", "compression") if key in top}
    evaluation = {"fine_tune": tune, **top.pop("evaluation", {})}
    tree = root(*members, rounds=rounds, **settings)
    return go(folder, tree, task or "ward_tasks:Wards", training=FULL, evaluation=evaluation, **top)


def models(run: Ran) -> dict[str, np.ndarray]:
    """What sites have made of the model, by name."""
    saved = checkpoint.load(checkpoint.latest(run.folder) or Path())
    return {path.rpartition("/")[2]: kept[FINE_TUNED] for path, kept in saved.sites.items() if FINE_TUNED in kept}


def bits(run: Ran) -> dict[str, bytes]:
    return {name: vector.tobytes() for name, vector in models(run).items()}


def test_a_site_takes_steps_from_the_federations_model_as_a_plain_loop_does(tmp_path: Path) -> None:
    loop = Loop()
    x = loop.start()
    for _ in range(ROUNDS):
        x = loop.mean({k: loop.local(x, k) for k in WARDS})
    run = tuning(tmp_path / "tuned", tune={"steps": 5})
    assert run.digest == go(tmp_path / "plain", root(), training=FULL).digest
    assert set(models(run)) == set(WARDS)
    for k in WARDS:
        own = np.concatenate([values.numpy().ravel() for values in loop.local(x, k, steps=5)])
        np.testing.assert_allclose(models(run)[k], own, atol=1e-6)


def test_another_learning_rate_and_some_tensors_alone(tmp_path: Path) -> None:
    """A step of half the rate on the bias goes half as far, and leaves the weights where they were."""
    once = models(tuning(tmp_path / "once", tune={"steps": 1, "tensors": ["bias"]}))
    half = models(tuning(tmp_path / "half", tune={"steps": 1, "tensors": ["bias"], "lr": FULL["lr"] / 2}))
    folder = tuning(tmp_path / "none", tune={"steps": 1, "lr": 1e-30}).folder
    saved = checkpoint.load(checkpoint.latest(folder) or Path()).model.floats
    for k in WARDS:
        np.testing.assert_array_equal(once[k][:4], saved[:4])
        np.testing.assert_allclose(half[k][4] - saved[4], (once[k][4] - saved[4]) / 2, rtol=1e-4)
        assert once[k][4] != saved[4]


def test_personal_figures_stand_beside_the_federations_and_add_over_the_tree(tmp_path: Path) -> None:
    north, south, east = SITES
    run = tuning(tmp_path, hub("up", north, south), east)
    first, *_, last = run.monitor.of(Evaluated)
    assert not any(name.startswith("personal_") for name in first.metrics["world"])
    for path, sites in {"world": ["up/north", "up/south", "east"], "world/up": ["up/north", "up/south"]}.items():
        own, below = last.metrics[path], [last.metrics[f"world/{name}"] for name in sites]
        assert own["personal_num_test"] == sum(found["num_test"] for found in below)
        right = sum(found["personal_accuracy"] * found["num_test"] for found in below)
        assert own["personal_accuracy"] == pytest.approx(right / own["num_test"])
        assert own["accuracy"] == pytest.approx(sum(f["accuracy"] * f["num_test"] for f in below) / own["num_test"])
    assert last.metrics["world"]["personal_loss"] != last.metrics["world"]["loss"]
    summary = json.loads((run.folder / "summary.json").read_text())
    worst = min(last.metrics[path]["personal_accuracy"] for path in ("world/up/north", "world/up/south", "world/east"))
    assert summary["personal_fairness"]["accuracy"]["worst_value"] == worst
    assert summary["fairness"]["loss"] != summary["personal_fairness"]["loss"]
    assert any("accuracy of models fine-tuned there worst" in line for line in closing_lines("x", summary, ""))
    page = write_report(run.folder).read_text()
    assert "Fairness of fine-tuned models" in page and "fine-tuned accuracy" in page


def test_it_is_done_at_every_measurement_where_that_is_wanted(tmp_path: Path) -> None:
    run = tuning(tmp_path, tune={"steps": 5, "at": "every"}, evaluation={"every": 2})
    told = [found.round_number for found in run.monitor.of(Evaluated) if "personal_loss" in found.metrics["world"]]
    assert told == [2, 3]


def test_it_is_done_where_a_run_stops_before_its_last_round(tmp_path: Path) -> None:
    run = tuning(tmp_path, stopping={"metric": "loss", "target": 100.0})
    assert run.summary["status"] == "stopped early" and "personal_loss" in run.monitor.of(Evaluated)[0].metrics["world"]
    assert set(models(run)) == set(WARDS)


def test_who_tunes_whom_in_which_tree_changes_no_bit(tmp_path: Path) -> None:
    north, south, east = SITES
    alone = tuning(tmp_path / "alone")
    tree = hub("up", east, hub("top", south)), north
    many = tuning(tmp_path / "many", *tree, runtime={"kind": "local", "num_workers": 3})
    assert many.digest == alone.digest and bits(many) == bits(alone)


def test_a_resumed_run_has_the_bits_of_an_unbroken_one_and_takes_no_notice_of_it(tmp_path: Path) -> None:
    """What was tuned is no part of the next training: not under averaging, nor where sites keep something, too."""
    for strategy in ("fedavg", "scaffold", {"kind": "fedper", "personal": ["bias"]}):
        folder = tmp_path / str(strategy)[:8]
        whole = tuning(folder / "whole", strategy=strategy)
        broken = tuning(folder / "broken", strategy=strategy, rounds=1)
        assert resume(broken.folder, [f"federation.rounds={ROUNDS}"])["model_digest"] == whole.digest
        assert bits(broken) == bits(whole)
        assert whole.digest == go(folder / "plain", root(strategy=strategy), training=FULL).digest


@pytest.mark.parametrize("top", [{}, {"stopping": {"metric": "loss", "target": 100.0}}], ids=["last", "stopped early"])
def test_a_run_that_was_killed_when_its_rounds_were_done_has_the_figures_of_an_unbroken_one(
    top: Any, tmp_path: Path
) -> None:
    last = 1 if top else ROUNDS
    monitor = Copied(
        tmp_path / "runs", lambda record: isinstance(record, RoundCommitted) and record.round_number == last
    )
    tree = root(strategy={"kind": "fedper", "personal": ["bias"]})
    config = config_of(tmp_path / "runs", tree, training=FULL, evaluation={"fine_tune": TUNE}, **top)
    whole = run(config, [monitor])
    again = resume(monitor.copy)
    assert again["status"] == whole["status"] and again["nodes"] == whole["nodes"]
    assert again["personal_fairness"] == whole["personal_fairness"]


def test_under_personal_layers_a_site_goes_on_from_its_own(tmp_path: Path) -> None:
    tune = {"steps": 1, "lr": 1e-30}
    run = tuning(tmp_path, tune=tune, strategy={"kind": "fedper", "personal": ["bias"]}, compression="one_bit")
    saved = checkpoint.load(checkpoint.latest(run.folder) or Path())
    for k in WARDS:
        kept = saved.sites[f"world/{k}"]
        assert kept[FINE_TUNED][4] == kept["own"][0] != saved.model.floats[4]


def test_measuring_again_gives_the_same_figures_and_every_model_at_every_site(tmp_path: Path) -> None:
    run = tuning(tmp_path)
    last = run.monitor.of(Evaluated)[-1].metrics
    assert evaluate(run.folder) == last
    matrix = cross_site(run.folder).models
    assert set(matrix) == {"world", *(f"world/{k}" for k in WARDS)}
    for k in WARDS:
        path = f"world/{k}"
        assert matrix[path][path]["loss"] == last[path]["personal_loss"] != last[path]["loss"]
        assert matrix["world"][path]["loss"] == last[path]["loss"]


def test_sites_that_do_not_train_make_nothing_their_own(tmp_path: Path) -> None:
    north, south, east = SITES
    run = tuning(tmp_path, north, {**south, "role": "evaluation"}, {**east, "role": "statistics"})
    assert set(models(run)) == {"north"}
    last = run.monitor.of(Evaluated)[-1].metrics
    assert "personal_loss" not in last["world/south"] and "held_out_loss" in last["world"]


def test_a_site_at_which_it_fails_is_named_and_the_others_are_as_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hierfl.runtime import worker

    fine, tuned = tuning(tmp_path / "fine"), worker.fine_tuned

    def failing(wanted: Any, bound: Any, start: Any, task: Any, data: Any, *more: Any) -> Any:
        own = tuned(wanted, bound, start, task, data, *more)
        if len(data) == WARDS["south"]:
            raise ZeroDivisionError("a ward's own mistake")
        return own

    monkeypatch.setattr(worker, "fine_tuned", failing)
    with pytest.raises(SiteFailed, match="world/south could not be measured: ZeroDivisionError"):
        tuning(tmp_path / "stop")
    goes_on = go(tmp_path, root(on_failure="continue"), training=FULL, evaluation={"fine_tune": TUNE})
    assert bits(goes_on) == {name: found for name, found in bits(fine).items() if name != "south"}
    assert "personal_loss" not in goes_on.monitor.of(Evaluated)[-1].metrics["world/south"]


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        ({"steps": 0}, r"evaluation.fine_tune.steps: steps is 0; at least 1"),
        ({"at": "last"}, r"evaluation.fine_tune.at: at is 'last'; one of end, every"),
        ({"lr": -1.0}, r"evaluation.fine_tune.lr: lr is -1.0; a number above 0"),
        ({"tensors": []}, r"evaluation.fine_tune.tensors: tensors is empty"),
        ({"step": 3}, r"evaluation.fine_tune.step: unknown key .did you mean 'steps'"),
    ],
)
def test_a_wrong_key_is_refused_by_name(tune: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        config_of(tmp_path, root(), evaluation={"fine_tune": tune})


def test_what_cannot_be_tuned_is_said_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation.fine_tune.tensors: no tensor of the model is named like 'bais'"):
        tuning(tmp_path, tune={"tensors": ["bais"]})
    with pytest.raises(ConfigError, match=r"evaluation.fine_tune: is never measured"):
        config_of(tmp_path, root(), evaluation={"fine_tune": TUNE, "every": 0})


def test_baselines_tune_nothing(tmp_path: Path) -> None:
    for baseline in ("local", "pooled"):
        config = config_of(tmp_path, root(), baseline=baseline, evaluation={"fine_tune": TUNE})
        assert config.evaluation.fine_tune is None
