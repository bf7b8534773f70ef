"""Vectors that members hold and this process needs: brought in threads, while the calls that wait for them keep their
turn.

It needs them where it does the work of members beside, or convenes a hub below another: what comes of that goes up.
"""

from __future__ import annotations

import queue
import secrets
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hierfl.errors import HierflError, RuntimeUnavailable
from hierfl.link.payload import read
from hierfl.link.peers import Neighbours
from hierfl.link.remote import Remote, RemoteState, is_remote

__all__ = ["Deferred", "Taker"]

AT_ONCE = 8


class Taker:
    """Brings vectors into this process, by way of files in `folder`; `neighbours`: None where it takes from nobody."""

    def __init__(self, folder: Path, neighbours: Neighbours | None) -> None:
        self._folder = folder
        self._neighbours = neighbours

    def value(self, given: Any) -> Any:
        """Give a model, a sum or a state that lies elsewhere; all else as it is. Errors: RuntimeUnavailable."""
        if isinstance(given, RemoteState):
            return {name: self.value(one.held).floats.reshape(one.axes) for name, one in given.vectors.items()}
        if not isinstance(given, Remote):
            return given
        assert self._neighbours is not None, f"{given.digest.hex()[:12]} stays with {given.holder}"
        path = self._folder / f"{given.digest.hex()}.{secrets.token_hex(4)}.taken"  # two may need the same
        try:
            self._neighbours.take(given.holder, given.shape, given.digest, path, given.limit)
            return given.of(*read(path, given.shape))
        except HierflError as error:
            raise RuntimeUnavailable(str(error)) from error
        finally:
            for left in self._folder.glob(f"{path.name}*"):  # it goes once nobody reads it; a part of it is of no use
                left.unlink(missing_ok=True)

    def close(self) -> None:
        """Bring nothing more."""
        if self._neighbours is not None:
            self._neighbours.close()


class Deferred:
    """Calls that wait for vectors, and those to the same actor behind them.

    `call`: makes a call once all is here. `news`: is called from a thread when something has come.
    """

    def __init__(
        self, taker: Taker, call: Callable[[int, str, str, tuple[Any, ...]], None], news: Callable[[], None]
    ) -> None:
        self._taker = taker
        self._call = call
        self._news = news
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="taking")
        self._came: queue.SimpleQueue[tuple[int, tuple[Any, ...], HierflError | None]] = queue.SimpleQueue()
        self._waiting: dict[str, deque[tuple[int, str, tuple[Any, ...]]]] = {}
        self._ready: dict[int, tuple[Any, ...]] = {}

    def holds(self, actor: str, arguments: tuple[Any, ...]) -> bool:
        """Say whether a call has to wait."""
        return actor in self._waiting or any(map(is_remote, arguments))

    def add(self, ticket: int, actor: str, method: str, arguments: tuple[Any, ...]) -> None:
        """Take a call."""
        self._waiting.setdefault(actor, deque()).append((ticket, method, arguments))
        self._threads.submit(self._bring, ticket, arguments)

    def go_on(self) -> list[tuple[int, str, HierflError]]:
        """Make the calls whose vectors have come, each actor's in their order; give those that cannot be made."""
        failed: dict[int, HierflError] = {}
        while not self._came.empty():
            ticket, values, error = self._came.get()
            self._ready[ticket] = values
            if error is not None:
                failed[ticket] = error
        over: list[tuple[int, str, HierflError]] = []
        for actor, calls in list(self._waiting.items()):
            while calls and calls[0][0] in self._ready:
                ticket, method, _ = calls.popleft()
                values = self._ready.pop(ticket)
                if ticket in failed:
                    over.append((ticket, actor, failed[ticket]))
                else:
                    self._call(ticket, actor, method, values)
            if not calls:
                del self._waiting[actor]
        return over

    def close(self) -> None:
        """Bring nothing more."""
        self._taker.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _bring(self, ticket: int, arguments: tuple[Any, ...]) -> None:
        try:
            self._came.put((ticket, tuple(map(self._taker.value, arguments)), None))
        except HierflError as error:
            self._came.put((ticket, (), error))
        except Exception as error:  # ours: whoever waits must hear of it
            self._came.put((ticket, (), HierflError(f"what {arguments!r} needs could not be brought: {error!r}")))
        self._news()
