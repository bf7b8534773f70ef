"""What a serving process says, one JSON object a line, for whoever collects logs."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import TextIO

__all__ = ["Log"]


class Log:
    """Writes one JSON object per line: time, level, node, message."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, level: str, node: str, message: str) -> None:
        """Write one."""
        said = {"time": round(time.time(), 3), "level": level, "node": node, "message": message}
        with self._lock:
            print(json.dumps(said), file=self._stream, flush=True)
