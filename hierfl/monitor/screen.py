"""Which monitor a person sees: the live screen at a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig
    from hierfl.monitor.records import Monitor

__all__ = ["screen"]


def screen(config: RunConfig, *, force_plain: bool = False, stream: TextIO | None = None) -> Monitor:
    """Choose how a run is shown on `stream` (standard output where none is given)."""
    out = sys.stdout if stream is None else stream
    if not force_plain:
        from rich.console import Console

        console = Console(file=out)
        if console.is_terminal and not console.is_dumb_terminal:
            from hierfl.monitor.terminal import Terminal

            return Terminal(config, console)
    from hierfl.monitor.plain import Plain

    return Plain(out)
