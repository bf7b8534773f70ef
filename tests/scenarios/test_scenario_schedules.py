"""Learning-rate schedules in whole runs: a plain loop's models, the root's rounds, the same bits however it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import least_squares
import numpy as np
import pytest
import torch
import yaml
from least_squares import SHIFTS, SIZES, local, mean
from plain_loops import FULL, LR, STEPS, WARDS, Loop, Params, minus, same
from small_runs import Ran, config_of, go, hub, site, tensors
from typer.testing import CliRunner
from ward_tasks import lines

from hierfl.cli import app
from hierfl.errors import ConfigError
from hierfl.lifecycle import resume, run
from hierfl.monitor.records import SiteTrained

ROUNDS = 3
NORTH, SOUTH, EAST = (site(name, n=n) for name, n in WARDS.items())
HALVED = {**FULL, "lr_schedule": {"kind": "ExponentialLR", "gamma": 0.5}}
RATES = [LR, LR / 2, LR / 4]


def tree(rounds: int = ROUNDS) -> dict[str, Any]:
    return {**hub("world", hub("up", NORTH, SOUTH, rounds=2), EAST), "rounds": rounds}


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A hub of two rounds within each of the world's, on one worker."""
    return go(tmp_path_factory.mktemp("halved"), tree(), training=HALVED)


def test_every_round_trains_with_its_own_rate_in_all_rounds_within_it(halved: Ran) -> None:
    loop = Loop()
    x, n = loop.start(), WARDS
    for lr in RATES:
        up = x
        for _ in range(2):
            y = {k: loop.local(up, k, lr=lr) for k in ("north", "south")}
            both = n["north"] + n["south"]
            up = [(n["north"] * a + n["south"] * b) / both for a, b in zip(y["north"], y["south"], strict=True)]
        east = loop.local(x, "east", lr=lr)
        x = [(both * a + n["east"] * b) / (both + n["east"]) for a, b in zip(up, east, strict=True)]
    same(tensors(halved.folder), x)


def test_the_records_say_with_which_rate_a_site_has_trained(halved: Ran) -> None:
    told = {(record.node, record.round_number): record.lr for record in halved.monitor.of(SiteTrained)}
    assert [told["world/east", number] for number in (1, 2, 3)] == RATES
    assert [told["world/up/north", number] for number in (1, 2, 3, 4, 5, 6)] == [lr for lr in RATES for _ in range(2)]


def test_workers_and_a_break_change_no_bit(halved: Ran, tmp_path: Path) -> None:
    begun = go(tmp_path, tree(1), training=HALVED)
    assert begun.digest != halved.digest
    assert (
        resume(begun.folder, [f"federation.rounds={ROUNDS}", "runtime.num_workers=3"])["model_digest"] == halved.digest
    )


def test_scaffold_divides_by_the_rate_that_it_trained_with(tmp_path: Path) -> None:
    """Karimireddy et al. 2020, Algorithm 1, with another step size in each round."""
    loop = Loop()
    x, c = loop.start(), [torch.zeros_like(v) for v in loop.start()]
    own: dict[str, Params] = {k: [torch.zeros_like(v) for v in x] for k in WARDS}
    for lr in RATES:
        y = {k: loop.local(x, k, lambda w, k=k, c=c, own=own: minus(c, own[k]), lr=lr) for k in WARDS}  # type: ignore[misc]
        new = {
            k: [a - b + (v - u) / (STEPS * lr) for a, b, v, u in zip(own[k], c, x, y[k], strict=True)] for k in WARDS
        }
        c = [a + b for a, b in zip(c, loop.mean({k: minus(new[k], own[k]) for k in WARDS}), strict=True)]
        x, own = loop.mean(y), new
    root = {**hub("world", NORTH, SOUTH, EAST, strategy="scaffold"), "rounds": ROUNDS}
    same(tensors(go(tmp_path, root, training=HALVED).folder), x)


def test_a_schedule_that_ends_before_the_run_is_refused_before_there_is_a_folder(tmp_path: Path) -> None:
    ends = {**FULL, "lr_schedule": {"kind": "PolynomialLR", "total_iters": 2}}
    with pytest.raises(ConfigError, match="PolynomialLR gives a learning rate of 0 in round 3 of 3"):
        run(config_of(tmp_path, tree(), training=ends))
    assert not list(tmp_path.iterdir())
    ran = go(tmp_path, tree(2), training=ends)
    with pytest.raises(ConfigError, match="in round 3 of 3"):
        resume(ran.folder, ["federation.rounds=3"])


@pytest.mark.parametrize("words", [("validate",), ("serve", "--kit", "none"), ("join", "--kit", "none")])
def test_so_it_is_by_each_command_that_reads_a_yaml_of_sites_elsewhere(words: tuple[str, ...], tmp_path: Path) -> None:
    linked = hub("world", {**NORTH, "link": {"address": "localhost:1"}}, SOUTH, rounds=3)
    ends = {"lr_schedule": {"kind": "PolynomialLR", "total_iters": 2}}
    linked["members"][0]["training"] = ends
    file = tmp_path / "trial.yaml"
    file.write_text(yaml.safe_dump({"task": {"kind": "ward_tasks:Wards"}, "federation": linked}))
    ended = CliRunner().invoke(app, [words[0], str(file), *words[1:]])
    assert ended.exit_code == 2
    assert "world/north: training.lr_schedule: PolynomialLR gives a learning rate of 0 in round 3 of 3" in ended.stderr


def test_sites_that_disagree_come_closer_to_what_is_best_for_all_as_the_rate_falls(tmp_path: Path) -> None:
    """Li et al. 2020, "On the Convergence of FedAvg on Non-IID Data", Theorem 4: with several local steps and a
    rate that stays, the average ends apart from the optimum.
    """
    rounds, steps, gamma = 30, 5, 0.9

    def averaged(factor: float) -> Any:
        w = least_squares.START
        for number in range(rounds):
            lr = least_squares.LR * factor**number
            w = mean({name: local(w, name, steps, lr) for name in SIZES}, SIZES)
        return w

    parts = [lines(name, SIZES[name], SHIFTS[name]) for name in SIZES]
    x, y = (np.concatenate([part[i] for part in parts]).astype(np.float64) for i in range(2))
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    schedule = {"kind": "ExponentialLR", "gamma": gamma}
    training = {"lr": least_squares.LR, "lr_schedule": schedule, "batch_size": None, "local_steps": steps}
    members = [site(name, n=SIZES[name], shift=SHIFTS[name]) for name in SIZES]
    ran = go(tmp_path, hub("world", *members, rounds=rounds), "ward_tasks:Lines", training=training)
    found = tensors(ran.folder)["weight"][0]
    assert least_squares.close(found, averaged(gamma))
    assert np.abs(found - best).max() < np.abs(averaged(1.0) - best).max() / 4
