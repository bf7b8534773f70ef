"""The comparison of rules under attack: its configurations are sound, and its table has the worst of each row."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from benchmarks import attacks
from hierfl.config import from_mapping


@pytest.mark.parametrize("partition", attacks.PARTITIONS)
def test_every_cell_is_a_sound_configuration_with_the_last_sites_bad(partition: str, tmp_path: Path) -> None:
    for rule, attack in product(attacks.RULES, attacks.ATTACKS):
        config = from_mapping(attacks.configuration(rule, attack, partition, 0, 2, tmp_path))
        bad = [path for path, site in config.sites.items() if site.attack is not None]
        assert bad == ([] if attack == "none" else [f"world/site-{number}" for number in range(16, 20)])


def test_a_cell_is_the_accuracy_of_a_run(tmp_path: Path) -> None:
    found = attacks.accuracy("median", "sign flip x10", "i.i.d.", 0, 1, tmp_path)
    assert found is not None and 0.0 < found < 1.0


def test_the_worst_of_the_attacks_stands_last_and_what_ends_is_worse() -> None:
    row = {name: [0.9, 0.8] for name in attacks.ATTACKS}
    mean, krum = attacks._rows({"mean": {**row, "label flip": [0.0, 0.3]}, "krum": {**row, "ALIE": [None, 0.9]}})
    assert mean[-2:] == ["0.150", "0.150"] and mean[1] == "0.850"
    assert krum[-2:] == ["0.850", "ends"]
