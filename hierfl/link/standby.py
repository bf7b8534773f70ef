"""A standby of a federation's root, or of a member: it answers members that it does not lead, until it does.

It and the leader see the same folder and journal, on storage that both reach; members know the addresses of both.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from hierfl.config.schema import RunConfig
from hierfl.errors import ConfigError, HierflError, OutputError, Overtaken
from hierfl.journal import Store
from hierfl.link.approval import config_digest
from hierfl.link.dialer import Dialer
from hierfl.link.door import Door, Tell
from hierfl.link.fits import check_state
from hierfl.link.identity import exchanging
from hierfl.link.kit import Kit
from hierfl.link.permits import Peer
from hierfl.link.serving import Serving, check_member, check_root, join, member_journal, serve
from hierfl.link.times import Times
from hierfl.monitor.records import Monitor
from hierfl.reopen import config_of
from hierfl.rundir import RunDir
from hierfl.runtime.opening import store_of
from hierfl.standby import Standby, see, watched
from tiers.federation import parent
from tiers.lease import LEAD, LEADS, LEFT

__all__ = ["NOT_LEADING", "Newest", "Waiting", "join_in_turn", "serve_in_turn"]

NOT_LEADING = "a standby, not leading"
"""What a member is answered that calls a standby; it goes on to the next address."""


class Waiting:
    """Answers members that this process does not lead, and remembers who called."""

    def __init__(
        self,
        kit: Kit,
        listen: str,
        federation: str,
        members: Sequence[str],
        now: Callable[[], float] = time.monotonic,
        tell: Tell = lambda level, node, said: None,
    ) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._called_s: dict[str, float] = {}
        handlers = {
            "Control": grpc.stream_stream_rpc_method_handler(self._stream),
            "Fetch": grpc.unary_stream_rpc_method_handler(self._stream),
            "Deliver": grpc.stream_unary_rpc_method_handler(self._refuse),
        }
        self._door = Door(kit, listen, federation, members, handlers, tell=tell)
        self.port = self._door.port
        self._door.open()

    def callers(self, within_s: float) -> int:
        """Count the members that called within so many seconds."""
        with self._lock:
            return sum(self._now() - called_s <= within_s for called_s in self._called_s.values())

    def close(self) -> None:
        """Answer nobody any more."""
        self._door.close(0.0)

    def _refuse(self, request: Any, context: Any, peer: Peer, node: str) -> Any:
        with self._lock:
            self._called_s[node] = self._now()
        context.abort(grpc.StatusCode.UNAVAILABLE, NOT_LEADING)

    def _stream(self, request: Any, context: Any, peer: Peer, node: str) -> Iterator[Any]:
        yield self._refuse(request, context, peer, node)


def serve_in_turn(
    serving: Serving,
    monitors: Callable[[], Sequence[Monitor]],
    named: Path | None,
) -> Mapping[str, Any]:
    """Stand by, and serve the root once nobody else does; return the run's summary, whoever ended it.

    `named`: the run; None takes the newest one in `output.dir` that somebody is seen to lead. Errors: HierflError;
    OutputError where the run has ended, and not well.
    """
    check_root(serving)
    import hierfl.runtime.worker  # noqa: F401  # what is heavy is there before it is needed

    def tell(said: str) -> None:
        serving.log("info", serving.kit.path, said)

    while True:
        choose = (lambda: named) if named is not None else Newest(serving.config)
        run_dir, reason, is_over = _wait(serving, choose, _journal, tell, takes_any=named is not None)
        if is_over:
            tell(f"{run_dir}: {reason}")
            return _summary(run_dir)
        tell(f"takes up {run_dir}: {reason}")
        try:
            return serve(serving, monitors(), run_dir, at_once=True)
        except Overtaken as error:
            tell(str(error))
            serving.lanes.clear()


def join_in_turn(
    serving: Serving,
    monitors: Callable[[], Sequence[Monitor]],
    state: Path,
    stopping: threading.Event,
    *,
    data: Path | None = None,
    reached: Callable[[Dialer | None], None] = lambda dialer: None,
) -> str:
    """Stand by, and serve a member from its `state` once nobody else does; as `join`, whoever ended it.

    Errors: as of `join`; ConfigError for a member whom others know by one address.
    """
    check_member(serving)
    path = serving.kit.path
    if exchanging(serving.config, path):
        raise ConfigError(
            f"{path} hands vectors to the other members of {parent(path)}, which know one address of it (link.peers):"
            " it has no standby; without --standby `hierfl join` serves it, and goes on where it was after a failure"
        )
    check_state(state, serving.config.name, path)
    import hierfl.runtime.worker  # noqa: F401

    def tell(said: str) -> None:
        serving.log("info", path, said)

    def sleep(wait_s: float) -> None:
        if stopping.wait(wait_s):
            raise _Stopped

    while True:
        try:
            _, reason, is_over = _wait(
                serving, lambda: state, member_journal, tell, sleep=sleep, takes_any=True, anew=True
            )
        except _Stopped:
            return ""
        if is_over:
            return reason
        tell(f"serves {path} from {state}: {reason}")
        try:
            return join(serving, monitors(), state, stopping, data=data, reached=reached)
        except Overtaken as error:
            tell(str(error))


class _Stopped(Exception):
    """The process was asked to end while it stood by."""


def _wait(
    serving: Serving,
    choose: Callable[[], Path | None],
    open_store: Callable[[Path], Store],
    tell: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    **watch: bool,
) -> tuple[Path, str, bool]:
    """Wait for a run that is to be led, or that has ended; `watch`: as of `Watch`. Errors: HierflError."""
    config, lease_s = serving.config, serving.config.redundancy.lease_s
    window_s = 2 * max((Times(config.links[path].deadline_s).silence_s for path in serving.members), default=0.0)
    with contextlib.ExitStack() as stack:
        callers = lambda: 0  # noqa: E731
        if serving.members:
            door = Waiting(serving.kit, serving.listens_at(), config.name, serving.members, tell=serving.log)
            stack.callback(door.close)
            callers = lambda: door.callers(window_s)  # noqa: E731
            tell(f"answers members at port {door.port}")
        standby = Standby(choose, open_store, lease_s, tell, callers=callers, patience_s=lease_s + window_s, **watch)
        run_dir, verdict = standby.wait(sleep=sleep)
    if verdict.failed:
        raise OutputError(f"{run_dir} has ended: {verdict.reason}")
    return run_dir, verdict.reason, verdict.what != LEAD


class Newest:
    """Names the newest run of a configuration, once somebody leads it or has left it, until there is another."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._digest = config_digest(config)
        self._found: Path | None = None
        self._journals: dict[Path, Store | None] = {}

    def __call__(self) -> Path | None:
        """Look once more."""
        files = sorted(self._config.output.folder.glob(f"{self._config.name}-*/config.yaml"), reverse=True)
        for run_dir in (file.parent for file in files):
            if run_dir == self._found or self._is_led(run_dir):
                self._found = run_dir
                break
        return self._found

    def _is_led(self, run_dir: Path) -> bool:
        if run_dir not in self._journals:
            self._journals[run_dir] = self._journal(run_dir)
        store = self._journals[run_dir]
        seen = see(store) if store is not None else None
        return seen is not None and seen.lease is not None and seen.lease.state in (LEADS, LEFT)

    def _journal(self, run_dir: Path) -> Store | None:
        """Give a run's journal; None if the run is another's, or keeps none."""
        with contextlib.suppress(HierflError):
            config = config_of(RunDir(run_dir))
            return store_of(config, run_dir) if config_digest(config) == self._digest else None
        return None


def _journal(run_dir: Path) -> Store:
    """Give the journal of a run, as the run has it. Errors: HierflError."""
    return watched(store_of(config_of(RunDir.open(run_dir)), run_dir))


def _summary(run_dir: Path) -> Mapping[str, Any]:
    """Read the summary of a run that another process has ended. Errors: OutputError."""
    try:
        found: Mapping[str, Any] = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{run_dir / 'summary.json'} cannot be read: {error}") from error
    return found
