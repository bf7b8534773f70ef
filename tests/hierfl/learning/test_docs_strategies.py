"""The own strategy of docs/strategies.md, as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import hub

import hierfl

PAGE = (Path(__file__).parents[3] / "docs" / "strategies.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## A strategy of your own")[2].partition("\n## ")[0]


def block(language: str) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTION, flags=re.MULTILINE | re.DOTALL)[0]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "my_strategy.py").write_text(block("python"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path / "my_strategy.py"
    sys.modules.pop("my_strategy", None)


def config(strategy: Any, rounds: int = 3) -> dict[str, Any]:
    return {
        "task": {"kind": "ward_tasks:Wards"},
        "training": {"lr": 0.1, "batch_size": 4},
        "federation": hub("world", hub("us", "a", "b"), "c", rounds=rounds, strategy=strategy),
        "runtime": {"kind": "local", "num_workers": 1},
        "output": {"tensorboard": False},
    }


def test_it_runs_and_goes_on_with_its_state(source: Path) -> None:
    own = yaml.safe_load(block("yaml"))["strategy"]
    whole = hierfl.run(config(own))
    assert hierfl.resume(hierfl.run(config(own, rounds=2)), ["federation.rounds=3"]).digest == whole.digest
    still = hierfl.run(config({**own, "decay": 1.0}))
    assert still.digest == hierfl.run(config("fedavg")).digest != whole.digest


def test_who_writes_a_step_says_whether_it_is_linear(source: Path) -> None:
    source.write_text(re.sub(r".*linear: ClassVar.*\n", "", source.read_text()))
    with pytest.raises(hierfl.ConfigError, match=r"Shrinking has a step of its own, and linear from FedAvg") as caught:
        hierfl.validate(config({"kind": "my_strategy:Shrinking"}))
    assert [problem.path for problem in caught.value.problems] == ["federation.strategy"]
