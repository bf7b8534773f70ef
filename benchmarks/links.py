"""`python -m benchmarks links`: updates over loopback with mutual TLS, from a member into the hub's accumulator.

The hub is this process, each member another one. Down: a model from the hub's memory to a member's file, checked. Up:
an update from a member's memory into a file of the hub's, checked, and added up. Beside both stands their limit: what a
stream of gRPC alone does, in the same run. Memory is the hub's own (anonymous) at its peak, beside what it had before;
the sum itself is one model.
"""

from __future__ import annotations

import argparse
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bare_stream
from benchmarks.common import machine
from hierfl.learning.local import Objective
from hierfl.learning.ring import Accumulator, PartialSum
from hierfl.learning.state import Layout, ModelState
from hierfl.runtime.driver import Done
from hierfl.runtime.hub import grid_of
from hierfl.runtime.jobs import TrainJob
from tiers.messages import Opening

__all__ = ["main"]

DEADLINE_S = 600.0


def main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] == "member":
        return _member(Path(arguments[1]), arguments[2], int(arguments[3]), int(arguments[4]))
    if arguments and arguments[0] == "bare":
        from hierfl.link.kit import Kit

        bare_stream.client(Kit.open(Path(arguments[1])), *map(int, arguments[2:]))
        return 0
    parser = argparse.ArgumentParser("python -m benchmarks links", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100, help="size of a model (100)")
    parser.add_argument("--members", type=int, default=1, help="members of the hub (1)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that are measured (5)")
    options = parser.parse_args(arguments)
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    with tempfile.TemporaryDirectory() as folder:
        _measure(Path(folder), options.megabytes, options.members, options.rounds)
    return 0


def _measure(folder: Path, megabytes: int, num_members: int, rounds: int) -> None:
    from hierfl.link.lane import Lane
    from hierfl.link.service import Agreed, Service
    from hierfl.link.shelf import Shelf

    layout, paths = _layout(megabytes), [f"world/m{number}" for number in range(num_members)]
    kits = _kits(folder, paths)
    done: queue.SimpleQueue[Done] = queue.SimpleQueue()
    shelf = Shelf()
    lanes = {
        path: Lane(path, "run", DEADLINE_S, 1, folder / "spool", shelf, done.put, lambda value: value) for path in paths
    }
    service = Service(kits["world"], "localhost:0", Agreed("bench", "c", "t", "run"), lanes, lambda *said: None)
    command = [sys.executable, "-m", "benchmarks", "links", "member"]
    members = [subprocess.Popen([*command, str(folder), path, str(service.port), str(megabytes)]) for path in paths]
    try:
        _call(lanes, done, "prepare", lambda path: (None, None))
        _call(lanes, done, "prepare", lambda path: (layout, None))
        model = ModelState(
            np.random.default_rng(0).normal(size=layout.num_floats).astype(np.float32), np.zeros(0, np.int64)
        )
        before = _anonymous_bytes()
        peak = _Peak()
        there, down, up, cpu = [], [], [], []
        spare: Any = None
        for number in range(rounds + 1):
            np.add(model.floats, np.float32(1), out=model.floats)
            opening = Opening("world", number, 32, 8.0, 10 * num_members, "float32")
            jobs = {path: TrainJob("world", number, ((path, 10),), opening, Objective()) for path in paths}
            asked_s = time.time()
            took_s, _ = _call(lanes, done, "train", lambda path, jobs=jobs: (jobs[path], model))
            down.append(took_s)
            there.append(max(float(_arrived(folder, path).read_text()) for path in paths) - asked_s)
            began, began_cpu = time.perf_counter(), _cpu_s(members)
            total = Accumulator(grid_of(opening), layout, spare)  # as a hub does from its second round on
            _call(lanes, done, "collect", lambda path, number=number: ("world", number), total)
            spare = total.total().floats
            up.append(time.perf_counter() - began)
            cpu.append(_cpu_s(members) - began_cpu)
        moved = megabytes * num_members
        for what, seconds in (
            ("down, into a file", there[1:]),
            ("down, with what a member does besides", down[1:]),
            ("up, into the sum", up[1:]),
        ):
            rate = moved / statistics.median(seconds)
            took = f"{statistics.median(seconds) * 1000:.0f} ms for {num_members} x {megabytes} MB"
            print(f"{what}: {took}, {rate:.0f} MB/s")
        spent_ms = statistics.median(cpu[1:]) / moved * 100 * 1000
        print(f"processor time up, hub and members: {spent_ms:.0f} ms per 100 MB")
        extra = (peak.stop() - before) / (megabytes * 1e6)
        print(f"memory of the hub: {extra:.2f} models beside the one that it gives, of which the sum is one")
    finally:
        service.close("measured", final=True)
        for member in members:
            member.wait(30)
    for way, rate in bare_stream.rates(kits["world"], kits[paths[0]], megabytes, rounds).items():
        print(f"a stream of gRPC alone, {way}: {rate:.0f} MB/s")


def _call(
    lanes: Any, done: Any, method: str, arguments: Any, total: Accumulator | None = None
) -> tuple[float, list[Done]]:
    """Ask every member; wait for all."""
    began = time.perf_counter()
    for number, (path, lane) in enumerate(lanes.items()):
        lane.call(number, method, arguments(path))
    found = []
    for _ in lanes:
        one: Done = done.get(timeout=120)
        assert one.crashed is None, one
        if total is not None:
            part: PartialSum = one.beside[0]
            total.add_sum(part)
        found.append(one)
    return time.perf_counter() - began, found


class _Peak:
    """Watches the process's own memory."""

    def __init__(self) -> None:
        self._most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self._most = max(self._most, _anonymous_bytes())


def _cpu_s(members: Sequence[subprocess.Popen[bytes]]) -> float:
    """Count the processor's seconds of this process and of the members'."""
    spent = time.process_time()
    for member in members:
        fields = Path(f"/proc/{member.pid}/stat").read_text().rpartition(")")[2].split()
        spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def _anonymous_bytes() -> int:
    """Read the memory that is this process's own, without files that it maps."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def _kits(folder: Path, members: Sequence[str]) -> dict[str, Any]:
    from hierfl.link.authority import Authority, new_key, private_pem
    from hierfl.link.identity import HUB, MEMBER
    from hierfl.link.kit import Kit, folder_name

    now = datetime.now(UTC)
    authority = Authority.create(folder / "ca", "bench", now)
    roles = {"world": (HUB,), **dict.fromkeys(members, (MEMBER,))}
    authority.know(roles)
    found = {}
    for path, own in roles.items():
        key = new_key()
        kit = Kit.write(folder / folder_name(path), "bench", path, own, key=private_pem(key))
        kit.put(certificate=authority.issue(path, key.public_key(), now, 1), authority=authority.pem)
        found[path] = kit
    return found


def _layout(megabytes: int) -> Layout:
    return Layout.of({"weight": ((megabytes * 250_000,), "float32")})


def _arrived(folder: Path, path: str) -> Path:
    """Name the file in which a member notes when it had the model."""
    return folder / f"arrived-{path.rpartition('/')[2]}"


def _member(folder: Path, path: str, port: int, megabytes: int) -> int:
    """Be a member that has its update ready."""
    from hierfl.link._wire import link_pb2 as wire
    from hierfl.link.desk import Desk
    from hierfl.link.dialer import Dialer
    from hierfl.link.kit import Kit, folder_name
    from hierfl.link.service import VERSIONS
    from hierfl.link.store import Store

    layout = _layout(megabytes)
    chance = np.random.default_rng(os.getpid())
    part = PartialSum(chance.integers(-(2**20), 2**20, layout.num_floats).astype(np.int32), np.zeros(0, np.int64), 10)

    class Branch:
        config: Any = type("Config", (), {"hubs": {}})()

        def __init__(self) -> None:
            self.path, self.layout = path, layout

        def prepare(self, run: str, scale: Any) -> None:
            pass

        def describe(self) -> Any:
            return type("Inventory", (), {"num_train": 10})()

        def train(self, asked: Any, model: ModelState) -> tuple[int, PartialSum]:
            _arrived(folder, path).write_text(repr(time.time()))
            part.floats[0] += 1
            return 10, part

    hello = wire.Hello(
        versions=VERSIONS, federation="bench", node=path, config_digest="c", task_digest="t", instance=str(os.getpid())
    )
    kit = Kit.open(folder / folder_name(path))
    dialer = Dialer(kit, "world", [f"localhost:{port}"], hello, DEADLINE_S, "none", lambda level, said: None)
    store = Store(folder / f"state-{folder_name(path)}")
    make: Any = Branch
    desk = Desk(make, store, dialer.say, dialer.fetch, lambda level, said: None, lambda: dialer.leave("failed"))
    dialer.asked, dialer.offered = desk.asked, desk.offered
    dialer.serve()
    if desk.failed is not None:
        raise desk.failed
    return 0
