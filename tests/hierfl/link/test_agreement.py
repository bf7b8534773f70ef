"""Who agreed to a member's plan: what is kept of it, and what is told of it later."""

from __future__ import annotations

import json
import os
import pwd
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from link_members import Pki
from small_runs import config_of, hub
from typer.testing import CliRunner

from hierfl import __version__
from hierfl.cli import app
from hierfl.config import write
from hierfl.errors import LinkError
from hierfl.link import commands
from hierfl.link.agreement import OPTION, agree, agreed, agreement_here
from hierfl.link.approval import plan_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def config(folder: Path, **top: Any) -> Any:
    link = {"address": "hub.example.org:8443"}
    return config_of(folder, hub("world", hub("us", "a", "b", link=link), "c"), name="heart", **top)


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A member without a terminal, before it joins; its account is called anna."""
    monkeypatch.setattr(pwd, "getpwuid", lambda number: SimpleNamespace(pw_name="anna"))
    monkeypatch.setattr(os, "getlogin", lambda: "anna")
    monkeypatch.setattr(socket, "gethostname", lambda: "ward-7")
    monkeypatch.setenv("LOGNAME", "somebody")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    kit = Pki(tmp_path).kit("world/us")
    return SimpleNamespace(config=config(tmp_path), kit=kit)


def kept(serving: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((serving.kit.folder / "approved.json").read_text())
    return found


def test_an_agreement_is_to_one_plan(tmp_path: Path) -> None:
    plan, other = plan_of(config(tmp_path), "world/us"), plan_of(config(tmp_path, seed=7), "world/us")
    here = agreement_here(OPTION, NOW)
    assert agreed(plan, tmp_path) is None
    agree(plan, tmp_path, here, plan.lines())
    assert agreed(plan, tmp_path) == here and agreed(other, tmp_path) is None
    agree(other, tmp_path, here, other.lines())
    assert agreed(plan, tmp_path) == agreed(other, tmp_path) == here
    (tmp_path / "approved.json").write_text("{")
    with pytest.raises(LinkError, match="delete it to approve anew"):
        agreed(plan, tmp_path)


def test_who_agreed_with_an_option_is_kept_with_what_was_shown(serving: Any, capsys: Any) -> None:
    with pytest.raises(LinkError, match="this plan is not approved; agree to it with --approve"):
        commands._approve(serving, None)
    with pytest.raises(LinkError, match=r"the plan is another one than 0000000000000000\.\.\."):
        commands._approve(serving, "0" * 64)
    assert not (serving.kit.folder / "approved.json").exists()
    serving.kit.terms.write_text("rounds: 500\n")
    plan = plan_of(serving.config, "world/us").digest
    capsys.readouterr()
    commands._approve(serving, plan)
    shown, said = capsys.readouterr().out.rstrip().rsplit("\n", 1)
    [(digest, entry)] = kept(serving).items()
    now = entry.pop("at")
    assert digest == plan and abs((datetime.now(UTC) - datetime.fromisoformat(now)).total_seconds()) < 60
    assert entry.pop("shown") == shown.split("\n") and "own terms      rounds 500" in shown
    assert entry == {
        "user": "anna",
        "login": "anna",
        "host": "ward-7",
        "how": "given with --approve",
        "hierfl": __version__,
    }
    assert said == f"agreed         by anna at ward-7, {now}, given with --approve, hierfl {__version__}"


def test_who_goes_by_an_earlier_agreement_is_told_whose(
    serving: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(os, "getlogin", lambda: "berta")
    monkeypatch.setattr(typer, "confirm", lambda question: asked.append(question) or len(asked) > 1)
    with pytest.raises(LinkError, match="this plan is not approved"):
        commands._approve(serving, None)  # asked, and said no
    commands._approve(serving, None)
    before = kept(serving)
    monkeypatch.setattr(socket, "gethostname", lambda: "ward-8")
    monkeypatch.setattr(pwd, "getpwuid", lambda number: SimpleNamespace(pw_name="carl"))
    for approved in (None, plan_of(serving.config, "world/us").digest):
        capsys.readouterr()
        commands._approve(serving, approved)
        said = capsys.readouterr().out.splitlines()[-1]
        assert said.startswith("agreed         by anna (logged in as berta) at ward-7, 20")
        assert f", typed at the terminal, hierfl {__version__}" in said
    assert len(asked) == 2 and kept(serving) == before


def test_an_account_without_a_name_and_a_process_without_a_terminal_are_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(*_: object) -> Any:
        raise KeyError("uid not found")

    def no_terminal() -> str:
        raise OSError("Inappropriate ioctl for device")

    monkeypatch.setattr(pwd, "getpwuid", none)
    monkeypatch.setattr(os, "getlogin", no_terminal)
    here = agreement_here(OPTION, NOW)
    assert here.user == f"uid {os.getuid()}" and here.login == ""
    assert f"by uid {os.getuid()} at " in here.line() and "logged in" not in here.line()


def test_an_entry_that_lacks_something_says_so(tmp_path: Path) -> None:
    plan = plan_of(config(tmp_path), "world/us")
    (tmp_path / "approved.json").write_text(json.dumps({plan.digest: {"at": "2026-01-01"}}))
    found = agreed(plan, tmp_path)
    assert found is not None and found.at == "2026-01-01" and found.user == "unknown"
    (tmp_path / "approved.json").write_text(json.dumps({plan.digest: True}))
    assert agreed(plan, tmp_path) is None


def test_data_that_are_not_there_are_told_before_anybody_is_asked_to_agree(tmp_path: Path) -> None:
    us = {"name": "us", "link": {"address": "hub.example.org:8443"}, "data": {"path": "us.parquet"}}
    tables, output = {"kind": "parquet", "features": ["x"], "label": "y"}, {"dir": str(tmp_path / "runs")}
    file, kit = tmp_path / "heart.yaml", Pki(tmp_path).kit("world/us").folder
    file.write_text(write(config_of(tmp_path, hub("world", us), tables, name="heart", output=output).resolved))
    ended = CliRunner().invoke(app, ["join", str(file), "--kit", str(kit), "--data", str(tmp_path / "mine.parquet")])
    assert ended.exit_code == 2 and "mine.parquet: does not exist" in ended.stderr
    assert not ended.stdout and not (tmp_path / "runs").exists()
