"""Which code a task is: the same digest wherever its source is the same, and none where there is no source."""

from __future__ import annotations

import abc
import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

import pytest

from hierfl import __version__
from hierfl.provenance import task_code

BASE, OWN = "class Base:\n    pass\n", "class Own(base.Base):\n    pass\n"


def loaded(file: Path, text: str, monkeypatch: pytest.MonkeyPatch, name: str = "", **names: object) -> ModuleType:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(name or f"{file.parent.name}_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    vars(module).update(names)
    spec.loader.exec_module(module)
    return module


def test_files_of_one_name_count_in_the_same_order_in_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strings are hashed otherwise in each process, and so are these."""
    found = set()
    for number in range(12):
        base = loaded(tmp_path / f"base{number}" / "task.py", BASE, monkeypatch)
        own = loaded(tmp_path / f"own{number}" / "task.py", OWN, monkeypatch, base=base)
        found.add(task_code(own.Own()))
    assert found == {hashlib.sha256(f"{__version__}{OWN}{BASE}".encode()).hexdigest()}


def test_pythons_own_files_are_no_part_of_it_since_each_version_has_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task's file may have the name of one of them."""
    text = "class Own(abc.ABC, Generic[T], dict):\n    pass\n"
    own = loaded(tmp_path / "sched.py", text, monkeypatch, "sched", abc=abc, Generic=Generic, T=TypeVar("T"))
    assert task_code(own.Own()) == hashlib.sha256(f"{__version__}{text}".encode()).hexdigest()


def test_a_class_that_no_file_has_is_of_no_known_code() -> None:
    assert task_code(type("Typed", (), {"__module__": "nowhere"})()) == ""
