"""What is wrong with `lr_schedule` is told where it stands, once."""

from __future__ import annotations

from typing import Any

import pytest

from hierfl.config import from_mapping
from hierfl.errors import ConfigError

TREE = {"name": "w", "rounds": 9, "members": [{"name": "a"}]}

TWO = "kind: SequentialLR, schedulers: [{kind: LinearLR}, {kind: StepLR, step_size: 2}]"

MISTAKES = [
    ("[1]", "", "{kind: NAME, ...} (allowed: ConstantLR"),
    ("7", "", "must name a class of torch.optim.lr_scheduler"),
    ("{gamma: 0.5}", ".kind", "must name a class of torch.optim.lr_scheduler"),
    ("CosineLR", ".kind", "'CosineLR' (did you mean 'CosineAnnealingLR'?"),
    ("{kind: steplrr, step_size: 2}", ".kind", "did you mean 'StepLR'?"),
    ("ReduceLROnPlateau", ".kind", "goes by a metric, and a round's learning rate must be known before"),
    ("lambdalr", ".kind", "MultiStepLR and SequentialLR go by rounds"),
    ("StepLR", ".step_size", "is missing: StepLR needs it"),
    ("{kind: StepLR, step_size: 1.5}", ".step_size", "whole number, not 1.5"),
    ("{kind: StepLR, step_size: 0}", ".step_size", "a number of rounds, at least 1, not 0"),
    ("{kind: ExponentialLR, gama: 0.5, gamma: 1}", ".gama", "did you mean 'gamma'?"),
    ("{kind: ExponentialLR, gamma: 0}", ".gamma", "must be a number above 0, not 0"),
    ("{kind: ExponentialLR, gamma: .inf}", ".gamma", "must be a number above 0"),
    ("{kind: CosineAnnealingLR, t_max: 9}", ".t_max", "did you mean 'T_max'?"),
    ("{kind: LinearLR, last_epoch: 3}", ".last_epoch", "is the run's round"),
    ("{kind: onecyclelr, total_steps: 9, max_lr: 1}", ".max_lr", "training.lr is the cycle's highest"),
    ("{kind: CyclicLR, max_lr: 1, base_lr: 1}", ".base_lr", "training.lr is where a cycle begins"),
    ("{kind: CyclicLR, max_lr: 1, mode: up}", ".mode", "one of triangular, triangular2, exp_range, not 'up'"),
    ("{kind: MultiStepLR, milestones: [4, 2]}", ".milestones", "each later than the one before, not [4, 2]"),
    ("{kind: MultiStepLR, milestones: [4, x]}", ".milestones[1]", "must be a whole number"),
    (
        f"{{{TWO}, milestones: [2, 4]}}",
        ".milestones",
        "needs 1, the rounds after which the next schedule begins, not 2",
    ),
    (f"{{{TWO}}}", ".milestones", "is missing: SequentialLR needs it"),
    ("{kind: SequentialLR, schedulers: [StepLR], milestones: [1]}", ".schedulers[0].step_size", "is missing"),
    ("{kind: SequentialLR, schedulers: [], milestones: [1]}", ".schedulers", "must be a list of schedules, not []"),
]


def problems(*overrides: str, **training: Any) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        from_mapping({"task": "synthetic", "training": training, "federation": TREE}, list(overrides))
    return [(problem.path, problem.message) for problem in caught.value.problems]


@pytest.mark.parametrize("place", ["training", "federation.members.a.training"])
@pytest.mark.parametrize(("written", "at", "words"), MISTAKES, ids=[mistake[0] for mistake in MISTAKES])
def test_a_mistake_is_told_at_its_place(place: str, written: str, at: str, words: str) -> None:
    found = problems(f"{place}.lr_schedule={written}")
    assert f"{place}.lr_schedule{at}" in [path for path, _ in found]
    assert words in next(message for path, message in found if path == f"{place}.lr_schedule{at}")
    assert len(found) == 1 + (written.count("StepLR], milestones")), found


def test_all_of_its_mistakes_come_at_once() -> None:
    wrong = {"kind": "OneCycleLR", "total_step": 5, "pct_start": 2, "cycle_momentum": False, "anneal": "cos"}
    assert {path.rpartition(".")[2] for path, _ in problems(lr_schedule=wrong)} == set(wrong) - {"kind"}


def test_the_key_is_proposed_to_who_writes_it_as_torch_does() -> None:
    [(path, message)] = problems("training.lr_scheduler=StepLR")
    assert path == "training.lr_scheduler" and "did you mean 'lr_schedule'?" in message
