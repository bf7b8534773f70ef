"""The way into the command line: the console script and `python -m hierfl`.

What ends a command is heard before anything else: the imports behind it take a while.
"""

from __future__ import annotations

import contextlib
import os
import sys

from hierfl.stops import Stops

__all__ = ["main"]


def main() -> None:
    """Run the command line; a stop ends the process with its own exit code, wherever it comes.

    No process of a Ray that this one has started is left, and no thread keeps a command that was stopped.
    """
    stops = Stops.listen()
    try:
        from hierfl.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        pass  # before the command could say so itself
    finally:
        stops.is_over = True
        if (processes := sys.modules.get("hierfl.runtime.ray_processes")) is not None:
            processes.end()
        if stops.heard is not None:
            _end(stops)
        stops.close()


def _end(stops: Stops) -> None:
    """End now: nobody waits for the threads of a run that was stopped."""
    if not stops.is_told:
        from hierfl.console import stopped

        stopped(as_json="--json" in sys.argv)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(stops.exit_code)


if __name__ == "__main__":
    main()
