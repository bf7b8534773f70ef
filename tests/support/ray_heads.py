"""Ray clusters of one node that are not a run's own: what others keep, and runs join."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ray_runs import environment, processes_in


@dataclass(frozen=True)
class Cluster:
    """A Ray of one node that is not a run's own."""

    temp: Path
    env: dict[str, str]
    address: str
    dashboard: str

    def workers(self) -> dict[int, str]:
        """List its actors' and tasks' processes."""
        return {pid: said for pid, said in processes_in(self.temp).items() if re.match("ray::(Hub|Worker)", said)}

    def answers(self) -> bool:
        """Say whether it is up; its dashboard comes last, and is asked first."""
        try:
            with urllib.request.urlopen(f"{self.dashboard}/api/version", timeout=5):
                pass
        except urllib.error.HTTPError:
            pass  # it wants a token
        except OSError:
            time.sleep(0.2)
            return False
        command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", self.address]
        return subprocess.run(command, env=self.env, capture_output=True, timeout=60, check=False).returncode == 0


def free_port() -> int:
    """Find a free port outside of those that Ray gives its workers."""
    for port in range(20100 + 10 * (os.getpid() % 1000), 32000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no free port")


@contextmanager
def head(**variables: str) -> Iterator[Cluster]:
    """Start a head node in the foreground, with `variables` in its environment; end it, and it alone, afterwards."""
    temp = Path(tempfile.mkdtemp(prefix="hfl-", dir="/tmp"))
    port = free_port()
    dashboard = port + 1
    env = environment(temp, **variables, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    options = f"--head --port {port} --num-cpus 2 --dashboard-port {dashboard} --include-dashboard true"
    options += f" --dashboard-agent-listen-port {port + 2}"  # the fixed one that Ray takes else may be another's
    options += f" --node-ip-address 127.0.0.1 --temp-dir {temp} --disable-usage-stats --block"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options.split()]
    log = (temp / "start.log").open("w")
    head = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    made = Cluster(temp, env, f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}")
    try:
        deadline = time.monotonic() + 90
        while not made.answers():
            assert head.poll() is None and time.monotonic() < deadline, (temp / "start.log").read_text()
        yield made
    finally:
        head.terminate()
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            head.kill()
        deadline = time.monotonic() + 30
        while (left := processes_in(temp)) and time.monotonic() < deadline:
            time.sleep(0.2)
        for pid in left:
            os.kill(pid, 9)
        log.close()
        shutil.rmtree(temp, ignore_errors=True)
