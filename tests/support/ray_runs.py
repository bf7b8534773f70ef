"""Federations on a real Ray: how they are written, watched, struck and compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from hierfl.monitor.records import NodesChanged, Notice, Record, RoundClosed, RoundCommitted, SiteTrained

SUPPORT = Path(__file__).parent
HIERFL = (sys.executable, "-m", "hierfl")
PATIENCE_S = 300
"""What ends in seconds may take minutes on a busy machine; who takes longer hangs."""


def tree(rounds: int = 3, **root: Any) -> dict[str, Any]:
    """Three tiers of unequal depth: a hub of two rounds, a hub that passes its sum up, a site at the root."""
    members = [
        {"name": "us", "rounds": 2, "members": [{"name": "a"}, {"name": "b"}, {"name": "c"}]},
        {"name": "eu", "members": [{"name": "d"}, {"name": "e"}]},
        {"name": "f"},
    ]
    return {"name": "world", "rounds": rounds, "strategy": {"kind": "fedadam"}, "members": members, **root}


def write_config(folder: Path, federation: Mapping[str, Any] | None = None, **sections: Any) -> Path:
    """Write a federation of `FaultyTask` whose orders lie in `folder`."""
    document = {
        "name": "faulty",
        "seed": 3,
        "task": {"kind": "faulty_task:FaultyTask", "folder": str(folder)},
        "training": {"lr": 0.1, "batch_size": 8, "local_steps": 3},
        "federation": federation or tree(),
        "output": {"dir": str(folder / "runs"), "tensorboard": False},
        **sections,
    }
    path = folder / "federation.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


@dataclass
class Watcher:
    """A monitor that keeps all records, and strikes when one of them is what it waits for.

    `strikes`: pairs of (when, what): the first record for which `when` holds runs `what`, once, in order.
    """

    strikes: list[tuple[Callable[[Record], bool], Callable[[], None]]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def on(self, record: Record) -> None:
        self.records.append(record)
        if self.strikes and self.strikes[0][0](record):
            self.strikes.pop(0)[1]()

    def close(self) -> None:
        pass

    def notices(self, level: str) -> list[Notice]:
        return [record for record in self.records if isinstance(record, Notice) and record.level == level]

    def deaths(self) -> list[Notice]:
        """Give what was said of processes that died; a busy machine has more to say, of who waits meanwhile."""
        return [notice for notice in self.notices("warning") if "died" in notice.message]


def run(config: Path, *overrides: str, watcher: Watcher | None = None) -> dict[str, Any]:
    """Run in this process."""
    from hierfl import lifecycle as runs
    from hierfl.config import load

    return dict(runs.run(load(config, overrides), [watcher or Watcher()]))


def trained(number: int) -> Callable[[Record], bool]:
    """Hold at this report of a trained site, counted from 1."""
    seen = []

    def when(record: Record) -> bool:
        seen.extend([record] if isinstance(record, SiteTrained) else [])
        return len(seen) == number

    return when


def closed(path: str, round_number: int) -> Callable[[Record], bool]:
    """Hold when a hub closes this round."""
    return lambda record: isinstance(record, RoundClosed) and (record.node, record.round_number) == (path, round_number)


def begun(record: Record) -> bool:
    """Hold when somebody is asked to train."""
    return isinstance(record, NodesChanged) and record.state == "training"


def committed(round_number: int) -> Callable[[Record], bool]:
    """Hold when this round of the root is over."""
    return lambda record: isinstance(record, RoundCommitted) and record.round_number == round_number


class Drivers:
    """Lets a test reach the processes of the run that is under way."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        from hierfl import lifecycle as runs
        from hierfl.runtime.opening import open_driver

        self.last: Any = None
        self.killed: set[int] = set()
        opened = open_driver

        def keep(*arguments: Any) -> Any:
            self.last = opened(*arguments)
            return self.last

        for door in (runs.run, runs.go_on):
            patch.setattr(door, "__defaults__", ((), keep))

    def pid(self, actor: str) -> int:
        """Find the process of a hub (by path) or a worker, once it has begun."""
        import ray._private.state

        actor_id = self.last._actors[self.last._slots[actor]]._actor_id.hex()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            pid = (ray._private.state.actors(actor_id) or {}).get("Pid", 0)
            if pid:
                return int(pid)
            time.sleep(0.05)
        raise AssertionError(f"{actor} has no process")

    def kill(self, actor: str) -> None:
        """End an actor's process as a machine's memory killer would."""
        pid = self.pid(actor)
        if not alive(pid):
            return  # the run has not missed it yet
        self.killed.add(pid)
        os.kill(pid, signal.SIGKILL)
        _wait_until(lambda: not alive(pid), 10, f"the end of {actor}")


def alive(pid: int) -> bool:
    """Say whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def processes_in(folder: Path) -> dict[int, str]:
    """List the living processes of a Ray session under `folder`, by command line, environment and open files."""
    found = {}
    needle = str(folder).encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid() or not alive(int(entry.name)):
            continue
        try:
            said = (entry / "cmdline").read_bytes()
            known = needle in said or needle in (entry / "environ").read_bytes()
            known = known or any(needle in os.fsencode(os.readlink(link)) for link in (entry / "fd").iterdir())
        except OSError:
            continue
        if known:
            found[int(entry.name)] = said.replace(b"\0", b" ").decode(errors="replace")[:80]
    return found


def environment(temp: Path, **more: str) -> dict[str, str]:
    """Make the environment of a run with a Ray of its own under `temp`, which must be a short path."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_") and key != "PYTHONPATH"}
    return {**kept, "OMP_NUM_THREADS": "1", "RAY_TMPDIR": str(temp), "COLUMNS": "200", **more}


@contextmanager
def started(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a process group of its own; whatever happens, it is over at the end."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=cwd, env=env, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str], timeout_s: float = PATIENCE_S) -> tuple[int, str, str]:
    """Wait for the end: exit code, standard output, standard error."""
    out, err = process.communicate(timeout=timeout_s)
    return process.returncode, out, err


def digest_in(run_dir: Path) -> str:
    """Read the digest of a finished run."""
    return str(json.loads((run_dir / "summary.json").read_text())["model_digest"])


def wait_gone(folder: Path, timeout_s: float = PATIENCE_S, but: str = "nothing") -> None:
    """Wait until no process of a session is left, but for those whose command holds a word."""
    deadline = time.monotonic() + timeout_s
    while left := {pid: said for pid, said in processes_in(folder).items() if but not in said}:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.2)


def _wait_until(over: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not over():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)
