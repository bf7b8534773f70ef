"""What the supervisor says: records of what happens, with the time and the round; a site's failure is said here too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from hierfl.errors import GOES_ON, SiteFailed, told_above
from hierfl.monitor import records
from hierfl.monitor.records import Record
from hierfl.runtime.jobs import GpuUse, SiteReport
from tiers.federation import Federation

__all__ = ["Scribe", "first_line"]

CODE_FAILED = "the task's code failed; what it said is in the log there"

LOAD_S = 0.001
"""Loading that takes as long is worth a record; data that lie in a worker's cache take microseconds."""

SHOWN = 20
"""Of the members that exchange so many are named, each with so many others."""


FATES = {"died": "died", "silent": "has fallen silent", "damaged": "was handed a damaged update"}
DISTRUSTED = "is not to be trusted"
"""What has become of a replica, by the cause for which it is replaced."""


class Scribe:
    """Makes records and hands them to `emit`. Machines count rounds from 0, people from 1: records carry the latter.

    `shown`: the root's round that is under way, from 1; 0 before the first. `goes_up`: reasons may go to a hub that
    others serve.
    """

    def __init__(self, federation: Federation, emit: Callable[[Record], None], started_s: float) -> None:
        self.emit = emit
        self.shown = 0
        self.goes_up = False
        self._tree = federation
        self._started_s = started_s

    def now(self) -> float:
        """Give the seconds since the run's start."""
        return time.time() - self._started_s

    def since(self, epoch_s: float) -> float:
        """Turn seconds since the epoch into seconds since the run's start."""
        return epoch_s - self._started_s

    def notice(self, level: str, node: str, message: str) -> None:
        """Say something that a person should know."""
        self.emit(records.Notice(self.now(), level, node, message))

    def changed(self, nodes: Iterable[str], state: str, round_number: int) -> None:
        """Say the state of nodes; `round_number` counts from 1."""
        if changed := tuple(nodes):
            self.emit(records.NodesChanged(self.now(), changed, state, round_number))

    def replaced(
        self, node: str, replica: int, num_replicas: int, cause: str, reason: str, *, sits_out: bool = False
    ) -> None:
        """Name a replica of a hub's aggregator that is replaced, `replica` counted from 0; `sits_out`: later on."""
        record = records.ReplicaReplaced(self.now(), node, replica + 1, num_replicas, cause, reason, self.shown)
        self.emit(record)
        who = f"replica {replica + 1} of {num_replicas} of its aggregator" if num_replicas > 1 else "its aggregator"
        others = "sits out the rest of the round" if sits_out else "is replaced"
        then = f"{others}; the others go on" if num_replicas > 1 else "was replaced; its round goes on"
        self.notice("warning", node, f"{who} {FATES.get(cause, DISTRUSTED)} ({reason}) and {then}")

    def placed(self, node: str, replica: int, num_replicas: int, machine: str, *, again: bool) -> None:
        """Say on which machine a replica of a hub's aggregator is, `replica` counted from 0."""
        self.emit(records.ReplicaPlaced(self.now(), node, replica + 1, num_replicas, machine, self.shown))
        if again:
            self.notice("info", node, f"replica {replica + 1} of {num_replicas} of its aggregator is up, on {machine}")

    def phase(self, actor: str, phase: str, start_s: float, end_s: float, nodes: Sequence[str]) -> None:
        """Say a busy span, given in seconds since the epoch."""
        begun, ended = self.since(start_s), self.since(end_s)
        self.emit(records.Phase(self.now(), actor, phase, begun, ended, nodes, self.shown))

    def trained(self, report: SiteReport, round_number: int, worker: str) -> None:
        """Say what came of a site's training, and of loading before it; `round_number` counts from 1."""
        if report.error is None:
            self.emit(
                records.SiteTrained(
                    *(self.now(), report.site, round_number, worker, report.duration_s, report.num_samples),
                    *(report.num_steps, report.loss, report.load_s, self.since(report.started_s), report.lr),
                )
            )
        if report.load_s >= LOAD_S:
            self.phase(worker, "load", report.started_s, report.started_s + report.load_s, [report.site])

    def exchanged(
        self,
        node: str,
        round_number: int,
        mixed: Mapping[str, Sequence[str]],
        num_bytes: int,
        missing: Mapping[str, str],
    ) -> None:
        """Say that a hub's members have exchanged, who with whom, and who has left; `round_number` counts from 1."""
        shown = {at: names[:SHOWN] for at, names in list(mixed.items())[:SHOWN]}
        self.emit(records.Exchanged(self.now(), node, round_number, shown, num_bytes, missing))

    def consensus(self, node: str, distance: float) -> None:
        """Say how far from each other the models of a hub's members are, at the end of its rounds."""
        self.emit(records.Consensus(self.now(), node, self.shown, distance))

    def gpu(self, device: str, worker: str, use: GpuUse) -> None:
        """Say what was read of a GPU."""
        samples = tuple((time_s - self._started_s, used, num_bytes) for time_s, used, num_bytes in use.samples)
        self.emit(records.GpuSampled(self.now(), device, worker, use.gpu, use.memory_bytes, samples))

    def site_failed(self, site: str, error: str, what: str) -> None:
        """Say it, and stop the run unless the site's hub goes on without it. Errors: SiteFailed."""
        if not self._tree.hubs[site.rpartition("/")[0]].keep_going:
            raise SiteFailed(f"{site} could not be {what}: {error}{GOES_ON}")
        self.changed([site], "failed", self.shown)
        self.notice("error", site, f"could not be {what}: {error}")

    def reason(self, error: str) -> str:
        """Say in a line why a site gives nothing.

        What a task's code says comes with its traceback, and may quote records: where reasons go up it stays in this
        process's log.
        """
        if not self.goes_up:
            return first_line(error)
        said = told_above(error)
        return CODE_FAILED if said is None else said


def first_line(text: str | None) -> str:
    """Give the first line of a reason."""
    return (text or "").strip().splitlines()[0] if (text or "").strip() else ""
