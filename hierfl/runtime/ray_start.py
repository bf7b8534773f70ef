"""Starting a Ray of this process's own: alone on its machine, as patient as a busy one needs, ended with the process.

Ray has no settings for most of this; what is put in the place of its own is put back once it has started.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from inspect import signature
from pathlib import Path
from typing import Any

import ray
from ray import _raylet
from ray._private import ray_constants, services, utils

from hierfl.config.schema import Runtime
from hierfl.runtime import ray_processes
from hierfl.stops import KEEPS_RAY_OUT, heard

__all__ = ["BOUNDS", "init", "on_loopback", "patient", "reason", "start"]

START_S = 180.0
"""Seconds that a Ray may take to be up, as long as its raylet lives; it would give up after half a minute itself."""

BOUNDS = {
    "RAY_task_events_report_interval_ms": "0",
    "RAY_ROTATION_MAX_BYTES": str(16 << 20),
    "RAY_ROTATION_BACKUP_COUNT": "1",
    "RAY_agent_register_timeout_ms": str(int(1000 * START_S)),
}
"""Settings of a Ray that a run starts itself, which may run for weeks: no call is remembered for a dashboard that is
not there, of each process's log 32 MiB are kept in place of gigabytes, and on a busy machine agents take their time.
"""

AGENTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
"""The ports of a raylet's agents; for one that each of them has yet to choose it waits 15 seconds, and then aborts."""


class _Ended(Exception):
    """The raylet of a Ray has ended before it was up."""


def start(runtime: Runtime) -> None:
    """Start a Ray of this process's own; once more, if its raylet ends before it is up.

    On a machine that is too busy for Ray's agents to say in time at which ports they listen, the second one is told.
    Errors: whatever Ray raises.
    """
    for name, value in BOUNDS.items():
        os.environ.setdefault(name, value)

    def once(*, again: bool) -> None:
        with _signals_apart() as begun, patient(again=again), _token_apart(), on_loopback():
            try:
                init("local", include_dashboard=False, num_cpus=runtime.num_cpus, num_gpus=runtime.num_gpus)
            except _Ended:
                ray_processes.end()
                for process in begun:
                    process.poll()  # it is over, and Python is to know
                raise

    try:
        once(again=False)
    except _Ended:
        if heard().heard is not None:
            raise
        once(again=True)


def init(address: str, **more: Any) -> None:
    """Call ray.init without its chatter. Errors: whatever Ray raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **more)


def reason(error: BaseException) -> str:
    """Give the first line of what Ray says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def patient(*, again: bool = False) -> Iterator[None]:
    """Let a Ray that is started here take its time on a busy machine. `again`: its agents are told their ports."""
    starts: Any = services
    look, start_raylet, deadline = starts.get_node, starts.start_raylet, time.monotonic() + START_S

    def look_again(*given: Any) -> Any:
        while True:
            try:
                return look(*given)
            except RuntimeError as error:
                if not ray_processes.has_raylet():
                    raise _Ended(f"its raylet has ended before it was up{_last_words()}") from error
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def start_told(*given: Any, **named: Any) -> Any:
        told = signature(start_raylet).bind(*given, **named).arguments
        ports = dict(zip(AGENTS, _free_ports(len(AGENTS)), strict=True))
        note: Any = getattr(_raylet, "persist_port", None)  # a Ray that has none does not wait
        if note is not None:
            for name, port in ports.items():  # a raylet is handed three of the four: it looks for what agents note
                note(told["session_dir"], told["node_id"], name, port)
        return start_raylet(*given, **{**named, **ports})

    starts.get_node = look_again
    if again:
        starts.start_raylet = start_told
    try:
        yield
    finally:
        starts.get_node, starts.start_raylet = look, start_raylet


def _free_ports(number: int) -> list[int]:
    """Find ports of this machine at which nobody listens."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [one.getsockname()[1] for one in held]


def _last_words() -> str:
    """Give what the raylet said as it gave up, and where it said so."""
    for log in ray_processes.logs():
        for name in ("raylet.err", "raylet.out"):
            with suppress(OSError):
                found = re.findall(r"Check failed: (.+)", (log / name).read_text(errors="replace"))
                if found:
                    return f" ({found[-1].strip()}; {log / name})"
        return f"; see {log / 'raylet.out'}"
    return ""


@contextmanager
def on_loopback() -> Iterator[None]:
    """Let a Ray that is started or joined here be this machine's alone, as it is on a Mac: all its processes listen at
    127.0.0.1, which Ray would else replace by an address that others reach.
    """
    constants: Any = ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _token_apart() -> Iterator[None]:
    """Leave a token that Ray makes meanwhile to its owner: Ray lets all who can look into the home read it, and so run
    code in the owner's name. One that was there before is as its owner wants it.
    """
    token = Path(os.path.expanduser("~/.ray/auth_token"))
    had_one = token.exists()
    try:
        yield
    finally:
        with suppress(OSError):
            if not had_one and token.exists():
                token.chmod(0o600)


@contextmanager
def _signals_apart() -> Iterator[list[Any]]:
    """Keep a stop from Ray, which would answer SIGTERM in the program's place, and from the processes that it starts.

    Those lie in process groups of their own, so that what a terminal or a batch system sends to the program's group
    reaches the program alone: Ray waits half a minute for a process that dies under its start. Where the kernel does
    not end them with the program, Ray's own reaper needs them in the program's group. Of their own crashes they tell.
    """
    signals: Any = utils
    starts: Any = services
    handler, popen = signals.set_sigterm_handler, starts.ConsolePopen
    group = {"process_group": 0} if signals.detect_fate_sharing_support() else {}
    begun: list[Any] = []

    def begin(*given: Any, env: Mapping[str, str], **more: Any) -> Any:
        own = {name: value for name, value in env.items() if name != KEEPS_RAY_OUT}
        begun.append(popen(*given, env=own, **group, **more))
        return begun[-1]

    signals.set_sigterm_handler = lambda handler: None
    starts.ConsolePopen = begin
    try:
        yield begun
    finally:
        signals.set_sigterm_handler, starts.ConsolePopen = handler, popen
