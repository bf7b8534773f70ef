"""Every model on every site's data: what `hierfl evaluate --cross-site` finds, kept in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hierfl.errors import ConfigError, OutputError
from hierfl.kinds import nearest
from hierfl.learning.own_metrics import BUILT_IN, is_own_name, own_among
from hierfl.monitor.fairness import reads
from hierfl.monitor.files import as_json
from hierfl.monitor.words import finite

__all__ = ["FILE", "Matrix", "check_measured", "read_matrix", "short", "write_matrix"]

FILE = "cross_site.json"


@dataclass(frozen=True)
class Matrix:
    """Metrics by model and by node that it was measured at, after `rounds` rounds.

    A model is named by whose it is: the root's is the federation's, a site's is its own. At a hub stand the figures of
    all samples of the sites below that count. `better`: which way metrics of the task's own get better, if known.
    """

    rounds: int
    models: Mapping[str, Mapping[str, Mapping[str, Any]]]
    better: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Give it ready for JSON."""
        return {"rounds": self.rounds, "models": self.models, "better": self.better}

    @property
    def columns(self) -> list[str]:
        """List the root and the sites that were measured, in the order of the tree."""
        measured = list(next(iter(self.models.values()), {}))
        hubs = {path.rpartition("/")[0] for path in measured}
        return [path for path in measured if path not in hubs or "/" not in path]

    def shown(self, metric: str | None = None) -> tuple[str, dict[str, dict[str, Any]]]:
        """Give one metric's table by model: `metric`, or the one that is defined most often, AUC before accuracy before
        the task's own before loss.

        Errors: ConfigError for a metric that was not measured.
        """
        measured = {name: None for row in self.models.values() for scalars in row.values() for name in scalars}
        names = [name for name in ("auc", "accuracy", *own_among(measured), "loss") if self._defined(name)]
        if metric is not None and not self._defined(metric):
            known = [name for name in measured if self._defined(name) and (name in BUILT_IN or is_own_name(name))]
            raise ConfigError(f"--metric {metric}: not measured, or nowhere defined{nearest(metric, known)}")
        name = metric or max(names or ["accuracy"], key=self._defined)
        columns = self.columns
        table = {
            owner: {path: found.get(path, {}).get(name) for path in columns} for owner, found in self.models.items()
        }
        return name, table

    def legend(self, metric: str | None = None) -> str:
        """Say what the table shows."""
        name, _ = self.shown(metric)
        return f"{reads(name)} of each row's model on the test samples of each column; at the root, on all that count"

    def lower_is_better(self, metric: str) -> bool:
        """Say whether a metric falls as the model gets better."""
        return {**self.better, **BUILT_IN}.get(metric) == "min"

    def _defined(self, name: str) -> int:
        return sum(finite(scalars.get(name)) is not None for row in self.models.values() for scalars in row.values())


def check_measured(metric: str, nodes: Mapping[str, Mapping[str, Any]]) -> None:
    """Errors: ConfigError for a metric that is none of those that a run has measured at its nodes, if it has any."""
    known = dict.fromkeys(name for found in nodes.values() for name in found if name in BUILT_IN or is_own_name(name))
    if known and metric not in known:
        raise ConfigError(f"--metric {metric}: not measured{nearest(metric, known)}")


def write_matrix(run_dir: Path, matrix: Matrix) -> None:
    """Keep it in the run's folder. Errors: OutputError."""
    try:
        (run_dir / FILE).write_text(as_json(matrix.record()) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {run_dir / FILE}: {error.strerror or error}") from error


def read_matrix(run_dir: Path) -> Matrix | None:
    """Read what was found last; None where it was never asked for. Errors: OutputError for a damaged file."""
    try:
        said = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
        return Matrix(said["rounds"], said["models"], said.get("better", {}))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"cannot read {run_dir / FILE}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{run_dir / FILE} is damaged; delete it, or measure again: hierfl evaluate --cross-site"
        ) from error


def short(paths: Sequence[str]) -> dict[str, str]:
    """Name nodes by their last part where that tells them apart, else by their path."""
    last = [path.rpartition("/")[2] for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)}
