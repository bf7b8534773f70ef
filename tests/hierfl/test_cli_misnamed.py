"""What a command names and is not there is its mistake: exit code 2, whatever it was to be. What is damaged is none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hierfl.cli import app

ROOT = Path(__file__).parents[2]


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        *(("report", "no"), ("evaluate", "no"), ("resume", "no"), ("amend", "no", "seed=1"), ("export", "no", "x.st")),
        *(("plan", "--replay", "no"), ("predict", "no", "a.csv", "b.csv")),
        *(("run", "no.yaml"), ("run", ROOT / "configs/heart.yaml", "--faults", "no")),
    ],
)
def test_what_is_not_there_is_a_mistake_of_the_command(words: tuple[object, ...]) -> None:
    result = call(*words)
    assert result.exit_code == 2 and "no" in result.stderr.split(), result.output


def test_so_is_a_kit_an_authority_a_request_or_a_node_of_links(here: Path) -> None:
    config = shutil.copy(ROOT / "deploy/three_institutions.yaml", here)
    assert call("provision", config, "--out", "pki").exit_code == 0
    node = next(folder.name.replace("__", "/") for folder in Path("pki/kits").iterdir())
    for words, said in (
        (("revoke", f"{node}s", "--ca", "pki"), f"'{node}s' is no node with a link"),
        (("renew", f"{node}s", "--ca", "pki"), f"'{node}s' is no node with a link"),
        (("renew", "--ca", "no"), "holds no certificate authority"),
        (("sign", "no.pem", "--ca", "pki"), "no.pem cannot be read"),
        (("serve", config, "--kit", "no"), "no is no start-up kit"),
        (("join", config, "--kit", "no"), "no is no start-up kit"),
    ):
        result = call(*words)
        assert result.exit_code == 2 and said in result.stderr, words
    Path("pki/ca/nodes.json").write_text("{")
    assert call("renew", "--ca", "pki").exit_code == 1, "it is there, and damaged"
