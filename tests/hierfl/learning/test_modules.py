"""Modules of unusual make: they train as in torch's own loop, or are refused by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from hierfl.config.schema import Evaluation, Training
from hierfl.errors import SiteFailed, UpdateRefused
from hierfl.learning import training
from hierfl.learning.contract import checked_model
from hierfl.learning.flat import FlatModel
from hierfl.learning.local import unmatched
from hierfl.learning.measuring import measure
from hierfl.learning.task import Prediction

DATA = TensorDataset(torch.randn(12, 3, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 2)


class Bound:
    """A task whose model is made as it is told."""

    def __init__(self, model: Callable[[], nn.Module] = lambda: net()) -> None:
        self.model = model

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(module(batch[0])[:, 0], batch[1].float())

    def predict(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Prediction:
        return Prediction(scores=module(batch[0])[:, 0].sigmoid(), labels=batch[1])


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def given(task: Any) -> nn.Module:
    return checked_model(task)


def places(module: nn.Module) -> set[int]:
    return {one.data_ptr() for one in (*module.parameters(), *module.buffers())}


class Places(nn.Module):
    """Makes what stands for places at its first batch, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        found = KEPT.setdefault(x.shape[1], torch.arange(3.0) + 1.0)
        made: Tensor = self.layer(x * (found * self.scale))
        return made


KEPT: dict[int, Tensor] = {}


def test_what_a_module_keeps_of_measuring_can_be_trained_with() -> None:
    bound = FlatModel(Places())
    try:
        measure(bound.module, Bound(), DATA, Evaluation(), bound.device)  # type: ignore[arg-type]
        training.train(bound, Bound(), DATA, Training(local_steps=1), 0)  # type: ignore[arg-type]
    finally:
        KEPT.clear()


class Once(Bound):
    """A task that made its module once."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(lambda: module)


class Kept(Bound):
    """A task that keeps the module in an attribute."""

    def __init__(self) -> None:
        self.net = net()
        super().__init__(lambda: self.net)


class Trunk(Bound):
    """A task that makes its head anew, and its trunk once."""

    def __init__(self) -> None:
        trunk = net()
        super().__init__(lambda: nn.Sequential(net(), trunk))


class Table(Bound):
    """A task that makes its layers anew, and one parameter once."""

    def __init__(self) -> None:
        table = nn.Parameter(torch.ones(4, 3))
        super().__init__(lambda: self._filled(table))

    def _filled(self, table: nn.Parameter) -> nn.Module:
        made: Any = net()
        made[0].weight = table
        return made


class Cached(Bound):
    """A task that makes its module when it is first asked."""

    def __init__(self) -> None:
        super().__init__(functools.cache(net))


@pytest.mark.parametrize("task", [lambda: Once(net()), Kept, Trunk, Table, Cached, lambda: Once(nn.LSTM(3, 2))])
def test_a_module_that_a_task_gives_again_is_bound_as_it_was_first(task: Callable[[], Bound]) -> None:
    told = task()
    first = FlatModel(given(told))
    start = first.read().floats.copy()
    first.load(first.read())
    with torch.no_grad():
        for parameter in first.module.parameters():
            parameter.add_(1.0)
    second = FlatModel(given(told))
    assert places(first.module).isdisjoint(places(second.module))
    assert np.array_equal(second.read().floats, start)
    assert np.array_equal(FlatModel(told.model()).read().floats, start), "the task's own is as it was"


def tied_by_data() -> nn.Module:
    module: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight.data = module[0].weight.data
    return module  # type: ignore[no-any-return]


def views(of: Callable[[Tensor], tuple[Tensor, Tensor]], size: int = 12) -> nn.Module:
    module, whole = nn.Module(), torch.arange(float(size))
    for name, view in zip(("one", "two"), of(whole), strict=True):
        module.register_parameter(name, nn.Parameter(view))
    return module


def buffer_of_a_weight() -> nn.Module:
    module = nn.Linear(3, 3)
    module.register_buffer("shadow", module.weight.data[0], persistent=False)
    return module


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (tied_by_data, r"'0.weight' and '1.weight', which share memory .* 1.weight = 0.weight"),
        (lambda: views(lambda whole: (whole[:7], whole[6:])), "'one' and 'two', which share memory"),
        (lambda: views(lambda whole: (whole[1::2], whole[4:6])), "'one' and 'two'"),
        (buffer_of_a_weight, "'weight' and 'shadow'"),
    ],
)
def test_tensors_that_overlap_are_refused_by_name(model: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(SiteFailed, match=said):
        given(Bound(model))


@pytest.mark.parametrize(
    "of",
    [
        lambda whole: (whole[:6], whole[6:]),
        lambda whole: (whole[::2], whole[1::2]),
        lambda whole: whole.view(4, 3).split([1, 2], dim=1),
        lambda whole: (whole, whole[3:3]),
        lambda whole: (whole[:0], torch.zeros(0)),
    ],
)
def test_slices_of_one_tensor_that_do_not_overlap_go(of: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    module = given(Bound(lambda: views(of)))
    bound = FlatModel(module)
    first, second = of(torch.arange(12.0))
    assert np.array_equal(bound.read().floats, torch.cat([first.flatten(), second.flatten()]).numpy())


def masked(**how: Any) -> nn.Module:
    module: Any = nn.Sequential(nn.Linear(3, 1))
    module[0].register_buffer("mask", torch.full((3,), -torch.inf), **how)
    return module  # type: ignore[no-any-return]


def test_a_buffer_that_is_not_finite_is_refused_by_name_and_may_stay_out_of_the_state() -> None:
    with pytest.raises(
        SiteFailed, match=r"buffer '0.mask' with NaN or Inf .*register_buffer\('mask', .*persistent=False"
    ):
        given(Bound(masked))
    assert FlatModel(given(Bound(lambda: masked(persistent=False)))).layout.num_floats == 4


def test_a_buffer_of_two_names_is_one() -> None:
    torch.manual_seed(1)
    module: Any = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.Linear(3, 1))
    norm = module[0]
    module.append(norm)  # a layer at two places
    module[1].register_buffer("shared", torch.ones(2))
    module[2].register_buffer("shared", module[1].shared)
    bound = FlatModel(given(Bound(lambda: module)))
    aliases = dict(bound.layout.aliases)
    assert aliases == {"2.shared": "1.shared", **{f"3.{name}": f"0.{name}" for name in norm.state_dict()}}
    start = bound.start()
    start.floats[:] += 1.0
    bound.load(start)
    bound.module[1].shared.add_(1.0)  # type: ignore[index, operator, union-attr]
    assert torch.equal(bound.module[2].shared, torch.full((2,), 3.0))  # type: ignore[index, arg-type, union-attr]
    assert bound.module.state_dict().keys() == {spec.name for spec in bound.layout.tensors} | aliases.keys()


def test_a_tensor_of_two_names_is_found_by_each() -> None:
    module: Any = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
    module[1].weight = module[0].weight
    bound = FlatModel(module)
    assert bound.layout.names == {"0.weight": ["0.weight", "1.weight"], "1.bias": ["1.bias"]}
    assert bound.parts.named(["1.*"]).all() and bound.parts.named(["0.*"]).sum() == 15
    assert unmatched(["1.weight", "0.*"], bound.layout) == ""
    assert unmatched(["2.weight"], bound.layout).startswith("no tensor of the model is named like '2.weight'")


def test_a_buffer_that_is_in_the_state_by_one_of_its_names_is_loaded() -> None:
    module: Any = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 1))
    module[0].register_buffer("shared", torch.ones(2), persistent=False)
    module[1].register_buffer("shared", module[0].shared)
    bound = FlatModel(module)
    start = bound.start()
    start.floats[:] += 1.0
    bound.load(start)
    assert torch.equal(module[0].shared, torch.full((2,), 2.0))


def test_a_buffer_that_is_expanded_goes() -> None:
    module = nn.Linear(3, 1)
    module.register_buffer("kinds", torch.zeros(1, dtype=torch.int64).expand(5))
    module.register_buffer("places", torch.zeros(1).expand(5), persistent=False)
    bound = FlatModel(module)
    bound.load(bound.start())
    assert bound.layout.num_ints == 5


class Pretrained(Bound):
    """A task that makes its layers anew each time, of tensors that it holds."""

    def __init__(self, kind: torch.dtype) -> None:
        self.table, self.counts = torch.ones(4, 3, dtype=kind), torch.zeros(2, dtype=torch.int64)
        super().__init__(self._made)

    def _made(self) -> nn.Module:
        module = nn.Sequential(nn.Embedding.from_pretrained(self.table, freeze=False), nn.Linear(3, 1))
        module.register_buffer("counts", self.counts.view(2))
        return module


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_what_lies_in_the_tasks_memory_is_trained_in_memory_of_its_own(kind: torch.dtype) -> None:
    task = Pretrained(kind)
    first, second = (FlatModel(given(task)) for _ in range(2))
    start = second.start()
    for tensor in first.module.state_dict().values():
        tensor.add_(1)
    assert torch.equal(task.table, torch.ones(4, 3, dtype=kind)) and torch.equal(task.counts, torch.zeros(2).long())
    assert np.array_equal(second.read().floats, start.floats) and np.array_equal(second.read().ints, start.ints)


def scripted() -> nn.Module:
    return torch.jit.script(net())  # type: ignore[no-untyped-call, no-any-return]


def traced() -> nn.Module:
    return torch.jit.trace(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), torch.zeros(2, 3))


def partly_scripted() -> nn.Module:
    return nn.Sequential(scripted(), nn.Linear(1, 1))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("make", [scripted, traced, partly_scripted])
def test_torchscript_trains_as_it_did_and_what_is_put_in_its_place_is_gone(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(1)
    module: Any = make()
    first: Any = next(module.parameters()).requires_grad_(False)
    for task in (Bound(lambda: module), Once(module)):
        bound = FlatModel(given(task))
        assert [one.requires_grad for one in bound.module.parameters()].count(False) == 1
        start, mark = bound.start(), bound.mark()
        training.train(bound, task, DATA, Training(local_steps=2), 0)  # type: ignore[arg-type]
        assert bound.mark() != mark
        assert not np.array_equal(bound.read().floats, start.floats)
        layer: Any = next(one for one in bound.module.modules() if "weight" in one._parameters.keys())  # noqa: SIM118
        layer.weight = nn.Parameter(torch.zeros_like(layer.weight))
        bound.load(start)
        assert torch.equal(layer.weight, first) and np.array_equal(bound.start().floats, start.floats)


@pytest.mark.parametrize("persistent", [True, False])
def test_a_buffer_made_in_inference_mode_goes(persistent: bool) -> None:
    def model() -> nn.Module:
        module = net()
        with torch.inference_mode():
            module.register_buffer("mean", torch.ones(3), persistent=persistent)
        return module

    bound = FlatModel(given(Bound(model)))
    start, mark = bound.start(), bound.mark()
    assert persistent == (mark != bound.mark()), "torch does not count what is written to it"
    bound.load(start)
    training.train(bound, Bound(), DATA, Training(local_steps=1), 0)  # type: ignore[arg-type]


def test_a_sparse_buffer_is_refused_by_name_and_may_stay_out_of_the_state() -> None:
    def graph(**how: Any) -> nn.Module:
        module = net()
        module.register_buffer("adjacent", torch.eye(3).to_sparse(), **how)
        return module

    with pytest.raises(UpdateRefused, match=r"'adjacent' is sparse .*register_buffer\('adjacent', .*persistent=False"):
        FlatModel(given(Bound(graph)))
    FlatModel(given(Bound(lambda: graph(persistent=False))))
