"""`python -m benchmarks links`: updates over loopback with mutual TLS, from a member into the hub's accumulator.

The hub is this process, each member another one. Down: a model from the hub's memory to a member's file, checked. Up:
an update from a member's memory into a file of the hub's, checked, and added up. Beside both stands their limit: what a
stream of gRPC alone does, once each way after every round, so that both meet the same weather. Each has its processor
time too, the hub's and the members' together, which a busy machine changes less than the clock's. Memory is the hub's
own (anonymous) at its peak in the first two rounds, beside what it had before; the sum itself is one model.
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
from dataclasses import dataclass
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

DOWN = "down, into a file"
BESIDES = "down, with what a member does besides"
UP = "up, into the sum"
BARE_DOWN, BARE_UP = "a stream of gRPC alone, down", "a stream of gRPC alone, up"


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
    from hierfl.link.memory import use_few_arenas
    from hierfl.link.service import Agreed, Service
    from hierfl.link.shelf import Shelf
    from hierfl.link.spool import Spool
    from hierfl.link.turns import Turns

    use_few_arenas()
    layout, paths = _layout(megabytes), [f"world/m{number}" for number in range(num_members)]
    kits = _kits(folder, paths)
    done: queue.SimpleQueue[Done] = queue.SimpleQueue()
    shelf, turns, spool = Shelf(), Turns(), Spool(folder / "spool")
    lanes = {
        path: Lane(path, "run", DEADLINE_S, 1, spool, shelf, done.put, lambda value: value, turns=turns)
        for path in paths
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
        peak, found = _Peak(), _Found(megabytes, num_members)
        spare: Any = None
        pids = [member.pid for member in members]
        with bare_stream.Bare(kits["world"], kits[paths[0]], megabytes) as bare:
            for number in range(rounds + 2):
                np.add(model.floats, np.float32(1), out=model.floats)
                opening = Opening("world", number, 32, 8.0, 10 * num_members, "float32")
                jobs = {path: TrainJob("world", number, ((path, 10),), opening, Objective()) for path in paths}
                asked_s, watch = time.time(), _Watch(pids)
                _call(lanes, done, "train", lambda path, jobs=jobs: (jobs[path], model))
                both = watch.read()
                arrived = [_Arrived.read(folder, path) for path in paths]
                there_s = max(one.at_s for one in arrived) - asked_s
                found.add(DOWN, there_s, watch.here_cpu_s + sum(one.cpu_s for one in arrived) - watch.there_began_cpu_s)
                found.add(BESIDES, *both)
                watch = _Watch(pids)
                total = Accumulator(grid_of(opening), layout, spare)  # as a hub does from its second round on
                _call(lanes, done, "collect", lambda path, number=number: ("world", number), total)
                spare = total.total().floats
                found.add(UP, *watch.read())
                if not number:
                    continue
                peak.stop()  # what gRPC alone takes in this process does not count
                for way, what in (("down", BARE_DOWN), ("up", BARE_UP)):
                    watch = _Watch([bare.process.pid])
                    took_s = bare.move(way)
                    found.add(what, took_s, watch.read()[1], num_members=1)
        found.tell()
        extra = (peak.stop() - before) / (megabytes * 1e6)
        print(f"memory of the hub: {extra:.2f} models beside the one that it gives, of which the sum is one")
    finally:
        service.close("measured", final=True)
        for member in members:
            member.wait(30)


class _Found:
    """What each round took; the first two do not count."""

    def __init__(self, megabytes: int, num_members: int) -> None:
        self._megabytes = megabytes
        self._num_members = num_members
        self._taken: dict[str, list[tuple[float, float]]] = {}

    def add(self, what: str, seconds: float, cpu_s: float, num_members: int | None = None) -> None:
        """Add what one transfer, to or from so many members, took: per 100 MB of each."""
        per = 100 / self._megabytes / (num_members or self._num_members)
        self._taken.setdefault(what, []).append((seconds * per, cpu_s * per))

    def tell(self) -> None:
        """Print medians, and those of each round's ratio to gRPC alone."""
        print("\n| per 100 MB | time | rate | processor | times those of gRPC alone |\n| --- | --- | --- | --- | --- |")
        for what, limit in ((DOWN, BARE_DOWN), (BESIDES, BARE_DOWN), (BARE_DOWN, ""), (UP, BARE_UP), (BARE_UP, "")):
            taken = self._taken[what][2:] if limit else self._taken[what][1:]
            took_s, cpu_s = (statistics.median(one[n] for one in taken) for n in (0, 1))
            said = f"| {what} | {took_s * 1000:.0f} ms | {100 / took_s:.0f} MB/s | {cpu_s * 1000:.0f} ms |"
            if limit:
                turns = list(zip(taken, self._taken[limit][1:], strict=True))
                ratios = [statistics.median(one[n] / alone[n] for one, alone in turns) for n in (0, 1)]
                said += f" {ratios[0]:.2f}, {ratios[1]:.2f}"
            print(f"{said} |")
        print()


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


class _Watch:
    """Counts seconds, and those of processors, of this process and of others, from now on."""

    def __init__(self, others: Sequence[int]) -> None:
        self._others = others
        self._began_s, self._here_began_cpu_s = time.perf_counter(), time.process_time()
        self.there_began_cpu_s = self._there_cpu_s()
        self.here_cpu_s = 0.0

    def read(self) -> tuple[float, float]:
        """Give the seconds by the clock, and those of all processes' processors together."""
        took_s = time.perf_counter() - self._began_s
        self.here_cpu_s = time.process_time() - self._here_began_cpu_s
        return took_s, self.here_cpu_s + self._there_cpu_s() - self.there_began_cpu_s

    def _there_cpu_s(self) -> float:
        """Read the clocks of other processes' processors, threads that have ended included."""
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self._others)


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


@dataclass(frozen=True)
class _Arrived:
    """When a member had the model, and what its process had had of a processor by then."""

    at_s: float
    cpu_s: float

    @staticmethod
    def write(folder: Path, path: str) -> None:
        _Arrived._file(folder, path).write_text(f"{time.time()!r} {time.process_time()!r}")

    @staticmethod
    def read(folder: Path, path: str) -> _Arrived:
        return _Arrived(*map(float, _Arrived._file(folder, path).read_text().split()))

    @staticmethod
    def _file(folder: Path, path: str) -> Path:
        return folder / f"arrived-{path.rpartition('/')[2]}"


def _member(folder: Path, path: str, port: int, megabytes: int) -> int:
    """Be a member that has its update ready."""
    from hierfl.link._wire import link_pb2 as wire
    from hierfl.link.desk import Desk
    from hierfl.link.dialer import Dialer
    from hierfl.link.kit import Kit, folder_name
    from hierfl.link.memory import use_few_arenas
    from hierfl.link.service import VERSIONS
    from hierfl.link.store import Store

    use_few_arenas()  # as `hierfl join` does
    layout = _layout(megabytes)
    chance = np.random.default_rng(os.getpid())
    part = PartialSum(chance.integers(-(2**20), 2**20, layout.num_floats).astype(np.int32), np.zeros(0, np.int64), 10)

    class Branch:
        config: Any = type("Config", (), {"hubs": {}})()

        def __init__(self) -> None:
            self.path, self.layout = path, layout

        def heed(self) -> None:
            pass

        def enter(self, epoch: int) -> None:
            pass

        def prepare(self, run: str, scale: Any) -> None:
            pass

        def describe(self) -> Any:
            return type("Inventory", (), {"num_train": 10})()

        def train(self, asked: Any, model: ModelState) -> tuple[int, PartialSum]:
            _Arrived.write(folder, path)
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
