"""What a module keeps in plain attributes begins anew at each site."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from hierfl.config.schema import Evaluation, Training
from hierfl.learning import training
from hierfl.learning.flat import FlatModel
from hierfl.learning.measuring import measure
from hierfl.learning.own import Own
from hierfl.learning.state import ModelState
from hierfl.learning.task import Prediction


class Keeping(nn.Module):
    """Has one of everything, and all of it moves on with each pass, and has its say in what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.number = 0
        self.list: list[Any] = [1.0, [2.0]]
        self.dict: dict[str, Any] = {"seen": 0.0, "list": self.list}
        self.set = {1}
        self.deque = deque([1.0], maxlen=3)
        self.tensor = torch.ones(3)
        self.learnt = torch.ones(1, requires_grad=True)
        self.array = np.ones(3)
        self.bytes = bytearray(b"a")
        self.same = self.tensor
        self.hidden = [nn.BatchNorm1d(3)]
        self.torch_random = torch.Generator().manual_seed(1)
        self.python_random = random.Random(1)
        self.numpy_random = np.random.default_rng(1)
        self.legacy_random = np.random.RandomState(1)

    def forward(self, x: Tensor) -> Tensor:
        self.number += 1
        self.list.append(float(x.detach().sum()))
        self.list[1].append(3.0)
        self.dict["seen"] += 1.0
        self.dict[f"new {self.number}"] = 1.0
        self.set.add(self.number)
        self.deque.append(float(self.number))
        self.tensor += 0.1 * x.detach().mean(dim=0)
        self.array += 1.0
        self.bytes += b"b"
        self.late = getattr(self, "late", 0) + 1
        drawn = torch.rand(1, generator=self.torch_random) + self.python_random.random()
        drawn = drawn + self.numpy_random.random() + self.legacy_random.random()
        said = self.number + self.list[-1] + len(self.list[1]) + self.dict["seen"] + len(self.dict) + len(self.set)
        said += sum(self.deque) + float(self.array[0]) + len(self.bytes) + self.late
        made: Tensor = self.layer(self.hidden[0](x) + 0.01 * (said + drawn) + self.same) * self.learnt
        return made


class Squares:
    """A task that is its loss and its prediction."""

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return (module(batch[0])[:, 0] - batch[1]).square().mean()

    def predict(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Prediction:
        return Prediction(own={"error": module(batch[0])[:, 0] - batch[1]})


TASK: Any = Squares()


def site(seed: int) -> TensorDataset:
    drawn = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(12, 3, generator=drawn), torch.randn(12, generator=drawn))


def bound(make: Callable[[], nn.Module] = Keeping) -> FlatModel:
    torch.manual_seed(1)
    return FlatModel(make())


def trained(model: FlatModel, start: ModelState, seed: int) -> bytes:
    model.load(start)
    training.train(model, TASK, site(seed), Training(lr=0.01, batch_size=5, local_steps=4), seed)
    return model.read().floats.tobytes()


def start_of(model: FlatModel) -> ModelState:
    state = model.read()
    return ModelState(state.floats.copy(), state.ints.copy())


def test_a_site_trains_and_is_measured_as_if_it_were_the_first() -> None:
    model = bound()
    start = start_of(model)
    alone = [trained(bound(), start, seed) for seed in (0, 1)]
    assert [trained(model, start, seed) for seed in (0, 1, 0)] == [*alone, alone[0]]

    def measured(model: FlatModel, seed: int) -> Any:
        model.load(start)
        return measure(model.module, TASK, site(seed), Evaluation(), model.device).scalars()

    assert [measured(model, seed) for seed in (0, 1, 0)] == [measured(bound(), seed) for seed in (0, 1, 0)]


class Drawing(nn.Module):
    """Adds what its own generators draw, two of a kind each."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.torch_random = [torch.Generator().manual_seed(1) for _ in range(2)]
        self.python_random = [random.Random(1) for _ in range(2)]
        self.numpy_random = [np.random.default_rng(1), np.random.Generator(np.random.MT19937(1))]
        self.legacy_random = [np.random.RandomState(1), np.random.RandomState(np.random.PCG64(1))]
        self.drawn: list[tuple[float, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        drawn = [float(torch.rand(1, generator=one)) for one in self.torch_random]
        drawn += [one.random() for one in (*self.python_random, *self.numpy_random, *self.legacy_random)]
        self.drawn.append(tuple(drawn))
        made: Tensor = self.layer(x) + sum(drawn)
        return made


def test_a_modules_own_generators_draw_other_numbers_in_each_training_and_the_same_for_its_seed() -> None:
    model = bound(Drawing)
    start = start_of(model)

    def drawn(seed: int) -> tuple[float, ...]:
        model.load(start)
        training.train(model, TASK, site(0), Training(lr=0.01, local_steps=1), seed)
        [found] = model.module.drawn
        return found  # type: ignore[no-any-return]

    first, other, again = drawn(1), drawn(2), drawn(1)
    assert first == again
    assert all(one != two for one, two in zip(first[:-1], other[:-1], strict=True))
    assert first[-1] == other[-1], "a RandomState of other bits takes no seed, and begins anew"
    assert len(set(first)) == len(first), "no two draw the same"


class Taught(nn.Module):
    """Follows itself with a teacher that is not in its state, and learns of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.teacher = [nn.Sequential(nn.Linear(3, 1), Replacing())]

    def forward(self, x: Tensor) -> Tensor:
        [teacher] = self.teacher
        with torch.no_grad():
            for one, other in zip(teacher[0].parameters(), self.layer.parameters(), strict=True):
                one.data.mul_(0.9).add_(other, alpha=0.1)
            said = teacher[0](x) + teacher[1](x)
        made: Tensor = self.layer(x) + said
        return made


def test_a_teacher_that_is_not_registered_begins_anew() -> None:
    start = start_of(bound(Taught))
    alone = [trained(bound(Taught), start, seed) for seed in (0, 1)]
    model = bound(Taught)
    assert [trained(model, start, seed) for seed in (0, 1, 0)] == [*alone, alone[0]]


def test_random_numbers_of_the_system_are_left_alone() -> None:
    module: Any = nn.Linear(3, 1)
    module.random = random.SystemRandom()
    own = Own(module)
    own.begin_anew()
    own.seed(1)
    assert 0 <= module.random.random() < 1


def test_a_lazy_layer_that_is_not_registered_goes() -> None:
    module: Any = nn.Linear(3, 1)
    module.teacher = [nn.LazyLinear(1)]
    Own(module).begin_anew()


def test_what_is_one_object_stays_one() -> None:
    module = Keeping()
    own, tensor, held = Own(module), module.tensor, module.list
    module(torch.ones(2, 3))
    module.list, module.same = [], torch.zeros(1)
    own.begin_anew()
    assert module.same is module.tensor is tensor
    assert module.dict["list"] is module.list is held
    assert held == [1.0, [2.0]] and torch.equal(tensor, torch.ones(3))
    assert not hasattr(module, "late") and set(module.dict) == {"seen", "list"}
    module(torch.ones(2, 3))
    own.begin_anew()
    assert held == [1.0, [2.0]] and torch.equal(tensor, torch.ones(3)) and module.number == 0


def test_a_tensor_of_another_shape_or_with_a_gradient_begins_anew() -> None:
    module: Any = nn.Linear(3, 1)
    module.kept, module.expanded = torch.ones(2), torch.ones(1).expand(4)
    own, kept = Own(module), module.kept
    kept.data = torch.zeros(5)
    kept.requires_grad_(True)
    kept.grad = torch.ones(5)
    own.begin_anew()
    assert torch.equal(kept, torch.ones(2)) and not kept.requires_grad and kept.grad is None
    kept.mul_(module.weight[0, :2])
    own.begin_anew()
    assert torch.equal(kept, torch.ones(2)) and kept.grad_fn is None


def test_the_states_own_tensors_are_left_to_the_state() -> None:
    module: Any = nn.Sequential(nn.LSTM(3, 2), nn.Linear(2, 1, dtype=torch.bfloat16))
    module.known = [module[1].weight, module[1].weight.data]
    model = FlatModel(module)
    with torch.no_grad():
        module[1].weight.fill_(3.0)
    model.begin_anew()
    assert bool((module[1].weight == 3.0).all())
    assert all(one is other for one, other in zip(module[0]._flat_weights, module[0].parameters(), strict=True))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("old", [True, False])
def test_a_weight_that_torch_computes_follows_what_it_is_computed_of(old: bool) -> None:
    def make() -> nn.Module:
        norm: Any = nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm
        made: nn.Module = norm(nn.Linear(3, 1))
        return made

    model = bound(make)
    start = start_of(model)
    alone = [trained(bound(make), start, seed) for seed in (0, 1)]
    assert [trained(model, start, seed) for seed in (0, 1, 0)] == [*alone, alone[0]]


class Replacing(nn.Module):
    """Puts new tensors in the places of its buffers, in measuring, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("seen", torch.zeros(3), persistent=False)
        self.register_buffer("last", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        last = 0.0 if self.last is None else self.last.mean()
        made: Tensor = self.layer(x + self.mean + self.seen) + last
        self.mean = 0.5 * self.mean + 0.5 * x.detach().mean(dim=0)
        self.seen = self.seen + 1.0
        self.last = x.detach()
        return made


def test_buffers_in_whose_places_a_module_puts_others_begin_anew() -> None:
    model = bound(Replacing)
    start = start_of(model)
    alone = [trained(bound(Replacing), start, seed) for seed in (0, 1)]
    measure(model.module, TASK, site(2), Evaluation(), model.device)
    assert [trained(model, start, seed) for seed in (0, 1, 0)] == [*alone, alone[0]]


@pytest.mark.parametrize(
    "meddle",
    [
        lambda module: setattr(module, "extra", nn.Linear(1, 1)),
        lambda module: setattr(module, "layer", nn.Linear(3, 1)),
        lambda module: setattr(module.layer, "weight", nn.Parameter(torch.ones(1, 3))),
        lambda module: setattr(module.layer.weight, "data", torch.ones(2, 3)),
        lambda module: module.register_buffer("mean", None),
        lambda module: setattr(module, "count", torch.ones(3, dtype=torch.int64)),
        lambda module: setattr(module.count, "data", torch.ones(3, dtype=torch.int64)),
    ],
)
def test_what_measuring_puts_in_a_layers_place_is_gone_at_the_next_site(meddle: Callable[[Any], None]) -> None:
    def make() -> nn.Module:
        made = Replacing()
        made.register_buffer("count", torch.zeros((), dtype=torch.int64))
        return made

    model = bound(make)
    start = start_of(model)
    alone = trained(bound(make), start, 1)
    meddle(model.module)
    assert not model.mark()[0]
    assert trained(model, start, 1) == alone
    meddle(model.module)
    model.load(start)
    assert model.mark()[0] and model.start().floats.tobytes() == start.floats.tobytes()
