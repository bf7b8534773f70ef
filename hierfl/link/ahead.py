"""Reads ahead: what comes next is on its way while what has come is checked and written."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

__all__ = ["ahead"]

T = TypeVar("T")

LOOK_S = 0.5


def ahead(source: Iterator[T], depth: int = 4) -> Iterator[T]:
    """Give what a source gives, at most `depth` elements of it read before they are wanted, in a thread.

    Errors of the source are raised where they come. The thread ends with the source, or once nobody wants any more.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    unwanted = threading.Event()

    def put(found: tuple[Any, BaseException | None]) -> bool:
        while not unwanted.is_set():
            try:
                ready.put(found, timeout=LOOK_S)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for element in source:
                if not put((element, None)):
                    return
        except BaseException as error:
            put((None, error))
        else:
            put((None, StopIteration()))

    threading.Thread(target=read, name="ahead", daemon=True).start()
    try:
        while True:
            element, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield element  # type: ignore[misc]
    finally:
        unwanted.set()
