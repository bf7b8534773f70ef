"""The starter federations that `hierfl init` writes, which run as they are: with a task of one's own, or on tables."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from hierfl.errors import OutputError
from hierfl.starter.tables import PATIENTS, table

__all__ = ["FILES", "write"]

FILES = ("federation.yaml", "my_task.py", "README.md")
"""What is written of the one, from this very folder."""


def write(folder: Path, *, tables: bool = False) -> list[Path]:
    """Write a starter into a new or empty folder and list what was written.

    Errors: OutputError where the folder holds something already, or cannot be written.
    """
    try:
        if folder.is_dir() and (held := sorted(path.name for path in folder.iterdir())):
            raise OutputError(
                f"{folder} is not empty (it holds {', '.join(held[:3])}{' ...' if len(held) > 3 else ''})"
                " and nothing is overwritten; give a new folder"
            ).misnamed()
        written = _on_tables() if tables else {name: _shipped(name) for name in FILES}
        for name, content in written.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}; give another folder") from error
    return [folder / name for name in written]


def _on_tables() -> dict[str, str]:
    """Give the files of the starter on tables."""
    shipped = {name: _shipped(f"tables/{name}") for name in ("federation.yaml", "README.md")}
    return {**shipped, **{f"data/{site}.csv": table(site) for site in PATIENTS}}


def _shipped(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
