"""Which code a task is: all of one's own that it consists of, the same digest wherever that is the same."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from hierfl.provenance import code_of, task_code
from hierfl.rundir import PACKAGES, RunDir

TASK = """
import abc
import numpy
from typing import Generic
from . import nets
from ward.base import Base
import steps

class Own(Base, abc.ABC):
    def late(self):
        from ward.deep import inner
"""

FILES = {
    "ward/__init__.py": "",
    "ward/task.py": TASK,
    "ward/base.py": "class Base:\n    pass\n",
    "ward/nets.py": "from .deep.layers import *\n",
    "ward/deep/__init__.py": "",
    "ward/deep/layers.py": "import ward.task\n",
    "ward/deep/inner.py": "",
    "ward/unused.py": "",
    "steps.py": "import missing\nfrom hierfl.learning import task\n",
    "rules.py": "from ward import base\nclass Rule:\n    pass\n",
}
COUNTED = ["steps", "ward", "ward.base", "ward.deep", "ward.deep.inner", "ward.deep.layers", "ward.nets", "ward.task"]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Write the files, some of them otherwise, into a folder of the path, and give what a run of their task is of."""

    def write(place: str = "own", strategy: str = "fedavg", **changed: str) -> Any:
        folder = tmp_path / place
        for name, text in FILES.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(changed.get(name.removesuffix(".py").replace("/", "_"), text))
        (folder / "steps.py").write_text(changed.get("steps", FILES["steps.py"]).replace("import missing\n", ""))
        monkeypatch.syspath_prepend(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] in ("ward", "steps", "rules")]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        task = importlib.import_module("ward.task").Own()
        (folder / "steps.py").write_text(changed.get("steps", FILES["steps.py"]))
        hub = {"name": "world", "members": [{"name": "us", "strategy": {"kind": strategy}}]}
        return SimpleNamespace(
            task=task, resolved={"federation": hub, "runtime": {"policy": {"kind": "absent:Policy"}}}
        )

    return write


def test_all_modules_of_ones_own_count_that_the_task_imports_anywhere(config: Callable[..., Any]) -> None:
    assert sorted(code_of(config()).files) == COUNTED
    assert sorted(code_of(config(strategy="rules:Rule")).files) == sorted([*COUNTED, "rules"])


@pytest.mark.parametrize(
    "name", ["ward_task", "ward_base", "ward_nets", "ward_deep_inner", "ward_deep_layers", "steps"]
)
def test_a_change_of_any_of_them_is_another_code(name: str, config: Callable[..., Any]) -> None:
    texts = {file.removesuffix(".py").replace("/", "_"): text for file, text in FILES.items()}
    assert task_code(config("a", **{name: texts[name] + "# another word\n"})) != task_code(config("b"))


def test_where_the_files_lie_makes_no_difference_nor_what_is_not_imported(config: Callable[..., Any]) -> None:
    same = task_code(config("a"))
    assert same == task_code(config("b", ward_unused="import os\n")) != ""


def test_of_an_installed_task_its_own_package_counts(config: Callable[..., Any]) -> None:
    found = code_of(config("venv/lib/python3/site-packages"))
    assert sorted(found.files) == [name for name in COUNTED if name != "steps"]


def test_nothing_is_imported_for_it(config: Callable[..., Any]) -> None:
    code_of(config(ward_deep_inner="raise SystemExit\n"))
    assert "ward.deep.inner" not in sys.modules


def test_a_file_that_this_python_cannot_read_counts_as_it_is(config: Callable[..., Any]) -> None:
    assert "ward.deep.inner" in code_of(config(ward_deep_inner="match in match\n")).files


def test_the_order_in_which_a_process_finds_them_makes_no_difference(tmp_path: Path) -> None:
    """Strings are hashed otherwise in each process."""
    (tmp_path / "lines.py").write_text(
        "from hierfl.tasks.synthetic import Synthetic\nclass Lines(Synthetic):\n    pass\n"
    )
    asked = (
        "import sys; sys.path.insert(0, '.'); from types import ModuleType, SimpleNamespace; from lines import Lines;"
        "from hierfl.provenance import code_of; found = code_of(SimpleNamespace(task=Lines(), resolved={}));"
        "print(sorted(found.files), found.digest)"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", asked], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120
        ).stdout
        for _ in range(2)
    }
    assert len(said) == 1 and "['hierfl.tasks.synthetic', 'lines']" in said.pop()


def test_a_class_that_no_file_has_is_of_no_known_code() -> None:
    typed: Any = SimpleNamespace(task=type("Typed", (), {"__module__": "nowhere"})(), resolved={})
    assert task_code(typed) == ""


def test_a_strategy_of_a_session_is_of_no_known_code(
    config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cells", ModuleType("cells"))
    assert task_code(config(strategy="cells:Rule")) == ""


def test_the_versions_tell_of_packages_that_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert RunDir.versions()["llvmlite"] == metadata.version("llvmlite")
    monkeypatch.setattr("hierfl.rundir.OPTIONAL", ("nobody-has-this",))
    assert set(RunDir.versions()) == {"python", *PACKAGES}
