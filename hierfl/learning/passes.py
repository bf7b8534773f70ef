"""One site's local training under a rule: its passes one after another, and what is sent and kept of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from hierfl.config.schema import Training
from hierfl.learning import training as local
from hierfl.learning.flat import FlatModel
from hierfl.learning.local import LocalRule, State, Trained, Vector, joined
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
) -> Followed:
    """Train by the rule from what the hub sent: the model, and its channels behind it. `sent` may share memory with
    `bound`.

    Errors: whatever training raises.
    """
    received, channels = split(start, rule.channels(bound.layout.num_floats), bound.layout.num_floats)
    base = received
    if bound.rounds_on_load:
        bound.load(received)
        base = bound.start()
    ends: list[Vector] = []
    passes = rule.passes(base.floats, channels, kept, bound.parts)
    for one in passes:
        if one.start is not None:
            bound.load(ModelState(one.start, start.ints))
        with bound.frozen(one.frozen):
            result = run(
                one.name,
                lambda seed, one=one: local.train(  # type: ignore[misc]
                    bound,
                    task,
                    dataset,
                    training,
                    seed,
                    pull=bound.pulling(one.pull),
                    num_steps=one.num_steps,
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
        finished.kept,
    )


def split(start: ModelState, channels: Mapping[str, int], num_floats: int) -> tuple[ModelState, dict[str, Vector]]:
    """Cut what travels into the model and its channels, as views."""
    if not channels:
        return start, {}
    sizes = np.cumsum([num_floats, *channels.values()])
    found = dict(zip(channels, np.split(start.floats, sizes[:-1])[1:], strict=True))
    return ModelState(start.floats[:num_floats], start.ints), found
