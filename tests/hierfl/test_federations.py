"""The configurations that come along: what their headers say is valid, each runs cut down, and learns."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from small_runs import Listener

from hierfl.config.load import load
from hierfl.lifecycle import run
from hierfl.monitor.records import Evaluated

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
PAGE = (ROOT / "docs" / "federations.md").read_text(encoding="utf-8")

CUT = {
    "covid_cxr": ["task.num_cases=400", "task.size=8"],
    "fets": ["task.num_cases=150", "task.size=8", "task.levels=2"],
    "heart_optimum": ["evaluation.every=1"],
    "icu_ehr": ["task.num_cases=1000"],
    "melloddy": ["task.num_cases=1000"],
    "scale": [
        "federation.members.count=2",
        "federation.members[0].members.count=3",
        "evaluation.every=1",
        "task.num_test=8",
    ],
    "stragglers": ["federation.participation=all", "federation.members.us.participation=all"],
}
"""What makes a configuration smaller still; one that is not here runs as it is, for three rounds."""


def commands(name: str) -> list[list[str]]:
    """The overrides of each command in a configuration's header."""
    header = re.findall(r"^#   hierfl run (.*)$", (ROOT / "configs" / f"{name}.yaml").read_text(), flags=re.MULTILINE)
    words = [shlex.split(line, comments=True) for line in header]
    assert words and all(first == f"configs/{name}.yaml" for first, *_ in words), f"{name} does not say how to run it"
    return [overrides for _, *overrides in words]


@pytest.fixture(autouse=True)
def _has_what_it_needs(request: pytest.FixtureRequest) -> None:
    if "name" in request.fixturenames and request.getfixturevalue("name") == "private":
        pytest.importorskip("dp_accounting")


@pytest.mark.parametrize("name", CONFIGS)
def test_what_the_header_says_is_valid(name: str) -> None:
    for overrides in commands(name):
        load(ROOT / "configs" / f"{name}.yaml", overrides)


@pytest.mark.parametrize("name", CONFIGS)
def test_it_runs_and_its_loss_falls(name: str, tmp_path: Path) -> None:
    small = ["federation.rounds=3", "runtime.kind=local", f"output.dir={tmp_path}", "output.tensorboard=false"]
    monitor = Listener()
    summary = run(load(ROOT / "configs" / f"{name}.yaml", [*small, *CUT.get(name, [])]), [monitor])
    root = next(iter(summary["nodes"]))
    losses = [record.metrics[root]["loss"] for record in monitor.of(Evaluated)]
    assert len(losses) == 3
    assert losses[-1] < losses[0]


def test_the_page_has_them_all() -> None:
    (table, *_) = re.findall(r"^\| config \| after .*?\n\n", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE) == CONFIGS
