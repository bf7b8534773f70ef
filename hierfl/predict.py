"""What `hierfl export` writes beside the weights, so that a file is enough to use the model, and `hierfl predict`."""

from __future__ import annotations

import contextlib
import errno
import inspect
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierfl import __version__
from hierfl.checkpoint import Checkpoint
from hierfl.config.schema import RunConfig
from hierfl.config.section import kind
from hierfl.durable import check_file
from hierfl.errors import ConfigError, DataError, OutputError, Problem
from hierfl.kinds import nearest
from hierfl.learning.local import LocalRule
from hierfl.learning.own_metrics import by_label, figure_of
from hierfl.learning.task import Applies, Task, offers
from hierfl.monitor.files import METRICS, read_raw
from hierfl.own_models import is_measured
from hierfl.tensor_file import metadata_of

if TYPE_CHECKING:
    import pyarrow

__all__ = ["ENDINGS", "Exported", "predict", "read_exported", "said_of", "thresholds_after"]

ENDINGS = (".parquet", ".arrow", ".ipc", ".feather", ".csv")
"""Of files that predictions are written to."""

_KEY = "hierfl"
_PROBABILITY, _CLASS, _OF_LABEL = "probability", "predicted", "probability_of_"


@dataclass(frozen=True, slots=True)
class Exported:
    """What a file says of the model in it. `scale`: mean and deviation of each feature, or None; `threshold`: of the
    federation's operating point, if it has one; `thresholds`: of several labels of each record, by label; `site`: whose
    own model it is, or empty; `keys`: of all sites' data.
    """

    task: Mapping[str, Any]
    scale: tuple[list[float], list[float]] | None
    threshold: float | None
    site: str
    keys: list[str]
    run: str
    rounds: int
    digest: str
    hierfl: str
    thresholds: Mapping[str, float] = field(default_factory=dict)


def said_of(
    config: RunConfig, saved: Checkpoint, digest: str, site: str, thresholds: Mapping[str, float | None]
) -> dict[str, str]:
    """Write what is to be known of an exported model; `digest`: of the checkpoint's; `thresholds`: see there."""
    scale = None if saved.scale is None else [one.tolist() for one in saved.scale]
    said = {"task": config.resolved["task"], "scale": scale, "site": site, "run": config.name}
    said["threshold"] = thresholds.get("")
    said["thresholds"] = {label: at for label, at in thresholds.items() if label and at is not None}
    said["keys"] = sorted({settings.key for settings in config.sites.values()})
    return {_KEY: json.dumps({**said, "rounds": saved.rounds_done, "digest": digest, "hierfl": __version__})}


def thresholds_after(
    config: RunConfig, run_dir: Path, rounds: int, rule: LocalRule | None = None
) -> dict[str, float | None]:
    """Give the thresholds that were chosen for a run's model after so many rounds, or for sites' own by a rule: those
    of another round are of another model's scores. By label, or the one of two classes under an empty name; None where
    none could be chosen, and none at all where these scores were not measured. Errors: OutputError.
    """
    point, root = config.evaluation.operating_point, config.federation.root.name
    if point is None:
        return {}
    from hierfl.learning.operating import THRESHOLD, given_threshold

    if point.threshold is not None:
        return {"": given_threshold(point.threshold, config.evaluation.score_bins)}
    if not is_measured(config, rule):
        return {}
    lines = (line for line in read_raw(run_dir / METRICS) if f'"{THRESHOLD}'.encode() in line.text)
    rows = [row for row in (line.value() for line in lines) if row["node"] == root and row["round"] == rounds]
    return by_label(rows[-1], THRESHOLD) if rows else {}


def read_exported(file: Path) -> Exported:
    """Read what a file says of the model in it. Errors: OutputError for one that says nothing."""
    said = metadata_of(file).get(_KEY)
    if said is None:
        raise OutputError(
            f"{file} does not say how its model is used; write one that does: hierfl export RUN_DIR {file.name}"
        )
    import numpy as np

    try:
        found = Exported(**json.loads(said))
        assert (
            isinstance(found.task["kind"], str)
            and isinstance(found.keys, list)
            and isinstance(found.threshold, int | float | None)
            and all(isinstance(at, int | float) for at in found.thresholds.values())
        )
        assert found.scale is None or np.array(found.scale, dtype=np.float64).ndim == 2
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        raise OutputError(f"{file} is not as hierfl {__version__} writes it; export the model anew") from error
    return found


def predict(
    model: Path, file: Path, out: Path, site: str = "", data: str = "", source: Sequence[str] = ()
) -> tuple[Exported, int]:
    """Predict the records of a file, and write them with what is predicted; give what is said of the model, and how
    many records there were. `source`: KEY=VALUE for the task's `records`.

    Two classes are told apart at the federation's operating point, or from a probability above one half, and so is each
    of several labels. Errors: OutputError, ConfigError, DataError.
    """
    if out.suffix.lower() not in ENDINGS:
        raise OutputError(f"{out} ends in {out.suffix!r} (allowed: {', '.join(ENDINGS)})").misnamed()
    given = [file, *([Path(data)] if data else [])]
    _check_apart(out, model, *given)
    said = read_exported(model)
    for path in given:
        try:
            path.stat()
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                raise DataError(f"{path}: does not exist").misnamed() from error
            raise DataError(f"{path}: cannot be read: {_why(error)}").misnamed() from error
    task = _task(said)
    if not offers(task, Applies):
        raise ConfigError(
            f"the task {said.task['kind']} says of no file how its records are read; give it records() and apply()"
            " (docs/tasks.md), or load the model in Python"
        )
    if site and site not in said.keys:
        raise ConfigError(f"--site {site}: no site of the federation has data of that key{nearest(site, said.keys)}")
    table, x = task.records(str(file), site, data, **_source(task, source))
    import numpy as np

    from hierfl.learning.applied import applied

    scale = None if said.scale is None else (np.array(said.scale[0]), np.array(said.scale[1]))
    if scale is not None and len(scale[0]) != x.shape[1]:
        raise OutputError(f"{model} is of {len(scale[0])} features, and {file} has {x.shape[1]}")
    found: dict[str, Any] = applied(task, model, x, scale)
    bad = sum(~np.isfinite(values) for values in found.values())
    if np.any(bad):
        raise DataError(
            f"{file}: the model predicts no finite number for {np.count_nonzero(bad)} of {len(x)} records; it has"
            " diverged, or they are far from all that it was trained on"
        )
    found |= _told_apart(found, said)
    for name, values in found.items():
        if name in table.column_names:
            raise DataError(f"{file} has a column {name!r}, as the predictions have; rename or drop it")
        table = table.append_column(name, [values])
    _write(table, out)
    return said, table.num_rows


def _told_apart(found: Mapping[str, Any], said: Exported) -> dict[str, Any]:
    """Say what is predicted: whether class 1, or each label, is, by their thresholds; else the most probable class."""
    import numpy as np

    labels = {name: name.removeprefix(_OF_LABEL) for name in found if name.startswith(_OF_LABEL)}
    told = {}
    for name, label in ({_PROBABILITY: ""} if _PROBABILITY in found else labels).items():
        at, probability = said.thresholds.get(label, said.threshold), found[name].astype(np.float64)  # as measured
        told[figure_of(_CLASS, label)] = (probability > 0.5 if at is None else probability >= at).astype(np.int64)
    if found and not told and _CLASS not in found:
        told[_CLASS] = np.stack(list(found.values())).argmax(axis=0)
    return told


def _source(task: Applies, words: Sequence[str]) -> dict[str, str]:
    """Read KEY=VALUE. Errors: ConfigError for what the task's `records` does not take."""
    parameters = list(inspect.signature(task.records).parameters.values())[3:]
    takes = [one.name for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD]
    found = {}
    for word in words:
        name, is_told, value = word.partition("=")
        if not is_told:
            raise ConfigError(f"{word!r} is no KEY=VALUE, such as delimiter=';'")
        if name not in takes and len(takes) == len(parameters):
            raise ConfigError(f"{name}: how records are written has no such key{nearest(name, takes) or ' (none)'}")
        found[name] = value
    return found


def _check_apart(out: Path, *inputs: Path) -> None:
    """Errors: OutputError where what is read would be written over, or records be read with predictions among them."""
    there = Path(os.path.realpath(out))  # which does not mind links in a circle
    for given in inputs:
        own = os.path.realpath(given)
        if own == str(there) or (os.path.isdir(given) and there.is_relative_to(own)):
            where = "is" if own == str(there) else "lies in"
            raise OutputError(f"{out} {where} {given}, which is read and stays as it is; write to another file")


def _task(said: Exported) -> Task:
    """Make the task that the model is of. Errors: ConfigError."""
    problems: list[Problem] = []
    task = kind("task", said.task, "task", lambda place, message: problems.append(Problem(place, message)))
    if problems or task is None:
        raise ConfigError(problems)
    made: Task = task
    return made


def _write(table: pyarrow.Table, out: Path) -> None:
    """Write a table by its file's ending, whole or not at all. Errors: OutputError."""
    import pyarrow as pa
    from pyarrow import csv, feather, parquet

    partial = out.with_name(f".{out.name}.partial")
    writers = {".parquet": parquet.write_table, ".csv": csv.write_csv}
    try:
        check_file(out)
        writers.get(out.suffix.lower(), feather.write_feather)(table, str(partial))
        partial.replace(out)
    except (OSError, pa.ArrowException) as error:
        wordless = _wordless(table) if out.suffix.lower() == ".csv" and not isinstance(error, OSError) else ""
        raise OutputError(f"{out} cannot be written: {wordless or _why(error)}").misnamed(error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _wordless(table: pyarrow.Table) -> str:
    """Say of which column CSV has no words; nothing if it has of all."""
    import pyarrow as pa
    from pyarrow import csv

    for name in table.column_names:
        try:
            csv.write_csv(table.select([name]), pa.MockOutputStream())
        except pa.ArrowException:
            return f"CSV has no words for column {name!r}, of type {table[name].type}; drop it, or write to .parquet"
    return ""


def _why(error: Exception) -> str:
    """Say in the system's words why a file cannot be written."""
    number = getattr(error, "errno", None)
    if number == errno.EINVAL and isinstance(error, OSError):
        return str(error.strerror)
    return os.strerror(number) if number else str(error)
