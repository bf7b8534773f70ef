"""The models that members may fetch now: each is hashed once, however many members are asked to train from it."""

from __future__ import annotations

import threading
import weakref

from hierfl.learning.state import ModelState
from hierfl.link.payload import Outgoing

__all__ = ["Shelf"]


class Shelf:
    """Payloads by the model that they are of; one that nobody refers to any more is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._payloads: weakref.WeakValueDictionary[tuple[int, int], _Kept] = weakref.WeakValueDictionary()

    def payload(self, model: ModelState) -> _Kept:
        """Give a model's payload; it keeps the model as long as it is referred to."""
        with self._lock:
            key = (model.floats.ctypes.data, model.floats.size)
            found = self._payloads.get(key)
            if found is None or found.model.ints is not model.ints:
                found = self._payloads[key] = _Kept(model)
            return found


class _Kept(Outgoing):
    """A payload with its model, whose memory cannot be given to another meanwhile."""

    def __init__(self, model: ModelState) -> None:
        super().__init__(model.floats, model.ints)
        self.model = model
