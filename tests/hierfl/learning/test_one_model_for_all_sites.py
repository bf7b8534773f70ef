"""What one site's training leaves in a worker's model and optimizer must not reach the next site's."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from hierfl.config.schema import Training
from hierfl.errors import UpdateRefused
from hierfl.learning import training
from hierfl.learning.flat import FlatModel
from hierfl.learning.optimizers import OPTIONS, Stepper, make
from hierfl.learning.state import ModelState


class Squares:
    """A task that is its loss."""

    def __init__(self, meddle: Callable[[nn.Module], None] = lambda module: None) -> None:
        self.meddle = meddle

    def loss(self, module: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        x, y = batch
        loss = (module(x).squeeze(1) - y).square().mean()
        self.meddle(module)
        return loss


def model() -> FlatModel:
    torch.manual_seed(1)
    return FlatModel(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)))


def site(seed: int) -> TensorDataset:
    drawn = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(12, 3, generator=drawn), torch.randn(12, generator=drawn))


def trained(bound: FlatModel, start: ModelState, settings: Training, seed: int, task: Squares | None = None) -> bytes:
    bound.load(start)
    training.train(bound, task or Squares(), site(seed), settings, seed)  # type: ignore[arg-type]
    state = bound.read()
    return state.floats.tobytes() + state.ints.tobytes()


def start_of(bound: FlatModel) -> ModelState:
    state = bound.read()
    return ModelState(state.floats.copy(), state.ints.copy())


@pytest.mark.parametrize("name", OPTIONS)
def test_a_site_trains_as_if_it_were_the_first(name: str) -> None:
    settings = Training(optimizer=name, lr=0.05, batch_size=5, local_steps=4)
    bound = model()
    start = start_of(bound)
    alone = [trained(model(), start, settings, seed) for seed in (0, 1)]
    assert alone[0] != alone[1]
    assert [trained(bound, start, settings, seed) for seed in (0, 1, 0)] == [*alone, alone[0]]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_site_trains_to_the_bits_of_torchs_own_step(name: str) -> None:
    settings = Training(optimizer=name, lr=0.05, local_steps=4)
    bound, plain = model(), model()
    [kind] = [each for each in vars(torch.optim).values() if isinstance(each, type) and each.__name__.lower() == name]
    optimizer = kind(plain.module.parameters(), lr=0.05)
    for _ in range(4):
        optimizer.zero_grad()
        Squares().loss(plain.module, site(0).tensors).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    state = plain.read()
    assert trained(bound, start_of(bound), settings, 0) == state.floats.tobytes() + state.ints.tobytes()


@pytest.mark.parametrize("name", OPTIONS)
def test_torchs_compiler_is_not_loaded_for_an_optimizer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who trains first would wait for it; what torch remembers of its first call is forgotten here."""
    for method in ("add_param_group", "zero_grad"):
        own = inspect.unwrap(getattr(torch.optim.Optimizer, method))
        monkeypatch.delattr(own, "__dynamo_disable", raising=False)
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    settings = Training(optimizer=name, lr=0.05, local_steps=2, clip_norm=1.0)
    bound = model()
    trained(bound, start_of(bound), settings, 0)
    training.warm_up(torch.device("cpu"))
    made = make(settings, bound.module.parameters())
    made.zero_grad()
    made.step()


def test_a_step_is_not_wrapped_in_torchs_profiler() -> None:
    """Around a small model's step it takes as long as the step."""
    bound = model()
    with torch.autograd.profiler.profile() as seen:
        trained(bound, start_of(bound), Training(optimizer="sgd", lr=0.05, local_steps=2), 0)
    names = {event.name for event in seen.function_events}
    assert any("sub_" in name or "add_" in name for name in names)
    assert not [name for name in names if name.startswith("Optimizer.step")]


def test_sites_of_other_settings_take_turns_on_one_model() -> None:
    bound = model()
    start = start_of(bound)
    settings = [
        Training(optimizer="sgd", lr=0.1, local_steps=3, optimizer_options={"momentum": momentum})
        for momentum in (0.0, 0.9)
    ]
    alone = [trained(model(), start, one, 0) for one in settings]
    assert alone[0] != alone[1]
    assert [trained(bound, start, one, 0) for one in (*settings, *settings)] == alone * 2


def test_an_optimizer_keeps_no_memory_and_no_changed_group() -> None:
    parameters = [nn.Parameter(torch.ones(2))]
    settings, stepper = Training(optimizer="adam", lr=0.1), Stepper()
    with stepper.lend(settings, parameters) as first:
        parameters[0].grad = torch.ones(2)
        first.step()
        assert first.state
        first.param_groups[0]["lr"] = 7.0
    assert not first.state
    with stepper.lend(Training(optimizer="adam", lr=0.1), parameters) as again:
        assert again is first
        assert again.param_groups[0]["lr"] == 0.1
    with stepper.lend(settings, [nn.Parameter(torch.ones(2))]) as other:
        assert other is not first, "equal parameters are not the same"


def test_an_optimizer_with_a_state_from_birth_is_made_anew() -> None:
    parameters, stepper = [nn.Parameter(torch.ones(2))], Stepper()
    with stepper.lend(Training(optimizer="adagrad"), parameters) as first:
        assert first.state
    with stepper.lend(Training(optimizer="adagrad"), parameters) as second:
        assert second is not first
        assert second.state


def test_every_layer_trains_again_after_a_measurement_and_after_a_task_that_stopped_one() -> None:
    def stop(module: nn.Module) -> None:
        module[1].eval()  # type: ignore[index]

    bound, settings = model(), Training(lr=0.1, local_steps=1)
    start = start_of(bound)
    alone = trained(model(), start, settings, 0)
    for leave in (lambda: bound.module.eval(), lambda: stop(bound.module)):
        leave()
        assert trained(bound, start, settings, 0) == alone
    trained(bound, start, settings, 0, Squares(stop))
    assert trained(bound, start, settings, 0) == alone


def test_what_a_task_froze_at_one_site_trains_at_the_next() -> None:
    def freeze(module: nn.Module) -> None:
        next(module.parameters()).requires_grad_(False)

    settings = Training(lr=0.05, batch_size=5, local_steps=4)
    bound = model()
    start = start_of(bound)
    alone = trained(model(), start, settings, 1)
    assert trained(bound, start, settings, 0, Squares(freeze)) != trained(model(), start, settings, 0)
    assert trained(bound, start, settings, 1) == alone


def test_a_tensor_that_was_put_in_anothers_place_is_seen() -> None:
    bound = model()
    start = start_of(bound)
    weight = nn.Parameter(torch.full((4, 3), 2.0))
    bound.module[0].weight = weight  # type: ignore[index]
    assert np.array_equal(bound.read().floats[:12], np.full(12, 2.0, np.float32))
    bound.module[0].weight.data = torch.full((4, 3), 3.0)  # type: ignore[index]
    assert np.array_equal(bound.read().floats[:12], np.full(12, 3.0, np.float32))
    bound.load(start)
    assert torch.equal(bound.module[0].weight.detach().flatten(), torch.from_numpy(start.floats[:12]))  # type: ignore[index]


def test_a_layer_that_was_put_in_anothers_place_is_trained() -> None:
    bound, settings = model(), Training(lr=0.1, local_steps=2)
    start = start_of(bound)
    alone = trained(model(), start, settings, 0)
    bound.module[2] = nn.Linear(4, 1)  # type: ignore[index]
    bound.read()
    assert trained(bound, start, settings, 0) == alone


@pytest.mark.parametrize(
    ("meddle", "says"),
    [
        (lambda module: module.append(nn.Linear(1, 1)), "'3.weight' is not in the federation's model"),
        (lambda module: module[0].register_buffer("seen", torch.zeros(1)), "'0.seen' is not in the federation's model"),
        (lambda module: setattr(module[0], "bias", None), "'0.bias' is missing"),
        (lambda module: setattr(module[0].bias, "data", torch.zeros(5)), r"has shape \[5\]"),
        (lambda module: setattr(module[1], "num_batches_tracked", torch.zeros(2).long()), r"has shape \[2\]"),
    ],
)
def test_another_layout_is_refused_by_name(meddle: Callable[[nn.Module], None], says: str) -> None:
    bound = model()
    meddle(bound.module)
    with pytest.raises(UpdateRefused, match=says):
        bound.read()


def test_masks_of_a_large_model_are_made_only_for_a_rule_that_asks() -> None:
    bound = model()
    assert not {"trainable", "normalisation"} & set(vars(bound.parts))
    assert bound.parts.trainable.sum() == 16 + 8 + 5
    assert bound.parts.normalisation.sum() == 16  # weight, bias, and the two running means
