"""Metrics by node as a table: its width, and what stands where there is no figure."""

import io

import numpy as np
import pytest
from rich.console import Console

from hierfl.learning.metrics import Tally
from hierfl.monitor.table import tabulate


@pytest.mark.parametrize("width", [40, 80, 100, 10_000])
def test_the_table_of_metrics_names_its_nodes_at_every_width(width: int) -> None:
    names = ("num_samples", "accuracy", "auc", "loss", "log_loss", "brier", "sensitivity", "specificity")
    metrics = {f"world/us/site-{i}": dict.fromkeys(names, 0.5) | {"auc": None} for i in range(2)}
    out = io.StringIO()
    Console(file=out, width=width).print(tabulate(metrics, width))
    head, *rows = out.getvalue().splitlines()
    assert [row.split()[0] for row in rows[:2]] == list(metrics)
    assert len(head) <= width
    shown = head.split()[1:]
    assert ("undefined" in rows[0].split()) == ("auc" in shown)
    assert shown == list(names[: len(shown)]) and len(shown) == {40: 2, 80: 6, 100: 7, 10_000: 8}[width]
    assert ("specificity: --json has all" in " ".join(out.getvalue().split())) == (width < 10_000)


def test_figures_far_from_one_keep_their_digits() -> None:
    measured = {"num_test": 9, "loss": 4.5878e-6, "absolute_error": 0.0016, "squared_error": 13378772160.0, "bias": 0.0}
    out = io.StringIO()
    Console(file=out, width=200).print(tabulate({"world": measured}, 200))
    assert out.getvalue().split()[-4:] == ["4.588e-06", "0.0016", "1.338e+10", "0.0000"]


def test_the_threshold_which_is_the_root_s_is_not_undefined_elsewhere() -> None:
    root = {"num_test": 9, "operating_threshold": 0.3867, "operating_sensitivity": 0.8}
    site = {"num_test": 9, "operating_sensitivity": None}
    out = io.StringIO()
    Console(file=out, width=200).print(tabulate({"world": root, "world/ulm": site}, 200))
    assert out.getvalue().splitlines()[2].split() == ["world/ulm", "9", "undefined"]


def test_a_node_without_tests_says_so_in_every_metric() -> None:
    measured = Tally.of(np.array([0.2, 0.7]), np.array([0, 1]), loss_sum=1.0).scalars()
    not_finite = Tally.of(np.array([0.2, np.nan]), np.array([0, 1]), loss_sum=1.0).scalars()
    metrics = {"world": measured | {"held_out_loss": 0.5}, "world/none": Tally().scalars(), "world/nan": not_finite}
    out = io.StringIO()
    Console(file=out, width=10_000).print(tabulate(metrics, 10_000))
    head, _, none, nan = out.getvalue().splitlines()
    assert none.count("no tests") == len(measured) - 2, "all but num_test, and the tables' own"
    assert nan.count("undefined") == len(measured) - 2 and nan.split()[-2:] == ["2", "1"], "left out, not finite"
    assert head.split()[-3:] == ["held_out_loss", "num_left_out", "num_not_finite"]
