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


def test_a_rule_with_a_bound_takes_the_length_of_honest_changes_and_no_test_sample(tmp_path: Path) -> None:
    length = attacks.typical_length("i.i.d.", 0, tmp_path)
    assert 0.1 < length < 10.0
    for rule in ("norm_bounding", "NNM + centered_clipping"):
        made = attacks.configuration(rule, "none", "i.i.d.", 0, 1, tmp_path, length)["federation"]["strategy"]
        assert length in made.values()
    assert (
        attacks.configuration("NNM + mean", "none", "i.i.d.", 0, 1, tmp_path, length)["federation"]["strategy"]["bound"]
        == attacks.FAR
    )


def test_the_worst_of_the_attacks_stands_last_and_what_ends_is_worse() -> None:
    row = {name: [0.9, 0.8] for name in attacks.ATTACKS}
    mean, krum = attacks._rows({"mean": {**row, "label flip": [0.0, 0.3]}, "krum": {**row, "ALIE": [None, 0.9]}})
    assert mean[-2:] == ["0.150 ± 0.212", "0.150 ± 0.212"] and mean[1] == "0.850 ± 0.071"
    assert krum[-2:] == ["0.850 ± 0.071", "ends"]
