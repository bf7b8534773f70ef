"""The starter federation that `hierfl init` writes: a tree of six sites with an own task that runs as it is."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from hierfl.errors import OutputError

__all__ = ["FILES", "write"]

FILES = ("federation.yaml", "my_task.py", "README.md")
"""What is written, from this very folder."""


def write(folder: Path) -> list[Path]:
    """Write the starter into a new or empty folder and list what was written.

    Errors: OutputError where the folder holds something already, or cannot be written.
    """
    try:
        if folder.is_dir() and (held := sorted(path.name for path in folder.iterdir())):
            raise OutputError(
                f"{folder} is not empty (it holds {', '.join(held[:3])}{' ...' if len(held) > 3 else ''})"
                " and nothing is overwritten; give a new folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).write_text(files(__package__).joinpath(name).read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}; give another folder") from error
    return [folder / name for name in FILES]
