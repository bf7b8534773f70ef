"""A task's own training loop: what it is given, and that all around it stays as it was."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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
class Scaled(Wards):
    """Two optimizers under one scaler, which is updated after both; of the first batch bias has no finite gradient."""

    def fit(self, model: nn.Module, local: LocalTraining) -> float:
        optimizers = [local.optimizer([one]) for one in model.parameters()]
        scaler, scales = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1), []
        for number, batch in enumerate(local.batches()):
            scales.append(scaler.get_scale())
            scaler.scale(self.loss(model, batch)).backward()
            if number == 0:
                dict(model.named_parameters())["bias"].grad.fill_(math.inf)  # type: ignore[union-attr]
            for optimizer in optimizers:
                local.step(optimizer, scaler)
            scaler.update()
        assert scales[:3] == [4.0, 2.0, 4.0]
        return 0.5


@dataclass(frozen=True)
class Unscaled(Wards):
    """The same without a scaler."""

    def fit(self, model: nn.Module, local: LocalTraining) -> float:
        optimizer = local.optimizer()
        for number, batch in enumerate(local.batches()):
            self.loss(model, batch).backward()  # type: ignore[no-untyped-call]
            if number == 0:
                dict(model.named_parameters())["bias"].grad = None
            local.step(optimizer)
        return 0.5


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
        return {"nan": math.nan, "words": "0.5", "float32": np.float32(0.5), "array": np.array([0.5])}.get(self.says)


@dataclass(frozen=True)
class Hooked(Wards):
    """Looks at its steps, and changes what layers give and what gradients are."""

    def fit(self, model: nn.Module, local: LocalTraining) -> float:
        optimizer, told = local.optimizer(), list[float]()
        optimizer.register_step_post_hook(lambda *_: told.append(0.5))
        model.register_forward_hook(lambda _, __, given: given * 2)
        model.register_forward_pre_hook(lambda _, given: (given[0] + 1.0,))
        for one in model.parameters():
            one.register_hook(lambda gradient: gradient * 0.5)
            one.register_post_accumulate_grad_hook(lambda _: None)
        for batch in local.batches():
            self.loss(model, batch).backward()  # type: ignore[no-untyped-call]
            local.step(optimizer)
        return sum(told) / local.num_steps


@dataclass(frozen=True)
class Thawing(Wards):
    """Trains all parameters, whatever is held still; `puts_back`: and says so no more afterwards."""

    puts_back: bool = False

    def fit(self, model: nn.Module, local: LocalTraining) -> None:
        trained = [one.requires_grad for one in model.parameters()]
        model.requires_grad_(True)
        optimizer = local.optimizer()
        for batch in local.batches():
            self.loss(model, batch).backward()  # type: ignore[no-untyped-call]
            local.step(optimizer)
        for one, was in zip(model.parameters(), trained, strict=True):
            one.requires_grad_(was or not self.puts_back)


@dataclass(frozen=True)
class Named(Wards):
    """Has a key that is called fit, and no loop."""

    fit: str = "poisson"


@dataclass(frozen=True)
class Still(Looped):
    """Leaves gradients turned off."""

    def fit(self, model: nn.Module, local: LocalTraining) -> float:
        loss = super().fit(model, local)
        torch.set_grad_enabled(False)
        return loss


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


@pytest.mark.parametrize("strategy", [{"kind": "fedprox", "mu": 0.5}, {"kind": "scaffold"}, {"kind": "fednova"}])
def test_two_optimizers_of_one_half_each_do_what_one_does(tmp_path: Path, strategy: dict[str, Any]) -> None:
    one, two = (go(tmp_path / kind.__name__, {**TREE, "strategy": strategy}, task(kind)) for kind in (Looped, Two))
    assert one.digest == two.digest
    assert [line["num_steps"] for line in trained(two)] == [line["num_steps"] for line in trained(one)]


def test_a_scaler_is_updated_after_all_optimizers_have_stepped(tmp_path: Path) -> None:
    tree = {**TREE, "strategy": {"kind": "fedprox", "mu": 0.5}}
    training = {"lr": 0.1, "batch_size": 5, "local_epochs": 2}
    one, two = (go(tmp_path / kind.__name__, tree, task(kind), training=training) for kind in (Scaled, Unscaled))
    assert one.digest == two.digest


def test_hooks_are_called_and_end_with_the_training(tmp_path: Path) -> None:
    runs = [go(tmp_path / str(n), TREE, task(Hooked), runtime={"kind": "local", "num_workers": n}) for n in (1, 2, 3)]
    assert len({ran.digest for ran in runs}) == 1
    assert {line["loss"] for ran in runs for line in trained(ran)} == {0.5}


@pytest.mark.parametrize("puts_back", [False, True])
def test_what_is_held_still_is_not_trained(tmp_path: Path, puts_back: bool) -> None:
    thawing = task(Thawing, puts_back=puts_back)
    with pytest.raises(SiteFailed, match=r"'weight' was trained, or .* holds it still"):
        go(tmp_path / "a", {**TREE, "strategy": {"kind": "fedrep", "personal": ["bias"]}}, thawing)
    with pytest.raises(SiteFailed, match=r"fine_tune\.tensors holds it still"):
        go(tmp_path / "b", TREE, thawing, evaluation={"fine_tune": {"steps": 3, "tensors": ["bias"]}})


@pytest.mark.parametrize("says", ["float32", "array"])
def test_a_loss_may_be_any_one_number(tmp_path: Path, says: str) -> None:
    assert {line["loss"] for line in trained(go(tmp_path, TREE, task(Stepless, says=says)))} == {0.5}


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


def test_gradients_that_a_loop_turns_off_are_on_at_the_next_site(tmp_path: Path) -> None:
    assert go(tmp_path / "a", TREE, task(Still)).digest == go(tmp_path / "b", TREE, task(Wards)).digest


def test_a_key_called_fit_is_no_loop(tmp_path: Path) -> None:
    assert go(tmp_path / "a", TREE, task(Named)).digest == go(tmp_path / "b", TREE, task(Wards)).digest
