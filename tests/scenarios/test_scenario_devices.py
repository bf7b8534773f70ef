"""Devices as the YAML declares them: residency is kept, the bits stay, and what was learned is kept on wish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hierfl.config import from_mapping
from hierfl.errors import ConfigError
from hierfl.lifecycle import run
from hierfl.monitor.records import Assigned, Record


class Ears:
    """A monitor that keeps what devices were given."""

    def __init__(self) -> None:
        self.assigned: list[Assigned] = []

    def on(self, record: Record) -> None:
        if isinstance(record, Assigned):
            self.assigned.append(record)

    def close(self) -> None:
        pass


DEVICES = [
    {"name": "berlin", "labels": ["eu", "de"]},
    {"name": "paris", "count": 2, "labels": ["eu", "fr"]},
    {"name": "anywhere"},
]


def configured(folder: Path, devices: list[dict[str, Any]], residency: bool, **runtime: Any) -> dict[str, Any]:
    """Write a federation of two nations, whose data stay where they are if `residency` says so."""
    labels = {"eu": ["eu"], "de": ["de"], "fr": ["fr"]} if residency else {"eu": [], "de": [], "fr": []}
    nations = [
        {"name": nation, "residency": labels[nation], "members": [{"name": f"{nation}-{i}"} for i in range(3)]}
        for nation in ("de", "fr")
    ]
    world = {
        "name": "world",
        "rounds": 2,
        "members": [{"name": "eu", "residency": labels["eu"], "members": nations}, {"name": "us"}],
    }
    return {
        "name": "places",
        "task": {"kind": "synthetic", "num_samples_min": 12, "num_parameters": 60},
        "training": {"local_steps": 2, "batch_size": 4},
        "federation": world,
        "runtime": {"kind": "local", "devices": devices, **runtime},
        "output": {"dir": str(folder), "tensorboard": False},
    }


def test_data_are_processed_where_they_may_be_and_nowhere_else(tmp_path: Path) -> None:
    ears = Ears()
    digest = run(from_mapping(configured(tmp_path, DEVICES, True)), [ears])["model_digest"]
    allowed = {"de": {"berlin-0"}, "fr": {"paris-0", "paris-1"}}
    kinds = set()
    for record in ears.assigned:
        for site in record.sites:
            kinds.add(record.kind)
            nation = site.split("/")[2] if site.startswith("world/eu/") else ""
            assert record.device in allowed.get(nation, {"berlin-0", "paris-0", "paris-1", "anywhere-0"}), site
    assert kinds == {"describe", "train", "evaluate"}, "loading and measuring touch data too"
    anywhere = run(from_mapping(configured(tmp_path, [], False)))["model_digest"]
    assert digest == anywhere, "where a site is trained does not change a bit"


def test_every_decision_has_its_reason(tmp_path: Path) -> None:
    ears = Ears()
    run(from_mapping(configured(tmp_path, DEVICES, True)), [ears])
    assert all(record.reason for record in ears.assigned)


@pytest.mark.parametrize("policy", ["static", "round_robin", "fifo", "greedy", "longest_first", "chain_first"])
def test_no_policy_changes_the_bits(policy: str, tmp_path: Path) -> None:
    reference = run(from_mapping(configured(tmp_path, [], False, num_workers=1)))["model_digest"]
    assert run(from_mapping(configured(tmp_path, DEVICES, True, policy=policy)))["model_digest"] == reference


def test_what_was_learned_is_kept_and_read_again(tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "estimates.json"
    settings = {"num_workers": 1, "estimates": str(kept)}
    run(from_mapping(configured(tmp_path, [], False, **settings)))
    learned = json.loads(kept.read_text())
    assert learned["durations"] and learned["version"] == 1
    ears = Ears()
    run(from_mapping(configured(tmp_path, [], False, **settings)), [ears])
    first = next(record for record in ears.assigned if record.kind == "train")
    assert "unknown" not in first.reason, "the second run knows from its first round on"
    kept.write_text("{}")
    with pytest.raises(ConfigError, match=r"estimates\.json cannot be read: it is no file of estimates.*name another"):
        run(from_mapping(configured(tmp_path, [], False, **settings)))
