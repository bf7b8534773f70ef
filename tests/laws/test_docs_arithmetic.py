"""docs/arithmetic.md: its example runs, the tests that it names exist, and its figures are the code's."""

from __future__ import annotations

import ast
import doctest
import re
from pathlib import Path

import pytest

from hierfl.kinds import load, names
from hierfl.learning.ring import Grid

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "arithmetic.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_worked_example_gives_what_the_page_says() -> None:
    example = doctest.DocTestParser().get_doctest(TEXT.replace("```", ""), {}, "arithmetic", str(PAGE), 0)
    assert len(example.examples) > 15
    said: list[str] = []
    doctest.DocTestRunner().run(example, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("named", re.findall(r"`(tests/[\w/]+\.py::\w+)`", TEXT))
def test_every_law_is_held_by_the_test_that_the_page_names(named: str) -> None:
    path, _, name = named.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_laws_table_is_there() -> None:
    assert len(re.findall(r"`tests/", TEXT)) > 20


def test_figures_of_the_page() -> None:
    default = Grid(32, 8.0, 1000)
    assert default.step == 2.0**-27 == pytest.approx(7.5e-9, rel=0.01)
    assert 4 * default.step / 2 == pytest.approx(1.5e-8, rel=0.01)
    assert 100 * default.step / 2 == pytest.approx(3.7e-7, rel=0.01)
    assert default.step * 1e4 == pytest.approx(7.5e-5, rel=0.01)
    assert Grid(32, 8.0, 1000, "float64").step == 8 * 2.0**-62
    assert Grid(64, 8.0, 10**6).step == pytest.approx(1.8e-12, rel=0.02)
    assert Grid(64, 8.0, 2**53 - 1).step == 8 / 2**9


def test_the_linear_strategies_are_those_that_the_page_names() -> None:
    [line] = re.findall(r'the step is exactly "model \+ mean" \((.*?)\)', TEXT)
    linear = [kind for kind in names("strategy") if load("strategy", kind).linear]
    assert re.findall(r"`(\w+)`", line) == linear
