"""The own dispatch policy of docs/scheduling.md, as it stands there."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import hub
from typer.testing import CliRunner

import hierfl
from hierfl.cli import app

PAGE = (Path(__file__).parents[3] / "docs" / "scheduling.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## A dispatch policy of your own\n")[2].partition("\n## ")[0]


def block(language: str) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTION, flags=re.MULTILINE | re.DOTALL)[0]


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "my_order.py").write_text(block("python"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path / "my_order.py"
    sys.modules.pop("my_order", None)


def config(**runtime: Any) -> dict[str, Any]:
    return {
        "task": {"kind": "ward_tasks:Wards"},
        "training": {"lr": 0.1, "batch_size": 4},
        "federation": hub("world", hub("us", "boston", "cleveland", "dallas"), rounds=2),
        "runtime": {"kind": "local", "num_workers": 1, **runtime},
        "output": {"tensorboard": False},
    }


def trained(result: hierfl.Result) -> dict[int, list[str]]:
    """Who trained in each round, in order."""
    found: dict[int, list[str]] = {}
    for line in (result.run_dir / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "site_trained":
            found.setdefault(event["round_number"], []).append(event["node"].rpartition("/")[2])
    return found


def test_the_favoured_site_goes_first_and_the_bits_stay() -> None:
    own = yaml.safe_load(block("yaml"))["runtime"]
    favoured, fifo = hierfl.run(config(**own)), hierfl.run(config(policy="fifo"))
    order = ["cleveland", "boston", "dallas"]
    assert trained(favoured) == {1: order, 2: order}
    assert trained(fifo)[1] == sorted(order) and favoured.digest == fifo.digest
    assert "it is favoured" in (favoured.run_dir / "events.jsonl").read_text()


def test_one_that_takes_every_duration_for_known_is_told_before_a_run(source: Path) -> None:
    source.write_text(source.read_text().replace("job.order)", "-job.estimate_s)"))
    with pytest.raises(
        hierfl.ConfigError, match=r"my_order:Favoured: its priority\(\) failed: TypeError: .*my_order.py"
    ):
        hierfl.validate(config(policy="my_order:Favoured"))


def test_what_plan_says_is_what_the_page_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    [(command, said)] = re.findall(r"^`hierfl (plan .*?)`:\n\n```\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert CliRunner().invoke(app, command.split()).stdout == said
