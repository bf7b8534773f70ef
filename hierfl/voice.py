"""How a run tells of itself: every record to every monitor; at its end, however it ends, a summary of what is known.

A run that is taken up again leaves its folder as it is until it has begun its first round: what is told before then
reaches the screen only, and the files once `open` is called.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hierfl import checkpoint
from hierfl.config.schema import RunConfig
from hierfl.errors import HierflError, OutputError
from hierfl.monitor.records import LogOpened, Monitor, Record, RunEnded
from hierfl.monitor.replaced import Replaced
from hierfl.monitor.traffic import Traffic
from hierfl.rundir import RunDir

if TYPE_CHECKING:
    from hierfl.monitor.files import JsonLines

__all__ = ["Voice", "closed_on_error", "emit_to"]


class Voice:
    """Tells every monitor; files first, so that what a person saw is on disk.

    Nothing is on disk before `open`. `facts`: what is known of the run beside its commits, for its summary; `before_s`:
    seconds of its earlier processes; `leads`: whether the run is this process's still.
    """

    def __init__(self, folder: RunDir, config: RunConfig, monitors: Sequence[Monitor], before_s: float = 0.0) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = {}
        self.leads: Callable[[], bool] = lambda: True
        self.started_s = time.time()
        self._begun_s = time.monotonic()
        self.before_s = before_s
        self._config = config
        self._ended = False
        self._files: list[Monitor] = []
        self._lines: JsonLines | None = None
        self._traffic = Traffic()
        self._replaced = Replaced()
        self._listeners: list[Monitor] = [self._traffic, self._replaced]
        self._by_kind: dict[type[Record], Sequence[Monitor]] = {}
        self._monitors = list(monitors)
        self._held: list[Record] | None = []

    def open(self) -> None:
        """Write what was told so far to the files, and from now on all else."""
        from hierfl.monitor.files import JsonLines

        held, self._held = self._held or [], None  # a stop in the next second leaves a summary, too
        self._lines = JsonLines(self.folder.path, lambda: self.leads())
        self._lines.on(LogOpened(0.0, self.started_s))
        self._files.append(self._lines)
        if self._config.output.tensorboard:
            from hierfl.monitor.tensorboard import TensorBoard

            self._files.append(TensorBoard(self.folder.path, self._config))
        for record in held:
            self._write(record)

    def listen(self, *monitors: Monitor) -> None:
        """Tell more monitors from now on, before the others."""
        self._listeners[:0] = monitors
        self._by_kind.clear()

    def emit(self, record: Record) -> None:
        """Tell a record."""
        self._ended = self._ended or isinstance(record, RunEnded)
        for listener in self._heeding(type(record)):
            listener.on(record)
        self._write(record)
        for monitor in self._monitors:
            monitor.on(record)

    def flush(self) -> None:
        """Have on disk what was told: in a round of hours nothing else writes it."""
        if self._lines is not None:
            self._lines.flush()

    def _heeding(self, kind: type[Record]) -> Sequence[Monitor]:
        """List the listeners that are to be told records of a class; there are many records of few classes."""
        if kind not in self._by_kind:
            self._by_kind[kind] = [one for one in self._listeners if kind in getattr(one, "heeds", (kind,))]
        return self._by_kind[kind]

    def now(self) -> float:
        """Give the seconds since this process took the run up."""
        return time.time() - self.started_s

    def spent_s(self) -> float:
        """Give the same by a clock that nobody sets: what is added up over the processes of a run."""
        return time.monotonic() - self._begun_s

    def summary(self, status: str) -> dict[str, Any]:
        """Say what is known of the run, up to its newest checkpoint."""
        newest = checkpoint.known(self.folder.path)
        return {
            "name": self._config.name,
            "seed": self._config.seed,
            "status": status,
            "rounds": newest.rounds_done if newest is not None else 0,
            "rounds_planned": self._config.federation.root.rounds,
            "model_digest": newest.model_digest if newest is not None else None,
            "wall_s": round(spent_s := self.spent_s(), 3),
            "wall_s_total": round(self.before_s + spent_s, 3),
            **self.facts,
            **self._traffic.record(),
            **self._replaced.record(),
            "versions": self.folder.versions(),
            "run_dir": str(self.folder.path),
        }

    def end(self, status: str, **said: Any) -> None:
        """Tell an end before the run's time, and leave it in the summary, beside what an earlier process knew."""
        if self._ended:
            return
        earlier: Mapping[str, Any] = {}
        with contextlib.suppress(HierflError):
            earlier = {key: value for key, value in self.folder.summary().items() if key != "error"}
        summary = {**earlier, **self.summary(status), **said}
        if "nodes" in self.facts:
            before = earlier.get("nodes", {})
            summary["nodes"] = {path: {**before.get(path, {}), **node} for path, node in self.facts["nodes"].items()}
            if "best" not in self.facts:
                summary.pop("best", None)
        ended = RunEnded(self.now(), status, summary)
        with contextlib.suppress(OutputError):  # what ended the run is the better story
            self._write(ended)
        if self._held is None:
            with contextlib.suppress(OutputError):
                self.folder.write_summary(summary)
        for monitor in self._monitors:
            monitor.on(ended)

    def let_go(self) -> None:
        """Write no more to the run's folder, not even what waits: another process does now."""
        if self._lines is not None:
            self._lines.let_go()
        self._held = self._held or []

    def close(self, *, is_over: bool = True) -> None:
        """Finish files, and the screen unless the run goes on."""
        for monitor in [*self._files, *(self._monitors if is_over else [])]:
            monitor.close()

    def _write(self, record: Record) -> None:
        """Tell the files, or keep for them."""
        if self._held is not None:
            self._held.append(record)
        for monitor in self._files:
            monitor.on(record)


def emit_to(monitors: Sequence[Monitor]) -> Callable[[Record], None]:
    """Give what tells each of the monitors a record, where there is no run's folder to keep it in."""

    def emit(record: Record) -> None:
        for monitor in monitors:
            monitor.on(record)

    return emit


@contextlib.contextmanager
def closed_on_error(monitors: Sequence[Monitor]) -> Iterator[None]:
    """Leave no live screen behind where a run ends before it speaks."""
    try:
        yield
    except BaseException:
        for monitor in monitors:
            monitor.close()
        raise
