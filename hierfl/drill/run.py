"""Runs the drill: the federation without faults first, then each case, in a folder of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hierfl import checkpoint
from hierfl.config.schema import RunConfig
from hierfl.drill.cases import Case, cases
from hierfl.drill.judge import Seen, seen
from hierfl.errors import HierflError
from hierfl.journal import LocalStore
from hierfl.monitor.files import read_events
from hierfl.options import loaded
from hierfl.rundir import RunDir
from hierfl.runtime.opening import JOURNAL
from tiers.journal import Told, join
from tiers.messages import Arrived

__all__ = ["Row", "drill"]

LIMIT_S = 600.0
"""Seconds that one process of a run which is killed and resumed may take."""


@dataclass(frozen=True)
class Row:
    """One row of the table; `passed` None where there was nothing to rehearse."""

    case: Case
    passed: bool | None
    said: str
    recovery_s: float | None = None
    retrained: int | None = None
    digest_equal: bool | None = None
    run_dir: str = ""

    def record(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        case = self.case
        return {
            "fault": case.kind,
            "node": case.node,
            "step": case.step,
            "expected": case.expects,
            "seen": self.said,
            "recovery_s": self.recovery_s,
            "retrained": self.retrained,
            "digest_equal": self.digest_equal,
            "passed": self.passed,
            "run_dir": self.run_dir,
        }


def drill(
    command: Sequence[str],
    folder: Path,
    only: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Row]:
    """Rehearse each case; yield the rows as they come.

    `command`: the configuration and overrides, as for `hierfl run`; `folder`: where the runs are written; `only`: this
    kind alone. Errors: HierflError of the run without faults.
    """
    config = loaded([*command, *_own(folder, "whole")])
    rows = [case for case in cases(config) if only in (None, case.kind)]
    with ExitStack() as stack:
        if config.runtime.kind == "ray" and config.runtime.address is None:
            from hierfl.runtime.ray_cluster import embedded

            stack.enter_context(embedded(config.runtime))  # one Ray for all
        say("the run without faults")
        whole = str(_run(config)["model_digest"])
        for number, case in enumerate(case for case in rows if not case.resumes):
            if case.unless:
                yield Row(case, None, case.unless)
                continue
            say(f"{case.kind} of {case.node} at {case.step}")
            faulty = loaded([*command, *_own(folder, f"case-{number:02d}"), f"faults={json.dumps(case.faults)}"])
            yield _one(case, faulty, whole, closes_early(config))
    ended = [case for case in rows if case.resumes]
    if ended:
        say(f"{ended[0].kind} of the run at each of {len(ended)} steps")
        yield from _resumed(ended, [*command, *_own(folder, "resumed")], folder, whole, closes_early(config))


def closes_early(config: RunConfig) -> bool:
    """Say whether who counts in a round depends on time, so that faults may change the bits."""
    return any(hub.participation.may_close_early for hub in config.federation.hubs.values())


def _own(folder: Path, name: str) -> list[str]:
    """Give the overrides that put a run where the drill keeps it."""
    return [f"output.dir={folder / name}", "output.tensorboard=false"]


def _run(config: RunConfig) -> dict[str, Any]:
    from hierfl.run import run

    return dict(run(config))


def _one(case: Case, config: RunConfig, whole: str, early: bool) -> Row:
    """Run one case to its end."""
    error, digest = "", None
    try:
        digest = str(_run(config)["model_digest"])
    except HierflError as failed:
        error = str(failed).splitlines()[0]
    [run_dir] = Path(config.output.dir).iterdir()
    return _judged(case, seen(read_events(run_dir), case.hub), digest == whole, error, early, str(run_dir))


def _judged(case: Case, found: Seen, equal: bool, error: str, early: bool, run_dir: str) -> Row:
    """Hold what was seen against what is expected."""
    if error:
        return Row(case, False, f"the run failed: {error}", run_dir=run_dir)
    if not found.struck:
        return Row(case, None, "this federation has no such step", run_dir=run_dir)
    said = [f"struck {len(found.struck)} time{'s' if len(found.struck) > 1 else ''}"]
    said += [f"{times} {cause}" for cause, times in Counter(cause for _, cause in found.replaced).items()]
    said += found.refused
    passed = (equal or early) and (case.may_retrain or not found.retrained)
    passed = passed and (not case.cause or any(cause == case.cause for _, cause in found.replaced))
    slowest = max((each for each in found.recoveries_s if each is not None), default=None)
    return Row(case, passed, ", ".join(said), slowest, found.retrained, equal, run_dir)


def _resumed(ended: Sequence[Case], command: Sequence[str], folder: Path, whole: str, early: bool) -> Iterator[Row]:
    """Let one run be killed at each step in turn, and take it up again each time."""
    file = folder / "faults.json"
    file.write_text(json.dumps([fault for case in ended for fault in case.faults]))
    (code, end), run_dir = _process(["run", *command, "--faults", str(file)]), None
    again, num_read = 0, 0
    for _ in ended:
        found_dirs = list((folder / "resumed").glob("*"))
        if code >= 0 or not found_dirs:
            break
        [run_dir] = found_dirs
        kept, num_read = journalled(run_dir), sum(1 for _ in read_events(run_dir))
        code, end = _process(["resume", str(run_dir)])
        events = islice(read_events(run_dir), num_read, None)
        again += sum((one["node"], one["round_number"]) in kept for one in events if one["event"] == "site_trained")
    if run_dir is None:
        yield Row(ended[0], False, f"the run ended before it could be killed, with exit code {code}: {end}")
        return
    found = seen(read_events(run_dir), "")
    equal = code == 0 and RunDir(run_dir).summary().get("model_digest") == whole
    said = "resumed" if code == 0 else f"the run ended with exit code {code}: {end}"
    for case in ended:
        at = next((number for number, one in enumerate(found.struck) if one["step"] == case.step), None)
        if at is None:
            passed, what = (None, "this federation has no such step") if code == 0 else (False, said)
            yield Row(case, passed, what, run_dir=str(run_dir))
            continue
        passed = code == 0 and (equal or early) and not again
        yield Row(case, passed, said, found.recoveries_s[at], again, equal, str(run_dir))


def journalled(run_dir: Path) -> set[tuple[str, int]]:
    """List the sites whose updates lie in a run's own journal, each with its hub's round, from 1."""
    saved = checkpoint.known(run_dir)
    place = LocalStore(run_dir / JOURNAL)
    return {
        (f"{entry.record.hub}/{share.member}", entry.record.event.update.round_number + 1)
        for entry in join(place.read(saved.rounds_done if saved is not None else 0)).entries
        if isinstance(entry.record, Told) and isinstance(entry.record.event, Arrived) and entry.record.vectors
        for share in entry.record.event.update.shares
    }


def _process(words: Sequence[str]) -> tuple[int, str]:
    """Run hierfl in a process of its own; give its exit code, below 0 if it was killed, and its last words."""
    command = [sys.executable, "-m", "hierfl", *words, "--plain"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return ended.returncode, (ended.stderr.strip().splitlines() or [""])[-1]
