"""A module that is given as it is, copied, or refused: nobody else shares a part of it."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from threading import Lock
from typing import Any

import pytest
import torch
from torch import nn

from hierfl.errors import SiteFailed
from hierfl.learning import beside
from hierfl.learning.beside import made


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def again(module: nn.Module) -> Callable[[], nn.Module]:
    return lambda: module


def test_a_module_that_is_made_anew_is_no_copy() -> None:
    ids: list[int] = []

    def model() -> nn.Module:
        module: Any = nn.Sequential(net(), nn.LSTM(4, 4), nn.TransformerEncoderLayer(4, 2))
        module.list = [*module]
        module.back = [module.forward]
        module.register_forward_hook(lambda *_: len(module))
        ids.append(id(module))
        return module  # type: ignore[no-any-return]

    assert id(made(model)) == ids[-1]
    gc.collect()
    assert id(made(model)) == ids[-1]


def test_what_cannot_be_copied_is_bound_once_and_then_refused() -> None:
    module: Any = net()
    module.lock = Lock()
    task = again(module)
    assert made(task) is module
    with pytest.raises(
        SiteFailed, match=r"had given before, and that was not copied then \(TypeError: .*anew each time"
    ):
        made(task)
    knowing: Any = net()
    knowing.forward = lambda x: knowing[2](knowing[0](x))
    task = again(knowing)
    made(task)
    with pytest.raises(SiteFailed, match="a function in it knows its layers"):
        made(task)


def in_a_list(module: Any) -> Any:
    held = [module[0]]
    return lambda x: held[0](x)


def by_name(module: Any) -> Any:
    return lambda x, *, layer=module[0]: layer(x)


@pytest.mark.parametrize(
    "knowing",
    [
        lambda module: lambda x, layer=module[0]: layer(x),
        by_name,
        in_a_list,
        lambda module: functools.partial(lambda x: module[0](x)),
        lambda module: functools.lru_cache(module[0].forward),
    ],
)
def test_a_function_that_knows_its_layers_is_not_copied_without_them(knowing: Callable[[Any], Any]) -> None:
    ids: list[int] = []

    def model() -> nn.Module:
        module: Any = net()
        module.known = knowing(module)
        ids.append(id(module))
        return module  # type: ignore[no-any-return]

    assert id(made(model)) == ids[-1]
    task = again(model())
    assert id(made(task)) == ids[-1]
    with pytest.raises(SiteFailed, match="a function in it knows its layers"):
        made(task)


def test_what_could_not_be_copied_is_not_copied_once_it_has_been_trained() -> None:
    module: Any = net()
    module.kept = module[0](torch.zeros(1, 3))  # it hangs on the layer's weights
    task = again(module)
    assert made(task) is module
    module.kept = None
    with pytest.raises(SiteFailed, match=r"was not copied then .*anew each time"):
        made(task)


def test_of_modules_that_are_gone_nothing_is_remembered() -> None:
    gc.collect()
    before = len(beside._GIVEN)
    module = made(net)
    assert len(beside._GIVEN) > before
    del module
    gc.collect()
    assert len(beside._GIVEN) == before
