"""A folder that goes from each process of a node to the next, which names it by its own number.

One that was succeeded and lives on finds its own folder gone: what it would still write comes to nobody.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from hierfl.errors import LinkError
from hierfl.link.files import write_private

__all__ = ["LINE", "line_of", "taken_over"]

LINE = "line"


def taken_over(folder: Path, number: int) -> Path:
    """Give this process's folder, with what the one before has left in its own. Errors: OSError."""
    place = folder / f"{number:04d}"
    folder.mkdir(parents=True, exist_ok=True)
    while not place.exists():
        numbers = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
        before = max((one for one in numbers if one < number), default=None)
        if before is None:
            place.mkdir(mode=0o700)
            break
        try:
            (folder / f"{before:04d}").rename(place)
        except FileNotFoundError:  # another process was faster, and will be succeeded or has succeeded this one
            continue
    return place


def line_of(place: Path) -> str:
    """Name the line in which those count who have had a folder; it ends with the folder. Errors: LinkError."""
    file = place / LINE
    try:
        return file.read_text(encoding="ascii")
    except FileNotFoundError:
        line = secrets.token_hex(8)
        write_private(file, line.encode())
        return line
    except (OSError, ValueError) as error:
        raise LinkError(f"{file} cannot be read: {error}") from error
