"""Public data that a hub shares, in whole local runs: against a plain loop, who is given what, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_loops import FULL, WARDS, Loop, same
from small_runs import Ran, config_of, go, hub, site, tensors

from hierfl.config import from_mapping
from hierfl.errors import ConfigError, DataError, SiteFailed
from hierfl.learning.seeds import derive
from hierfl.lifecycle import resume
from hierfl.monitor.records import Notice, SiteTrained
from hierfl.tree import handed_out, survey

ROUNDS, PUBLIC = 3, 20
SITES = [site(name, n=n) for name, n in WARDS.items()]
BASIS = "open data, CC BY 4.0"
SHARED: dict[str, Any] = {"key": "open", "fraction": 0.3, "basis": BASIS, "data": {"n": PUBLIC}}


def root(*members: Any, rounds: int = ROUNDS, shared: Any = SHARED, **settings: Any) -> dict[str, Any]:
    given = {} if shared is None else {"shared": shared}
    return {**hub("world", *(members or SITES)), "rounds": rounds, **given, **settings}


def mixed(folder: Path, *members: Any, training: Any = FULL, **settings: Any) -> Ran:
    top = {key: settings.pop(key) for key in ("runtime", "baseline") if key in settings}
    return go(folder, root(*members, **settings), training=training, **top)


def test_sites_train_on_their_own_and_a_part_of_the_public_set_as_in_zhao_et_al(tmp_path: Path) -> None:
    """D_k and a random 30% of G at each ward; N_k counts both."""
    loop = Loop()
    x, y = loop.task.data("open", n=PUBLIC).train.tensors
    number = math.ceil(0.3 * PUBLIC)
    sizes = {}
    for k, (own_x, own_y) in loop.data.items():
        random = np.random.Generator(np.random.PCG64(derive(0, "shared", "open", k)))
        given = np.sort(random.permutation(PUBLIC)[:number])
        loop.data[k] = torch.cat([own_x, x[given]]), torch.cat([own_y, y[given]])
        sizes[k] = WARDS[k] + number
    loop.weights = {k: n / sum(sizes.values()) for k, n in sizes.items()}
    w = loop.start()
    for _ in range(ROUNDS):
        w = loop.mean({k: loop.local(w, k) for k in WARDS})
    run = mixed(tmp_path)
    same(tensors(run.folder), w)
    assert {t.node: t.num_samples for t in run.monitor.of(SiteTrained)} == {f"world/{k}": n for k, n in sizes.items()}
    assert run.summary["nodes"]["world"]["num_test"] == 3 * 6


def test_a_tree_and_any_number_of_workers_have_the_bits_of_the_flat_federation(tmp_path: Path) -> None:
    north, south, east = SITES
    alone = mixed(tmp_path / "alone", training={**FULL, "batch_size": 4})
    tree = hub("up", east, hub("top", south)), north
    many = mixed(
        tmp_path / "many", *tree, training={**FULL, "batch_size": 4}, runtime={"kind": "local", "num_workers": 3}
    )
    assert many.digest == alone.digest
    broken = mixed(tmp_path / "broken", training={**FULL, "batch_size": 4}, rounds=1)
    assert resume(broken.folder, [f"federation.rounds={ROUNDS}"])["model_digest"] == alone.digest
    plain = mixed(tmp_path / "plain", training={**FULL, "batch_size": 4}, shared=None)
    assert plain.digest != alone.digest


def test_a_hub_below_hands_out_its_own_beside_what_comes_from_above(tmp_path: Path) -> None:
    north, south, east = SITES
    own = {"key": "regional", "basis": "agreement of 2024", "data": {"n": 5}}
    members = (hub("up", north, south, shared=own), {**east, "role": "evaluation"})
    run = mixed(tmp_path, *members)
    trained = {found.node: found.num_samples for found in run.monitor.of(SiteTrained)}
    assert trained == {"world/up/north": 9 + 6 + 5, "world/up/south": 14 + 6 + 5}
    said = handed_out(config_of(tmp_path, root(*members)))
    assert said == {
        "world": "shared data: 30%, drawn for each site, of the training samples of 'open' go to 2 sites that train on"
        f" them (world/up/north, world/up/south); basis: {BASIS}",
        "world/up": "shared data: all of the training samples of 'regional' go to 2 sites that train on them"
        " (world/up/north, world/up/south); basis: agreement of 2024",
    }
    notices = {notice.node: notice.message for notice in run.monitor.of(Notice) if "shared data" in notice.message}
    assert notices == said


def test_a_site_that_is_split_is_given_its_part_once(tmp_path: Path) -> None:
    north, south, east = SITES
    run = mixed(tmp_path, {**north, "split": 2}, south, east, rounds=1)
    trained = {found.node: found.num_samples for found in run.monitor.of(SiteTrained)}
    assert trained["world/north/part-0"] + trained["world/north/part-1"] == 9 + 6


def test_what_standardises_are_the_sites_own_samples(tmp_path: Path) -> None:
    """Blobs of another place would move the federation's mean if they counted; they are scaled like all others."""
    base = {
        "name": "trial",
        "task": {"kind": "heart_disease", "standardise": "federated"},
        "training": {"lr": 0.05, "batch_size": None, "local_steps": 1},
        "runtime": {"kind": "local", "num_workers": 1},
        "output": {"dir": str(tmp_path), "tensorboard": False},
    }
    members = [{"name": "cleveland"}, {"name": "budapest"}]
    shared = {"key": "long_beach", "basis": BASIS}
    from hierfl.checkpoint import latest, load
    from hierfl.lifecycle import run

    scales, samples = [], []
    for given in ({}, {"shared": shared}):
        config = from_mapping({**base, "federation": {"name": "world", "rounds": 1, "members": members, **given}})
        found = load(latest(Path(run(config)["run_dir"])) or Path())
        scales.append(found.scale)
        samples.append({path: node.num_train for path, node in survey(config).items()})
    assert scales[0] is not None and scales[1] is not None
    np.testing.assert_array_equal(scales[0][0], scales[1][0])
    public = samples[1]["world/cleveland"] - samples[0]["world/cleveland"]  # type: ignore[operator]
    assert public > 50 and samples[1]["world"] == samples[0]["world"] + 2 * public  # type: ignore[operator]


def test_baselines_share_nothing(tmp_path: Path) -> None:
    for baseline in ("local", "pooled"):
        config = config_of(tmp_path, root(), baseline=baseline)
        assert not any(settings.handed for settings in config.sites.values()) and handed_out(config) == {}


def test_data_of_a_site_are_not_shared(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"federation.shared.key: 'north' is the data of the site 'north'"):
        config_of(tmp_path, root(shared={**SHARED, "key": "north"}))
    keyed = [*SITES[:2], site("east", key="open")]
    with pytest.raises(ConfigError, match=r"'open' is the data of the site 'east'"):
        config_of(tmp_path, root(*keyed))


def test_data_that_the_task_does_not_have_are_refused_by_name(tmp_path: Path) -> None:
    members = [{"name": "cleveland"}]
    with pytest.raises(ConfigError, match=r"'long_beech' is nothing that the .*did you mean 'long_beach'"):
        config_of(tmp_path, root(*members, shared={**SHARED, "key": "long_beech"}), "heart_disease")
    with pytest.raises((DataError, SiteFailed), match=r"world shares .open. could not be loaded\n  in detail: FileNot"):
        mixed(tmp_path, shared={**SHARED, "data": {"fault": "no file"}})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"basis": " "}, "federation.shared.basis: basis is empty; say why the data may be handed out"),
        ({"fraction": 0.0}, "federation.shared.fraction: fraction is 0.0; above 0, at most 1"),
        ({"fractions": 0.5}, "federation.shared.fractions: unknown key"),
    ],
)
def test_a_wrong_key_is_refused_by_name(wrong: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        config_of(tmp_path, root(shared={**SHARED, **wrong}))
    with pytest.raises(ConfigError, match=r"federation.shared.basis: is missing"):
        config_of(tmp_path, root(shared={"key": "open"}))
