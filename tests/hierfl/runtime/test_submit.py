from __future__ import annotations

import re
import socket
import threading
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from hierfl.errors import ConfigError, RuntimeUnavailable
from hierfl.runtime.ray_submit import ATTEMPTS, Client, connect, entrypoint, submit

ADDRESS = "http://head:8265"


@dataclass
class Info:
    """What the cluster tells of a job."""

    status: str
    driver_exit_code: int | None = None
    message: str = ""


@dataclass
class Cluster:
    """A cluster of the imagination: `streams` of log, each a list of chunks or an error, then `ends` one by one."""

    streams: list[list[str | BaseException]] = field(default_factory=lambda: [["round 1\n", "round 2\n"]])
    ends: list[Info] = field(default_factory=lambda: [Info("SUCCEEDED", 0)])
    refusal: Exception | None = None
    num_refused: int = 1000
    jobs: list[dict[str, Any]] = field(default_factory=list)
    tails: int = 0

    def submit_job(self, **job: Any) -> str:
        if self.refusal is not None and self.num_refused:
            self.num_refused -= 1
            raise self.refusal
        self.jobs.append(job)
        return "raysubmit_1"

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        assert job_id == "raysubmit_1"
        self.tails += 1
        for chunk in self.streams.pop(0) if len(self.streams) > 1 else self.streams[0]:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    def get_job_info(self, job_id: str) -> Info:
        return self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "heart.yaml").touch()
    return tmp_path


def send(cluster: Cluster, folder: Path, *overrides: str, wait: bool = True) -> int:
    config = folder / "configs" / "heart.yaml"
    return submit(config, overrides, address=ADDRESS, working_dir=folder, wait=wait, client=cluster, pause_s=0)


def test_the_folder_goes_up_and_the_log_comes_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster()
    assert send(cluster, folder, "federation.rounds=3", "name=two words") == 0
    job = cluster.jobs[0]
    assert job["entrypoint"] == (
        "python -m hierfl run configs/heart.yaml federation.rounds=3 'name=two words' runtime.kind=ray"
        " runtime.address=auto --plain"
    )
    assert job["runtime_env"]["working_dir"] == str(folder)
    assert {"runs/", ".venv*/", "venv/", ".git/"} <= set(job["runtime_env"]["excludes"])
    assert capsys.readouterr().out == "round 1\nround 2\n"


def test_private_keys_stay_at_home(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """By Ray's own way of packing: a cluster has no use for the identity of whoever submits to it."""
    from ray._private.runtime_env.packaging import create_package

    pytest.importorskip("cryptography")
    from hierfl.config import load
    from hierfl.link.provisioning import provision

    config = folder / "configs" / "heart.yaml"
    config.write_text(
        "task: {kind: heart_disease}\n"
        "federation: {name: w, members: [{name: cleveland, link: {address: 'localhost:1'}}, {name: budapest}]}\n"
    )
    for line in provision(load(config), folder / "pki", datetime.now(UTC), 1):
        assert line
    cluster = Cluster()
    send(cluster, folder)
    env = cluster.jobs[0]["runtime_env"]
    package = tmp_path_factory.mktemp("elsewhere") / "sent.zip"  # in the folder it would take in itself, without end
    ignores = {"include_gitignore": True} if "include_gitignore" in signature(create_package).parameters else {}
    create_package(env["working_dir"], package, **ignores, excludes=env["excludes"])
    sent = zipfile.ZipFile(package).namelist()
    assert "configs/heart.yaml" in sent and "pki/kits/w/cert.pem" in sent
    for path in folder.rglob("*.pem"):
        is_private = b"PRIVATE KEY" in path.read_bytes()
        assert (str(path.relative_to(folder)) in sent) != is_private, path


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (Info("SUCCEEDED", 0), 0),
        (Info("FAILED", 2), 2),
        (Info("FAILED", -9), 137),
        (Info("STOPPED", -15), 143),
        (Info("FAILED", None, "runtime_env setup failed"), 1),
        (Info("SUCCEEDED", None), 0),
    ],
)
def test_the_jobs_exit_code_is_ours(folder: Path, capsys: pytest.CaptureFixture[str], end: Info, code: int) -> None:
    assert send(Cluster(ends=[Info("RUNNING"), end]), folder) == code
    assert end.message in capsys.readouterr().err


def test_a_cluster_without_hierfl_is_told_with_the_ways_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    streams: list[list[str | BaseException]] = [["/usr/bin/python: No module na", "med hierfl\n"]]
    assert send(Cluster(streams=streams, ends=[Info("FAILED", 1)]), folder) == 1
    said = capsys.readouterr().err
    assert "no hierfl: install hierfl there" in said and "--working-dir at the root of a checkout" in said
    assert send(Cluster(ends=[Info("FAILED", 1)]), folder) == 1
    assert "no hierfl" not in capsys.readouterr().err


def test_a_cluster_without_what_hierfl_needs_is_told_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """hierfl came along in the folder; its packages, and a task's own, are the cluster's to have."""
    for name, is_ours in (("typer", True), ("my_helpers", False)):
        streams: list[list[str | BaseException]] = [[f"ModuleNotFoundError: No module named '{name}'\n"]]
        assert send(Cluster(streams=streams, ends=[Info("FAILED", 1)]), folder) == 1
        assert (f"no {name}, which hierfl needs" in capsys.readouterr().err) == is_ours


def test_a_broken_log_stream_is_taken_up_where_it_broke(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    streams: list[list[str | BaseException]] = [["one\ntw", RuntimeError("closed")], ["one\n", "two\n", "three\n"]]
    assert send(Cluster(streams=streams), folder) == 0
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def test_a_lost_cluster_is_given_up_with_the_way_to_the_job(folder: Path) -> None:
    cluster = Cluster(streams=[[OSError("no route to host")]])
    with pytest.raises(RuntimeUnavailable, match=r"(?s)no route to host.*may go on.*ray job logs.*ray job stop"):
        send(cluster, folder)
    assert cluster.tails == ATTEMPTS


def test_ctrl_c_leaves_the_job_and_says_how_to_stop_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert send(Cluster(streams=[["round 1\n", KeyboardInterrupt()]]), folder) == 130
    assert f"ray job stop --address {ADDRESS} raysubmit_1" in capsys.readouterr().err


def test_without_waiting_the_log_is_not_followed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster()
    assert send(cluster, folder, wait=False) == 0
    assert (len(cluster.jobs), cluster.tails) == (1, 0)
    assert "ray job logs" in capsys.readouterr().err


def test_a_refused_job_says_why(folder: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"http://head:8265 did not take the job: package too large"):
        send(Cluster(refusal=RuntimeError("package too large")), folder)


def test_a_cluster_that_has_just_begun_is_offered_the_job_until_it_takes_it(folder: Path) -> None:
    early = RuntimeError(
        "Request failed with status code 500: No available agent to submit job, please try again later"
    )
    cluster = Cluster(refusal=early, num_refused=3)
    assert send(cluster, folder) == 0 and len(cluster.jobs) == 1
    with pytest.raises(RuntimeUnavailable, match=r"did not take the job: .*No available agent"):
        send(Cluster(refusal=early), folder)


def test_a_configuration_outside_of_the_folder_is_refused_before_anything_is_sent(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"heart.yaml lies outside of the folder that is sent"):
        entrypoint(folder / "heart.yaml", [], folder / "configs")
    with pytest.raises(ConfigError, match="is not a folder"):
        entrypoint(folder / "heart.yaml", [], folder / "nowhere")


@pytest.mark.parametrize("address", ["auto", "head:8265", "ray://head:10001", "http://"])
def test_an_address_that_is_no_dashboards_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{address!r} is not a dashboard's address")):
        connect(address)


def test_a_server_that_never_answers_is_given_up() -> None:
    over = threading.Event()

    def hang(address: str) -> Any:
        over.wait()

    with pytest.raises(RuntimeUnavailable, match=r"no answer within 0.1 s.*ray status"):
        connect(ADDRESS, timeout_s=0.1, make=hang)
    over.set()


@pytest.fixture
def other_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own variables point elsewhere; what the user types must win."""
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://elsewhere:1")


@pytest.mark.usefixtures("other_address")
def test_rays_own_client_tells_of_a_closed_port() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RuntimeUnavailable, match=rf"no Ray job server answers at {address}"):
        connect(address)


def test_a_cluster_that_asks_for_its_token_is_not_called_silent() -> None:
    from ray.exceptions import AuthenticationError

    def refuse(_: str) -> Client:
        raise AuthenticationError("Authentication required: Unauthorized: Missing authentication token\n\nMore.")

    with pytest.raises(RuntimeUnavailable) as told:
        connect("http://head:8265", make=refuse)
    said = str(told.value)
    assert "http://head:8265 asks for its token" in said and "Missing authentication token" in said
    assert "RAY_AUTH_MODE=token" in said and "firewall" not in said and "\n" not in said


@pytest.mark.usefixtures("other_address")
def test_rays_own_client_is_given_up_where_a_server_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RuntimeUnavailable, match="no answer within 1 s"):
            connect(address, timeout_s=1)
