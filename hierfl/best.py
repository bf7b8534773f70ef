"""The best model by the metric of early stopping, beside the newest: whoever stops after `patience` wants that one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hierfl.config.schema import RunConfig
from hierfl.learning.stopping import Progress

if TYPE_CHECKING:
    from hierfl.learning.state import Layout
    from hierfl.rundir import RunDir
    from hierfl.runtime.driver import Handle
    from hierfl.runtime.engine import Engine

__all__ = ["best_of", "keep"]


def keep(folder: RunDir, config: RunConfig, engine: Engine, layout: Layout, model: Handle) -> None:
    """Write the model that was just measured, in the place of the best before it; none that never comes to the root.

    Errors: OutputError.
    """
    if config.federation.root.topology.has_centre:
        engine.write_model(folder.best, *((layout, model) if config.lora is None else engine.merged(model)))


def best_of(config: RunConfig, progress: Progress) -> Mapping[str, Any]:
    """Say for the summary which model is the best, and by what; nothing where none is kept."""
    if not progress.best_round or not config.federation.root.topology.has_centre:
        return {}
    said = {"metric": config.stopping.metric, "value": progress.best, "round": progress.best_round}
    return {"best": {**said, "file": "best.safetensors"}}
