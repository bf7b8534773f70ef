"""`hierfl run` and `resume` as a person uses them, each on a Ray of its own: stops, wrong addresses, two at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from ray_runs import (
    HIERFL,
    SUPPORT,
    digest_in,
    environment,
    finish,
    processes_in,
    run,
    started,
    tree,
    wait_gone,
    write_config,
)

pytestmark = pytest.mark.ray

ON_RAY = ("runtime.kind=ray", "runtime.num_cpus=2")
LOCAL = ("runtime.kind=local",)
HEART = SUPPORT.parents[1] / "configs" / "heart.yaml"
SHORT = ("federation.rounds=1", "runtime.num_workers=1", "--plain")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A federation whose task lies beside it, in the folder from which it is run, and nowhere else on the path."""
    shutil.copy(SUPPORT / "faulty_task.py", tmp_path)
    return write_config(tmp_path, tree(rounds=3))


@pytest.fixture
def digest(config: Path) -> str:
    """The digest of the unbroken run; and no notes of it."""
    unbroken = str(run(config, "runtime.kind=local")["model_digest"])
    shutil.rmtree(config.parent / "runs")
    for notes in config.parent.glob("steps-*"):
        notes.unlink()
    return unbroken


def only_run(config: Path) -> Path:
    (folder,) = (config.parent / "runs").iterdir()
    return folder


def hold_in_second_round(config: Path) -> Path:
    """Let site d, which takes three steps a round, wait in its first step of the second round."""
    order = config.parent / "hold-d"
    order.write_text("3")
    return order


def wait_for_second_round(config: Path, process: subprocess.Popen[str]) -> None:
    steps = config.parent / "steps-d"
    deadline = time.monotonic() + 120
    while not steps.exists() or len(steps.read_text().splitlines()) < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("sent", "runtime"),
    [
        pytest.param(signal.SIGINT, ON_RAY, id="ctrl-c on ray", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, ON_RAY, id="sigterm on ray", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, ON_RAY, id="sigkill on ray", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, LOCAL, id="ctrl-c", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, LOCAL, id="sigterm", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, LOCAL, id="sigkill", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_stopped_goes_on_to_the_bits_of_an_unbroken_one(
    config: Path, digest: str, ray_temp: Path, runtime: tuple[str, ...], sent: signal.Signals
) -> None:
    env = environment(ray_temp)
    order = hold_in_second_round(config)
    with started([*HIERFL, "run", config.name, *runtime, "--plain"], config.parent, env) as going:
        wait_for_second_round(config, going)
        os.killpg(going.pid, sent) if sent == signal.SIGINT else going.send_signal(sent)  # as a terminal does
        time.sleep(1.0)
        order.unlink()
        returned, out, err = finish(going)
    assert returned == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[sent], (out, err)
    if sent == signal.SIGKILL:
        wait_gone(ray_temp, but="Agent")
    assert sent == signal.SIGKILL or not processes_in(ray_temp)
    folder = only_run(config)
    assert checkpoints(folder) == ["round-000001"]
    if sent != signal.SIGKILL:
        assert "stopped" in err and f"resume runs/{folder.name}" in err.replace(f"{config.parent}/", "")
        assert "Traceback" not in out + err and "SIGTERM received" not in err
        assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    with started(
        [*HIERFL, "resume", str(folder), "--plain"], Path("/"), env
    ) as going:  # the task is found all the same
        returned, out, err = finish(going)
    assert returned == 0, err
    assert digest_in(folder) == digest and digest in out
    assert only_run(config) == folder
    assert checkpoints(folder)[-1] == "round-000003"


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
@pytest.mark.parametrize("wait_s", [1.0, 3.0, 4.0, 5.0])
def test_a_stop_before_the_first_round_leaves_nothing_behind(
    config: Path, ray_temp: Path, wait_s: float, sent: signal.Signals
) -> None:
    (config.parent / "hold-model").write_text("0")
    with started([*HIERFL, "run", config.name, *ON_RAY], config.parent, environment(ray_temp)) as going:
        time.sleep(wait_s)
        os.killpg(going.pid, sent)
        returned, out, err = finish(going)
    assert returned == 128 + sent, (out, err)
    assert "stopped" in err and "Traceback" not in out + err
    assert not processes_in(ray_temp)


@pytest.mark.slow
def test_a_run_that_fails_leaves_no_process_behind(config: Path, ray_temp: Path) -> None:
    (config.parent / "fail-d").touch()
    with started([*HIERFL, "run", config.name, *ON_RAY], config.parent, environment(ray_temp)) as going:
        returned, out, err = finish(going)
    assert returned == 1, (out, err)
    assert "eu/d" in err
    assert not processes_in(ray_temp)


@pytest.mark.slow
def test_two_runs_at_once_do_not_meet(config: Path, digest: str, ray_temp: Path) -> None:
    env = environment(ray_temp)
    command = [*HIERFL, "run", config.name, *ON_RAY, "--plain"]
    with started(command, config.parent, env) as one, started(command, config.parent, env) as other:
        ends = [finish(one), finish(other)]
    assert [returned for returned, _, _ in ends] == [0, 0], ends
    assert [digest_in(folder) for folder in (config.parent / "runs").iterdir()] == [digest, digest]
    assert not processes_in(ray_temp)


def listening(ray_temp: Path) -> dict[tuple[int, str, str], set[int]]:
    """List where processes of a Ray under `ray_temp` listen: the ports by process, its program and address."""
    from hierfl.runtime.ray_cluster import ray_processes  # Ray, which brings psutil along, is imported first

    psutil = ray_processes.psutil

    found: dict[tuple[int, str, str], set[int]] = {}
    for process in map(psutil.Process, processes_in(ray_temp)):
        with suppress(psutil.NoSuchProcess):
            for one in process.net_connections(kind="inet"):
                if one.status == psutil.CONN_LISTEN:
                    found.setdefault((process.pid, process.name(), one.laddr.ip), set()).add(one.laddr.port)
    return found


def test_a_ray_of_the_runs_own_is_reached_from_this_machine_alone(config: Path, ray_temp: Path) -> None:
    """Whoever reaches a Ray runs code there."""
    order = hold_in_second_round(config)
    with started([*HIERFL, "run", config.name, *ON_RAY, "--plain"], config.parent, environment(ray_temp)) as going:
        wait_for_second_round(config, going)
        found = listening(ray_temp)
        order.unlink()
        returned, out, err = finish(going)
    assert returned == 0, (out, err)
    assert len(found) > 5 and any(program == "gcs_server" for _, program, _ in found)
    assert {ip.removeprefix("::ffff:") for *_, ip in found} == {"127.0.0.1"}, found


@pytest.mark.slow
def test_other_runs_of_this_machine_join_a_ray_of_the_runs_own(config: Path, ray_temp: Path) -> None:
    """With the token that Ray has made; by its address, for auto may find a Ray of somebody else."""
    env = environment(ray_temp)
    order = hold_in_second_round(config)
    own = [*HIERFL, "run", config.name, "runtime.kind=ray", "runtime.num_cpus=3", "runtime.num_workers=2", "--plain"]
    with started(own, config.parent, env) as going:
        wait_for_second_round(config, going)
        [port] = next(ports for (_, program, _), ports in listening(ray_temp).items() if program == "gcs_server")
        guest = [*HIERFL, "run", str(HEART), "runtime.kind=ray", f"runtime.address=127.0.0.1:{port}", *SHORT]
        with started(guest, config.parent, {**env, "RAY_AUTH_MODE": "token"}) as other:
            returned, out, err = finish(other)
        assert returned == 0, (out, err)
        order.unlink()
        returned, out, err = finish(going)
    assert returned == 0, (out, err)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def refused(config: Path, ray_temp: Path, *overrides: str, inside: Sequence[str] = (), **env: str) -> str:
    """Run what cannot be run; the message. The product's own limits of time are in what it says.

    `inside`: a command that runs it.
    """
    command = [*inside, *HIERFL, "run", config.name, "runtime.kind=ray", *overrides, "--plain"]
    with started(command, config.parent, environment(ray_temp, **env)) as going:
        returned, out, err = finish(going)
    assert returned == 1, (out, err)
    assert "Traceback" not in out + err
    return err


def test_an_address_where_nobody_listens(config: Path, ray_temp: Path, closed: int) -> None:
    said = refused(config, ray_temp, f"runtime.address=127.0.0.1:{closed}")
    assert f"no Ray at runtime.address '127.0.0.1:{closed}'" in said and "ray start --head" in said


@pytest.mark.slow
def test_an_address_that_never_answers(config: Path, ray_temp: Path, silent: int) -> None:
    assert "no answer within 8 s" in refused(config, ray_temp, f"runtime.address=127.0.0.1:{silent}")


@pytest.mark.slow
def test_auto_where_the_environment_names_an_address_that_never_answers(
    config: Path, ray_temp: Path, silent: int
) -> None:
    said = refused(config, ray_temp, "runtime.address=auto", RAY_ADDRESS=f"127.0.0.1:{silent}")
    assert f"127.0.0.1:{silent}" in said and "no answer within 8 s" in said


@pytest.fixture(scope="module")
def alone() -> Sequence[str]:
    """Give a command under which no other process of this machine is seen: Ray looks for others among all."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("process namespaces cannot be made here")
    return command


@pytest.mark.slow
def test_auto_where_no_ray_runs(config: Path, ray_temp: Path, alone: Sequence[str]) -> None:
    assert "no Ray at runtime.address 'auto'" in refused(config, ray_temp, "runtime.address=auto", inside=alone)


@pytest.mark.slow
def test_auto_where_the_last_ray_is_gone(config: Path, ray_temp: Path, closed: int, alone: Sequence[str]) -> None:
    (ray_temp / "ray_current_cluster").write_text(f"127.0.0.1:{closed}")
    assert "no Ray at runtime.address 'auto'" in refused(config, ray_temp, "runtime.address=auto", inside=alone)


@pytest.mark.slow
def test_an_address_of_ray_client_is_told_apart(config: Path, ray_temp: Path) -> None:
    assert "hierfl submit CONFIG --address" in refused(config, ray_temp, "runtime.address=ray://127.0.0.1:10001")


@pytest.mark.slow
def test_more_workers_than_the_machine_has(config: Path, ray_temp: Path) -> None:
    said = refused(config, ray_temp, "runtime.num_cpus=1", "runtime.num_workers=3")
    assert "3 workers need 3 CPU, the Ray cluster has 1" in said and "raise runtime.num_cpus" in said
    assert not processes_in(ray_temp)
