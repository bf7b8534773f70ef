"""A run as a caller in Python has it: its folder, read."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierfl.errors import OutputError

if TYPE_CHECKING:
    import pyarrow
    import torch

    from hierfl.monitor.records import Scalars

__all__ = ["Result"]

_TOGETHER = 10_000
"""Rows that are in memory as dictionaries at once: each takes eight times what it takes in a table."""


@dataclass(frozen=True)
class Result:
    """What a run has left in its folder, `run_dir`. `code_dir`: where the folder that it was started in was moved to.

    Everything is read when it is first asked for; of a run that has gone on since, `hierfl.open_run` tells anew.
    """

    run_dir: Path
    code_dir: Path | None = None

    def __repr__(self) -> str:
        said = self.summary
        rounds = f"{said.get('rounds', 0)} of {said.get('rounds_planned', '?')} rounds"
        return f"<hierfl run {str(self.run_dir)!r}: {said.get('status', 'no summary yet')}, {rounds}, {self.digest}>"

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """The content of summary.json; empty where the run was killed before it could write it."""
        from hierfl.rundir import RunDir

        return RunDir(self.run_dir).summary()

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The configuration as it was understood, overrides and defaults included."""
        from hierfl.config.read import parse, read
        from hierfl.rundir import RunDir

        file = RunDir(self.run_dir).config
        found: Mapping[str, Any] = parse(read(file), str(file))
        return found

    @property
    def digest(self) -> str | None:
        """The digest of the newest model: equal bits, equal digest. None before the first commit."""
        from hierfl.checkpoint import known

        newest = known(self.run_dir)  # first: a summary is of a process that may have been followed by another
        return newest.model_digest if newest is not None else self.summary.get("model_digest")

    def statistics(self) -> pyarrow.Table:
        """Give what sites have told of their records (`statistics:`) as a table: a row for each node and column, with
        its kind, counts, mean, std and quartiles; `values` and `histogram` as they are in statistics.json.

        Without rows where nothing was asked. Errors: OutputError.
        """
        import pyarrow

        from hierfl.monitor.statistics import read_statistics

        told = read_statistics(self.run_dir)
        rows = told.rows() if told is not None else []
        always = ("node", "column", "kind", "count", "missing", "mean", "std")
        types = {"values": pyarrow.map_(pyarrow.string(), pyarrow.int64())}
        return pyarrow.table(
            {
                name: pyarrow.array([row.get(name) for row in rows], types.get(name))
                for name in dict.fromkeys((*always, *(name for row in rows for name in row)))
            }
        )

    def metrics(self, **columns: Any) -> pyarrow.Table:
        """Give all measurements as a table: a row for each round and node, a column for each metric.

        `columns`: values that stand in every row, before all else; what tells this run from others once their tables
        are put together. Errors: OutputError.
        """
        import pyarrow

        from hierfl.monitor.files import read_metrics

        lines = read_metrics(self.run_dir)
        parts: list[pyarrow.Table] = []
        while (rows := list(islice(lines, _TOGETHER))) or not parts:
            names = dict.fromkeys(("round", "node", *(name for row in rows for name in row)))
            if taken := sorted(names.keys() & columns.keys()):
                raise ValueError(f"{', '.join(taken)}: the run's own metrics have a column of this name")
            told = {name: pyarrow.array([value] * len(rows)) for name, value in columns.items()}
            parts.append(pyarrow.table(told | {name: pyarrow.array([row.get(name) for row in rows]) for name in names}))
        return pyarrow.concat_tables(parts, promote_options="permissive")

    def state_dict(self, *, best: bool = False, site: str = "") -> dict[str, torch.Tensor]:
        """Give the final model, for `load_state_dict` of the task's own module; tensors on the CPU.

        `best`: the best one by the metric of early stopping; `site`: the newest one that this site uses itself, as
        `hierfl export --site`. Errors: OutputError where there is none; ConfigError for a site without one of its own.
        """
        from safetensors.torch import load_file

        if not site:
            tensors: dict[str, torch.Tensor] = load_file(self._weights(best))
            return tensors
        from hierfl.lifecycle import export
        from hierfl.monitor.caller import Caller

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.safetensors"
            export(self.run_dir, file, [Caller()], code_dir=self.code_dir, site=site)
            return dict(load_file(file))

    def model(self, *, best: bool = False, site: str = "") -> torch.nn.Module:
        """Build the task's module with the final, the best, or a site's own model in it, ready to predict; on the CPU.

        Errors: as of `state_dict`; ConfigError where the task is not there any more.
        """
        weights = self.state_dict(best=best, site=site)
        from hierfl.learning.beside import made
        from hierfl.reopen import config_of
        from hierfl.rundir import RunDir

        module: torch.nn.Module = made(config_of(RunDir(self.run_dir), self.code_dir).task.model)
        module.load_state_dict(weights)
        return module.eval()

    def evaluate(self, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Mapping[str, Scalars]:
        """Measure the newest model at every site, as `hierfl evaluate`; return the metrics by path, hubs rolled up.

        `overrides`, as of `hierfl.run`, hold for this measurement alone: other data at a site. Errors: HierflError.
        """
        from hierfl.config import as_words
        from hierfl.lifecycle import evaluate
        from hierfl.monitor.caller import Caller

        return evaluate(self.run_dir, [Caller()], code_dir=self.code_dir, overrides=as_words(overrides))

    def cross_site(self) -> Mapping[str, Any]:
        """Measure every hub's and site's model at every site, as `hierfl evaluate --cross-site`.

        Errors: HierflError.
        """
        from hierfl.lifecycle import cross_site
        from hierfl.monitor.caller import Caller

        return cross_site(self.run_dir, [Caller()], code_dir=self.code_dir).record()

    def report(self) -> Path:
        """Write report.html, as `hierfl report`; return its path. Errors: OutputError."""
        from hierfl.monitor.report import write_report

        return write_report(self.run_dir)

    def _weights(self, best: bool) -> Path:
        """Find the file of a model. Errors: OutputError."""
        from hierfl.rundir import RunDir

        folder = RunDir(self.run_dir)
        file = folder.best if best else folder.model
        if file.exists():
            return file
        if best:
            way = "a run keeps it under `stopping: {metric: ..., patience: ...}`"
        elif folder.has_model:
            way = "its members have it, as model.safetensors in their --state folders"
        elif self.summary.get("rounds_planned") == 0:
            way = "nothing has been trained, sites have told of their records"
            way = f"{way}: hierfl.resume({str(self.run_dir)!r}, ['statistics.only=false']) trains"
        else:
            way = f"a run writes it at its end: hierfl.resume({str(self.run_dir)!r})"
        raise OutputError(f"{self.run_dir} has no {file.name}; {way}")
