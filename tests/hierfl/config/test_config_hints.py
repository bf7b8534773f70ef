"""What was meant is told where it shows: another kind's key or word, a member's key, the option that names a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hierfl.cli import app
from hierfl.config import check, load
from hierfl.errors import ConfigError
from hierfl.runtime.estimates import Estimates

HEART = Path(__file__).parents[3] / "configs/heart.yaml"


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(HEART, overrides)
    return str(caught.value)


def test_a_key_of_another_kind_names_the_kinds_that_have_it():
    said = "strategy.mu: unknown key (allowed: weights); fedavg has no 'mu', fedprox has"
    assert said in message("federation.strategy.mu=0.1")
    assert "fedavg has no 'beta1', fedadagrad, fedadam, fedyogi have" in message("federation.strategy.beta1=0.1")
    assert " has no " not in message("federation.strategy.nonsense=0.1")


def test_a_word_of_another_kind_says_how_that_is_written():
    assert "swarm), or {kind: peer, graph: ring}, or your own" in message("federation.topology=ring")
    for name in ("given", "nonsense"):  # one that needs more beside it, and nobody's
        assert "swarm), or your own" in message(f"federation.topology={name}")


@pytest.mark.parametrize("word", ["csv", "CSV", "tsv", "table"])
def test_who_looks_for_the_task_of_tables_in_files_hears_its_name(word: str):
    said = message(f"task={word}")
    assert f"unknown task {word!r}; parquet is for tables in files, CSV and Arrow among them (allowed: breast" in said
    assert "; parquet" not in message("task=heart") and "'heart_disease'" in message("task=heart")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("federation.us.rounds=2", "federation.us: unknown key; us is a member: federation.members.us.rounds"),
        ("federation.us=2", "federation.us: unknown key; us is a member: federation.members.us"),
        (
            "federation.members.us.cleveland.training.lr=1",
            "us.cleveland: unknown key; cleveland is a member: federation.members.us.members.cleveland.training",
        ),
        ("federation.uss.rounds=2", "federation.uss: unknown key (allowed: name, members"),
    ],
)
def test_a_members_key_at_its_hub_says_where_it_belongs(given: str, said: str):
    assert said in message(given)


@pytest.mark.parametrize("word", ["???", "${oc.env:NOPE}", "${training.lr}"])
def test_a_word_that_lacks_its_quotes_within_braces_says_so(word: str, tmp_path: Path):
    text = HEART.read_text() + "\nextra: {name: " + word + "}\n"
    (tmp_path / "heart.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "heart.yaml")
    said = f'within braces {word} stands in quotes: "{word}"'
    assert said in str(caught.value) and f"line {len(text.splitlines())}" in str(caught.value)
    assert said in message(f"training={{lr: {word}}}")
    assert "in quotes" not in message("training={lr: ]}")


def test_a_file_that_an_option_names_is_spoken_of_by_it(tmp_path: Path):
    nowhere, old = tmp_path / "no", tmp_path / "old.json"
    result = CliRunner().invoke(app, ["run", str(HEART), "--faults", str(nowhere)])
    assert f"--faults {nowhere}: there is no such file; it holds a list of faults" in result.stderr
    result = CliRunner().invoke(app, ["plan", str(HEART), "--estimates", str(HEART)])
    assert f"--estimates: {HEART} cannot be read: it is no file of estimates" in result.stderr
    old.write_text('{"version": 7}')
    with pytest.raises(ConfigError, match=r"runtime\.estimates: .* is of version 7, not 1; remove it to learn anew"):
        Estimates.open("model", old)
    with pytest.raises(ConfigError, match=r"runtime\.estimates: .* no file of estimates.*; name another file"):
        Estimates.open("model", HEART)


@pytest.mark.parametrize("indent", ["\t", "  \t"])
def test_a_line_that_is_indented_by_a_tab_is_told_so(indent: str, tmp_path: Path) -> None:
    (tmp_path / "tab.yaml").write_text(f"federation:\n{indent}name: world\n")
    (problem,) = check(tmp_path / "tab.yaml")
    assert "line 2, " in problem.message
    assert problem.message.endswith("the line begins with a tab: YAML is indented by spaces")
