"""The list of denied certificates, as it is on disk now: a hub that runs heeds a change within a second."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hierfl.errors import LinkError

__all__ = ["DenyList"]

LOOK_S = 1.0


class DenyList:
    """Reads `denied.json` when it has changed. Errors: LinkError at the first reading, if it cannot be read.

    Later a file that cannot be read, or is gone, leaves the list as it was: neither half a file nor one that is being
    replaced may let anybody in. No file from the first denies nobody.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._serials: frozenset[int] = frozenset()
        self._read()
        self._looked_s = now()

    def __contains__(self, serial: int) -> bool:
        """Say whether a serial number is denied."""
        with self._lock:
            if self._now() - self._looked_s >= LOOK_S:
                self._looked_s = self._now()
                try:
                    self._read()
                except LinkError:
                    self._stamp = None  # try again the next time
            return serial in self._serials

    def _read(self) -> None:
        """Read the file if it is another than before. Errors: LinkError."""
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp != self._stamp:
                said = json.loads(self._path.read_text(encoding="utf-8"))
                self._serials = frozenset(int(entry["serial"], 16) for entry in said["denied"])
                self._stamp = stamp
        except FileNotFoundError:
            self._stamp = None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LinkError(f"{self._path} is no list of denied certificates: {error}") from error
