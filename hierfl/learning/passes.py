"""One site's local training under a rule: its passes one after another, and what is sent and kept of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from hierfl.config.schema import Training
from hierfl.errors import SiteFailed
from hierfl.learning import training as local
from hierfl.learning.flat import FlatModel
from hierfl.learning.local import LocalRule, Pass, State, Trained, Vector, joined
from hierfl.learning.shortfalls import Settling
from hierfl.learning.state import ModelState
from hierfl.learning.task import Task

__all__ = ["Followed", "follow"]

Run = Callable[[str, Callable[[int], local.LocalResult]], local.LocalResult]
"""Runs a pass of a name under its own seed."""


@dataclass(frozen=True, slots=True)
class Followed:
    """The last pass's result, the update as what is sent against its base, and what the site keeps."""

    result: local.LocalResult
    sent: ModelState
    base: ModelState
    kept: State


def follow(
    rule: LocalRule,
    bound: FlatModel,
    start: ModelState,
    kept: State,
    task: Task,
    dataset: Dataset[Any],
    training: Training,
    run: Run,
    private: Callable[[str, ModelState], local.Private] | None = None,
    settling: Settling | None = None,
    num_units: int | None = None,
) -> Followed:
    """Train by the rule from what the hub sent: the model, and its channels behind it. `sent` may share memory with
    `bound`. `private`: gives the mechanism of a pass by its name and the model that it starts from. `settling`: where
    updates may not count whole, which did not. `num_units`: what an epoch goes through, where that is not the samples
    one by one.

    Errors: whatever training raises.
    """
    received, channels = split(start, rule.channels(bound.layout.num_floats), bound.layout.num_floats)
    base = received
    if settling is not None:
        kept = settling.settled(kept)
    if bound.rounds_on_load:
        bound.load(received)
        base = bound.start()
    ends: list[Vector] = []
    passes = rule.passes(base.floats, channels, kept, bound.parts)
    steps = training.num_steps(len(dataset) if num_units is None else num_units)  # type: ignore[arg-type]
    if private is not None:
        _check_counted(rule, passes, steps)
    for one in passes:
        if one.start is not None:
            bound.load(ModelState(one.start, start.ints))
        under = private(one.name, bound.read()) if private is not None else None
        with bound.frozen(one.frozen) if one.frozen is not None else contextlib.nullcontext():
            result = run(
                one.name,
                lambda seed, one=one, under=under: local.train(  # type: ignore[misc]
                    bound,
                    task,
                    dataset,
                    training,
                    seed,
                    pull=bound.pulling(one.pull),
                    num_steps=steps if one.num_steps is None else one.num_steps,
                    private=under,
                ),
            )
        state = bound.read()
        ends.append(state.floats if one is passes[-1] else state.floats.copy())
    finished = rule.finish(base.floats, Trained(ends, result.num_steps, training.lr), channels, kept, bound.parts)
    changes = [finished.changes[name] for name in channels]
    zeros = [np.zeros_like(change) for change in changes]
    return Followed(
        result,
        ModelState(joined([finished.model, *changes]), state.ints),
        ModelState(joined([base.floats, *zeros]), base.ints),
        finished.kept if settling is None else settling.remembering(kept, finished.kept),
    )


def _check_counted(rule: LocalRule, passes: Sequence[Pass], steps: int) -> None:
    """Errors: SiteFailed for a rule that would take more steps on the records than it says, and than are paid for."""
    taken = sum(steps if one.num_steps is None else one.num_steps for one in passes)
    if taken > rule.num_steps(steps):
        raise SiteFailed(f"{type(rule).__name__} takes {taken} steps, and says num_steps {rule.num_steps(steps)}")


def split(start: ModelState, channels: Mapping[str, int], num_floats: int) -> tuple[ModelState, dict[str, Vector]]:
    """Cut what travels into the model and its channels, as views."""
    if not channels:
        return start, {}
    sizes = np.cumsum([num_floats, *channels.values()])
    found = dict(zip(channels, np.split(start.floats, sizes[:-1])[1:], strict=True))
    return ModelState(start.floats[:num_floats], start.ints), found
