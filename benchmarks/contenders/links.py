"""hierfl over links: each hub of the work is an institution with a process of its own, and all are on this machine.

Every process has the local runtime; seconds from one round's commit at the root to the next.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.contenders.engine import Clock, mapping, stepped, tell
from benchmarks.contenders.setting import Setting, setting
from hierfl.config import RunConfig, from_mapping
from hierfl.link import provisioning
from hierfl.link.kit import Kit, folder_name
from hierfl.link.log import Log
from hierfl.link.memory import use_few_arenas
from hierfl.link.serving import Serving, join, serve

DEADLINE_S = 120.0


def main() -> None:
    use_few_arenas()  # as `hierfl serve` and `hierfl join` do
    work = setting()
    if len(sys.argv) > 2:
        _member(work, Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
        return
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="hierfl-benchmark-") as folder, open(os.devnull, "w") as nowhere:
        place = Path(folder)
        with socket.create_server(("localhost", 0)) as found:
            port = found.getsockname()[1]
        config = _config(work, place, port)
        list(provisioning.provision(config, place / "pki", datetime.now(UTC), 1.0, ()))
        told = [sys.executable, "-m", "benchmarks.contenders.links", json.dumps(asdict(work)), folder]
        members = [subprocess.Popen([*told, path, str(port)]) for path in config.links]
        try:
            serving = Serving(config, _kit(place, "world"), Log(nowhere), f"localhost:{port}")
            summary = serve(serving, [clock])
        finally:
            for member in members:
                member.wait(60)
    tell(work, clock, summary)


def _member(work: Setting, place: Path, path: str, port: int) -> None:
    """Be an institution until the federation has ended."""
    with open(os.devnull, "w") as nowhere:
        serving = Serving(_config(work, place, port), _kit(place, path), Log(nowhere))
        join(serving, (), place / folder_name(path), threading.Event())


def _config(work: Setting, place: Path, port: int) -> RunConfig:
    """Write the work with a link at each hub."""
    said = mapping(work, str(place / "runs"))
    said["federation"]["members"]["link"] = {"address": f"localhost:{port}", "deadline_s": DEADLINE_S}
    return stepped(from_mapping(said), work.local_steps)


def _kit(place: Path, path: str) -> Kit:
    return Kit.open(place / "pki" / "kits" / folder_name(path))


if __name__ == "__main__":
    main()
