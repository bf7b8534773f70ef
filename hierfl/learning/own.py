"""What a module keeps in plain attributes: a counter, a cache, a running mean that is no buffer.

One module serves site after site, so they begin anew at each: otherwise a result would hang on which sites a worker had
before. Lists, dicts, sets, arrays, tensors and random generators are put back in place, so that what is one object
stays one; numbers, words and objects of other kinds are put back as themselves. Torch's own attributes are left alone.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice, repeat
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from hierfl.learning.overlaps import has_values, is_expanded
from hierfl.learning.seeds import derive

__all__ = ["Own"]

TORCHS = frozenset(vars(Module()))
"""Attributes that every module has."""


class Own:
    """The plain attributes of a module's layers as they are now, and all that unregistered ones have."""

    def __init__(self, module: Module) -> None:
        self._layers = list(module.modules())
        self._things: list[Callable[[], Any]] = []
        self._seeds: list[Callable[[int], Any]] = []
        registered = [*module.parameters(), *module.buffers()]
        self._seen = {id(one): one for one in (*self._layers, *registered)}
        self._memory = {place for one in registered if (place := _place(one))}
        for layer in self._layers:  # grows while it is walked
            for name, value in vars(layer).items():
                if name not in TORCHS:
                    self._keep(value)
        self._firsts = [
            {name: value for name, value in vars(layer).items() if name not in TORCHS} for layer in self._layers
        ]
        self._look()

    def begin_anew(self) -> None:
        """Put all of them back; where nothing has changed this is a glance."""
        if not self._is_unchanged():
            for layer, firsts in zip(self._layers, self._firsts, strict=True):
                attributes = vars(layer)
                for name in [name for name in attributes if name not in TORCHS and name not in firsts]:
                    del attributes[name]
                attributes.update(firsts)
            self._look()
        for put_back in self._things:
            put_back()

    def seed(self, seed: int) -> None:
        """Let each generator draw the numbers of this seed, and no two the same."""
        for place, seeded in enumerate(self._seeds):
            seeded(derive(seed, "own", place))

    def _look(self) -> None:
        """See which objects the attributes are; torch's own stand before the layers' own."""
        self._attributes = [vars(layer) for layer in self._layers]
        self._starts = [
            next((place for place, name in enumerate(attributes) if name not in TORCHS), len(attributes))
            for attributes in self._attributes
        ]
        self._number = sum(map(len, self._attributes))
        self._values = list(self._now())

    def _is_unchanged(self) -> bool:
        return sum(map(len, self._attributes)) == self._number and all(map(is_, self._now(), self._values))

    def _now(self) -> Iterator[Any]:
        """Give the attributes' values; no step of this is Python's, for a model may have a thousand layers."""
        return chain.from_iterable(map(islice, map(dict.values, self._attributes), self._starts, repeat(None)))

    def _keep(self, first: Any) -> None:
        """Remember what can be changed in place, with all that is in it."""
        waiting = [first]
        while waiting:
            value = waiting.pop()
            if isinstance(value, str | int | float | None) or id(value) in self._seen:
                continue
            self._seen[id(value)] = value
            if isinstance(value, Module):
                self._layers.append(value)
                waiting += [value._parameters, value._buffers, value._modules]
                continue
            waiting += _parts(value)
            if isinstance(value, Tensor) and _place(value) in self._memory:
                continue  # it is the state's
            put_back, seeded = _generator(value) or (_putting_back(value), None)
            if put_back is not None:
                self._things.append(put_back)
            if seeded is not None:
                self._seeds.append(seeded)


def _parts(value: Any) -> Iterator[Any]:
    """Give what a container holds."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from value


def _place(tensor: Tensor) -> int:
    """Say where a tensor's memory begins; 0 where it has none."""
    return tensor.untyped_storage().data_ptr() if has_values(tensor) else 0


def _putting_back(value: Any) -> Callable[[], Any] | None:
    """Give what puts a value back to what it is now; None where it cannot be changed, or nobody knows how."""
    if isinstance(value, dict):
        return _putting_dict(value)
    if isinstance(value, list | deque):
        return _putting_sequence(value)
    if isinstance(value, set):
        return _putting_set(value)
    if isinstance(value, bytearray):
        return _putting_bytes(value)
    if isinstance(value, Tensor):
        return _putting_tensor(value)
    if isinstance(value, np.ndarray):
        return _putting_array(value)
    return None


def _are_same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Say whether these hold the same objects, not only equal ones."""
    return len(one) == len(other) and all(map(is_, one, other))


def _putting_dict(value: dict[Any, Any]) -> Callable[[], None]:
    first, names, values = dict(value), tuple(value), tuple(value.values())

    def put_back() -> None:
        if not (_are_same(value, names) and all(map(is_, value.values(), values))):  # type: ignore[arg-type]
            value.clear()
            value.update(first)

    return put_back


def _putting_sequence(value: list[Any] | deque[Any]) -> Callable[[], None]:
    first = tuple(value)

    def put_back() -> None:
        if not _are_same(value, first):
            value.clear()
            value.extend(first)

    return put_back


def _putting_set(value: set[Any]) -> Callable[[], None]:
    first = frozenset(value)

    def put_back() -> None:
        if value != first:
            value.clear()
            value.update(first)

    return put_back


def _putting_bytes(value: bytearray) -> Callable[[], None]:
    first = bytes(value)

    def put_back() -> None:
        value[:] = first

    return put_back


def _putting_tensor(value: Tensor) -> Callable[[], None] | None:
    """A tensor that torch computes of others (a weight by `weight_norm`) follows them, and inference tensors stay."""
    if not has_values(value) or is_expanded(value) or value.is_meta:
        return None
    if value.grad_fn is not None or value.is_inference():
        return None
    first, trains = value.detach().clone(), value.requires_grad

    def put_back() -> None:
        value.grad = None
        if value.grad_fn is not None:
            value.detach_()
        if value.requires_grad != trains:
            value.requires_grad_(trains)
        if (value.shape, value.dtype, value.device) != (first.shape, first.dtype, first.device):
            value.data = first.clone()
        else:
            with torch.no_grad():
                value.copy_(first)

    return put_back


def _putting_array(value: np.ndarray[Any, Any]) -> Callable[[], None] | None:
    if not value.flags.writeable or isinstance(value, np.memmap):
        return None
    first = value.copy()

    def put_back() -> None:
        if value.shape != first.shape:
            value.resize(first.shape, refcheck=False)
        np.copyto(value, first)

    return put_back


def _generator(value: Any) -> tuple[Callable[[], Any], Callable[[int], Any] | None] | None:
    """Give what puts a random generator of the module's own back to where it is now, and what seeds it, None for one
    that takes no seed. Anything else is no generator, nor is what has no state: the system's own random numbers.
    """
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state()), value.manual_seed
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return partial(value.setstate, value.getstate()), value.seed
    if isinstance(value, np.random.RandomState):
        state: Any = value.get_state(legacy=False)
        is_twister = state["bit_generator"] == "MT19937"
        return partial(value.set_state, state), (lambda seed: value.seed(seed % 2**32)) if is_twister else None
    if isinstance(value, np.random.Generator):
        bits: Any = value.bit_generator
        return partial(setattr, bits, "state", bits.state), partial(_seed_bits, bits)
    return None


def _seed_bits(bits: Any, seed: int) -> None:
    bits.state = type(bits)(seed).state
