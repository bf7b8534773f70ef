"""Each strategy against its paper, in plain loops over Python numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from hierfl.errors import ConfigError
from hierfl.kinds import load
from hierfl.learning.ring import Accumulator, Grid, decode
from hierfl.learning.state import Layout, ModelState
from hierfl.learning.strategy import Strategy

DELTAS = [[0.5, -2.0, 0.0], [0.25, 1.0, 0.0], [-1.0, 1.0, 0.125], [0.0, -3.0, 0.5]]
START = [1.0, -1.0, 0.5]


def steps(strategy: Strategy) -> list[float]:
    """The model after the rounds of DELTAS."""
    model = np.array(START)
    state = strategy.init(model)
    for delta in DELTAS:
        model, state = strategy.step(model, np.array(delta), state)
    return list(model.tolist())


def test_fedavg_is_algorithm_1_of_rieke_et_al() -> None:
    """W <- sum_k N_k / N * W_k: three hospitals of 1, 3 and 4 patients, through the ring as in a round."""
    sizes, models = [1, 3, 4], [[8.0, 1.0], [0.0, -1.0], [2.0, 0.5]]
    start, none = np.zeros(2, np.float32), np.zeros(0, np.int64)
    total = Accumulator(Grid(32, 8.0, sum(sizes)), Layout.of({"w": ((2,), "float32")}))
    for size, model in zip(sizes, models, strict=True):
        total.add_update(ModelState(np.array(model, np.float32), none), ModelState(start, none), size)
    after, _ = load("strategy", "fedavg")().step(start, decode(total.total(), total.grid)[0], {})
    expected = [sum(n * model[i] for n, model in zip(sizes, models, strict=True)) / sum(sizes) for i in (0, 1)]
    assert expected == [2.0, 0.0]
    assert after.tolist() == pytest.approx(expected, abs=3 * 2**-28)


def test_fedavgm_is_hsu_et_al() -> None:
    beta, lr = 0.9, 0.5
    x, v = list(START), [0.0] * 3
    for delta in DELTAS:
        for i in range(3):
            v[i] = beta * v[i] + delta[i]
            x[i] = x[i] + lr * v[i]
    assert steps(load("strategy", "fedavgm")(momentum=beta, lr=lr)) == pytest.approx(x, rel=1e-14)


def test_fedavgm_by_hand() -> None:
    """v = 0.5, x = 1.5; then v = 0.9 * 0.5 + 0.5 = 0.95, x = 2.45."""
    strategy = load("strategy", "fedavgm")(momentum=0.9, lr=1.0)
    model, state = strategy.step(np.array([1.0]), np.array([0.5]), strategy.init(np.array([1.0])))
    assert model.tolist() == [1.5]
    model, state = strategy.step(model, np.array([0.5]), state)
    assert model.tolist() == pytest.approx([2.45], rel=1e-15) and state["velocity"].tolist() == pytest.approx([0.95])


def reddi(second: Callable[[float, float], float], lr: float, beta1: float, tau: float) -> list[float]:
    """Algorithm 2 of Reddi et al. 2021, with the second moment's line as an argument."""
    x, m, v = list(START), [0.0] * 3, [tau**2] * 3
    for delta in DELTAS:
        for i in range(3):
            m[i] = beta1 * m[i] + (1 - beta1) * delta[i]
            v[i] = second(v[i], delta[i])
            x[i] = x[i] + lr * m[i] / (math.sqrt(v[i]) + tau)
    return x


def test_fedadagrad_is_algorithm_2_of_reddi_et_al() -> None:
    expected = reddi(lambda v, d: v + d**2, lr=0.3, beta1=0.0, tau=0.01)
    assert steps(load("strategy", "fedadagrad")(lr=0.3, tau=0.01)) == pytest.approx(expected, rel=1e-13)


def test_fedadam_is_algorithm_2_of_reddi_et_al() -> None:
    expected = reddi(lambda v, d: 0.95 * v + (1 - 0.95) * d**2, lr=0.3, beta1=0.8, tau=0.01)
    adam = load("strategy", "fedadam")(lr=0.3, beta1=0.8, beta2=0.95, tau=0.01)
    assert steps(adam) == pytest.approx(expected, rel=1e-13)


def test_fedyogi_is_algorithm_2_of_reddi_et_al() -> None:
    def second(v: float, d: float) -> float:
        sign = (v > d**2) - (v < d**2)
        return v - (1 - 0.95) * d**2 * sign

    yogi = load("strategy", "fedyogi")(lr=0.3, beta1=0.8, beta2=0.95, tau=0.01)
    assert steps(yogi) == pytest.approx(reddi(second, lr=0.3, beta1=0.8, tau=0.01), rel=1e-13)


def test_the_first_step_of_fedadam_by_hand() -> None:
    """m = 0.1, v = 0.99e-6 + 0.01 = 0.01000099, x = 0.1 * 0.1 / (0.1000049... + 0.001) = 0.0990050..."""
    strategy = load("strategy", "fedadam")()
    model, _ = strategy.step(np.zeros(1), np.ones(1), strategy.init(np.zeros(1)))
    assert model.tolist() == pytest.approx([0.01 / (math.sqrt(0.01000099) + 0.001)], rel=1e-14)
    assert model.tolist() == pytest.approx([0.0990050], abs=1e-7)


def test_in_float32_the_steps_are_those_of_float64_rounded() -> None:
    for kind in ("fedavgm", "fedadam", "fedyogi", "fedadagrad"):
        strategy = load("strategy", kind)()
        model = np.array(START, np.float32)
        state = strategy.init(model)
        for delta in DELTAS:
            model, state = strategy.step(model, np.array(delta, np.float32), state)
        assert model.dtype == np.float32
        assert model.tolist() == pytest.approx(steps(strategy), rel=1e-5)


def test_fedprox_averages_and_tells_its_sites_mu() -> None:
    """Li et al. 2020, Eq. 2; what sites do with mu is tested where they train."""
    assert load("strategy", "fedprox")(mu=0.3).objective().mu == 0.3
    assert load("strategy", "fedprox")(mu=0.0).objective() == load("strategy", "fedavg")().objective()


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("fedavgm", {"momentum": 1.0}),
        ("fedavgm", {"momentum": -0.1}),
        ("fedavgm", {"lr": 0.0}),
        ("fedprox", {"mu": -1.0}),
        ("fedprox", {"mu": float("nan")}),
        ("fedadam", {"beta1": 1.0}),
        ("fedadam", {"beta2": 1.0}),
        ("fedyogi", {"beta2": -0.5}),
        ("fedadagrad", {"tau": 0.0}),
        ("fedadagrad", {"lr": float("inf")}),
    ],
)
def test_a_parameter_outside_its_range_is_refused_by_name(kind: str, wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(wrong))} is "):
        load("strategy", kind)(**wrong)
