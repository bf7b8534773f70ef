"""What a member keeps on disk: finished updates until the federation has gone on, models as they come.

An update is written before the hub hears of it, so whichever process dies, it is sent again and never trained again.
Nobody waits for the disk: after a machine's own death a file may be spoilt, which its digest tells; then the same is
trained once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import LinkError
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.codec import parse
from hierfl.link.files import write_private
from hierfl.link.payload import Outgoing, Shape, read
from hierfl.link.spool import Spool

__all__ = ["Store"]

ANSWERS_KEPT = 4
MODELS_KEPT = 2


class Store:
    """A folder of answers, updates and models. Errors: LinkError if it cannot be written.

    `writer`: the number of the process that writes; no two write into one file.
    """

    def __init__(self, folder: Path, writer: int = 0) -> None:
        self.folder = folder
        self._writer = writer
        try:
            (folder / "answers").mkdir(parents=True, exist_ok=True, mode=0o700)
            self.updates, self.models = Spool(folder / "updates"), Spool(folder / "models")
        except OSError as error:
            raise LinkError(f"{error.filename} cannot be made: {error.strerror}") from error

    def answer(self, ask_id: int) -> wire.Answer | None:
        """Give the answer to what was asked before, if its update is still here, whole."""
        try:
            found: wire.Answer = parse(wire.Answer, self._answer_file(ask_id).read_bytes())
        except (OSError, LinkError):
            return None
        digest = found.trained.update.digest
        return found if digest and self.outgoing(digest) is not None else None

    def keep(self, answer: wire.Answer) -> None:
        """Keep an answer; its update is here already. The oldest go."""
        write_private(self._answer_file(answer.id), answer.SerializeToString())
        files = sorted((self.folder / "answers").glob("*.answer"), key=lambda file: file.stat().st_mtime_ns)
        for old in files[:-ANSWERS_KEPT]:
            old.unlink(missing_ok=True)
        with contextlib.suppress(LinkError, OSError):
            kept = [parse(wire.Answer, file.read_bytes()) for file in files[-ANSWERS_KEPT:]]
            names = {f"{one.trained.update.digest.hex()}.update" for one in kept}
            for file in self.updates.files():
                if file.name not in names:
                    self.updates.free(file)

    def update(self, digest: bytes) -> Path:
        """Give the place of an update."""
        return self.updates.folder / f"{digest.hex()}.update"

    def outgoing(self, digest: bytes) -> Outgoing | None:
        """Give an update by its digest; None if it is not here, or spoilt."""
        for file in (self.folder / "answers").glob("*.answer"):
            with contextlib.suppress(LinkError, OSError, ValueError):
                said = parse(wire.Answer, file.read_bytes()).trained.update
                if said.digest == digest:
                    shape = Shape(said.num_floats, said.num_ints, said.dtype)
                    found = Outgoing(*self.read(self.update(digest), shape))
                    return found if found.digest == digest else None
        return None

    def put(self, floats: NDArray[Any], ints: NDArray[np.int64]) -> Outgoing:
        """Write an update, whole or not at all, and give it to send: it is hashed while it is written.

        Errors: LinkError.
        """
        partial = self.updates.folder / f"new.{self._writer}.partial"
        with ThreadPoolExecutor(1, thread_name_prefix="store") as aside:
            written = aside.submit(_write, lambda: self.updates.begin(partial), floats, ints)
            payload = Outgoing(floats, ints)
        try:
            written.result()
            self.updates.rename(partial, self.update(payload.digest))
        except OSError as error:
            self.updates.trim()
            raise LinkError(f"{partial} cannot be written: {error.strerror or error}") from error
        return payload

    def model(self, digest: bytes) -> Path:
        """Give the place of a model, and let go of older ones."""
        path = self.models.folder / f"{digest.hex()}.model"
        others = [file for file in self.models.files() if not file.name.startswith(digest.hex())]
        for old in others[: -(MODELS_KEPT - 1)]:
            self.models.free(old)
        return path

    def read(self, path: Path, shape: Shape) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Give the numbers of a file, which may be one of these: see `payload.read`. Errors: OSError, ValueError."""
        own = (spool for spool in (self.updates, self.models) if spool.folder == path.parent)
        return read(path, shape, next(own, None))

    def close(self) -> None:
        """Keep what the next process needs, and no more."""
        self.updates.close()
        self.models.close()

    def _answer_file(self, ask_id: int) -> Path:
        return self.folder / "answers" / f"{ask_id:016x}.answer"


def _write(begin: Callable[[], int], *parts: NDArray[Any]) -> None:
    """Write vectors one after the other, over what lies there."""
    with open(begin(), "wb") as file:
        for part in parts:
            file.write(np.ascontiguousarray(part).data if part.size else b"")
        file.truncate()
