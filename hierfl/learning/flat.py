"""A torch module whose state lives in two flat vectors: loading a model is one copy, reading it back is none.

Floating-point tensors of the layout's dtype become views of one flat tensor; others (float16, bfloat16, integers) are
copied in and out. What the state does not hold is put back to its first value by every load, so that no site leaves a
trace for the next: other buffers, plain attributes (`own`), and whether a parameter trains.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain
from operator import is_, methodcaller
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from hierfl.config.schema import Training
from hierfl.errors import SiteFailed, UpdateRefused
from hierfl.learning import optimizers
from hierfl.learning.local import Parts, Pull, Vector
from hierfl.learning.overlaps import is_expanded
from hierfl.learning.own import Own
from hierfl.learning.state import Layout, ModelState

__all__ = ["FlatModel"]

_Transient: TypeAlias = "tuple[dict[str, Any], str, Tensor | None, Tensor | None]"
"""A buffer that the state does not hold: the layer's buffers, its name, the first one and a copy of that."""


NORMALISATION = (
    torch.nn.modules.batchnorm._NormBase,
    torch.nn.GroupNorm,
    torch.nn.LayerNorm,
    torch.nn.LocalResponseNorm,
    torch.nn.RMSNorm,
)
"""Layers whose scales and statistics are those of the data that they saw."""


class FlatModel:
    """One module on one device, bound to flat vectors. Errors: UpdateRefused for a state that cannot be summed."""

    def __init__(self, module: Module, device: str = "cpu") -> None:
        self.module = module.to(device)
        self.device = torch.device(device)
        self.layout = _layout(module)
        self._host = np.zeros(self.layout.num_floats, self.layout.float_dtype)
        self._flat = torch.from_numpy(self._host)
        if self.device.type != "cpu":
            self._flat = self._flat.to(self.device)
        self._ints = np.zeros(self.layout.num_ints, np.int64)
        self._views = {
            spec.name: self._flat[spec.offset : spec.offset + spec.size].view(spec.shape)
            for spec in self.layout.tensors
            if spec.dtype == str(self.layout.float_dtype)
        }
        self._copied = [spec for spec in self.layout.tensors if spec.name not in self._views]
        self._tensors: Mapping[str, Tensor] = {}
        self._transient: list[_Transient] = []
        self._still: list[tuple[Tensor, float]] = []
        self._stepper = optimizers.Stepper()
        self._bind(_state(module))
        self._check_bound()
        self._trains = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
        kept = set(map(id, self._tensors.values()))
        self._transient = [
            (layer._buffers, name, buffer, _copy_of(buffer))
            for layer in module.modules()
            for name, buffer in layer._buffers.items()
            if buffer is None or id(buffer) not in kept
        ]
        self._own = Own(module)

    def load(self, start: ModelState) -> None:
        """Set the module to a model, as if it were new; `start` may be read-only."""
        self.begin_anew()
        if not self._structure.is_unchanged():
            self._put_back()
        np.copyto(self._host, start.floats)
        if self.device.type != "cpu":
            self._flat.copy_(torch.from_numpy(self._host), non_blocking=False)
        with torch.no_grad() if self._copied else contextlib.nullcontext():
            for spec in self._copied:
                source = self._host if spec.is_float else start.ints
                values = np.array(source[spec.offset : spec.offset + spec.size]).reshape(spec.shape)
                self._tensors[spec.name].copy_(torch.from_numpy(values))

    def begin_anew(self) -> None:
        """Put back to its first value what the state does not hold; the model that is loaded stays."""
        self._own.begin_anew()
        if self._transient:
            with torch.no_grad():
                for holder, name, buffer, first in self._transient:
                    holder[name] = buffer
                    if buffer is not None and first is not None:
                        buffer.copy_(first)
        for parameter, trains in self._trains:
            if parameter.requires_grad != trains:
                parameter.requires_grad_(trains)

    def seed(self, seed: int) -> None:
        """Seed the module's own random generators for a training."""
        self._own.seed(seed)

    def mark(self) -> tuple[bool, float]:
        """Give what is something else once anything has written to the model since it was loaded, or may have."""
        return self._structure.is_unchanged(), sum(map(_writes, self._tensors.values()))

    def start(self) -> ModelState:
        """Copy the model that was loaded last, as the module holds it: after a cast to float16 it may be rounded."""
        state = self.read()
        return ModelState(state.floats.copy(), state.ints.copy())

    @property
    def rounds_on_load(self) -> bool:
        """Whether the module holds tensors narrower than the vector, so that `load` may round."""
        return any(spec.is_float for spec in self._copied)

    @cached_property
    def parts(self) -> Parts:
        """Say which of the vector's elements are trained, and which belong to layers that normalise."""
        trained = {name for name, parameter in self.module.named_parameters() if parameter.requires_grad}
        norms = {name for name, part in self.module.named_modules() if isinstance(part, NORMALISATION)}
        named = {spec.name for spec in self.layout.tensors if spec.name.rpartition(".")[0] in norms}
        return Parts(self.layout, trained, named)

    def pulling(self, pull: Pull) -> Callable[[], None] | None:
        """Give what adds a pull to the gradients, from the model that is loaded; None if it adds nothing."""
        if not pull:
            return None
        anchors = self._split(pull.anchor) if pull.anchor is not None else None
        shifts = self._split(pull.shift) if pull.shift is not None else None
        pulled = [
            (parameter, anchors[name] if anchors is not None else parameter.detach().clone(), name)
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad
        ]

        def apply() -> None:
            with torch.no_grad():
                for parameter, anchor, name in pulled:
                    if parameter.grad is None:
                        continue
                    if pull.mu:
                        parameter.grad.add_(parameter.detach() - anchor, alpha=pull.mu)
                    if shifts is not None:
                        parameter.grad.add_(shifts[name])

        return apply

    def train_mode(self) -> None:
        """Let every layer train, as `module.train()` does; nothing is to be done where all do."""
        if not all(layer.training for layer in self._structure.layers):
            self.module.train()

    def optimizer(self, training: Training) -> contextlib.AbstractContextManager[Optimizer]:
        """Lend an optimizer of the parameters that train, with no trace of an earlier training. Errors: ConfigError."""
        parameters = [parameter for parameter in self._structure.parameters if parameter.requires_grad]
        return self._stepper.lend(training, parameters)

    @contextlib.contextmanager
    def frozen(self, mask: np.ndarray[Any, Any]) -> Iterator[None]:
        """Train without the tensors that a mask (P,) marks."""
        still = []
        for spec in self.layout.tensors:
            tensor = self._tensors[spec.name]
            if spec.is_float and spec.size and mask[spec.offset] and tensor.requires_grad:
                still.append(tensor.requires_grad_(False))
        self._still = [(tensor, _writes(tensor)) for tensor in still]
        try:
            yield
        finally:
            self._still = []
            for tensor in still:
                tensor.requires_grad_(True)

    def check_still(self) -> None:
        """Errors: SiteFailed for a tensor that is to be held still, and trains or was written to."""
        for tensor, writes in self._still:
            if tensor.requires_grad or _writes(tensor) > writes:
                name = next(name for name, one in self._tensors.items() if one is tensor)
                raise SiteFailed(
                    f"{name!r} was trained, or is let train (requires_grad_), where the strategy or fine_tune.tensors"
                    " holds it still: in the task's fit() train what has requires_grad at its beginning"
                )

    def _split(self, vector: Vector) -> dict[str, Tensor]:
        """Cut a vector into tensors on the device, in the parameters' dtypes."""
        whole = torch.from_numpy(np.array(vector)).to(self.device)
        return {
            spec.name: whole[spec.offset : spec.offset + spec.size].view(spec.shape).to(getattr(torch, spec.dtype))
            for spec in self.layout.tensors
            if spec.is_float
        }

    def read(self) -> ModelState:
        """Read the module's state; the vectors are this object's own and change with the next load.

        Errors: UpdateRefused, naming the tensor, if the state is no longer of the layout.
        """
        if not self._structure.is_unchanged():
            state = _state(self.module)
            if len(state) != len(self.layout.tensors) or any(
                spec.name not in state or tuple(state[spec.name].shape) != spec.shape for spec in self.layout.tensors
            ):
                raise UpdateRefused(self.layout.difference(_layout(self.module)))
            self._bind(state)
        if self.device.type != "cpu":
            np.copyto(self._host, self._flat.cpu().numpy())
        for spec in self._copied:
            target = self._host if spec.is_float else self._ints
            values = self._tensors[spec.name].detach().cpu().reshape(-1)
            if spec.is_float:
                values = values.to(self._flat.dtype)
            target[spec.offset : spec.offset + spec.size] = values.numpy()
        return ModelState(self._host, self._ints)

    def check(self) -> None:
        """Look whether the module's state is still of the layout. Errors: UpdateRefused, naming the tensor."""
        difference = self.layout.difference(_layout(self.module))
        if difference:
            raise UpdateRefused(f"{difference}; a task's loss() and fit() must leave the model's layers as they are")

    def _bind(self, state: Mapping[str, Tensor]) -> None:
        """Make the tensors of the vector's dtype views of it; those that are not yet bring their values along. Others
        get memory of their own.
        """
        for tensor in (
            state[spec.name] for spec in self._copied if state[spec.name] is not self._tensors.get(spec.name)
        ):
            tensor.data = tensor.detach().clone()  # it may lie in memory that is the task's
        self._tensors = state
        for name, view in self._views.items():
            tensor = state[name]
            if tensor.data_ptr() != view.data_ptr():
                with torch.no_grad():
                    view.copy_(tensor)
                    tensor.data = view
        self._structure = _Structure(self.module, state.values(), self._transient)

    def _put_back(self) -> None:
        """Put back the layers and tensors in whose places a task has put others, as a measurement may have."""
        self._structure.put_back()
        for spec in self.layout.tensors:
            tensor, view = self._tensors[spec.name], self._views.get(spec.name)
            if view is not None:
                tensor.data = view
            elif tuple(tensor.shape) != spec.shape:
                tensor.data = torch.empty(spec.shape, dtype=tensor.dtype, device=tensor.device)
        self._structure = _Structure(self.module, self._tensors.values(), self._transient)

    def _check_bound(self) -> None:
        """Refuse a module whose state_dict gives copies: what is loaded would not reach it."""
        for name, tensor in _state(self.module).items():
            if name in self._views and tensor.numel() and tensor.data_ptr() != self._views[name].data_ptr():
                raise UpdateRefused(f"state_dict() gives a copy of {name!r}; it must give the tensor itself")


class _Structure:
    """What a module is made of, to see at a glance that it still is; to walk its state takes a small step's time.

    Of the `transient` buffers it is the first ones.
    """

    def __init__(self, module: Module, tensors: Iterable[Tensor], transient: Iterable[_Transient]) -> None:
        self.layers = tuple(module.modules())
        self.parameters = tuple(module.parameters())
        self._holders: list[Any] = [
            holder for layer in self.layers for holder in (layer._parameters, layer._buffers, layer._modules)
        ]
        is_python = all(isinstance(holder, dict) for holder in self._holders)  # TorchScript's are none
        self._values: Any = dict.values if is_python else methodcaller("values")
        self._firsts = [dict(holder) for holder in self._holders]
        first_of = {id(holder): first for holder, first in zip(self._holders, self._firsts, strict=True)}
        for holder, name, buffer, _ in transient:
            if id(holder) in first_of:
                first_of[id(holder)][name] = buffer
        self._held = [part for first in self._firsts for part in first.values()]
        self._number = len(self._held)
        self._tensors = list(tensors)
        self._places = list(map(Tensor.data_ptr, self._tensors))
        self._shapes = [tensor.shape for tensor in self._tensors]

    def is_unchanged(self) -> bool:
        """Say whether every layer holds the same layers and tensors, and each tensor lies where it lay."""
        return (
            sum(map(len, self._holders)) == self._number
            and all(map(is_, self._now(), self._held))
            and list(map(Tensor.data_ptr, self._tensors)) == self._places
            and [tensor.shape for tensor in self._tensors] == self._shapes
        )

    def put_back(self) -> None:
        """Let every layer hold the same layers and tensors again."""
        for holder, first in zip(self._holders, self._firsts, strict=True):
            if isinstance(holder, dict):
                holder.clear()
                holder.update(first)
                continue
            for name, part in first.items():  # no more can be changed in TorchScript
                if holder[name] is not part:
                    holder[name] = part

    def _now(self) -> Iterator[Any]:
        return chain.from_iterable(map(self._values, self._holders))


def _writes(tensor: Tensor) -> float:
    """Count what was written to a tensor; NaN where torch does not, of one that was made in inference mode."""
    try:
        return tensor._version
    except RuntimeError:
        return math.nan


def _copy_of(buffer: Tensor | None) -> Tensor | None:
    """Copy a buffer that torch can write to."""
    if buffer is None or is_expanded(buffer) or buffer.is_inference():
        return None
    return buffer.detach().clone()


def _state(module: Module) -> dict[str, Tensor]:
    """Give the module's tensors by name, shared ones once, as themselves and not as copies."""
    return _unshared(module)[0]


def _unshared(module: Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Give the state's tensors once each, and the further names of shared ones."""
    seen: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    values: Mapping[str, Any] = module.state_dict(keep_vars=True)
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise UpdateRefused(
                f"the model's state holds {name!r}, a {type(value).__name__}; only tensors can be summed"
            )
        if id(value) in seen:
            aliases[name] = seen[id(value)]
            continue
        seen[id(value)] = name
        tensors[name] = value
    return tensors, aliases


def _layout(module: Module) -> Layout:
    """Lay out a module's state. Errors: UpdateRefused for uninitialised (lazy) or unsummable tensors."""
    tensors, aliases = _unshared(module)
    lazy = [name for name, tensor in tensors.items() if torch.nn.parameter.is_lazy(tensor)]
    if lazy:
        raise UpdateRefused(f"tensor {lazy[0]!r} has no shape yet; run the model once inside Task.model")
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided:
            raise UpdateRefused(
                f"tensor {name!r} is sparse and has no place in a sum; leave it out of the state, register_buffer("
                f"{name.rpartition('.')[2]!r}, ..., persistent=False), or let it be dense (.to_dense())"
            )
    shapes = {name: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for name, tensor in tensors.items()}
    moved = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    buffers = [name for name, tensor in tensors.items() if tensor.is_floating_point() and name not in moved]
    return Layout.of(shapes, aliases, buffers)
