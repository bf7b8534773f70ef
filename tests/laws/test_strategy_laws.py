"""What every strategy keeps; the folder is listed, so a new one is tested without an edit here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hierfl import checkpoint
from hierfl.errors import ConfigError
from hierfl.kinds import load, names
from hierfl.learning.local import LocalRule, Parts, Trained
from hierfl.learning.state import Layout, ModelState
from hierfl.learning.strategy import WEIGHTS, Strategy

KINDS = names("strategy")
SIZE = 50

each_kind = pytest.mark.parametrize("kind", KINDS)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def channels(strategy: Strategy) -> int:
    """Count the elements that travel behind the model."""
    return sum(strategy.objective().channels(SIZE).values())


def vectors(strategy: Strategy, dtype: str, num: int, seed: int = 0) -> list[NDArray[Any]]:
    """A model and changes of what goes down, read-only, as strategies are given them; zeros among their elements."""
    random = np.random.default_rng(seed)
    sizes = [SIZE, *[SIZE + channels(strategy)] * (num - 1)]
    found = [random.standard_normal(size).astype(dtype) for size in sizes]
    for vector in found:
        vector[::7] = 0.0
        vector.setflags(write=False)
    return found


def walk(strategy: Strategy, dtype: str, steps: int, seed: int = 0) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Some rounds from a drawn model, every array between them made read-only."""
    model, *deltas = vectors(strategy, dtype, steps + 1, seed)
    state = dict(strategy.init(model))
    for delta in deltas:
        for value in state.values():
            value.setflags(write=False)
        model, following = strategy.step(model, delta, state)
        model.setflags(write=False)
        state = dict(following)
    return model, state


def bits(state: dict[str, NDArray[Any]]) -> dict[str, bytes]:
    return {name: vector.tobytes() for name, vector in state.items()}


def test_the_folder_is_not_empty() -> None:
    assert {"fedavg", "fedavgm", "fedprox", "fedadam", "fedyogi", "fedadagrad"} <= set(KINDS)


@each_kind
def test_a_strategy_holds_parameters_and_never_progress(kind: str) -> None:
    strategy = load("strategy", kind)()
    assert isinstance(strategy, Strategy)
    assert type(strategy).__dataclass_params__.frozen
    before = dataclasses.asdict(strategy)
    walk(strategy, "float32", 3)
    assert dataclasses.asdict(strategy) == before


@each_kind
@each_dtype
def test_a_step_leaves_what_it_was_given(kind: str, dtype: str) -> None:
    strategy = load("strategy", kind)()
    model, delta, earlier = vectors(strategy, dtype, 3)
    state = dict(strategy.step(model, earlier, strategy.init(model))[1])
    for value in state.values():
        value.setflags(write=False)
    given = model.tobytes(), delta.tobytes(), bits(state)
    following, _ = strategy.step(model, delta, state)
    assert (model.tobytes(), delta.tobytes(), bits(state)) == given
    assert not np.shares_memory(following, model) and not np.shares_memory(following, delta)


@each_kind
@each_dtype
def test_shapes_and_dtypes_stay(kind: str, dtype: str) -> None:
    strategy = load("strategy", kind)()
    model, delta, _ = vectors(strategy, dtype, 3)
    first = strategy.init(model)
    following, state = strategy.step(model, delta, first)
    assert (following.shape, following.dtype) == (model.shape, model.dtype)
    assert set(state) == set(first)
    for vector in (*first.values(), *state.values()):
        assert (vector.shape, vector.dtype) == (model.shape, model.dtype)


@each_kind
@each_dtype
def test_the_same_rounds_give_the_same_bits(kind: str, dtype: str) -> None:
    one = walk(load("strategy", kind)(), dtype, 5)
    two = walk(load("strategy", kind)(), dtype, 5)
    assert one[0].tobytes() == two[0].tobytes() and bits(one[1]) == bits(two[1])
    assert walk(load("strategy", kind)(), dtype, 5, seed=1)[0].tobytes() != one[0].tobytes()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if load("strategy", kind).linear])
@each_dtype
def test_a_linear_strategy_is_the_model_plus_the_mean(kind: str, dtype: str) -> None:
    strategy = load("strategy", kind)()
    model, delta, _ = vectors(strategy, dtype, 3)
    following, state = strategy.step(model, delta, strategy.init(model))
    assert following.tobytes() == (model + delta).tobytes()
    assert not state


@each_kind
def test_what_an_inner_hub_inherits_averages_with_the_same_weights_and_objective(kind: str) -> None:
    for weights in WEIGHTS:
        strategy = load("strategy", kind)(weights=weights)
        inner = strategy.inherited()
        assert isinstance(inner, Strategy) and isinstance(strategy.objective(), LocalRule)
        assert inner.linear
        assert inner.weights == weights
        assert inner.objective() == strategy.objective()
        assert inner.inherited() == inner


@each_kind
@each_dtype
def test_what_goes_down_is_the_model_and_its_channels(kind: str, dtype: str) -> None:
    strategy = load("strategy", kind)()
    model, _ = vectors(strategy, dtype, 2)
    sent = strategy.broadcast(model, strategy.init(model))
    assert (sent.shape, sent.dtype) == ((SIZE + channels(strategy),), model.dtype)
    assert sent[:SIZE].tobytes() == model.tobytes()


@each_kind
@each_dtype
def test_a_site_sends_what_was_asked_for_keeps_what_it_may_and_writes_on_nothing(kind: str, dtype: str) -> None:
    """Two rounds of the sites' side on drawn vectors: first without anything kept, then with what was kept."""
    strategy = load("strategy", kind)()
    rule = strategy.objective()
    sizes_of = {"body.w": SIZE - 10, "head.w": 5, "head.norm.w": 2, "head.norm.mean": 3}
    layout = Layout.of({name: ((size,), dtype) for name, size in sizes_of.items()})
    parts = Parts(layout, {"body.w", "head.w", "head.norm.w"}, {"head.norm.w", "head.norm.mean"})
    model, end = vectors(strategy, dtype, 2)[0], vectors(strategy, dtype, 1, seed=1)[0]
    sizes = rule.channels(SIZE)
    sent = {name: np.full(size, 0.5, dtype) for name, size in sizes.items()}
    kept: dict[str, NDArray[Any]] = {}
    for _ in range(2):
        before = model.tobytes(), {name: value.tobytes() for name, value in {**sent, **kept}.items()}
        passes = rule.passes(model, sent, kept, parts)
        assert passes[0].start is not None
        ended = [np.array(end) for _ in passes]
        finished = rule.finish(model, Trained(ended, 4, 0.5), sent, kept, parts)
        assert (finished.model.shape, finished.model.dtype) == ((SIZE,), np.dtype(dtype))
        assert {name: change.shape for name, change in finished.changes.items()} == {n: (s,) for n, s in sizes.items()}
        assert all(vector.dtype == np.dtype(dtype) for vector in (*finished.changes.values(), *finished.kept.values()))
        assert bool(finished.kept) == rule.keeps
        own = rule.personal(model, kept, parts)
        assert (own.shape, own.dtype) == ((SIZE,), np.dtype(dtype))
        after = model.tobytes(), {name: value.tobytes() for name, value in {**sent, **kept}.items()}
        assert after == before
        kept = dict(finished.kept)


@each_kind
def test_unknown_weights_are_the_users_mistake(kind: str) -> None:
    with pytest.raises(ConfigError, match="did you mean 'samples'"):
        load("strategy", kind)(weights="sample")


@each_kind
@each_dtype
def test_a_checkpoint_holds_all_of_its_progress(kind: str, dtype: str, tmp_path: Path) -> None:
    """Three rounds, a checkpoint, two more: the bits of five rounds."""
    strategy = load("strategy", kind)()
    start, *deltas = vectors(strategy, dtype, 6)
    model, state = start, strategy.init(start)
    for delta in deltas[:3]:
        model, state = strategy.step(model, delta, state)
    layout = Layout.of({"w": ((SIZE,), dtype)})
    none = np.zeros(0, np.int64)
    saved = checkpoint.Checkpoint(3, 0, 0, layout, ModelState(model, none), {"world/us": state})
    loaded = checkpoint.load(checkpoint.save(tmp_path, saved, keep=1))
    model, state = loaded.model.floats, dict(loaded.states.get("world/us", {}))
    for delta in deltas[3:]:
        model, state = strategy.step(model, delta, state)
    whole = walk(strategy, dtype, 5)
    assert model.tobytes() == whole[0].tobytes() and bits(dict(state)) == bits(whole[1])
