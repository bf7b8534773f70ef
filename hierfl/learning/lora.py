"""LoRA: layers keep their weights and learn a low-rank change of them (Hu et al. 2022, "LoRA: Low-Rank Adaptation of
Large Language Models", Section 4.1).

A weight W of d rows, its other dimensions laid out in k columns, becomes

    W + alpha / r * B A,   A (r, k) drawn from a normal distribution, B (d, r) zero at first

and only A and B, and what else is named, are trained and travel. The rest is the base, the same at every site and known
by its digest. The layers stay what they are to the task's code: it is their `weight` that is computed when it is read.

Averaging A and B apart is not averaging their products. With `freeze_down` A stays as it was drawn, which every site
does alike, and the mean of B is the mean of the changes (Sun et al. 2024, "Improving LoRA in Privacy-preserving
Federated Learning").
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module
from torch.nn.utils import parametrize

from hierfl.config.learning import Lora
from hierfl.errors import ConfigError
from hierfl.kinds import nearest

__all__ = ["adapt", "merge"]

LAYERS = (
    *(nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
"""Layers that may have an adapter, on their `weight`."""


class _LowRank(Module):
    """The change of one weight: `up` is B, `down` is A."""

    def __init__(self, weight: Tensor, wanted: Lora) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        drawn = torch.randn(wanted.rank, columns, dtype=torch.float32) / math.sqrt(columns)
        self.down = nn.Parameter(drawn.to(weight), requires_grad=not wanted.freeze_down)
        self.up = nn.Parameter(torch.zeros(rows, wanted.rank, dtype=weight.dtype, device=weight.device))
        self.scale = wanted.alpha / wanted.rank

    def forward(self, weight: Tensor) -> Tensor:
        """Give the changed weight."""
        return weight + (self.scale * (self.up @ self.down)).view_as(weight)


def adapt(module: Module, wanted: Lora) -> str:
    """Give the module's chosen layers adapters, in place, and take its base out of its state; return the base's digest.

    Draws from torch's global random numbers. Errors: ConfigError if a pattern fits no layer, or a weight that would be
    changed is shared, or computed.
    """
    layers = {name: layer for name, layer in _named_modules(module) if isinstance(layer, LAYERS)}
    tensors = dict(module.named_parameters(remove_duplicate=False))
    _check_patterns(wanted, tensors, layers)
    whole = {id(parameter) for name, parameter in tensors.items() if _fits(name, wanted.whole)}
    adapted: dict[int, tuple[str, Module]] = {}
    for name, layer in layers.items():
        if _fits(name, wanted.layers) and id(layer.weight) not in whole:
            adapted.setdefault(id(layer), (name, layer))
    _check_weights(adapted.values(), tensors, module)
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in whole)
    for layer in layers.values():
        if id(layer) in adapted and not parametrize.is_parametrized(layer, "weight"):
            weight = layer.weight
            assert isinstance(weight, Tensor)
            parametrize.register_parametrization(layer, "weight", _LowRank(weight, wanted))
    base = dict(_base(module))

    def without_base(_: Module, state: dict[str, Any], prefix: str, __: Any) -> None:
        for name in base:
            state.pop(prefix + name, None)

    module.register_state_dict_post_hook(without_base)  # type: ignore[no-untyped-call]
    return _digest(base)


def merge(adapted: Module, plain: Module) -> None:
    """Write what an adapted module has learned into a plain one of the same task, in place. What is tied has the same
    value by each of its names (`adapt`).
    """
    values: dict[str, Tensor] = dict(adapted.named_parameters(remove_duplicate=False))
    values.update(adapted.named_buffers(remove_duplicate=False))
    for name, layer in _named_modules(adapted):
        if parametrize.is_parametrized(layer, "weight"):
            weight = layer.weight
            assert isinstance(weight, Tensor)
            values[f"{name}.weight".lstrip(".")] = weight
    with torch.no_grad():
        for name, tensor in plain.state_dict(keep_vars=True).items():
            tensor.copy_(values[name])


def _base(module: Module) -> Iterator[tuple[str, Tensor]]:
    """Name the parameters that are not trained: they do not travel."""
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            yield name, parameter


def _digest(base: Mapping[str, Tensor]) -> str:
    """Give the SHA-256 of tensors with their names."""
    total = hashlib.sha256()
    for name in sorted(base):
        tensor = base[name].detach().cpu().contiguous()
        total.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _named_modules(module: Module) -> Iterator[tuple[str, Module]]:
    """Name a module's layers, one at several places by each of them."""
    yield from module.named_modules(remove_duplicate=False)


def _check_patterns(wanted: Lora, tensors: Iterable[str], layers: Iterable[str]) -> None:
    """Hold the patterns against the model. Errors: ConfigError."""
    for key, patterns, names in (("layers", wanted.layers, list(layers)), ("whole", wanted.whole, list(tensors))):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                what = "layer that can have an adapter" if key == "layers" else "tensor of the model"
                raise ConfigError(f"lora.{key}: no {what} is named like {pattern!r}{nearest(pattern, names)}")


def _check_weights(adapted: Iterable[tuple[str, Module]], tensors: Mapping[str, Tensor], module: Module) -> None:
    """Errors: ConfigError for a layer whose weight is not its own alone: the other one would not have its change."""
    for name, layer in adapted:
        weight = layer._parameters.get("weight")
        if weight is None:
            raise ConfigError(
                f"lora.layers: the weight of {name!r} is computed (weight_norm, a parametrization); leave the layer out"
            )
        for other, tensor in tensors.items():
            owner, _, key = other.rpartition(".")
            if tensor is weight and (module.get_submodule(owner) is not layer or key != "weight"):
                raise ConfigError(
                    f"lora.layers: {name!r} and {owner or other!r} share one weight, which an adapter would change in"
                    f" {name!r} alone; leave both out of lora.layers, or name it under lora.whole ({other})"
                )


def _fits(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
