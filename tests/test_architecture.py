"""Who may import whom, held by reading every import statement; see docs/architecture.md."""

from __future__ import annotations

import ast
import graphlib
import importlib
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("scheduler", "tiers", "hierfl")
MAX_LINES = 400

BELOW = {"scheduler": {"scheduler"}, "tiers": {"tiers", "scheduler"}, "hierfl": set(PACKAGES)}
"""Each package may import itself and those below it."""

ALLOWED = {
    "blake3": ["hierfl/link/chunks.py"],
    "cryptography": ["hierfl/link/*.py", "hierfl/runtime/witness.py"],
    "dp_accounting": ["hierfl/accountant.py"],
    "llvmlite": ["hierfl/learning/native.py"],
    "prometheus_client": ["hierfl/link/gauges.py"],
    "ray": ["hierfl/runtime/ray*.py"],
    "grpc": ["hierfl/link/*.py", "hierfl/runtime/ray_address.py"],
    "tensorboard": ["hierfl/monitor/event_file.py"],
    "torch.utils.tensorboard": [],
    "torch": [
        "hierfl/checkpoint.py",
        "hierfl/learning/*.py",
        "hierfl/privacy/*.py",
        "hierfl/runtime/*.py",
        "hierfl/starter/my_task.py",
        "hierfl/tasks/*.py",
    ],
}
"""The only places of a heavy import, wherever in the file it stands."""

NEVER = {
    "torch": [
        "hierfl/learning/calibration.py",
        "hierfl/learning/disclosure.py",
        "hierfl/learning/fixed.py",
        "hierfl/learning/metrics.py",
        "hierfl/learning/native.py",
        "hierfl/learning/quantise.py",
        "hierfl/learning/ring.py",
        "hierfl/learning/compression.py",
        "hierfl/learning/compressions/*.py",
        "hierfl/learning/noise.py",
        "hierfl/learning/privacy.py",
        "hierfl/learning/strategies/*.py",
        "hierfl/learning/strategy.py",
        "hierfl/learning/task.py",
    ],
}
"""Places within the allowed ones that do without all the same: NumPy is enough for sums."""

HEAVY = (
    *("cryptography", "dp_accounting", "grpc", "llvmlite", "matplotlib", "omegaconf", "pyarrow", "ray", "rich"),
    *("sklearn", "tensorboard", "torch"),
)

AT_TOP = {
    "cryptography": ["hierfl/link/authority.py"],
    "dp_accounting": [],
    "grpc": ["hierfl/link/*.py"],
    "llvmlite": [],
    "matplotlib": ["hierfl/monitor/pictures/*.py"],
    "omegaconf": ["hierfl/config/*.py"],
    "pyarrow": ["hierfl/tasks/data/build_heart_disease.py"],
    "ray": ["hierfl/runtime/ray*.py"],
    "rich": ["hierfl/monitor/board.py", "hierfl/monitor/terminal.py"],
    "sklearn": [],
    "tensorboard": ["hierfl/monitor/event_file.py"],
    "torch": [
        "hierfl/learning/batches.py",
        "hierfl/learning/beside.py",
        "hierfl/learning/contract.py",
        "hierfl/learning/fitting.py",
        "hierfl/learning/flat.py",
        "hierfl/learning/lora.py",
        "hierfl/learning/measuring.py",
        "hierfl/learning/overlaps.py",
        "hierfl/learning/own.py",
        "hierfl/learning/parts.py",
        "hierfl/learning/passes.py",
        "hierfl/learning/per_record.py",
        "hierfl/learning/training.py",
        "hierfl/runtime/chance.py",
        "hierfl/runtime/devices.py",
        "hierfl/runtime/footprint.py",
        "hierfl/runtime/guarded.py",
        "hierfl/runtime/worker.py",
        "hierfl/starter/my_task.py",
    ],
}
"""The only files that load these when they are themselves imported, for that is all that they are about."""

DOORLESS = {"hierfl.__main__", "hierfl.starter.my_task"}
"""Modules that nobody imports from: the program, and the file that `hierfl init` gives to the user."""


def files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    """The module's dotted name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in files()}


@cache
def imports(path: Path, top_only: bool = False) -> frozenset[str]:
    """Every dotted name that a file imports when it runs: all but what stands under `if TYPE_CHECKING`."""
    found: set[str] = set()
    stack: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            stack.extend(node.orelse)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            assert node.module is not None
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif not (top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            stack.extend(ast.iter_child_nodes(node))
    return frozenset(found)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def is_at(path: Path, places: list[str]) -> bool:
    return any(fnmatch(path.relative_to(ROOT).as_posix(), place) for place in places)


def test_imports_go_one_way_between_the_packages() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files()
        for name in imports(path)
        if name.partition(".")[0] in PACKAGES and name.partition(".")[0] not in BELOW[name_of(path).partition(".")[0]]
    ]
    assert not wrong


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_heavy_packages_stay_in_their_rooms(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files()
        for name in imports(path)
        if is_in(name, package) and (not is_at(path, ALLOWED[package]) or is_at(path, NEVER.get(package, [])))
    ]
    assert not wrong, f"{package} is allowed in {ALLOWED[package]}, but not in {NEVER.get(package, [])}"


def test_pure_packages_import_the_standard_library_and_numpy_only() -> None:
    known = {*sys.stdlib_module_names, "numpy", "scheduler", "tiers"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files()
        if name_of(path).partition(".")[0] != "hierfl"
        for name in imports(path)
        if name.partition(".")[0] not in known
    ]
    assert not wrong


def test_heavy_imports_wait_until_they_are_used() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name} at its top"
        for path in files()
        for name in imports(path, top_only=True)
        if (package := name.partition(".")[0]) in HEAVY and not is_at(path, AT_TOP[package])
    ]
    assert not wrong


def test_no_module_depends_on_one_that_depends_on_it() -> None:
    graph = {
        name: {target for imported in imports(path) if (target := module_of(imported)) not in (None, name)}
        for name, path in MODULES.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a cycle of imports: {' <- '.join(error.args[1])}")


def module_of(imported: str) -> str | None:
    """Our module that `from module import name` or `import module` names; None for what is not ours."""
    return next((name for name in (imported, imported.rpartition(".")[0]) if name in MODULES), None)


@pytest.mark.parametrize("name", sorted(set(MODULES) - DOORLESS))
def test_a_public_door_is_sorted_and_every_name_behind_it_exists(name: str) -> None:
    if any(part.startswith("_") for part in name.split(".")):
        pytest.skip("a private module has no door")
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    doors = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
    public = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    ]
    if not doors:
        assert not public, f"{name} defines {public} and has no __all__"
        return
    names = ast.literal_eval(doors[0].value)
    assert names == sorted(names, key=isort_style), f"{name}.__all__ is not sorted"
    assert len(set(names)) == len(names)
    module = importlib.import_module(name)
    assert [missing for missing in names if not hasattr(module, missing)] == []


def isort_style(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest: ruff's own order of `__all__`."""
    if name.isupper():
        return 0, name
    return (1, name) if name[:1].isupper() else (2, name)


def test_the_table_of_rooms_names_what_is_there() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Rooms")[2].partition("## ")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("| `")]
    assert len(rows) >= 8
    for room, holds in rows:
        folder = ROOT / room.partition("`")[2].partition("`")[0]
        there = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
        assert sorted(set(re.findall(r"`([a-z_]+)/?`", holds)) - there - {"hierfl"}) == [], room


def test_files_can_be_seen_whole() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in [*files(), *(ROOT / "tests").rglob("*.py")]
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import tiers, scheduler", HEAVY),
        ("import hierfl.errors, hierfl.kinds, hierfl.config.schema", HEAVY),
        ("import hierfl; hierfl.run, hierfl.validate, hierfl.Result", HEAVY),
        ("import hierfl.cli", HEAVY),
        ("from hierfl.cli import app; app(['--help'], standalone_mode=False)", HEAVY),
        ("from hierfl.cli import app; app(['run', '--help'], standalone_mode=False)", HEAVY),
        ("import hierfl.runtime.hub, hierfl.rounds", ("ray", "torch")),  # a hub's process, and a run's own
    ],
)
def test_light_doors_load_nothing_heavy(statement: str, unwanted: tuple[str, ...]) -> None:
    code = f"{statement}\nimport sys; sys.exit(' '.join(n for n in {unwanted!r} if n in sys.modules) or None)"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}
    )
    assert ran.returncode == 0, f"{statement!r} loads {ran.stderr}"
