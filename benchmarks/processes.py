"""Contenders as child processes, and the memory of such a process with all that it started.

Memory is PSS (proportional set size: a page that n processes share counts 1/n in each), added up over the process tree,
so that Ray's shared object store counts once and its daemons and workers count too. Linux only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.contenders.setting import Setting

__all__ = ["ROOT", "Failed", "contend", "watch"]

ROOT = Path(__file__).parents[1]
INTERVAL_S = 0.2


class Failed(Exception):
    """A child process did not end well; its words are the message."""


def contend(contender: str, work: Setting, *, memory: bool = False) -> dict[str, Any]:
    """Run a contender; give what it answers: `seconds` per round, and with `memory` its peak as `peak_bytes`.

    Reading PSS slows a process down, so where memory is watched the seconds are not to be used.
    """
    command = [sys.executable, "-m", f"benchmarks.contenders.{contender}", json.dumps(asdict(work))]
    said, peak_bytes, _ = watch(command, memory=memory)
    return {**json.loads(said.strip().splitlines()[-1]), **({"peak_bytes": peak_bytes} if memory else {})}


def watch(command: list[str], *, memory: bool = False) -> tuple[str, int, float]:
    """Run a command; give its output, the peak of its tree's memory in bytes (0 if not watched), its wall seconds."""
    begun = time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = _Peak(child.pid)
    watcher = threading.Thread(target=peak.watch, daemon=True)
    if memory:
        watcher.start()
    try:
        said, errors = child.communicate()
    finally:
        if child.poll() is None:
            child.terminate()
        peak.over.set()
    if child.returncode:
        raise Failed(f"{' '.join(command)} ended with code {child.returncode}\n{errors.strip()[-3000:]}")
    return said, peak.num_bytes, time.perf_counter() - begun


class _Peak:
    """The largest memory that a process tree was seen to hold."""

    def __init__(self, root: int) -> None:
        self.over = threading.Event()
        self.num_bytes = 0
        self._root = root

    def watch(self) -> None:
        while not self.over.wait(INTERVAL_S):
            self.num_bytes = max(self.num_bytes, sum(_pss(pid) for pid in _tree(self._root)))


def _tree(root: int) -> list[int]:
    """List a process and all below it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def _pss(pid: int) -> int:
    """Read one process' PSS in bytes; 0 for one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
