"""Runs the drill: the federation without faults, then with one in each round, then killed and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hierfl import checkpoint
from hierfl.config.schema import RunConfig
from hierfl.drill.cases import Case, cases, in_round
from hierfl.drill.judge import Seen, absolute, by_round, seen
from hierfl.errors import HierflError
from hierfl.journal import LocalStore
from hierfl.monitor.files import read_events
from hierfl.monitor.words import plural
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
    rounds: int = 2,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Row]:
    """Rehearse each case; yield the rows as they come.

    `command`: the configuration and overrides, as for `hierfl run`; `folder`: where the runs are written; `only`: this
    kind alone; `rounds`: of the run that ends and is resumed, and of those that look for what went wrong. Errors:
    HierflError of a run without faults.
    """
    runs = _Runs(command, folder, say)
    config = runs.config("whole", rounds)
    config.must_train("a drill")
    listed = [case for case in cases(config) if only in (None, case.kind)]
    yield from (Row(case, None, case.unless) for case in listed if case.unless)
    goes_on = [case for case in listed if not case.unless and not case.resumes]
    ends = [case for case in listed if case.resumes]
    with ExitStack() as stack:
        if config.runtime.kind == "ray" and config.runtime.address is None:
            from hierfl.runtime.ray_cluster import embedded

            stack.enter_context(embedded(config.runtime))  # one Ray for all
        if goes_on:
            yield from _all_in_one(goes_on, runs, rounds)
        whole = runs.whole(rounds) if ends else ""
    if ends:
        say(f"{ends[0].kind} of the run at each of {len(ends)} steps")
        yield from _resumed(ends, runs, rounds, whole)


class _Runs:
    """Makes runs in a folder; those without faults once for each number of rounds."""

    def __init__(self, command: Sequence[str], folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        self._command = command
        self._whole: dict[int, str] = {}

    def words(self, name: str, rounds: int) -> list[str]:
        """Give the configuration and the overrides of one."""
        own = [f"federation.rounds={rounds}", f"output.dir={self.folder / name}", "output.tensorboard=false"]
        return [*self._command, *own]

    def config(self, name: str, rounds: int, faults: Sequence[Mapping[str, Any]] = ()) -> RunConfig:
        """Read the configuration of one. Errors: ConfigError."""
        return loaded([*self.words(name, rounds), f"faults={json.dumps(list(faults))}"])

    def whole(self, rounds: int) -> str:
        """Give the digest of the run without faults. Errors: HierflError."""
        from hierfl.lifecycle import run

        if rounds not in self._whole:
            self.say(f"{plural(rounds, 'round')} without faults")
            self._whole[rounds] = str(run(self.config(f"whole-{rounds}", rounds))["model_digest"])
        return self._whole[rounds]

    def struck(self, name: str, rounds: int, faults: Sequence[Mapping[str, Any]]) -> tuple[str, str, Path]:
        """Run with faults; give the digest, or why it failed, and its folder."""
        from hierfl.lifecycle import run

        config, error, digest = self.config(name, rounds, faults), "", ""
        try:
            digest = str(run(config)["model_digest"])
        except HierflError as failed:
            error = str(failed).splitlines()[0]
        [run_dir] = config.output.folder.iterdir()
        return digest, error, run_dir


def _all_in_one(listed: Sequence[Case], runs: _Runs, rounds: int) -> Iterator[Row]:
    """Let each case strike a round of one run; where that is not as expected, each once more by itself."""
    config = runs.config("together", len(listed))
    whole = runs.whole(len(listed))
    faults = [fault for number, case in enumerate(listed, 1) for fault in in_round(case, config, number)]
    runs.say(f"{len(listed)} rounds, each with one of: {', '.join(dict.fromkeys(case.kind for case in listed))}")
    digest, error, run_dir = runs.struck("together", len(listed), faults)
    told, early = by_round(read_events(run_dir)), closes_early(config)
    rows = [
        _judged(case, seen(told.get(number, ()), case.hub), digest == whole, error, early, run_dir)
        for number, case in enumerate(listed, 1)
    ]
    if all(row.passed is not False for row in rows):
        yield from rows
        return
    for number, case in enumerate(listed):
        runs.say(f"{case.kind} of {case.node} at {case.step}")
        whole = runs.whole(rounds)
        digest, error, run_dir = runs.struck(f"alone-{number:02d}", rounds, in_round(case, config, 1))
        found = seen(absolute(read_events(run_dir)), case.hub)
        yield _judged(case, found, digest == whole, error, early, run_dir)


def closes_early(config: RunConfig) -> bool:
    """Say whether who counts in a round depends on time, so that faults may change the bits."""
    return any(hub.participation.may_close_early for hub in config.federation.hubs.values())


def _judged(case: Case, found: Seen, equal: bool, error: str, early: bool, run_dir: Path) -> Row:
    """Hold what was seen against what is expected."""
    if error:
        return Row(case, False, f"the run failed: {error}", run_dir=str(run_dir))
    if not found.struck:
        return Row(case, None, "this federation has not come there", run_dir=str(run_dir))
    said = [f"struck {len(found.struck)} time{'s' if len(found.struck) > 1 else ''}"]
    said += [f"{times} {cause}" for cause, times in Counter(cause for _, cause in found.replaced).items()]
    said += found.refused
    passed = (equal or early) and (case.may_retrain or not found.retrained)
    passed = passed and (not case.cause or any(cause == case.cause for _, cause in found.replaced))
    slowest = max((each for each in found.recoveries_s if each is not None), default=None)
    return Row(case, passed, ", ".join(said), slowest, found.retrained, equal, str(run_dir))


def _resumed(ended: Sequence[Case], runs: _Runs, rounds: int, whole: str) -> Iterator[Row]:
    """Let one run be killed at each step in turn, and take it up again each time."""
    config = runs.config("resumed", rounds)
    early = closes_early(config)
    file = runs.folder / "faults.json"
    file.write_text(json.dumps([fault for case in ended for fault in in_round(case, config, 1)]))
    (code, end), run_dir = _process(["run", *runs.words("resumed", rounds), "--faults", str(file)]), None
    again, num_read = 0, 0
    for _ in ended:
        found_dirs = list((runs.folder / "resumed").glob("*"))
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
    found = seen(absolute(read_events(run_dir)), "")
    equal = code == 0 and RunDir(run_dir).summary().get("model_digest") == whole
    said = "resumed" if code == 0 else f"the run ended with exit code {code}: {end}"
    for case in ended:
        at = next((number for number, one in enumerate(found.struck) if one["step"] == case.step), None)
        if at is None:
            passed, what = (None, "this federation has not come there") if code == 0 else (False, said)
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
