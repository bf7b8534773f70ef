"""Modules of one task beside each other: for training and for merging, in workers that are threads, in run after run.

Each is bound to vectors of its own and changed there, so none may share a layer or a tensor with another. Most tasks
make theirs anew each time, and these are bound as they are: a copy is not the same for all that a module may hold. A
task that made its module once, and holds it, gets it copied each time, and keeps its own as it was.

Whether somebody else holds a part of a module is seen by its references: there are more than the module's own.
"""

from __future__ import annotations

import copy
import sys
import threading
import weakref
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from types import CellType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module

from hierfl.errors import SiteFailed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["made"]

Cached: Any = type(lru_cache(len))
"""What `lru_cache` makes of a function."""

FUNCTIONS = FunctionType, Cached
"""What deepcopy gives as it is."""

HOLDERS = dict, list, tuple, set, deque, MethodType, partial, CellType, *FUNCTIONS
"""What a layer's attributes may be that refers to layers and tensors."""

_LOCK = threading.Lock()

_GIVEN: dict[int, tuple[weakref.ref[Any], str]] = {}
"""The layers and tensors that were given out as they are, while they live, by id, and why they were not copied."""


def made(build: Callable[[], Any]) -> Any:
    """Build a module that shares no layer and no tensor with one that was built before; give what is none as it is.

    What cannot be copied is given as it is, once. Errors: SiteFailed where it comes again; whatever `build` raises.
    """
    box = [build()]  # the only reference from here: others are counted
    if not isinstance(box[0], Module):
        return box[0]
    with _LOCK:
        _check_anew(box[0])
        if not _is_held(box):
            return _given(box[0], "nobody else held it")
        try:
            _check_functions(box[0])
            return _copied(box[0])
        except Exception as error:  # whatever the task's objects raise; it is needed once, perhaps
            return _given(box[0], f"{type(error).__name__}: {error}")


def _copied(module: Module) -> Module:
    """Copy a module; TorchScript's parameters would be computed of the first ones', and not be trained."""
    with torch.no_grad():
        found = copy.deepcopy(module)
    for one, other in zip(found.parameters(), module.parameters(), strict=True):
        one.requires_grad_(other.requires_grad)
    return found


def _check_anew(module: Module) -> None:
    """Errors: SiteFailed for a part that was given out as it is: what has become of it since, nobody knows."""
    for part in _all(module):
        known, why = _GIVEN.get(id(part), (None, ""))
        if known is not None and known() is part:
            raise SiteFailed(
                "the task's model() gave a module, or a part of one, that it had given before, and that was not copied"
                f" then ({why}); let model() make it anew each time"
            )


def _given(module: Module, why: str) -> Module:
    """Give a module out as it is, and remember that, and why, as long as its parts live."""
    for part in _all(module):
        key = id(part)

        def forget(gone: weakref.ref[Any], key: int = key) -> None:
            if _GIVEN.get(key, (None, ""))[0] is gone:
                del _GIVEN[key]

        _GIVEN[key] = weakref.ref(part, forget), why
    return module


def _all(module: Module) -> Iterator[Any]:
    """Give a module's layers and tensors, each once."""
    yield from module.modules()
    yield from module.parameters()
    yield from module.buffers()


def _is_held(box: list[Any]) -> bool:
    """Say whether somebody else may hold a part of the module in a box."""
    inside = Counter(map(id, _references(_attributes(box[0]))))
    inside[id(box[0])] += 1
    parts = [*_all(box[0]), Module()]
    references = [sys.getrefcount(part) for part in parts]
    alone = references.pop()
    return any(number - inside[id(part)] > alone for part, number in zip(parts, references, strict=False))


def _check_functions(module: Module) -> None:
    """Errors: TypeError for a function that knows the module's layers or tensors: a copy's would know these, too."""
    parts = set(map(id, _all(module)))
    functions = [holder for holder in _holders(_attributes(module)) if isinstance(holder, FUNCTIONS)]
    if any(id(part) in parts for part in _references(functions)):
        raise TypeError("a function in it knows its layers")


def _attributes(module: Module) -> list[Any]:
    return [vars(layer) for layer in module.modules()]


def _references(starts: Iterable[Any]) -> Iterator[Any]:
    """Give each layer and tensor as often as containers and functions refer to it, from some of these on."""
    for holder in _holders(starts):
        yield from (one for one in _held_by(holder) if isinstance(one, Module | Tensor))


def _holders(starts: Iterable[Any]) -> Iterator[Any]:
    """Give containers and functions, and those that they hold, each once."""
    waiting, seen = [*starts], set[int]()
    while waiting:
        holder = waiting.pop()
        if id(holder) not in seen:
            seen.add(id(holder))
            yield holder
            waiting += [one for one in _held_by(holder) if isinstance(one, HOLDERS)]


def _held_by(holder: Any) -> Iterable[Any]:
    """Give what a container or a function holds."""
    match holder:
        case dict():
            return holder.values()
        case MethodType():
            return (holder.__self__,)
        case FunctionType():
            named = holder.__kwdefaults__ or {}
            return (*(holder.__closure__ or ()), *(holder.__defaults__ or ()), *named.values(), *vars(holder).values())
        case partial():
            return (holder.func, *holder.args, *holder.keywords.values())
        case Cached():
            return (holder.__wrapped__,)
        case CellType():
            try:
                return (holder.cell_contents,)
            except ValueError:  # nothing was put there yet
                return ()
    held: Iterable[Any] = holder
    return held
