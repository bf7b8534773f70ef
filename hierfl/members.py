"""Models that the members of a root without a centre keep of their own, on disk: each writes and reads its own file,
which has its digest with it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import quote

import numpy as np

from hierfl import durable
from hierfl.commits import FOLDER
from hierfl.errors import OutputError
from hierfl.learning.state import ModelState
from hierfl.tensor_file import content, metadata_of

__all__ = ["check", "folder_of", "read", "write"]

_DIGEST = "sha256"


def folder_of(run_dir: Path, rounds_done: int) -> Path:
    """Name the folder in which members write before a checkpoint takes it in."""
    return run_dir / FOLDER / f".members-{rounds_done:06d}.partial"


def write(folder: Path, path: str, model: ModelState) -> None:
    """Write a member's model. Errors: OutputError, also where the run's folder is not to be seen from here."""
    run_dir = folder.parents[1]
    if not run_dir.is_dir():
        raise OutputError(
            f"{path} writes the model that it keeps, and finds no {run_dir} on its node: without a centre at the root"
            " output.dir must lie on storage that all nodes share"
        )
    partial = folder / f"{quote(path, safe='')}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own = {"floats": np.ascontiguousarray(model.floats), "ints": np.ascontiguousarray(model.ints)}
        durable.write(partial, content(own, {_DIGEST: _digest(model)}))
        partial.rename(partial.with_name(f"{quote(path, safe='')}.safetensors"))
    except OSError as error:
        raise OutputError(f"the model of {path} cannot be written to {folder}: {error.strerror or error}") from error


def read(file: Path) -> ModelState:
    """Read a member's model. Errors: OutputError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(file)
        return ModelState(found["floats"], found["ints"])
    except (OSError, SafetensorError, KeyError) as error:
        raise OutputError(f"{file} cannot be read: {error}") from error


def check(file: Path) -> None:
    """Hold a member's model against the digest that it was written with. Errors: OutputError."""
    expected, found = metadata_of(file).get(_DIGEST), _digest(read(file))
    if expected not in (None, found):
        raise OutputError(f"what {file} holds has the digest {found}, and was written with {expected}")


def _digest(model: ModelState) -> str:
    """Give the SHA-256 of a model's numbers, floats first, in hex."""
    found = hashlib.sha256(np.ascontiguousarray(model.floats).data)
    found.update(np.ascontiguousarray(model.ints).data)
    return found.hexdigest()
