"""What a serving process tells Prometheus: by its own parser, of what the run's records say."""

from __future__ import annotations

import contextlib
import io
import re
import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

pytest.importorskip("prometheus_client")

from link_members import Pki
from link_processes import free_port
from prometheus_client.parser import text_string_to_metric_families
from small_runs import config_of, hub
from typer.testing import CliRunner

from hierfl import __version__
from hierfl.cli import app
from hierfl.errors import LinkError
from hierfl.link import commands, gauges, health
from hierfl.link.gauges import Gauges
from hierfl.link.health import Health
from hierfl.link.log import Log
from hierfl.link.serving import Serving
from hierfl.monitor.records import (
    Evaluated,
    Monitor,
    NodesChanged,
    Notice,
    RoundClosed,
    RoundCommitted,
    RunStarted,
    SiteTrained,
)

ALERTS = Path(__file__).parents[3] / "deploy" / "prometheus" / "alerts.yaml"
HEALTH: dict[str, Any] = {
    "node": "world",
    "federation": 'heart "2"',
    "leads": True,
    "members": {"world/us": True, "world/hungary": False},
    "certificate_until": "2026-12-01T00:00:00+00:00",
}


@pytest.fixture
def told() -> Gauges:
    return Gauges(lambda: HEALTH)


def read(made: Gauges) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Read the page as Prometheus does: a value by name and labels."""
    kind, content = made.page()
    assert kind.startswith("text/plain")
    families = text_string_to_metric_families(content.decode())
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def value(made: Gauges, name: str, **labels: str) -> float | None:
    return read(made).get((f"hierfl_{name}", frozenset(labels.items())))


def closed(number: int, missing: Mapping[str, str], **others: int) -> RoundClosed:
    return RoundClosed(1.0, "world", number, "deadline", ["us"], missing, 2.0, 100, others=others)


def test_before_the_run_begins_it_is_told_who_is_there(told: Gauges) -> None:
    assert value(told, "node_info", federation='heart "2"', node="world", version=__version__) == 1
    assert value(told, "leads") == 1 and value(told, "hub_up") is None
    assert (value(told, "member_up", member="world/us"), value(told, "member_up", member="world/hungary")) == (1, 0)
    assert value(told, "certificate_expiry_timestamp_seconds") == 1796083200
    assert value(told, "rounds_committed") is None and value(told, "notices_total", level="error") == 0


def test_a_member_tells_whether_it_reaches_its_hub() -> None:
    made = Gauges(lambda: {"node": "world/us", "federation": "heart", "leads": False, "members": {}, "up": False})
    assert (value(made, "leads"), value(made, "hub_up")) == (0, 0)
    assert value(made, "certificate_expiry_timestamp_seconds") is None


def test_rounds_are_told_as_they_go(told: Gauges, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges.time, "time", lambda: 1.5e9)
    told.on(RunStarted(0.0, "heart", "runs/heart", "local", ["worker-0"], 15, 4, 14, {}))
    assert (value(told, "rounds_planned"), value(told, "rounds_committed")) == (15, 3)
    told.on(closed(4, {"hungary": "deadline"}))
    told.on(closed(5, {}, left=2))
    told.on(RoundCommitted(9.0, 5, 15, 2.5, 0.75, None, 0.125))
    assert (value(told, "round_updates", node="world"), value(told, "round_missing_updates", node="world")) == (1, 2)
    assert value(told, "missing_updates_total", node="world") == 3
    assert (value(told, "rounds_committed"), value(told, "round_duration_seconds")) == (5, 2.5)
    assert value(told, "last_commit_timestamp_seconds") == 1.5e9
    assert (value(told, "devices_busy_ratio"), value(told, "devices_idle_floor_ratio")) == (0.75, 0.125)


def test_what_goes_wrong_is_counted(told: Gauges) -> None:
    for number in range(3):
        told.on(SiteTrained(1.0, "world/us/cleveland", number, "worker-0", 1.0, 199, 100, 0.5))
    told.on(NodesChanged(1.0, ("world/us/long_beach",), "failed", 1))
    told.on(NodesChanged(1.0, ("world/us/long_beach",), "training", 2))
    told.on(Notice(1.0, "error", "world/us/long_beach", "no such file"))
    assert value(told, "trainings_total", node="world/us") == 3
    assert value(told, "failures_total", node="world/us/long_beach") == 1
    assert value(told, "notices_total", level="error") == 1 and value(told, "notices_total", level="info") == 0


def test_the_newest_figures_are_told_that_are_numbers(told: Gauges, monkeypatch: pytest.MonkeyPatch) -> None:
    told.on(Evaluated(1.0, 1, {"world": {"auc": 0.5}, "world/gone": {"auc": 0.5}}))
    figures = {"auc": 0.875, "loss": None, "confusion": [[1.0, 2.0]], "num_test": 104, "brier": float("nan")}
    told.on(Evaluated(2.0, 2, {"world/hu/a": {"auc": 0.25}, "world": figures, "world/us": {"auc": 0.75}}))
    found = {labels: one for (name, labels), one in read(told).items() if name == "hierfl_metric"}
    assert {tuple(dict(labels)[name] for name in ("node", "metric")): one for labels, one in found.items()} == {
        ("world", "auc"): 0.875,
        ("world", "num_test"): 104,
        ("world/us", "auc"): 0.75,
        ("world/hu/a", "auc"): 0.25,
    }
    monkeypatch.setattr(gauges, "MOST_NODES", 2)
    assert value(told, "metric", node="world/hu/a", metric="auc") is None, "those near the root come first"
    assert value(told, "metric", node="world/us", metric="auc") == 0.75


@pytest.fixture
def address(told: Gauges, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(health, "PATIENCE_S", 0.2)
    made = Health("127.0.0.1:0", lambda: HEALTH, told.page)
    yield f"http://127.0.0.1:{made.port}"
    made.close()


def test_it_is_answered_beside_the_health(address: str) -> None:
    with urllib.request.urlopen(f"{address}/metrics?name=hierfl_leads", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain") and b"hierfl_leads 1.0" in answer.read()


def test_it_is_answered_at_an_address_of_either_family() -> None:
    made = Health("[::1]:0", lambda: HEALTH, lambda: ("text/plain", b"told"))
    try:
        assert urllib.request.urlopen(f"http://[::1]:{made.port}/metrics", timeout=10).read() == b"told"
    finally:
        made.close()


def test_who_asks_for_the_head_alone_gets_no_page(address: str) -> None:
    for page, status in (("/metrics", b"200"), ("/healthz", b"200"), ("/other", b"404")):
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 10) as asking:
            asking.sendall(f"HEAD {page} HTTP/1.0\r\n\r\n".encode())
            answer = asking.makefile("rb").read()
        assert answer.split()[1] == status and answer.endswith(b"\r\n\r\n") and b"Content-Length: " in answer


def test_who_hangs_up_or_says_nothing_holds_no_thread_and_fills_no_log(
    address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    place = ("127.0.0.1", int(address.rpartition(":")[2]))
    before = {*threading.enumerate()}
    with socket.create_connection(place) as rude:
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes by a reset
        rude.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    with socket.create_connection(place) as silent:
        silent.settimeout(30)
        assert silent.recv(1) == b"", "it is not waited for"
    for one in {*threading.enumerate()} - before:
        one.join(10)
        assert not one.is_alive()
    assert capfd.readouterr() == ("", "")


def test_health_is_told_while_the_lanes_close(tmp_path: Path) -> None:
    class Closing:
        """A lane that is looked at just as all are closed."""

        is_member = True

        @property
        def session(self) -> object:
            serving.lanes.clear()
            return self

    config = config_of(tmp_path, hub("world", hub("us", "a", link={"address": "localhost:1"})), name="heart")
    serving = Serving(config, Pki(tmp_path / "pki").kit("world"), Log(io.StringIO()))
    serving.lanes.update({"world/us": Closing(), "world/eu": Closing()})  # type: ignore[dict-item]
    said = serving.health()
    assert said["members"] == {"world/us": True, "world/eu": True} and said["leads"]
    assert serving.health()["members"] == {}


def test_the_alerts_that_come_along_are_made_of_what_is_told(told: Gauges) -> None:
    told.on(RunStarted(0.0, "heart", "runs/heart", "local", ["worker-0"], 15, 4, 14, {}))
    told.on(closed(4, {"hungary": "deadline"}))
    told.on(RoundCommitted(9.0, 5, 15, 2.5, 0.75, None))
    names = {name for name, _ in read(told)} | {name for name, _ in read(Gauges(lambda: {**HEALTH, "up": True}))}
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    used = [name for rule in rules for name in re.findall(r"hierfl_\w+", rule["expr"])]
    assert len(rules) == 6 and set(used) <= names


def test_that_no_round_is_published_is_told_before_the_first_and_of_no_process_that_stands_by(told: Gauges) -> None:
    told.on(RunStarted(0.0, "heart", "runs/heart", "local", ["worker-0"], 15, 1, 14, {}))
    [rule] = [
        one for one in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"] if one["alert"] == "HierflNoRound"
    ]
    used = {*re.findall(r"hierfl_\w+", rule["expr"])}
    assert used <= {name for name, _ in read(told)} and "on (instance) hierfl_leads == 1" in rule["expr"]


@pytest.mark.parametrize("command", ["serve", "join"])
def test_what_is_told_of_a_run_reaches_the_page_while_the_command_lasts(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, pages = f"127.0.0.1:{free_port()}", []

    def carried_out(serving: Any, monitors: Sequence[Monitor], *given: Any, **named: Any) -> None:
        for monitor in monitors:
            monitor.on(Notice(1.0, "error", "world", "no such file"))
        pages.append(urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode())
        raise LinkError("it is over")

    log = Log(io.StringIO())
    serving = SimpleNamespace(config=None, kit=SimpleNamespace(path="world"), log=log, health=lambda: HEALTH)
    monkeypatch.setattr(commands, "_serving", lambda *given: serving)
    monkeypatch.setattr(commands, "_watched", lambda *given: contextlib.nullcontext())
    monkeypatch.setattr(commands, "_approve", lambda *given: None)
    for name in ("check_member", "with_data"):
        monkeypatch.setattr(f"hierfl.link.serving.{name}", lambda *given: None)
    monkeypatch.setattr("hierfl.link.serving.state_folder", lambda *given: Path("state"))
    monkeypatch.setattr(f"hierfl.link.serving.{command}", carried_out)
    ended = CliRunner().invoke(app, [command, "trial.yaml", "--kit", "kit", "--health", address])
    assert ended.exit_code == LinkError("").exit_code and "it is over" in ended.stderr
    assert 'hierfl_notices_total{level="error"} 1.0' in pages[0].splitlines()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{address}/metrics", timeout=10)
