"""Taking a run up again, from the command line and from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierfl.errors import Overtaken

if TYPE_CHECKING:
    from hierfl.monitor.records import Monitor
    from hierfl.reopen import Reopened

__all__ = ["take_up"]


def take_up(
    run_dir: Path,
    overrides: Sequence[str],
    code_dir: Path | None,
    monitors: Callable[[Reopened], Sequence[Monitor]],
    *,
    stands_by: bool = False,
    tell: Callable[[str], None] = lambda said: None,
) -> Mapping[str, Any]:
    """Go on with a run; return its summary. Once more where it has gone on meanwhile, of which `tell` is told.

    `monitors`: of the run as it was left, once it is known to be in order. `stands_by`: others may lead the run, and
    who finds that they do is not to try again. Errors: as of `lifecycle.go_on`; Overtaken.
    """
    from hierfl.reopen import reopened

    is_last = stands_by
    while True:
        try:
            with reopened(run_dir, overrides, code_dir, to_train=True) as left:  # refused before the runtime is loaded
                heard = monitors(left)
                from hierfl.lifecycle import go_on

                return go_on(replace(left, needs_number=stands_by, at_once=stands_by), heard)
        except Overtaken as error:
            if is_last:
                raise
            is_last = True
            tell(str(error))
