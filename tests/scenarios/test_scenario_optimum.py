"""An oracle without a seed: full-batch training over any tree of the four hospitals ends at the unpenalised logistic
regression on the union of their site-scaled training rows, as scikit-learn finds it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_runs import hub, tensors

from hierfl.config import from_mapping
from hierfl.config.load import load
from hierfl.lifecycle import run
from hierfl.tasks.heart_disease import SITES, HeartDisease

CONFIG = load(Path(__file__).parents[2] / "configs" / "heart_optimum.yaml")
FAST = {"training": {"lr": 3.0, "batch_size": None, "local_steps": 1}, "federation": {"rounds": 80}}
TREES: dict[str, list[str | dict[str, Any]]] = {
    "star": [*SITES],
    "countries": [hub("us", "cleveland", "long_beach"), hub("hungary", "budapest"), hub("switzerland", "zurich_basel")],
    "chain": [hub("a", "budapest", hub("b", "long_beach", hub("c", "zurich_basel", hub("d", "cleveland"))))],
    "uneven": ["zurich_basel", hub("west", hub("us", "cleveland", "long_beach"), "budapest")],
}


@pytest.fixture(scope="module")
def optimum() -> NDArray[np.float64]:
    """The coefficients and the intercept, shape (14,)."""
    from sklearn.linear_model import LogisticRegression

    parts = [HeartDisease(standardise="site").data(site).train for site in SITES]
    x = np.concatenate([part.tensors[0].double().numpy() for part in parts])
    y = np.concatenate([part.tensors[1].numpy() for part in parts])
    assert x.shape == (486, 13)
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(x, y)
    return np.append(fitted.coef_[0], fitted.intercept_)


def ended(folder: Path, members: list[Any], **top: Any) -> tuple[str, NDArray[np.float64]]:
    """Run a tree to its end; give the model's digest and values, the intercept last."""
    given = dict(CONFIG.resolved)
    rest = {"evaluation": {"every": 0}, "output": {"dir": str(folder), "checkpoint_every": 500, "tensorboard": False}}
    root = {**given["federation"], **top.pop("federation", {}), "members": hub("world", *members)["members"]}
    summary = run(from_mapping({**given, **rest, **top, "federation": root}))
    model = tensors(Path(summary["run_dir"]))
    return str(summary["model_digest"]), np.concatenate([model[name].reshape(-1) for name in sorted(model)[::-1]])


def test_any_tree_ends_at_the_optimum_of_the_union_with_the_same_bits(
    optimum: NDArray[np.float64], tmp_path: Path
) -> None:
    digests = set()
    for members in TREES.values():
        digest, found = ended(tmp_path, members, **FAST)
        assert np.abs(found - optimum).max() < 1e-3
        digests.add(digest)
    assert len(digests) == 1


def test_the_configuration_that_comes_along_ends_there(optimum: NDArray[np.float64], tmp_path: Path) -> None:
    _, found = ended(tmp_path, CONFIG.resolved["federation"]["members"])
    assert np.abs(found - optimum).max() < 1e-3


@pytest.mark.parametrize(
    ("strategy", "steps", "rounds"), [("fedavg", 1, 150), ("scaffold", 4, 60)], ids=["plain", "several steps"]
)
def test_so_do_other_strategies_and_seeds(
    strategy: str, steps: int, rounds: int, optimum: NDArray[np.float64], tmp_path: Path
) -> None:
    """SCAFFOLD's control variates take the drift of several steps away: the optimum stays where it is."""
    root = {"strategy": {"kind": strategy}, "rounds": rounds}
    lr = 3.0 if steps == 1 else 1.5
    training = {"lr": lr, "batch_size": None, "local_steps": steps}
    _, found = ended(tmp_path, TREES["uneven"], federation=root, training=training, seed=7)
    assert np.abs(found - optimum).max() < 1e-3


def test_several_steps_of_plain_averaging_end_elsewhere(optimum: NDArray[np.float64], tmp_path: Path) -> None:
    training = {"lr": 1.5, "batch_size": None, "local_steps": 4}
    root = {"strategy": {"kind": "fedavg"}, "rounds": 60}
    _, found = ended(tmp_path, TREES["uneven"], federation=root, training=training)
    assert np.abs(found - optimum).max() > 0.02
