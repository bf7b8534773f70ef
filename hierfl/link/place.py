"""A member's place at work, for a hub without a centre: what the hub asks is done on vectors that lie here, or are
taken from who has them.

What is computed is what `hierfl.runtime.places.Place` computes in a simulation; what comes of it stays here, in files,
and the hub is told its digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl import checkpoint
from hierfl.config.schema import RunConfig
from hierfl.errors import PeerUnreached
from hierfl.learning.compression import Packed, as_sum
from hierfl.learning.ring import PartialSum
from hierfl.learning.state import Layout, ModelState
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.asked import Asked, admitted
from hierfl.link.calls import COMMIT, WRITE
from hierfl.link.codec import folder_name_in
from hierfl.link.objects import Objects
from hierfl.link.payload import Outgoing, Shape
from hierfl.link.remote import Given, Remote, RemoteState, Vector, thing_out
from hierfl.link.store import Store
from hierfl.runtime.hub import grid_of
from hierfl.runtime.places import Place

__all__ = ["MODEL", "Take", "Workplace"]

MODEL, OWN = "model.safetensors", "own.safetensors"
TAKEN_AT_ONCE = 8

Take = Callable[[str, Shape, bytes, Path, int | None], None]
"""Brings a vector from who has it (the hub's own process, where that is empty) to a place, as `Neighbours.take`."""


class Workplace:
    """One member's. `config`: of the whole federation; `store`: where its updates lie; `models`: where models go that
    people take.
    """

    def __init__(self, config: RunConfig, path: str, objects: Objects, store: Store, models: Path, take: Take) -> None:
        self._config = config
        self.path = path
        self._objects = objects
        self._store = store
        self._models = models
        self._take = take
        self._place = Place()
        self._run = ""
        self._update: Outgoing | None = None

    def begin(self, run: str) -> None:
        """Begin a run, or take one up again: nothing is wanted of another one. Errors: LinkError."""
        folder_name_in(run, "a run's name")
        if self._run not in ("", run):
            self._objects.clear()
        if run != self._run:
            self._objects.forget_all_before(run)
        self._run = run

    def finished(self) -> None:
        """The run has finished: what would be needed to go on with it is let go of; the models stay."""
        if self._run:
            self._objects.forget(self._run)

    def offered(self, digest: bytes) -> Outgoing | None:
        """Give what lies here, to hand out; None if it does not."""
        return self._objects.find(digest) or self._own_update(digest)

    def bring(self, holder: str, shape: Shape, digest: bytes, path: Path, limit: int | None = None) -> Path:
        """Give the file of a vector, which comes to `path` unless it is here. Errors: LinkError, PeerUnreached."""
        found = self._objects.file(digest)
        if found is None and self._own_update(digest) is not None:
            found = self._store.update(digest)
        if found is not None:
            return found
        if holder == self.path:
            raise PeerUnreached(holder, f"{self.path} does not have {digest.hex()[:12]} any more")
        self._take(holder, shape, digest, path, limit)
        return path

    def _own_update(self, digest: bytes) -> Outgoing | None:
        """Give an update that was trained here, if this is one's digest."""
        if not self._store.update(digest).exists():
            return None
        last = self._update
        if last is None or last.digest != digest:
            last = self._store.outgoing(digest)
            self._update = last or self._update
        return last

    def carry_out(self, layout: Layout, ask: wire.Ask) -> wire.Placed:
        """Do what is asked. `layout`: of the model. Errors: LinkError, UpdateRefused, OutputError."""
        self._objects.drop(ask.drop)
        asked = admitted(self._config, self.path, layout, ask.place)
        with ThreadPoolExecutor(TAKEN_AT_ONCE, thread_name_prefix="take") as threads:
            files = self._files(asked, threads)
        try:
            values = [self._value(one, files) for one in asked.things]
            if asked.method == COMMIT:
                return wire.Placed(model_digest=self._commit(asked, values))
            if asked.method == WRITE:
                return wire.Placed(model_digest=self._write(self._models / MODEL, asked, values[0]))
            made = getattr(self._place, asked.method)(*asked.first, *values)
            numbers = [made[0]] if isinstance(made[0], float) else []
            return wire.Placed(numbers=numbers, things=self._kept(f"{ask.id:016x}", _plain(asked, made)))
        finally:
            for digest in files:
                self._objects.taken(digest).unlink(missing_ok=True)

    def _files(self, asked: Asked, threads: ThreadPoolExecutor) -> dict[bytes, Path]:
        """Bring everything that a call is handed, from several places at once; give its files. Errors: LinkError."""
        wanted: dict[bytes, tuple[Remote, int | None]] = {}
        for one, limit in zip(asked.things, asked.limits, strict=True):
            for held in one.parts if isinstance(one, RemoteState) else [one] if one is not None else []:
                wanted.setdefault(held.digest, (held, limit))
        coming = {
            digest: threads.submit(self.bring, held.holder, held.shape, digest, self._objects.taken(digest), limit)
            for digest, (held, limit) in wanted.items()
        }
        return {digest: one.result() for digest, one in coming.items()}

    def _value(self, given: Given, files: Mapping[bytes, Path]) -> Any:
        """Read what a call is handed, without a copy; an update that was trained here lies in the store."""
        if given is None:
            return None
        if isinstance(given, RemoteState):
            return {name: self._value(one.held, files).floats.reshape(one.axes) for name, one in given.vectors.items()}
        return given.of(*self._store.read(files[given.digest], given.shape))

    def _commit(self, asked: Asked, values: Sequence[Any]) -> str:
        """Keep what a checkpoint needs, and the model for people, too. Errors: LinkError, OutputError."""
        rounds_done, keep, has_own, alive = asked.first
        vectors: list[tuple[NDArray[Any], NDArray[np.int64]]] = []
        for value in values:
            if isinstance(value, ModelState):
                vectors.append((value.floats, value.ints))
            elif value is not None:
                vectors.extend((array.reshape(-1), np.empty(0, np.int64)) for array in value.values())
        self._objects.commit(self._run, rounds_done, vectors, keep + 1)  # the hub may die before it has its own
        self._objects.clear(alive)
        if has_own:
            self._write(self._models / OWN, asked, values[-1])
        return self._write(self._models / MODEL, asked, values[0])

    def _write(self, path: Path, asked: Asked, model: ModelState) -> str:
        """Write a model as a file for people, its owner's alone; give its digest. Errors: OutputError."""
        checkpoint.save_model(path, asked.layout, model, is_private=True)
        return model.digest(asked.layout)

    def _kept(self, turn: str, made: Sequence[Any]) -> list[wire.Thing]:
        """Keep what came of a call, all but its header, under names of this call. Errors: LinkError."""
        return [thing_out(self._keep(f"{turn}-{number}", value)) for number, value in enumerate(made[1:])]

    def _keep(self, name: str, value: Any) -> Given:
        if value is None:
            return None
        if isinstance(value, ModelState | PartialSum):
            payload = self._objects.put(name, value.floats, value.ints)
            weight = value.weight if isinstance(value, PartialSum) else 0
            return Remote(self.path, name, payload.shape, payload.digest, weight)
        vectors = {}
        state: Mapping[str, NDArray[Any]] = value
        for number, (key, array) in enumerate(state.items()):
            payload = self._objects.put(f"{name}-{number}", np.ravel(array), np.empty(0, np.int64))
            held = Remote(self.path, f"{name}-{number}", payload.shape, payload.digest)
            vectors[key] = Vector(np.shape(array), held)
        return RemoteState(vectors)


def _plain(asked: Asked, made: Sequence[Any]) -> Sequence[Any]:
    """Put a compressed change on its round's grid: over links it goes as the sum that it stands for."""
    return [as_sum(one, grid_of(asked.first[1])) if isinstance(one, Packed) else one for one in made]
