"""A federation over links as real processes on loopback: kits, a hub, members, and a wire between them to cut."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from link_deaths import NEVER, dies

__all__ = ["Links", "Wire", "free_port", "members"]

SUPPORT = Path(__file__).parent
"""For the processes' PYTHONPATH: tasks of the tests lie here."""

LIMIT_S = 420.0
"""For machines that have much else to do."""


_GIVEN: set[int] = set()


def free_port() -> int:
    """A port that nobody listens at, and none that was given before: its process may not listen yet."""
    while True:
        with socket.socket() as found:
            found.bind(("localhost", 0))
            port = int(found.getsockname()[1])
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port


class Links:
    """One federation's folder and processes; all of them are gone after the `with`."""

    def __init__(self, folder: Path, federation: dict[str, Any], **top: Any) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.prefix: dict[str, list[str]] = {}
        self.env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SUPPORT)}
        self.config = folder / "heart.yaml"
        said = {
            "name": "heart",
            "task": {"kind": "heart_disease"},
            "training": {"lr": 0.01, "batch_size": 4, "local_steps": 20},
            "federation": {"name": "world", **federation},
            "runtime": {"kind": "local", "num_workers": 1},
            "output": {"dir": "runs", "tensorboard": False},
            **top,
        }
        self.config.write_text(yaml.safe_dump(said, sort_keys=False))
        self.hierfl("provision", "--out", "pki")

    def __enter__(self) -> Links:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def hierfl(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "hierfl", command, *([str(self.config)] if command != "renew" else []), *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env=self.env,
            timeout=LIMIT_S,
        )

    def start(self, name: str, command: str, *words: str) -> None:
        """Start a process; what it says is in {name}.out and {name}.err."""
        with (self.folder / f"{name}.out").open("a") as out, (self.folder / f"{name}.err").open("a") as err:
            self.processes[name] = subprocess.Popen(
                [*self.prefix.get(name, ()), sys.executable, "-m", "hierfl", command, str(self.config), *words],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                text=True,
                env=self.env,
            )

    def serve(self, *words: str) -> None:
        self.start("world", "serve", "--kit", "pki/kits/world", *words)

    def join(self, *names: str) -> None:
        """Start members by their names right under the root, each agreeing to its plan."""
        for name in names:
            self.start(name, "join", "--kit", f"pki/kits/world__{name}", "--approve", self.plan(name))

    def plan(self, name: str) -> str:
        from hierfl.config import load
        from hierfl.link.approval import plan_of

        return plan_of(load(self.config), f"world/{name}").digest

    def troubled(self, wire: Wire, port: int, names: Sequence[str], rounds: int, loses: str) -> None:
        """Serve at a port behind a wire with these members; kill "us" in the midst of a round and start it again, then
        cut the wire, until the member that `loses` the hub says so.
        """
        self.serve("--listen", f"localhost:{port}")
        self.join(*names)
        self.until("world", f" 1/{rounds} ")
        self.kill("us")
        self.join("us")
        self.until("world", f" 3/{rounds} ")
        wire.cut()
        self.until(loses, "is not reached")

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def die(self, name: str, moment: str, in_round: int) -> None:
        """Have the next process of a node kill itself."""
        self.prefix[name] = dies(moment, in_round)

    def has_died(self, name: str) -> None:
        assert self.wait(name) == -signal.SIGKILL, self.said(name)

    def again(self, name: str) -> None:
        """Start a member again that has died as it was told."""
        self.has_died(name)
        self.die(name, NEVER, 0)
        self.join(name)

    def resume(self) -> None:
        """Start the hub again, which is gone, with its run."""
        self.die("world", NEVER, 0)
        self.serve("--resume", str(self.run_dir))

    def stop(self, name: str) -> None:
        """End a process as a person or a service manager does."""
        self.processes[name].terminate()
        assert self.wait(name) == 128 + signal.SIGTERM, self.said(name)

    def change(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the federation in the YAML that all have."""
        said = yaml.safe_load(self.config.read_text())
        change(said["federation"])
        self.config.write_text(yaml.safe_dump(said, sort_keys=False))

    def wait(self, name: str) -> int:
        """Wait for a process's own end."""
        return self.processes[name].wait(LIMIT_S)

    def end(self, *names: str) -> None:
        for name in names:
            assert self.wait(name) == 0, self.said(name)

    def until(self, name: str, words: str, num: int = 1) -> None:
        """Wait until a process has said something so often."""
        end = time.monotonic() + LIMIT_S
        while self.said(name).count(words) < num:
            assert time.monotonic() < end, f"{name} has not said {words!r}:\n{self.said(name)}"
            assert self.processes[name].poll() is None, f"{name} is gone:\n{self.said(name)}"
            time.sleep(0.02)

    def said(self, name: str) -> str:
        return "".join((self.folder / f"{name}.{end}").read_text() for end in ("out", "err"))

    @property
    def run_dir(self) -> Path:
        return next(path.parent for path in (self.folder / "runs").glob("*/config.yaml"))

    @property
    def digest(self) -> str:
        return str(json.loads((self.run_dir / "summary.json").read_text())["model_digest"])

    def simulated(self, *overrides: str) -> str:
        """Run the same configuration on this machine, without links; give the model's digest."""
        ran = self.hierfl("run", *overrides, "output.dir=simulated", "--json")
        assert ran.returncode == 0, ran.stderr
        return str(json.loads(ran.stdout)["model_digest"])


class Wire:
    """A TCP wire to a port that can be cut, for all connections at once, and mended.

    `seen`: what went through, each way of each connection by itself, if it is to `keep` that.
    """

    def __init__(self, to: int, *, keep: bool = False) -> None:
        self.seen: list[bytearray] = []
        self._keeps = keep
        self._to = to
        self._whole = threading.Event()
        self._whole.set()
        self._swallows = False
        self._is_over = threading.Event()
        self._stranded: set[socket.socket] = set()
        self._ends: set[socket.socket] = set()
        self._listener = socket.create_server(("localhost", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drop what is connected, and let nothing through."""
        self._whole.clear()
        for end in list(self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def swallow(self) -> None:
        """Let nothing through any more, and close nothing."""
        self._swallows = True

    def strand(self) -> None:
        """Take and let through nothing more on what is connected, and close nothing; who dials anew gets through."""
        self._stranded |= self._ends

    def mend(self) -> None:
        self._swallows = False
        self._whole.set()

    @contextlib.contextmanager
    def open(self) -> Iterator[Wire]:
        try:
            yield self
        finally:
            self._is_over.set()
            self.cut()
            self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection(("localhost", self._to))
            except OSError:
                near.close()
                continue
            self._ends |= {near, far}
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, to: socket.socket) -> None:
        kept = bytearray()
        self.seen.append(kept)
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                if source in self._stranded:
                    self._is_over.wait()
                if self._keeps:
                    kept += content
                if not self._swallows:
                    to.sendall(content)
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def members(names: Sequence[str], port: int, host: str = "localhost", **link: Any) -> list[dict[str, Any]]:
    """The heart federation's three hubs, of which `names` have a link at a port."""
    sites = {"us": ["cleveland", "long_beach"], "hungary": ["budapest"], "switzerland": ["zurich_basel"]}
    return [
        {
            "name": hub,
            "members": [{"name": site} for site in own],
            **({"link": {"address": f"{host}:{port}", **link}} if hub in names else {}),
        }
        for hub, own in sites.items()
    ]
