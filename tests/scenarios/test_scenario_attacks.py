"""Sites that rehearse an attack, in whole runs: against a reader's loop, in any runtime order, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from least_squares import EAST, LR, NORTH, SIZES, SOUTH, START, WEST, close, local, mean, trained
from small_runs import config_of, go, hub, site
from typer.testing import CliRunner

from hierfl.cli import app
from hierfl.config import write
from hierfl.errors import ConfigError, SiteFailed
from hierfl.monitor.records import Notice

HONEST = ("north", "south", "east")


LINK = {"address": "a.example:7000"}
PRIVATE = {"kind": "dp_sgd", "noise_multiplier": 1.0, "max_grad_norm": 1.0}


def attacked(attack: Any) -> dict[str, Any]:
    """Three honest sites and west, under one hub."""
    return hub("world", NORTH, SOUTH, EAST, {**WEST, "attack": attack})


@pytest.mark.parametrize("attack", ["sign_flip", "inner_product", "alie"])
def test_what_an_attacker_sends_is_the_papers_and_all_else_is_as_ever(attack: str, tmp_path: Path) -> None:
    w = START
    for _ in range(2):
        changes = np.stack([local(w, name, steps=2) - w for name in sorted(HONEST)])
        sent = {
            "sign_flip": -3.0 * (local(w, "west", steps=2) - w),
            "inner_product": -0.5 * changes.mean(axis=0),
            "alie": changes.mean(axis=0) - 2.0 * changes.std(axis=0),
        }[attack]
        w = mean({**{name: local(w, name, steps=2) for name in HONEST}, "west": w + sent}, SIZES)
    fields = {"sign_flip": {"factor": 3.0}, "alie": {"z": 2.0}}.get(attack, {})
    root = attacked({"kind": attack, **fields})
    assert close(trained(tmp_path, root, steps=2), w)


def test_flipped_labels_are_trained_on_and_measured_right(tmp_path: Path) -> None:
    honest = go(tmp_path, hub("world", "a", "b"))
    bad = go(tmp_path, hub("world", "a", {"name": "b", "attack": {"kind": "label_flip", "num_classes": 2}}))
    assert bad.digest != honest.digest
    assert bad.summary["nodes"]["world/b"]["num_test"] == honest.summary["nodes"]["world/b"]["num_test"]
    said = [notice for notice in bad.monitor.of(Notice) if "rehearses an attack" in notice.message]
    assert [notice.level for notice in said] == ["warning"] and "world/b" in said[0].message


@pytest.mark.parametrize("attack", ["alie", "inner_product", "sign_flip"])
@pytest.mark.parametrize("rule", ["fedavg", "median"])
def test_bits_are_the_same_for_any_number_of_workers(attack: str, rule: str, tmp_path: Path) -> None:
    members = [site(f"s{i}") for i in range(4)] + [{"name": f"x{i}", "attack": attack} for i in range(2)]
    root = hub("world", hub("up", *members[:2], *members[4:], strategy={"kind": rule}), *members[2:4])
    digests = {
        go(tmp_path, root, task, runtime={"kind": "local", "num_workers": number}).digest
        for task in [{"kind": "ward_tasks:Deep"}]
        for number in (1, 3)
    }
    assert len(digests) == 1


def test_an_attacker_keeps_to_the_clip_that_is_public(tmp_path: Path) -> None:
    """A longer change would be refused by name: the attacker knows better. One step moves x by at most the clip."""
    root = attacked({"kind": "sign_flip", "factor": 1e6})
    found = trained(tmp_path, {**root, "rounds": 1}, arithmetic={"clip": 2.0})
    w = mean({name: local(START, name) for name in HONEST}, SIZES)
    away = np.sign(START - local(START, "west")) * 2.0
    honest = sum(SIZES[name] for name in HONEST)
    expected = (honest * w + SIZES["west"] * (START + away)) / (honest + SIZES["west"])
    assert close(found, expected) and LR == 0.2


@pytest.mark.parametrize(
    ("root", "top", "said"),
    [
        (hub("world", "a", {"name": "b", "attack": "signflip"}), {}, "did you mean 'sign_flip'"),
        (hub("world", "a", {"name": "b", "attack": "label_flip"}), {}, "num_classes: is missing: label_flip needs it"),
        (hub("world", "a", {"name": "b", "attack": "alie"}), {"baseline": "pooled"}, "nothing to attack under"),
        (hub("world", "a", {"name": "b", "attack": "alie", "role": "evaluation"}), {}, "takes a site that trains"),
        (hub("world", "a", {"name": "b", "attack": "alie", "split": 2}), {}, "leave out split"),
        (hub("world", "a", hub("c", {"name": "b", "attack": "alie"})), {}, "'c' has none that trains"),
        (hub("world", "a", {"name": "b", "attack": "alie"}, topology="cyclic"), {}, "starts from another model"),
        (hub("world", hub("c", "a", {"name": "b", "attack": "alie"}), strategy="scaffold"), {}, "no other site is"),
        (
            hub("world", {"name": "a", "residency": ["de"]}, {"name": "b", "attack": "alie"}),
            {"runtime": {"kind": "local", "devices": [{"name": "d", "labels": ["de"]}]}},
            "its residency forbids it",
        ),
        (
            hub("world", {"name": "a", "link": {"address": "a.example:7000"}}, {"name": "b", "attack": "alie"}),
            {},
            "served by another institution",
        ),
        (
            hub("world", hub("c", "a", {"name": "b", "attack": "alie"}, link=LINK, privacy=PRIVATE), "d"),
            {},
            "repeats the training of 'a', whose privacy counts one; rehearse it without links",
        ),
        (hub("world", hub("c", "a", attack="alie")), {}, "only a site"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused_by_name(root: Any, top: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as told:
        config_of(tmp_path, root, **top)
    assert all("attack" in problem.path for problem in told.value.problems)


@pytest.mark.parametrize("attack", [{"kind": "alie"}, {"kind": "sign_flip", "factor": 2}], ids=["knows", "does not"])
def test_attacks_go_with_privacy_where_noise_is_drawn_once(tmp_path: Path, attack: Any) -> None:
    """In simulation the same, by the seed; over a link by whoever does not repeat others' training."""
    link = {} if attack["kind"] == "alie" else {"link": LINK}
    below = hub("c", "a", {"name": "b", "attack": attack}, privacy=PRIVATE, **link)
    assert config_of(tmp_path, hub("world", below, "d")).sites["world/c/b"].privacy is not None


def test_attacks_that_need_no_others_go_with_residency_and_what_sites_keep(tmp_path: Path) -> None:
    root = hub("world", "a", {"name": "b", "attack": {"kind": "sign_flip", "factor": 2}}, strategy="scaffold")
    assert config_of(tmp_path, root).sites["world/b"].attack is not None


def test_data_that_cannot_be_poisoned_are_told_with_the_site(tmp_path: Path) -> None:
    root = attacked({"kind": "label_flip", "num_classes": 2})
    with pytest.raises(SiteFailed, match=r"world/west .*label_flip takes a TensorDataset"):
        trained(tmp_path, root)


def test_the_tree_shows_who_attacks(tmp_path: Path) -> None:
    path = tmp_path / "wards.yaml"
    path.write_text(
        write(config_of(tmp_path, hub("world", "a", {"name": "b", "attack": {"kind": "alie", "z": 2}})).resolved)
    )
    told = CliRunner().invoke(app, ["tree", str(path), "--plain"])
    assert "b  attacks: alie (z=2.0)" in told.stdout
