"""Tracebacks of the user's code: they begin where hierfl calls it, for what is before tells a user nothing."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

__all__ = ["spelt"]

_OURS = str(Path(__file__).parent) + os.sep
_TASKS = _OURS + "tasks" + os.sep


def spelt(error: BaseException) -> str:
    """Spell an error in one line and then its traceback, from the first frame that is a task's or not hierfl's on.

    Where all frames are hierfl's own the mistake is ours, and none is left out.
    """
    began = error.__traceback__
    while began is not None and _is_ours(began.tb_frame.f_code.co_filename):
        began = began.tb_next
    frames = traceback.format_exception(type(error), error, began or error.__traceback__)
    return f"{type(error).__name__}: {error}\n{''.join(frames).rstrip()}"


def _is_ours(file: str) -> bool:
    return file.startswith(_OURS) and not file.startswith(_TASKS)
