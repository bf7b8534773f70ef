"""The own strategy, compression and attack of docs/strategies.md, as they stand there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_runs import hub

import hierfl

PAGE = (Path(__file__).parents[3] / "docs" / "strategies.md").read_text(encoding="utf-8")


def block(language: str, section: str = "A strategy of your own") -> str:
    text = PAGE.partition(f"# {section}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)[0]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for kind in ("strategy", "compression", "attack"):
        text = block("python", f"A{'n' * (kind == 'attack')} {kind} of your own")
        (tmp_path / f"my_{kind}.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path / "my_strategy.py"
    for kind in ("strategy", "compression", "attack"):
        sys.modules.pop(f"my_{kind}", None)


def config(strategy: Any, rounds: int = 3, a: str | dict[str, Any] = "a", **settings: Any) -> dict[str, Any]:
    return {
        "task": {"kind": "ward_tasks:Wards"},
        "training": {"lr": 0.1, "batch_size": 4},
        "federation": hub("world", hub("us", a, "b"), "c", rounds=rounds, strategy=strategy, **settings),
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


def test_the_own_compression_sends_half_and_goes_on_with_what_it_left_out(source: Path) -> None:
    own = yaml.safe_load(block("yaml", "A compression of your own"))["compression"]
    whole = hierfl.run(config("fedavg", compression=own))
    assert (
        hierfl.resume(hierfl.run(config("fedavg", 2, compression=own)), ["federation.rounds=3"]).digest == whole.digest
    )
    without = hierfl.run(config("fedavg", compression={**own, "error_feedback": False}))
    exact = hierfl.run(config("fedavg"))
    assert len({whole.digest, without.digest, exact.digest}) == 3
    model, halves = (run.model().state_dict() for run in (exact, whole))
    assert all(torch.allclose(model[name], halves[name], atol=1e-3) for name in model)
    coded = source.with_name("my_compression.py")
    coded.write_text(coded.read_text().replace("return 2 * size", "return size"))
    sys.modules.pop("my_compression")
    with pytest.raises(
        hierfl.ConfigError, match=r"Half: its num_bytes\(\) gave 1 for 1 elements, and .* made 2; needed"
    ):
        hierfl.validate(config("fedavg", compression=own))


def test_the_own_attack_trains_on_a_few_records_and_sends_more_than_it_learned(source: Path) -> None:
    own = yaml.safe_load(block("yaml", "An attack of your own"))["attack"]

    def digest(**keys: Any) -> str:
        return hierfl.run(config("fedavg", a={"name": "a", "attack": {**own, **keys}})).digest

    honest = hierfl.run(config("fedavg")).digest
    assert digest(records=12, factor=1.0) == honest, "all of its records, and what it learned"
    assert len({honest, digest(factor=1.0), digest(records=12), digest()}) == 4
    attack = source.with_name("my_attack.py")
    attack.write_text(re.sub(r".*knows_honest: ClassVar.*\n", "", attack.read_text()))
    sys.modules.pop("my_attack")
    with pytest.raises(hierfl.ConfigError, match="FreeRider is no attack: it has no knows_honest"):
        hierfl.validate(config("fedavg", a={"name": "a", "attack": own}))
