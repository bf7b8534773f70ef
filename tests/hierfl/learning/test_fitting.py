"""A task's own training loop: what it is given, and that all around it stays as it was."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import events, go, hub, tensors
from torch import Tensor, nn
from ward_tasks import Wards

from hierfl.config import from_mapping
from hierfl.errors import ConfigError, SiteFailed, UpdateRefused
from hierfl.learning.fitting import LocalTraining

TREE = hub("world", hub("up", "north", "south"), "east", rounds=2)


@dataclass(frozen=True)
class Looped(Wards):
    """Does in its own loop what hierfl's does."""

    def fit(self, model: nn.Module, local: LocalTraining) -> float:
        optimizer, total, seen = local.optimizer(), 0.0, 0
        for batch in local.batches():
            loss = self.loss(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            local.step(optimizer)
            total, seen = total + float(loss.detach() * len(batch[0])), seen + len(batch[0])
        assert local.num_taken == local.num_steps and all(one.grad is None for one in model.parameters())
        return total / seen


@dataclass(frozen=True)
class Accumulated(Wards):
    """Takes one step on the gradients of all batches."""

    def fit(self, model: nn.Module, local: LocalTraining) -> None:
        optimizer = local.optimizer()
        for batch in local.batches():
            (self.loss(model, batch) / local.num_steps).backward()  # type: ignore[no-untyped-call]
        local.step(optimizer)


@dataclass(frozen=True)
class Two(Wards):
    """Trains weight and bias by an optimizer each, whose steps come one after the other."""

    def fit(self, model: nn.Module, local: LocalTraining) -> Tensor:
        optimizers = [local.optimizer([one]) for one in model.parameters()]
        for batch in local.batches():
            loss = self.loss(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                local.step(optimizer)
        return loss.detach()


@dataclass(frozen=True)
class Stepless(Wards):
    """Steps by itself; `says` is what its loop gives."""

    says: str = ""

    def fit(self, model: nn.Module, local: LocalTraining) -> Any:
        optimizer = torch.optim.SGD(model.parameters(), local.settings.lr)
        for batch in local.batches():
            optimizer.zero_grad()
            self.loss(model, batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if self.says == "other layers":
            model.weight = nn.Parameter(torch.zeros(2, 4))  # type: ignore[assignment]
        return {"": None, "nan": math.nan, "words": "0.5", "other layers": 0.5}[self.says]


@dataclass(frozen=True)
class Named(Wards):
    """Has a key that is called fit, and no loop."""

    fit: str = "poisson"


def task(kind: type, **keys: Any) -> dict[str, Any]:
    return {"kind": f"{__name__}:{kind.__name__}", **keys}


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        ({"kind": "fedavg"}, {}),
        ({"kind": "fedavg"}, {"clip_norm": 0.1, "optimizer": "adam"}),
        ({"kind": "fedavg"}, {"lr_schedule": {"kind": "StepLR", "step_size": 1, "gamma": 0.5}}),
        ({"kind": "fedprox", "mu": 0.5}, {"clip_norm": 0.3}),
        ({"kind": "scaffold"}, {}),
        ({"kind": "feddyn"}, {}),
        ({"kind": "ditto"}, {}),
    ],
)
def test_a_loop_that_does_what_hierfls_does_has_its_bits(
    tmp_path: Path, strategy: dict[str, Any], more: dict[str, Any]
) -> None:
    training = {"lr": 0.1, "batch_size": 5, "local_epochs": 2, **more}
    ran = [
        go(tmp_path / kind.__name__, {**TREE, "strategy": strategy}, task(kind), training=training)
        for kind in (Wards, Looped)
    ]
    assert ran[0].digest == ran[1].digest
    losses = [[line["loss"] for line in trained(one)] for one in ran]
    assert losses[0] == pytest.approx(losses[1]) and None not in losses[0]


def trained(ran: Any) -> list[dict[str, Any]]:
    found = [event for event in events(ran.folder) if event["event"] == "site_trained"]
    return sorted(found, key=lambda event: (event["round_number"], event["node"]))


def test_one_worker_and_two_have_the_same_bits(tmp_path: Path) -> None:
    runs = [go(tmp_path / str(n), TREE, task(Looped), runtime={"kind": "local", "num_workers": n}) for n in (1, 2)]
    assert runs[0].digest == runs[1].digest


def test_a_step_may_be_on_the_gradients_of_several_batches(tmp_path: Path) -> None:
    once = {"lr": 0.1, "batch_size": None, "local_epochs": 1}
    whole = go(tmp_path / "whole", TREE, task(Wards), training=once)
    parts = go(tmp_path / "parts", TREE, task(Accumulated), training={**once, "batch_size": 4})
    for name, values in tensors(whole.folder).items():
        assert tensors(parts.folder)[name] == pytest.approx(values, abs=1e-5)
    assert {line["num_steps"] for line in trained(parts)} == {1} and {line["loss"] for line in trained(parts)} == {None}


def test_what_a_strategy_adds_is_added_once_to_each_of_two_optimizers(tmp_path: Path) -> None:
    tree = {**TREE, "strategy": {"kind": "fedprox", "mu": 0.5}}
    one, two = (go(tmp_path / kind.__name__, tree, task(kind)) for kind in (Looped, Two))
    assert one.digest == two.digest
    assert [line["num_steps"] for line in trained(two)] == [2 * line["num_steps"] for line in trained(one)]


def test_a_loop_may_take_its_steps_itself_where_the_strategy_adds_nothing(tmp_path: Path) -> None:
    plain, own = (go(tmp_path / kind.__name__, TREE, task(kind)) for kind in (Wards, Stepless))
    assert plain.digest == own.digest
    assert [line["num_steps"] for line in trained(plain)] == [line["num_steps"] for line in trained(own)]
    with pytest.raises(SiteFailed, match=r"fit\(\) took none by local.step\(optimizer\): let it stand in the place"):
        go(tmp_path / "prox", {**TREE, "strategy": {"kind": "fedprox", "mu": 0.5}}, task(Stepless))


@pytest.mark.parametrize(
    ("says", "error", "said"),
    [
        ("nan", UpdateRefused, "the training loss is nan"),
        ("words", SiteFailed, r"fit\(\) gave a str; needed: its mean loss"),
        ("other layers", UpdateRefused, r"'weight' has shape \[2, 4\]"),
    ],
)
def test_what_a_loop_gives_is_looked_at(tmp_path: Path, says: str, error: type[Exception], said: str) -> None:
    with pytest.raises((SiteFailed, error), match=said):
        go(tmp_path, TREE, task(Stepless, says=says))


def test_sites_fine_tune_by_the_loop_as_many_steps_as_are_asked_for(tmp_path: Path) -> None:
    plain, own = (
        go(tmp_path / kind.__name__, TREE, task(kind), evaluation={"fine_tune": {"steps": 3, "tensors": ["bias"]}})
        for kind in (Wards, Looped)
    )
    figures = [one.summary["nodes"]["world"]["personal_loss"] for one in (plain, own)]
    assert figures[0] == figures[1] and plain.digest == own.digest


def test_privacy_is_refused_beside_a_loop_of_the_tasks_own(tmp_path: Path) -> None:
    private = {"kind": "dp_sgd", "noise_multiplier": 1.0, "max_grad_norm": 1.0}
    told = {"name": "trial", "federation": {**TREE, "privacy": private}, "output": {"dir": str(tmp_path)}}
    with pytest.raises(ConfigError, match="the task has a training loop of its own, fit: not both"):
        from_mapping({**told, "task": task(Looped)})
    from_mapping({**told, "task": task(Named)})


def test_a_key_called_fit_is_no_loop(tmp_path: Path) -> None:
    assert go(tmp_path / "a", TREE, task(Named)).digest == go(tmp_path / "b", TREE, task(Wards)).digest
