"""What a strategy gives is checked where it is given, and named; what it is given it cannot spoil."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from small_runs import hub, site

import hierfl
from hierfl.errors import StrategyFailed, UpdateRefused
from hierfl.learning.state import Layout
from hierfl.learning.stepping import first_state, reduced, stepped
from hierfl.learning.strategies.fedavg import FedAvg
from hierfl.learning.strategies.fedavgm import FedAvgM
from hierfl.learning.strategies.scaffold import Scaffold

MODEL = np.array([1.0, 2.0, 3.0], np.float32)
DELTA = np.array([0.5, 0.0, -0.5], np.float32)
LAYOUT = Layout.of({"w": ((3,), "float32")})


@dataclass(frozen=True)
class Mine(FedAvg):
    """Gives whatever it was made with; what is callable is called with what the method is given."""

    linear: ClassVar[bool] = False
    gives: Any = None

    def _given(self, *arguments: Any) -> Any:
        return self.gives(*arguments) if callable(self.gives) else self.gives

    def init(self, model: Any) -> Any:
        return self._given(model)

    def step(self, model: Any, delta: Any, state: Any, share: float = 1.0) -> Any:
        return self._given(model, delta, state)

    def reduce(self, deltas: Any, weights: Any, state: Any) -> Any:
        return self._given(deltas, weights, state)

    def shortage(self, num_members: int) -> str:
        return ""

    def promise(self, num_members: int) -> str:
        return ""


WRONG_STEPS: list[tuple[Any, str]] = [
    (MODEL, r"gave an array of shape \[3\] and float32; needed: a tuple of two, the next model and state"),
    (None, "gave nothing; needed: a tuple of two"),
    ((MODEL, {}, {}), "gave a tuple of 3; needed: a tuple of two"),
    (
        (MODEL.astype(np.float64), {}),
        r"float64 as model; needed: .* and float32, as it is given \(.astype keeps it so\)",
    ),
    ((MODEL[:2], {}), r"gave an array of shape \[2\] and float32 as model; needed: an array of shape \[3\]"),
    (([1.0, 2.0, 3.0], {}), "gave a list as model"),
    ((MODEL, None), "gave nothing as state; needed: a dict of NumPy arrays by name"),
    ((MODEL, {"t": 1}), "gave a int as 't' of its state; needed: a NumPy array of numbers"),
    ((MODEL, {"t": np.array(["x"])}), "as 't' of its state"),
    ((np.array([1, np.nan, np.inf], np.float32), {}), "NaN or Inf in 2 of 3 parameters"),
    (lambda model, delta, state: (model + state["m"], state), r"failed: KeyError: 'm'\nTraceback"),
]


@pytest.mark.parametrize(("gives", "said"), WRONG_STEPS)
def test_a_step_that_is_none_names_the_hub_the_strategy_and_what_was_wrong(gives: Any, said: str) -> None:
    with pytest.raises(StrategyFailed, match=said) as caught:
        stepped("world/us", Mine(gives=gives), MODEL, DELTA, {}, LAYOUT)
    assert str(caught.value).startswith(f"world/us: the strategy {__name__}:Mine: its step() ")


def test_a_strategy_cannot_write_into_the_model_or_the_state_that_it_is_given() -> None:
    def writes_the_model(model: Any, delta: Any, state: Any) -> Any:
        model += delta
        return model, state

    def writes_the_state(model: Any, delta: Any, state: Any) -> Any:
        state["m"] += delta
        return model + state["m"], state

    model, state = MODEL.copy(), {"m": np.zeros(3, np.float32)}
    for gives in (writes_the_model, writes_the_state):
        with pytest.raises(StrategyFailed, match="may not write into what it is given: ValueError"):
            stepped("world", Mine(gives=gives), model, DELTA, state, LAYOUT)
    assert (model == MODEL).all() and not state["m"].any()
    assert model.flags.writeable, "what the hub holds stays as it was"


@dataclass(frozen=True)
class Writes(FedAvg):
    """Adds the change to the model that it was given: at an inner hub that is what its own change is taken from."""

    linear: ClassVar[bool] = False

    def step(self, model: Any, delta: Any, state: Any, share: float = 1.0) -> Any:
        model += delta
        return model, state


@dataclass(frozen=True)
class Short(Mine):
    """Reduces all members' changes to one of another length."""

    def init(self, model: Any) -> Any:
        return {}

    def reduce(self, deltas: Any, weights: Any, state: Any) -> Any:
        return deltas[0, :1]


def with_a_hub_of(strategy: FedAvg, topology: str) -> dict[str, Any]:
    """Return a configuration in which one hub below the root has the strategy and the topology."""
    return {
        "task": {"kind": "synthetic"},
        "federation": hub("world", hub("us", "a", "b", strategy=strategy, topology=topology), site("c")),
        "runtime": {"kind": "local", "num_workers": 1},
        "output": {"tensorboard": False},
    }


@pytest.mark.parametrize("strategy", [Writes(), Short()])
@pytest.mark.parametrize("topology", ["star", "swarm"])
def test_a_run_ends_by_name_with_a_strategy_that_is_none(
    strategy: FedAvg, topology: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = "world/us/[ab] could not do its part: " if topology == "swarm" else ""
    with pytest.raises(
        StrategyFailed, match=f"^{place}world/us: the strategy .*:{type(strategy).__name__}: its (step|reduce)"
    ):
        hierfl.run(with_a_hub_of(strategy, topology))


@dataclass(frozen=True)
class Uncontrolled(Scaffold):
    """Sends the model down without its control variates."""

    def broadcast(self, model: Any, state: Any) -> Any:
        return model


@dataclass(frozen=True)
class Raises(Scaffold):
    """Has no control variates to send."""

    def init(self, model: Any) -> Any:
        return {}


@dataclass(frozen=True)
class Stateless(Scaffold):
    """Begins with what no checkpoint can hold."""

    def init(self, model: Any) -> Any:
        return {"control": None}


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        (Uncontrolled(), r"its broadcast\(\) gave an array of shape .* as what goes down; needed: an array of shape"),
        (Raises(), r"its broadcast\(\) failed: KeyError: 'control'"),
        (Stateless(), r"its init\(\) gave nothing as 'control' of its state"),
    ],
)
@pytest.mark.parametrize("topology", ["star", "swarm"])
def test_what_goes_down_first_is_checked_and_names_the_hub_and_who_made_it(
    strategy: FedAvg, said: str, topology: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = "world/us/a could not do its part: " if topology == "swarm" else ""
    with pytest.raises(StrategyFailed, match=f"^{place}world/us: the strategy .*:{type(strategy).__name__}: {said}"):
        hierfl.run(with_a_hub_of(strategy, topology))


def test_a_first_state_and_a_reduced_change_are_checked_too() -> None:
    with pytest.raises(StrategyFailed, match=r"its init\(\) gave a float as 'scale' of its state"):
        first_state("world", Mine(gives={"scale": 1.0}), MODEL)
    deltas, weights = np.stack([DELTA, DELTA]), np.array([0.5, 0.5])
    with pytest.raises(StrategyFailed, match=r"its reduce\(\) gave an array of shape \[2, 3\] and float32 as change"):
        reduced("world", Mine(gives=deltas), deltas, weights, {}, LAYOUT)

    def refuses(*_: Any) -> Any:
        raise UpdateRefused("too few members")

    with pytest.raises(UpdateRefused, match=r"^too few members$"):
        reduced("world", Mine(gives=refuses), deltas, weights, {}, LAYOUT)


def test_a_sound_step_has_the_strategy_s_own_bits() -> None:
    strategy = FedAvgM(momentum=0.5)
    state = first_state("world", strategy, MODEL)
    model, after = stepped("world", strategy, MODEL, DELTA, state, LAYOUT)
    expected, expected_state = strategy.step(MODEL, DELTA, strategy.init(MODEL))
    assert model.tobytes() == expected.tobytes()
    assert {name: value.tobytes() for name, value in after.items()} == {
        name: value.tobytes() for name, value in expected_state.items()
    }


def test_a_number_that_numpy_made_of_an_array_is_an_array_again() -> None:
    """Arithmetic on an array without dimensions gives a scalar; a resumed run would begin from an array."""
    strategy = Mine(gives=lambda model, delta, state: (model + delta, {"t": state["t"] + 1}))
    _, after = stepped("world", strategy, MODEL, DELTA, {"t": np.asarray(0)}, LAYOUT)
    assert isinstance(after["t"], np.ndarray) and after["t"] == 1
