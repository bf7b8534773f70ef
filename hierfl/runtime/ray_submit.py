"""Submits a run to a Ray cluster as a job: the folder goes up, the log comes back, and the job's exit code at the end.

Ray's own environment holds (RAY_AUTH_MODE, RAY_AUTH_TOKEN and the like), but for the address: what the user types wins.
The cluster needs hierfl installed, or in the folder that is sent.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from hierfl.errors import ConfigError, HierflError, Problem, RuntimeUnavailable
from hierfl.stops import heard

__all__ = ["EXCLUDES", "ON_CLUSTER", "Client", "connect", "entrypoint", "submit"]

EXCLUDES = [
    "runs/",
    ".venv*/",
    "venv/",
    ".git/",
    "__pycache__/",
    ".mypy_cache/",
    ".ruff_cache/",
    ".pytest_cache/",
    ".hypothesis/",
    "ca-key.pem",
    "key.pem",
]
"""What of the working directory stays at home (patterns as in .gitignore), private keys of links wherever they lie."""

ON_CLUSTER = ("runtime.kind=ray", "runtime.address=auto")
"""Overrides of every job: it joins the Ray that runs it."""

CONNECT_S = 15.0
"""Seconds that a cluster may take to answer at first."""
NO_AGENT = "No available agent"
REFUSED = "AuthenticationError"
"""What Ray raises where a cluster asks for its token; older Rays have none, so by its name."""
TRIES = 60
"""How often a job is offered to a cluster that has only just begun, and has no agent yet that takes jobs."""
LACKING = re.compile(r"No module named '?(hierfl|typer|omegaconf|rich|numpy|torch|pyarrow|safetensors)\b")
"""What the cluster's Python says where it has no hierfl, or where hierfl was sent along and finds not what it needs."""
ATTEMPTS = 5
"""Times that a broken log stream is taken up again before giving up."""


class Client(Protocol):
    """What is used of Ray's JobSubmissionClient."""

    def submit_job(self, *, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str]) -> str:
        """Upload the working directory and start the job; its id."""

    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """Follow the job's log from its beginning."""

    def get_job_info(self, job_id: str) -> Any:
        """Tell `status`, `message` and `driver_exit_code`."""


def submit(
    config: Path,
    overrides: Sequence[str] = (),
    *,
    address: str,
    working_dir: Path = Path(),
    wait: bool = True,
    client: Client | None = None,
    pause_s: float = 1.0,
) -> int:
    """Run `config` (inside `working_dir`) on the cluster whose dashboard is at `address`; the job's exit code.

    The log goes to standard output. Without `wait` it returns 0 as soon as the job is accepted; Ctrl-C leaves the job
    running, says how to stop it, and gives 130.

    Errors: ConfigError for the address or the folder; RuntimeUnavailable where the cluster does not answer in time,
    does not take the job, or is lost on the way.
    """
    entry = entrypoint(config, overrides, working_dir)
    client = client or connect(address)
    runtime_env = {"working_dir": str(working_dir.resolve()), "excludes": EXCLUDES}
    for left in reversed(range(TRIES)):
        try:
            job = client.submit_job(entrypoint=entry, runtime_env=runtime_env, metadata={"hierfl": config.name})
            break
        except Exception as error:  # RuntimeError, ValueError, and those of requests
            if left == 0 or NO_AGENT not in str(error):
                raise RuntimeUnavailable(f"the Ray cluster at {address} did not take the job: {error}") from error
        time.sleep(pause_s)
    ways = f"  log:  ray job logs --address {address} --follow {job}\n  stop: ray job stop --address {address} {job}"
    print(f"job {job} at {address}: {entry}", file=sys.stderr, flush=True)
    if not wait:
        print(ways, file=sys.stderr)
        return 0
    try:
        return asyncio.run(_follow(client, job, pause_s))
    except KeyboardInterrupt:
        print(f"\nthe job goes on without you\n{ways}", file=sys.stderr)
        stops = heard()
        stops.is_told = True
        return stops.exit_code
    except ConnectionLost as error:
        raise RuntimeUnavailable(
            f"lost the Ray cluster at {address}: {error.__cause__}; the job may go on\n{ways}"
        ) from error


def entrypoint(config: Path, overrides: Sequence[str], working_dir: Path) -> str:
    """Spell the shell command that the job runs in its copy of `working_dir`.

    Errors: ConfigError where there is no such folder, or the configuration lies outside of it.
    """
    if not working_dir.is_dir():
        raise ConfigError(f"--working-dir {working_dir} is not a folder")
    try:
        inside = config.resolve().relative_to(working_dir.resolve())
    except ValueError:
        raise ConfigError(
            f"{config} lies outside of the folder that is sent, {working_dir.resolve()}; start in its folder, or give a"
            " folder above it as --working-dir"
        ) from None
    words = [inside.as_posix(), *overrides, *ON_CLUSTER]
    return shlex.join(["python", "-m", "hierfl", "run", *words, "--plain"])


def connect(address: str, timeout_s: float = CONNECT_S, make: Callable[[str], Client] | None = None) -> Client:
    """Connect to the job server of a cluster's dashboard, within `timeout_s`.

    Errors: ConfigError for an address that is not a dashboard's; RuntimeUnavailable where it does not answer, or asks
    for a token and is given none or another.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError([Problem("--address", f"{address!r} is not a dashboard's address; http://host:8265 is one")])
    make = make or _ray_client()
    outcome: list[Client | Exception] = []

    def attempt() -> None:
        try:
            outcome.append(make(address))
        except Exception as error:  # told to the user below
            outcome.append(error)

    # Ray's requests have no time limit of their own; a thread that hangs in one must not hold up the exit.
    thread = threading.Thread(target=attempt, name="hierfl-connect", daemon=True)
    thread.start()
    thread.join(timeout_s)
    found = outcome[0] if outcome else TimeoutError(f"no answer within {timeout_s:g} s")
    if type(found).__name__ == REFUSED:
        raise RuntimeUnavailable(
            f"the Ray cluster at {address} asks for its token ({str(found).splitlines()[0]}): RAY_AUTH_MODE=token,"
            " and the token of its nodes in ~/.ray/auth_token or RAY_AUTH_TOKEN"
        )
    if isinstance(found, Exception):
        raise RuntimeUnavailable(
            f"no Ray job server answers at {address}: {found}; is the cluster up (`ray status` on its head node), is"
            " this its dashboard's port (8265 unless set), and does a firewall let you through?"
        ) from found
    return found


class ConnectionLost(HierflError):
    """The log stream broke and could not be taken up again; its cause tells why."""


def _ray_client() -> Callable[[str], Client]:
    """Import Ray, and make its client heed the address that it is given."""
    from ray.job_submission import JobSubmissionClient

    def make(address: str) -> Client:
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # else RAY_ADDRESS in the environment overrides the argument
        client: Client = JobSubmissionClient(address)
        return client

    return make


async def _follow(client: Client, job: str, pause_s: float) -> int:
    """Show the log until the job has ended, through broken connections; the job's exit code."""
    shown, failures, last = 0, 0, ""
    while True:
        try:
            passed = 0
            async for chunk in client.tail_job_logs(job):  # from the beginning each time: skip what was shown
                passed += len(chunk)
                if passed > shown:
                    print(chunk[-(passed - shown) :], end="", flush=True)
                    last = (last + chunk[-(passed - shown) :])[-1000:]
                    shown, failures = passed, 0
            info = client.get_job_info(job)
            if info.status in ("SUCCEEDED", "FAILED", "STOPPED"):
                if info.status == "FAILED" and (lacking := LACKING.search(last)) is not None:
                    print(_way_to(lacking[1]), file=sys.stderr)
                return _exit_code(info)
        except Exception as error:  # of Ray, aiohttp and requests alike
            failures += 1
            if failures >= ATTEMPTS:
                raise ConnectionLost(str(error)) from error
        await asyncio.sleep(pause_s)


def _way_to(package: str) -> str:
    """Say how the cluster's Python comes to hierfl, or to one of its packages."""
    why, more = ", which hierfl needs (it came along, its packages do not)", ""
    if package == "hierfl":
        why, more = "", ", or send it along: --working-dir at the root of a checkout"
    return (
        f"error: `python` on the cluster's head has no {package}{why}: install hierfl there, or start Ray from the"
        f" environment that has it (`. .venv/bin/activate`, then `ray start`){more}"
    )


def _exit_code(info: Any) -> int:
    """Turn the end of a job into an exit code as a shell gives it; say why where the job never ran."""
    code = info.driver_exit_code
    if code is None:
        if info.status != "SUCCEEDED":
            print(f"the job ended as {info.status}: {info.message}", file=sys.stderr)
        return 0 if info.status == "SUCCEEDED" else 1
    return int(code) if code >= 0 else 128 - int(code)
