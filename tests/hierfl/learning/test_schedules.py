"""Learning-rate schedules against torch's own, and the laws of a rate that follows from the round alone."""

import inspect
import random
import threading
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from hierfl.config import from_mapping
from hierfl.config.schedule import OPTION_VALUES
from hierfl.config.schema import Training
from hierfl.errors import ConfigError
from hierfl.learning import schedules
from hierfl.learning.schedules import IMPOSSIBLE, MANDATORY, OPTIONS, held_back, in_round, is_known, takes, try_out

LR, ROUNDS = 0.3, 12

WARM_UP = {
    "kind": "SequentialLR",
    "schedulers": [
        {"kind": "LinearLR", "start_factor": 0.1, "total_iters": 3},
        {"kind": "CosineAnnealingLR", "T_max": 7, "eta_min": 0.01},
        {"kind": "StepLR", "step_size": 1},
    ],
    "milestones": [3, 9],
}

SOME: dict[str, dict[str, Any]] = {
    "ConstantLR": {"factor": 0.5, "total_iters": 4},
    "CosineAnnealingLR": {"T_max": ROUNDS},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2, "eta_min": 0.01},
    "CyclicLR": {"max_lr": 0.9, "step_size_up": 2, "mode": "triangular2"},
    "ExponentialLR": {"gamma": 0.7},
    "LinearLR": {"start_factor": 0.2, "total_iters": 4},
    "MultiStepLR": {"milestones": [2, 5], "gamma": 0.5},
    "OneCycleLR": {"total_steps": ROUNDS, "anneal_strategy": "linear"},
    "PolynomialLR": {"total_iters": ROUNDS, "power": 2.0},
    "SequentialLR": {name: value for name, value in WARM_UP.items() if name != "kind"},
    "StepLR": {"step_size": 5, "gamma": 0.5},
}
BEGINS_AT_LR = set(OPTIONS) - {"ConstantLR", "LinearLR", "OneCycleLR", "SequentialLR"}


def installed() -> dict[str, Any]:
    return {name: getattr(lr_scheduler, name) for name in lr_scheduler.__all__ if name != "LRScheduler"}


def training(kind: str, **options: Any) -> Training:
    return Training(lr=LR, lr_schedule={"kind": kind, **(options or SOME[kind])})


def rates(of: Training, rounds: int = ROUNDS) -> list[float]:
    return [in_round(of, number).lr for number in range(rounds)]


def config(rounds: int, **of: Any) -> Any:
    return from_mapping({"task": "synthetic", "training": of, "federation": tree(rounds, {"name": "a"}, {"name": "b"})})


def tree(rounds: int, *members: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": "w", "rounds": rounds, "members": list(members)}


def torchs_own(kind: str, options: Mapping[str, Any], rounds: int) -> list[float]:
    """Train a parameter, an epoch a round, as torch's documentation does."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)

    def made(kind: str, options: Mapping[str, Any]) -> Any:
        more: dict[str, Any] = {"OneCycleLR": {"max_lr": LR}, "CyclicLR": {"base_lr": LR}}.get(kind, {})
        if more:
            more["cycle_momentum"] = False
        return getattr(lr_scheduler, kind)(optimizer, **options, **more)

    if kind == "SequentialLR":
        parts = [made(part["kind"], {k: v for k, v in part.items() if k != "kind"}) for part in options["schedulers"]]
        scheduler = made(kind, {"schedulers": parts, "milestones": options["milestones"]})
    else:
        scheduler = made(kind, options)
    found = []
    for number in range(rounds):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if number < rounds - 1:
            scheduler.step()
    return found


def test_the_schedules_are_torchs() -> None:
    assert list(OPTIONS) == sorted(OPTIONS) == sorted(SOME)
    assert set(OPTIONS) <= set(installed())
    assert set(IMPOSSIBLE) <= {name.lower() for name in installed()}
    assert all(is_known(name) and is_known(name.upper()) for name in OPTIONS)
    assert not any(is_known(name) for name in (*IMPOSSIBLE, "ReduceLROnPlateau", "StepLRR", "LRScheduler"))


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_options_are_torchs(kind: str) -> None:
    arguments = inspect.signature(installed()[kind]).parameters
    assert set(arguments) - {"verbose"} == set(OPTIONS[kind]) | set(held_back(kind)) & set(arguments)
    assert set(OPTIONS[kind]) <= set(OPTION_VALUES)
    empty = {name for name in OPTIONS[kind] if arguments[name].default is inspect.Parameter.empty}
    mandatory = {name for of, name in MANDATORY if of == kind}
    assert mandatory == (empty | {"total_steps"} if kind == "OneCycleLR" else empty)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("kind", OPTIONS)
def test_a_rounds_rate_is_that_of_torchs_epoch(kind: str) -> None:
    expected = torchs_own(kind, SOME[kind], ROUNDS)
    assert rates(training(kind)) == (pytest.approx(expected) if kind == "SequentialLR" else expected)
    assert len(set(expected)) > 1, "a schedule that changes nothing tests nothing"
    assert (expected[0] == LR) == (kind in BEGINS_AT_LR)


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_rate_follows_from_the_round_whoever_asks_and_when(kind: str) -> None:
    expected, order = rates(training(kind)), [*range(ROUNDS), *range(ROUNDS)]
    random.Random(0).shuffle(order)
    schedules._rates.cache_clear()
    of = training(kind.lower(), **SOME[kind])
    assert [in_round(of, number).lr for number in order] == [expected[number] for number in order]


def test_threads_that_ask_at_once_are_told_the_same() -> None:
    of, found = training("ExponentialLR", gamma=0.9999), dict[int, list[float]]()
    expected = rates(of, 2000)
    schedules._rates.cache_clear()
    start = threading.Barrier(4)

    def ask(thread: int) -> None:
        start.wait()
        found[thread] = rates(of, 2000)

    threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[thread] == expected for thread in range(4))


def test_all_but_the_rate_stays_and_without_a_schedule_all() -> None:
    plain = Training(lr=LR)
    assert in_round(plain, 7) is plain
    of = training("StepLR")
    assert vars(in_round(of, 7)) == {**vars(of), "lr": LR * 0.5}


def test_what_torch_has_beside_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Newer(lr_scheduler.ExponentialLR):
        pass

    monkeypatch.setattr(schedules, "_installed", lambda: {"newer": Newer})
    assert takes("newer", "gamma") and not takes("newer", "wisdom")
    of = config(3, lr_schedule={"kind": "Newer", "gamma": 0.5}).sites["w/a"].training
    assert rates(of, 3) == [0.01, 0.005, 0.0025]
    with pytest.raises(ConfigError, match="unknown option of Newer"):
        config(3, lr_schedule={"kind": "Newer", "wisdom": 0.5})


def test_what_a_node_says_holds_as_a_whole_from_its_own_rate() -> None:
    members = [
        {"name": "a"},
        {"name": "b", "training": {"lr": 0.2}},
        {"name": "h", "training": {"lr_schedule": {"kind": "StepLR", "step_size": "1"}}, "members": [{"name": "c"}]},
        {"name": "d", "training": {"lr_schedule": None}},
    ]
    top = {"lr": 0.4, "lr_schedule": {"kind": "exponentiallr", "gamma": 0.5}}
    made = from_mapping({"task": "synthetic", "training": top, "federation": tree(3, *members)})
    assert {path: rates(site.training, 2)[1] for path, site in made.sites.items()} == {
        "w/a": 0.2,
        "w/b": 0.1,
        "w/h/c": pytest.approx(0.04),
        "w/d": 0.4,
    }
    assert from_mapping(made.resolved) == made


def test_the_runs_rounds_are_interpolated() -> None:
    made = config(9, lr_schedule={"kind": "CosineAnnealingLR", "T_max": "${federation.rounds}"})
    assert made.sites["w/a"].training.lr_schedule == {"kind": "CosineAnnealingLR", "T_max": 9}


@pytest.mark.parametrize(
    ("rounds", "schedule", "words"),
    [
        (6, {"kind": "PolynomialLR", "total_iters": 4}, "PolynomialLR gives a learning rate of 0 in round 5 of 6"),
        (
            5,
            {"kind": "CosineAnnealingLR", "T_max": 4},
            "in round 5 of 5; let it stay above 0, by an eta_min or",
        ),
        (
            900,
            {"kind": "ExponentialLR", "gamma": 10.0},
            "gives a learning rate of inf in round 312 of 900; let it stay finite",
        ),
        (
            6,
            {"kind": "OneCycleLR", "total_steps": 5},
            "OneCycleLR is over after 5 rounds; give it total_steps for all (round 6 of 6)",
        ),
    ],
)
def test_a_round_that_could_not_be_trained_is_told_before_any(rounds: int, schedule: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        try_out(config(rounds, lr_schedule=schedule))
    assert str(caught.value).startswith("w/a: training.lr_schedule: ") and words in str(caught.value)
    assert len(caught.value.problems) == 1, "sites that train alike are told of once"
    try_out(config(4, lr_schedule=schedule))
