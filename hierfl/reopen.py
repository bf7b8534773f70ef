"""Taking a run up again: its configuration with overrides, read as `hierfl run` read it, and its newest checkpoint.

All that can be refused without a worker is refused here, before the run's folder is touched.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hierfl import checkpoint, commits, kinds
from hierfl.best import BEST
from hierfl.checkpoint import Checkpoint
from hierfl.config.generate import spread
from hierfl.config.membership import Stay, epoch_of, epochs
from hierfl.config.schema import RunConfig
from hierfl.errors import ConfigError, OutputError, Problem
from hierfl.learning import optimizers, schedules
from hierfl.learning.state import Layout
from hierfl.learning.stopping import Progress
from hierfl.monitor.words import plural
from hierfl.provenance import task_code
from hierfl.rundir import Origin, RunDir

__all__ = ["Reopened", "check_model", "config_of", "goal_of", "lasting", "reopened", "try_out"]

OF_THE_TASK = ("kind", "seed", "standardise")
"""Keys that decide of any task what its model is, and which records it is measured on; of hierfl's own all do."""

ENDED = ("finished", "stopped early")
"""The status of a run that has come to its end."""


@dataclass(frozen=True)
class Reopened:
    """A run as it was left; `saved` None before its first commit. `warnings`: what a person should know of it.

    `num_amendments`: of the overrides, those at the front that were left in the run's folder. `stamp`: of the newest
    checkpoint, when it was read. `needs_number`: others may lead it, so it is not gone on with unless the journal says
    that this process does. `at_once`: nobody leads it, so that it is claimed before it is known to be in order.
    """

    folder: RunDir
    config: RunConfig
    saved: Checkpoint | None
    overrides: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    num_amendments: int = 0
    stamp: tuple[str, int] | None = None
    needs_number: bool = False
    at_once: bool = False


@contextlib.contextmanager
def reopened(
    run_dir: Path,
    overrides: Sequence[str] = (),
    code_dir: Path | None = None,
    *,
    to_train: bool = False,
    elsewhere: bool = False,
) -> Iterator[Reopened]:
    """Read a run, and work in the folder that it was started in, so that relative paths mean what they meant.

    `code_dir`: where that folder lies now, if it was moved. One that is `to_train` takes in what was left for it,
    before `overrides`. `elsewhere`: its model may lie with members in other institutions. Errors: OutputError, also if
    it is `to_train` and has done its rounds, or stopped early; ConfigError, also for overrides that would make the
    checkpoint another run's.
    """
    folder = RunDir.open(run_dir)
    origin = _origin(folder, code_dir)
    with contextlib.ExitStack() as stack:
        warnings = []
        if origin is not None and origin.working_dir != Path.cwd():
            folder = replace(folder, path=folder.path.resolve())
            if origin.working_dir.is_dir():
                stack.enter_context(contextlib.chdir(origin.working_dir))
            else:
                warnings.append(f"{_gone(origin)}; relative paths are read from {Path.cwd()}")
        left = folder.amendments() if to_train else []
        overrides = [*left, *overrides]
        before = _before(folder) if overrides else None
        stamp = commits.stamp(folder.path)
        saved, spoilt = checkpoint.newest(folder.path)
        config = _config(folder, overrides, origin, before, saved.rounds_done if saved is not None else 0)
        if to_train and saved is None and (done := folder.summary().get("rounds")):
            raise OutputError(
                f"{run_dir} has done {plural(done, 'round')}, says its summary.json, and has no checkpoint left to go"
                " on from: start the run anew with `hierfl run` (its model.safetensors stays as it is)"
            )
        if saved is not None and saved.elsewhere and not elsewhere:
            raise OutputError(
                f"the model of {run_dir} lies with the members of a hub without a centre"
                f" ({', '.join(saved.elsewhere['holders'])}): each has it as model.safetensors in its"
                " --state folder, and `hierfl serve ... --resume` goes on with it"
            )
        if saved is not None:
            saved = _completed(saved, folder, before or config.resolved)
            if to_train and _is_over(folder, saved):
                _check_wanted(run_dir, saved, config, elsewhere=elsewhere)
            saved = _still_true(saved, config)
        if to_train:
            try_out(config, saved.rounds_done if saved is not None else 0)
            warnings += [*_changed_code(folder, config), *_changed_task(before, config)]
        yield Reopened(folder, config, saved, tuple(overrides), (*warnings, *spoilt), len(left), stamp)


def check_model(run_dir: Path, saved: Checkpoint, layout: Layout, warnings: Sequence[str] = ()) -> None:
    """Refuse a checkpoint of another model than the task builds now. `warnings`: of the run as it was taken up, which
    may say why. Errors: OutputError with the way out.
    """
    difference = saved.layout.difference(layout)
    if difference:
        said = f"the checkpoint of {run_dir} is of another model than the task builds now: {difference}"
        said = "; ".join([said, *warnings])
        raise OutputError(f"{said}; put the task back as it was, or start a run of its own with `hierfl run`")


def try_out(config: RunConfig, rounds_done: int = 0) -> None:
    """Find what torch will not do of a configuration, in the rounds to come, before anything starts.

    Errors: ConfigError.
    """
    optimizers.try_out({path: settings.training for path, settings in config.sites.items()})
    schedules.try_out(config, rounds_done)


def config_of(folder: RunDir, code_dir: Path | None = None) -> RunConfig:
    """Read a run's configuration, with the own modules of where it comes from, which lies in `code_dir` now if it was
    moved. Errors: ConfigError, OutputError.
    """
    return _config(folder, (), _origin(folder, code_dir), None)


def lasting(before: Mapping[str, Any], now: Mapping[str, Any], rounds_done: int = 0) -> list[Problem]:
    """List what may not change between two resolved configurations of a run: seed, adapters, arithmetic, task, tree.

    Nodes may be added that join, and may be made to leave, in a round that is still to come; `rounds_done` are over.
    """
    pairs = {key: (before.get(key), now.get(key)) for key in ("seed", "baseline", "lora")}
    of_task = sorted(
        {*_section(before, "task"), *_section(now, "task"), *OF_THE_TASK} if _is_ours(now) else OF_THE_TASK
    )
    for section, keys in {"arithmetic": ("width", "clip"), "task": of_task, "output": ("dir",)}.items():
        old, new = _section(before, section), _section(now, section)
        pairs |= {f"{section}.{key}": (old.get(key), new.get(key)) for key in keys}
    old_nodes, new_nodes = _nodes(_section(before, "federation")), _nodes(_section(now, "federation"))
    is_private = any(node[_PAID]["privacy"] for nodes in (old_nodes, new_nodes) for node in nodes.values())
    if is_private:
        pairs |= _paid_for(_section(before, "training"), _section(now, "training"), "training")
    problems = [_differs(place, old, new) for place, (old, new) in pairs.items() if old != new]
    coming = rounds_done + 1
    gone = old_nodes.keys() - new_nodes.keys()
    if gone:
        said = f"the run has a node {min(gone)!r}, let it leave: leaves_at: {coming} or later"
        problems.append(Problem("federation", f"is of another shape: {said}"))
    early = [path for path in new_nodes.keys() - old_nodes.keys() if new_nodes[path]["joins_at"] < coming]
    if early:
        said = f"the run has no node {min(early)!r}, let it join: joins_at: {coming} or later"
        problems.append(Problem("federation", f"is of another shape: {said}"))
    for path in [path for path in new_nodes if path in old_nodes]:
        held = old_nodes[path][_PAID], new_nodes[path][_PAID]
        kept = _paid_for(*held, path) if is_private else _kept_by(*held, path)
        problems += [_differs(place, old, new) for place, (old, new) in kept.items() if old != new]
        for key, new in new_nodes[path].items():
            old = old_nodes[path][key]
            if key == _PAID:
                continue
            if new == old or (key in _STAY and min(new, old) >= coming):
                continue
            if key in _STAY:
                said = f"is {_round(new)}, so far {_round(old)}: rounds before {coming} are over"
                problems.append(Problem(f"{path}: {key}", said))
            else:
                problems.append(_differs(f"{path}: {key}", old, new))
    return problems


def _is_ours(config: Mapping[str, Any]) -> bool:
    """Say whether the task is one of hierfl's own; what the keys of others mean, nobody knows."""
    return ":" not in str(_section(config, "task").get("kind", ""))


_STAY = ("joins_at", "leaves_at")

_PAID = "what privacy is paid by"
"""Of a node: what decides how much a round costs its records, which has to be the same in all that are counted."""


def _paid_for(old: Mapping[str, Any], new: Mapping[str, Any], place: str) -> dict[str, tuple[Any, Any]]:
    """Pair what decides how much a round costs records, by its place."""
    keys = sorted({*old, *new} & _COSTS)
    return {f"{place}.{key}": (old.get(key), new.get(key)) for key in keys}


def _kept_by(old: Mapping[str, Any], new: Mapping[str, Any], place: str) -> dict[str, tuple[Any, Any]]:
    """Pair what decides, under a hub's strategy, what its sites and itself keep, by its place."""
    before, now = _section(old, "strategy"), _section(new, "strategy")
    if not now or before.get("kind") != now.get("kind"):
        return {}
    names = getattr(kinds.load("strategy", now["kind"]), "lasting", ())
    return {f"{place}: strategy.{name}": (before.get(name), now.get(name)) for name in names}


_COSTS = {"batch_size", "local_steps", "local_epochs", "privacy", "role", "rounds", "strategy"}


def _round(number: float) -> str:
    """Write a round, or that there is none."""
    return "null" if number == math.inf else f"{number:g}"


_WAY_OUT = "a run keeps it to its end; for another, start a run of its own with `hierfl run`"


def _differs(place: str, old: Any, new: Any) -> Problem:
    """Say that a value may not change."""
    return Problem(place, f"is {new}, of the run {old}; {_WAY_OUT}")


def _changed_code(folder: RunDir, config: RunConfig) -> list[str]:
    """Warn of a task whose code is not what the run began with: what comes of it from now on is of both."""
    before, now = folder.first_code(), task_code(config)
    if not before or not now or before == now:
        return []
    said = f"the task's code is not what this run began with (SHA-256 {now[:12]}..., then {before[:12]}...)"
    return [f"{said}: the rounds from here on go by it, and those before do not"]


def _changed_task(before: Mapping[str, Any] | None, config: RunConfig) -> Iterator[str]:
    """Warn of keys of a task of one's own that are others than before: nobody else knows what they decide."""
    old, new = _section(before or {}, "task"), _section(config.resolved, "task")
    for key in sorted({*old, *new}) if before is not None else ():
        if old.get(key) != new.get(key):
            yield (
                f"task.{key} is {new.get(key)}, of the run {old.get(key)}: if that changes which records are trained on"
                " and which measured, what is measured from here on says little"
            )


def _origin(folder: RunDir, code_dir: Path | None) -> Origin | None:
    """Tell where the run comes from, or where that lies now."""
    origin = folder.origin()
    if code_dir is None:
        return origin
    if not code_dir.is_dir():
        raise ConfigError([Problem("--code-dir", f"{code_dir} is not a folder")])
    here = code_dir.resolve()
    return Origin(here, here) if origin is None else origin.moved(here)


def _config(
    folder: RunDir,
    overrides: Sequence[str],
    origin: Origin | None,
    before: Mapping[str, Any] | None,
    rounds_done: int = 0,
) -> RunConfig:
    """Read the run's configuration, with overrides over what was `before`. Errors: ConfigError."""
    from hierfl.config import load

    try:
        config = load(folder.config, overrides, base=origin.config_dir if origin is not None else None)
    except ConfigError as error:
        gone = origin is not None and not (origin.config_dir.is_dir() and origin.working_dir.is_dir())
        if not gone:
            raise
        assert origin is not None
        raise ConfigError([*error.problems, Problem("", _gone(origin))]) from error
    problems = lasting(before, config.resolved, rounds_done) if before is not None else []
    if problems:
        raise ConfigError(problems)
    return config


def _before(folder: RunDir) -> Mapping[str, Any]:
    """Read the configuration that held so far."""
    from hierfl.config.read import parse, read

    found: Mapping[str, Any] = parse(read(folder.config), str(folder.config))
    return found


def _is_over(folder: RunDir, saved: Checkpoint) -> bool:
    """Say whether the run has ended with this checkpoint; else it was killed before its model was written."""
    said, newest = folder.summary(), checkpoint.known(folder.path)
    if newest is None or not folder.has_model or said.get("status") not in ENDED:
        return False
    found = newest.rounds_done, newest.model_digest
    return found == (said.get("rounds"), said.get("model_digest")) and saved.rounds_done == newest.rounds_done


def _check_wanted(run_dir: Path, saved: Checkpoint, config: RunConfig, *, elsewhere: bool) -> None:
    """Errors: OutputError for a run that has ended, and of which no more is asked."""
    done, said = saved.rounds_done, ""
    if done >= config.federation.root.rounds:
        said, more = f"has done its {done} rounds", f"to go on, ask for more: federation.rounds={done + 10}"
    elif saved.progress.reason is not None and saved.goal == goal_of(config.resolved):
        said = f"stopped early after round {done}: {saved.progress.reason}"
        more = "to go on, ask for it: stopping=null, or another stopping.target or stopping.patience"
    if said and elsewhere:
        more = "its members have agreed to no more: another run, without --resume, may have others"
    if said:
        raise OutputError(f"{run_dir} {said}; {more}")


def goal_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give of a resolved configuration what a run is to stop by."""
    return {"rounds": _section(config, "federation").get("rounds"), "stopping": dict(_section(config, "stopping"))}


def _completed(saved: Checkpoint, folder: RunDir, before: Mapping[str, Any]) -> Checkpoint:
    """Add to a checkpoint of an earlier version what it was to stop by, and where the best model lies."""
    if saved.goal:
        return saved
    best = folder.path / BEST
    return replace(saved, goal=goal_of(before), best=best if best.exists() else None)


def _still_true(saved: Checkpoint, config: RunConfig) -> Checkpoint:
    """Take of a checkpoint what holds under the configuration. Errors: ConfigError for one of another run."""
    epoch = epoch_of(epochs(config), saved.rounds_done).number
    pairs = {"seed": (saved.seed, config.seed), "federation.epoch": (saved.epoch, epoch)}
    problems = [_differs(place, old, new) for place, (old, new) in pairs.items() if old != new]
    if problems:
        raise ConfigError(problems)
    goal = goal_of(config.resolved)
    old, new = _section(saved.goal, "stopping"), goal["stopping"]
    if saved.goal and any(old.get(key) != new.get(key) for key in ("metric", "mode")):
        return replace(saved, progress=Progress())  # the best value of another metric says nothing
    return saved if saved.goal == goal else replace(saved, progress=replace(saved.progress, reason=None))


def _gone(origin: Origin) -> str:
    """Say that the run's folder has moved, and the way out."""
    lost = next((path for path in (origin.working_dir, origin.config_dir) if not path.is_dir()), origin.working_dir)
    return f"the run was started in {lost}, which is no longer there; if it was moved, say where it is: --code-dir DIR"


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Give a section of a configuration; empty where it is missing."""
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def _nodes(root: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """List a tree's nodes by path, with what may not change at them."""
    found: dict[str, dict[str, Any]] = {}
    stack = [(str(root.get("name")), root, Stay())]
    while stack:
        path, node, above = stack.pop()
        members, stay = node.get("members"), above.within(node)
        strategy = node.get("strategy")
        paid = {**_section(node, "training"), **{key: node.get(key) for key in ("privacy", "role", "strategy")}}
        paid["rounds"] = node.get("rounds") if "/" in path else None  # of the root there may be more
        kind = strategy.get("kind") if isinstance(strategy, Mapping) else strategy
        found[path] = {
            "being a hub": members is not None,
            "split": node.get("split", 1),
            "strategy.kind": kind,
            "topology.kind": _section(node, "topology").get("kind"),
            "joins_at": stay.first,
            "leaves_at": math.inf if stay.end is None else stay.end,
            _PAID: paid,
        }
        written_out = spread(members, str(node.get("name"))) if members is not None else ()
        stack.extend((f"{path}/{member['name']}", member, stay) for member in written_out)
    return found
