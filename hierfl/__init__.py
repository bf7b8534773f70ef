"""Hierarchical multi-tier federated learning on Ray: hospitals train together, hubs aggregate, the tree is one YAML.

`run`, `resume`, `validate` and `open_run` are the command line's ways for a script or a notebook; see docs/python.md.
What is behind a name is loaded when the name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hierfl.api import open_run, resume, run, validate
    from hierfl.errors import ConfigError, HierflError
    from hierfl.result import Result

__all__ = ["ConfigError", "HierflError", "Result", "__version__", "open_run", "resume", "run", "validate"]

__version__ = "0.1.0"

_ROOMS = {
    **dict.fromkeys(("open_run", "resume", "run", "validate"), "hierfl.api"),
    **dict.fromkeys(("ConfigError", "HierflError"), "hierfl.errors"),
    "Result": "hierfl.result",
}


def __getattr__(name: str) -> Any:
    """Load what a public name stands for (PEP 562)."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
