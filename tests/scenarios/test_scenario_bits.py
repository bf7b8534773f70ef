"""The laws of exact sums end to end: real training, the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import Ran, go, hub, site, tensors
from torch import Tensor, nn
from ward_tasks import Wards, patients

from hierfl import checkpoint
from hierfl.lifecycle import resume
from hierfl.monitor.records import Evaluated, RoundCommitted, SiteTrained

DEEP = "ward_tasks:Deep"
SITES: list[Any] = [site("north", n=14), site("south", n=4), site("east", n=8), site("west", n=22), site("bay", n=7)]
NORTH, SOUTH, EAST, WEST, BAY = SITES

FLAT = hub("world", *SITES)
TWO = hub("world", hub("up", NORTH, SOUTH), hub("down", EAST, WEST, BAY))
UNEVEN = hub("world", hub("up", hub("top", BAY, hub("peak", NORTH)), EAST), SOUTH, hub("down", WEST))
TREES = {"two-tiers": TWO, "uneven": UNEVEN}

HEART = {"kind": "heart_disease"}
HEART_TRAINING = {"optimizer": "sgd", "lr": 0.01, "batch_size": 4, "local_steps": 8}
HEART_FLAT = hub("world", "cleveland", "long_beach", "budapest", "zurich_basel")
HEART_TREES = {
    "two-tiers": hub("world", hub("us", "cleveland", "long_beach"), hub("eu", "budapest", "zurich_basel")),
    "uneven": hub("world", hub("x", hub("us", "long_beach", hub("ohio", "cleveland")), "budapest"), "zurich_basel"),
}


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Five wards under one hub, batch norm and dropout, one worker."""
    return go(tmp_path_factory.mktemp("flat"), FLAT, DEEP)


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return go(tmp_path_factory.mktemp("heart"), HEART_FLAT, HEART, training=HEART_TRAINING)


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_tree_has_the_bits_of_the_flat_federation(flat: Ran, tree: str, num_workers: int, tmp_path: Path) -> None:
    workers = {"kind": "local", "num_workers": num_workers}
    assert go(tmp_path, TREES[tree], DEEP, runtime=workers).digest == flat.digest


@pytest.mark.parametrize("tree", HEART_TREES)
def test_so_it_is_on_the_hospitals_data(heart: Ran, tree: str, tmp_path: Path) -> None:
    """Federated standardisation included: its moments add exactly, too."""
    workers = {"kind": "local", "num_workers": 2}
    ran = go(tmp_path, HEART_TREES[tree], HEART, training=HEART_TRAINING, runtime=workers)
    assert ran.digest == heart.digest
    shared = ("accuracy", "auc", "loss", "num_samples", "num_test")
    ours, theirs = ran.summary["nodes"]["world"], heart.summary["nodes"]["world"]
    assert [ours[name] for name in shared] == [theirs[name] for name in shared]


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_every_width_and_dtype_keeps_the_law(flat: Ran, width: int, dtype: str, tmp_path: Path) -> None:
    task = {"kind": DEEP, "dtype": dtype}
    digests = {
        go(tmp_path / str(number), tree, task, arithmetic={"width": width}, runtime=runtime).digest
        for number, (tree, runtime) in enumerate(
            [(FLAT, {"kind": "local", "num_workers": 1}), (UNEVEN, {"kind": "local", "num_workers": 3})]
        )
    }
    assert len(digests) == 1
    assert (digests == {flat.digest}) == (width == 32 and dtype == "float32")


@pytest.mark.parametrize("num_workers", [2, 3])
@pytest.mark.parametrize("preaggregate", [True, False])
def test_workers_and_preaggregation_change_no_bit(
    flat: Ran, num_workers: int, preaggregate: bool, tmp_path: Path
) -> None:
    runtime = {"kind": "local", "num_workers": num_workers, "preaggregate": preaggregate}
    ran = go(tmp_path, FLAT, DEEP, runtime=runtime)
    assert ran.digest == flat.digest
    assert len(ran.summary["workers"]) == num_workers


@pytest.mark.parametrize("policy", ["fifo", "greedy"])
def test_the_order_of_work_changes_no_bit(flat: Ran, policy: str, tmp_path: Path) -> None:
    runtime = {"kind": "local", "num_workers": 2, "policy": policy}
    assert go(tmp_path, FLAT, DEEP, runtime=runtime).digest == flat.digest


def test_the_order_of_sites_in_the_yaml_changes_no_bit(flat: Ran, tmp_path: Path) -> None:
    assert go(tmp_path, hub("world", *reversed(SITES)), DEEP).digest == flat.digest


def test_a_run_repeats_itself_and_another_seed_does_not(flat: Ran, tmp_path: Path) -> None:
    again = go(tmp_path / "again", FLAT, DEEP)
    assert again.digest == flat.digest
    assert (again.folder / "model.safetensors").read_bytes() == (flat.folder / "model.safetensors").read_bytes()
    assert (again.folder / "metrics.jsonl").read_bytes() == (flat.folder / "metrics.jsonl").read_bytes()
    assert go(tmp_path / "other", FLAT, DEEP, seed=1).digest != flat.digest


def test_samples_come_in_an_order_of_the_seed_the_round_and_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[float]] = {}
    loss = Wards.loss

    def listen(task: Wards, model: nn.Module, batch: Any) -> Tensor:
        if model.training:
            seen.setdefault(next(name for name in all_of if float(batch[0][0, 0]) in all_of[name]), []).extend(
                batch[0][:, 0].tolist()
            )
        return loss(task, model, batch)

    def orders(folder: str, seed: int) -> dict[tuple[str, int], tuple[int, ...]]:
        """By site and round, in which order its twelve samples came."""
        seen.clear()
        go(tmp_path / folder, hub("world", *all_of), seed=seed, training={"batch_size": 4, "local_epochs": 1})
        return {
            (name, number): tuple(all_of[name].index(value) for value in values[12 * number : 12 * number + 12])
            for name, values in seen.items()
            for number in range(2)
        }

    all_of = {name: patients(name, 18)[0][:12, 0].tolist() for name in ("north", "south", "east")}
    monkeypatch.setattr(Wards, "loss", listen)
    first, again, other = orders("first", 0), orders("again", 0), orders("other", 1)
    assert first == again
    assert all(sorted(order) == list(range(12)) for order in first.values())
    assert len({*first.values(), *other.values()}) == 12, "of three sites in two rounds on two seeds"


def test_fedprox_with_mu_zero_is_fedavg(flat: Ran, tmp_path: Path) -> None:
    prox = {**FLAT, "strategy": {"kind": "fedprox", "mu": 0.0}}
    assert go(tmp_path / "zero", prox, DEEP).digest == flat.digest
    prox = {**FLAT, "strategy": {"kind": "fedprox", "mu": 0.5}}
    assert go(tmp_path / "half", prox, DEEP).digest != flat.digest


def test_fedprox_holds_for_the_whole_tree(tmp_path: Path) -> None:
    strategy = {"kind": "fedprox", "mu": 0.5}
    digests = {
        go(tmp_path / str(number), {**tree, "strategy": strategy}, DEEP).digest
        for number, tree in enumerate([FLAT, UNEVEN])
    }
    assert len(digests) == 1


def test_batch_norms_counter_is_the_rounded_mean_of_the_sites(flat: Ran) -> None:
    """Steps of one epoch in batches of 4: 4, 1, 2, 6, 2 at 14, 4, 8, 22, 7 patients; twice."""
    steps, patients = [4, 1, 2, 6, 2], [14, 4, 8, 22, 7]
    mean = sum(s * n for s, n in zip(steps, patients, strict=True)) / sum(patients)
    assert mean == pytest.approx(222 / 55)
    [counter] = [value for name, value in tensors(flat.folder).items() if name.endswith("num_batches_tracked")]
    assert counter.dtype == np.int64 and int(counter) == 2 * round(mean) == 8


STATEFUL = hub(
    "world",
    hub("up", NORTH, SOUTH, rounds=2, strategy={"kind": "fedavgm", "momentum": 0.5}),
    hub("down", EAST, hub("low", WEST, BAY)),
    strategy={"kind": "fedadam", "lr": 0.05},
)


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("tree", ["flat", "stateful"])
def test_a_resumed_run_has_the_bits_of_an_unbroken_one(tree: str, first: int, tmp_path: Path) -> None:
    root = {"flat": FLAT, "stateful": STATEFUL}[tree]
    whole = go(tmp_path / "whole", {**root, "rounds": 4}, DEEP)
    begun = go(tmp_path / "begun", {**root, "rounds": first}, DEEP)
    assert begun.digest != whole.digest
    summary = resume(begun.folder, ["federation.rounds=4", "runtime.num_workers=2"])
    assert summary["model_digest"] == whole.digest
    assert summary["rounds"] == 4
    assert (begun.folder / "metrics.jsonl").read_bytes() == (whole.folder / "metrics.jsonl").read_bytes()


def test_a_resumed_run_scales_features_as_before(heart: Ran, tmp_path: Path) -> None:
    """The federation's means and deviations are in the checkpoint, to the last bit."""
    begun = go(tmp_path, {**HEART_TREES["uneven"], "rounds": 1}, HEART, training=HEART_TRAINING)
    assert resume(begun.folder, ["federation.rounds=2"])["model_digest"] == heart.digest


@pytest.mark.parametrize(("where", "kept"), [((SiteTrained, 5), 2), ((RoundCommitted, 3), 3), ((Evaluated, 2), 1)])
def test_an_interrupted_run_keeps_its_last_commit_and_goes_on(
    where: tuple[type, int], kept: int, tmp_path: Path
) -> None:
    """Checkpoints are due every third round only: what was done since is saved on the way out.

    The fifth round of `up` lies in the third of the world.
    """
    root = {**STATEFUL, "rounds": 4}
    output = {"checkpoint_every": 3, "tensorboard": False}
    whole = go(tmp_path / "whole", root, DEEP)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "broken", root, DEEP, until=where, output={**output, "dir": str(tmp_path / "broken")})
    [folder] = (tmp_path / "broken").iterdir()
    assert checkpoint.latest(folder) == folder / "checkpoints" / f"round-{kept:06d}"
    assert resume(folder)["model_digest"] == whole.digest


def test_early_stopping_remembers_across_a_resume(tmp_path: Path) -> None:
    """A patience of 3 with an improvement that cannot be: both stop after the fourth measurement, and the best is the
    first: the model of a run of one round.
    """
    stopping = {"metric": "loss", "patience": 3, "min_delta": 5.0}
    whole = go(tmp_path / "whole", {**FLAT, "rounds": 9}, DEEP, stopping=stopping)
    assert (whole.summary["status"], whole.summary["rounds"]) == ("stopped early", 4)
    begun = go(tmp_path / "begun", {**FLAT, "rounds": 2}, DEEP, stopping=stopping)
    summary = resume(begun.folder, ["federation.rounds=9"])
    assert (summary["status"], summary["rounds"]) == ("stopped early", 4)
    assert summary["model_digest"] == whole.digest
    assert summary["best"] == whole.summary["best"]
    assert (summary["best"]["metric"], summary["best"]["round"]) == ("loss", 1)
    first = go(tmp_path / "first", {**FLAT, "rounds": 1}, DEEP)
    for folder in (whole.folder, begun.folder):
        best = (folder / "best.safetensors").read_bytes()
        assert best == (first.folder / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()
    assert summary["best"]["value"] == first.summary["nodes"]["world"]["loss"]
