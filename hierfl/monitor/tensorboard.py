"""The run as a TensorBoard log: `tensorboard --logdir RUN_DIR/tensorboard`.

| tag | what |
|---|---|
| `world/us/cleveland/auc` | a node's metric after each round (accuracy, ece ...); left out where undefined |
| `fairness/auc/worst`, `best`, `mean`, `deviation` | over the sites that count, each once; also of the other metrics |
| `membership/sites`, `membership/epoch` | from the round on in which members have changed |
| `world/us/cleveland/train_loss` | the loss of a site's local training |
| `world/us/cleveland/lr` | with which learning rate it trained, where a schedule changes that |
| `time/round`, `time/wait`, `time/load`, `time/train` ... | seconds of a round; by phase, added up over the workers |
| `bytes/up`, `bytes/world/us` | bytes that members handed up in a round, in all and by hub |
| `bytes/spared` | how many more they would be without compression, where there is any |
| `replicas/world/us/replaced` | processes that serve a hub and were replaced in a round; text says which and why |
| `schedule/idle`, `schedule/floor`, `schedule/avoidable` | idle fraction of a round, and its floor |
| `schedule/efficiency` | the least time that the round's work can take over the time that it took |
| `schedule/goodput` | what the round's work takes alone over the devices' time |
| `schedule/device/<name>/idle` ..., `schedule/hub/<path>/idle` ... | the same of every device and hub |
| `gpus/<device>/utilisation`, `gpus/<device>/memory_gb` | of its GPU, where it can be read: mean, peak in use |
| `workers/busy`, `workers/<id>/busy`, `workers/<id>/idle` | fractions of the round |

The step is the root's round. Of single nodes below the root, devices and workers there is a point for each of the first
1,000 rounds, for every 2nd up to 2,000, every 4th up to 4,000 and so on, and for the last one: TensorBoard shows 1,000
points of a curve. Custom scalars show one chart per tier and metric, the task's own among them; text holds the
configuration; images the tree, and who worked when, drawn as the run goes, and the calibration at its end; hparams the
run's settings with the root's final metrics. What is found after a run is in `afterwards`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierfl.config.build import override_training
from hierfl.config.schema import Training
from hierfl.config.write import write
from hierfl.learning.own_metrics import own_among
from hierfl.monitor.busy import PHASES, Account
from hierfl.monitor.fairness import fairness
from hierfl.monitor.gpus import GpuTime
from hierfl.monitor.records import (
    Assigned,
    Evaluated,
    GpuSampled,
    Leased,
    MembershipChanged,
    Phase,
    Record,
    ReplicaReplaced,
    RoundClosed,
    RoundCommitted,
    RunEnded,
    RunStarted,
    Scalars,
    SiteTrained,
)
from hierfl.monitor.tape import Tape
from hierfl.monitor.words import FIGURES, finite

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig
    from hierfl.monitor.event_file import EventFile

__all__ = ["FOLDER", "TensorBoard", "evenly"]

FOLDER = "tensorboard"
_FAIRNESS = {"worst_value": "worst", "best_value": "best", "mean": "mean", "std": "deviation"}
_TRAINING = ("lr", "lr_schedule", "optimizer", "batch_size", "local_steps", "local_epochs")
_CHARTS = ("auc", "accuracy", "loss", "ece")
_TREE_AFTER_S = 30.0
_LONGER = 1.5
"""Pictures are drawn anew when the run is so many times as old: a day's run draws its timeline twenty times."""

ALL = 1000
"""Rounds that each have a point in every curve; of twice as many it is half of those that are more, and so on."""

_MAX_BARS = 20_000
_TEXT_LIMIT = 200_000


class TensorBoard:
    """Writes the log below `run_dir/tensorboard`; a resumed run's log replaces the rounds that are run again.

    Hubs always have curves; of the sites at most `config.output.tensorboard_sites`, spread evenly over the tree.
    """

    def __init__(self, run_dir: Path, config: RunConfig) -> None:
        self._dir = run_dir / FOLDER
        self._config = config
        self._nodes = set(config.federation.hubs) | set(
            evenly(list(config.federation.sites), config.output.tensorboard_sites)
        )
        self._writer: EventFile | None = None
        self._account = Account((), 0.0)
        self._gpus = GpuTime()
        self._trainings: dict[str, float] = {}
        self._bytes_up: dict[str, int] = {}
        self._bytes_spared = 0
        self._replaced: dict[str, list[str]] = {}
        self._final: Scalars = {}
        self._metrics: Mapping[str, Scalars] = {}
        self._workers: Sequence[str] = ()
        self._undue: dict[str, tuple[object, int]] = {}
        self._tree_drawn = False
        self._tape = Tape(_MAX_BARS)
        self._draw_at_s = _TREE_AFTER_S

    def on(self, record: Record) -> None:
        """Take one record; scalars are handed to the writer's own thread."""
        if isinstance(record, RunStarted):
            self._start(record)
        elif self._writer is None:
            return
        elif isinstance(record, Phase):
            self._account.add(record)
            self._tape.phase(record.actor, record.phase, record.start_s, record.end_s)
        elif isinstance(record, Assigned):
            self._tape.devices[record.worker] = record.device
        elif isinstance(record, GpuSampled | Leased):
            self._gpus.on(record)
        elif isinstance(record, SiteTrained):
            self._trained(record)
        elif isinstance(record, RoundClosed):
            self._bytes_up[record.node] = self._bytes_up.get(record.node, 0) + record.bytes_up
            self._bytes_spared += record.bytes_spared
            self._tape.closed(record.node, record.time_s, record.duration_s)
        elif isinstance(record, ReplicaReplaced):
            said = f"round {record.round_number}: replica {record.replica} {record.cause}: {record.reason}"
            self._replaced.setdefault(record.node, []).append(said)
        elif isinstance(record, Evaluated):
            self._tape.evaluated(record.time_s)
            self._evaluated(record)
        elif isinstance(record, RoundCommitted):
            self._committed(record)
        elif isinstance(record, MembershipChanged):
            sites = record.num_samples.keys() & self._config.federation.sites.keys()
            self._writer.scalar("membership/sites", float(len(sites)), record.round_number)
            self._writer.scalar("membership/epoch", float(record.epoch), record.round_number)
        elif isinstance(record, RunEnded):
            self._hparams()

    def close(self) -> None:
        """Draw the tree if a short run has not yet, and finish the file."""
        if self._writer is not None:
            self._tree()
            self._timeline()
            self._calibration()
            for tag, (value, step) in self._undue.items():
                self._scalar(tag, value, step)
            self._writer.close()
            self._writer = None

    def _start(self, record: RunStarted) -> None:
        """Open the log; `purge_step` hides what an earlier process wrote for the rounds to come."""
        from hierfl.monitor.event_file import EventFile

        self._writer = EventFile(self._dir, purge_step=record.first_round if self._dir.exists() else None)
        self._tape.start(record.workers, dict(record.devices), record.first_round)
        self._account = Account(tuple(record.workers), record.time_s)
        self._writer.text("config", _code_block(self._config.resolved))
        self._workers = record.workers
        self._lay_out(())

    def _trained(self, record: SiteTrained) -> None:
        """Keep a site's latest figures until the round is committed: an inner hub may run several rounds."""
        for name, value in (("train_loss", finite(record.loss)), ("lr", record.lr)):
            if value is not None and record.node in self._nodes:
                self._trainings[f"{record.node}/{name}"] = value

    def _evaluated(self, record: Evaluated) -> None:
        root = self._config.federation.root.name
        self._final = record.metrics.get(root, {})
        if not self._metrics:
            known = [item for found in record.metrics.values() for item in found.items()]
            self._lay_out({name for name, value in known if finite(value) is not None})
        self._metrics = record.metrics
        sites = self._config.sites
        counted = {path: found for path, found in record.metrics.items() if path in sites and sites[path].counts}
        for metric, figures in fairness(counted, self._config.better).items():
            for figure, tag in _FAIRNESS.items():
                self._scalar(f"fairness/{metric}/{tag}", figures[figure], record.round_number)
        every = max(1, self._config.evaluation.every)
        for node in self._nodes & record.metrics.keys():
            for name, value in record.metrics[node].items():
                self._one_of(f"{node}/{name}", value, record.round_number, is_root=node == root, every=every)

    def _lay_out(self, measured: Collection[str]) -> None:
        """Say which charts there are; what a run measures is known once it has."""
        assert self._writer is not None
        shown = [name for name in _CHARTS if name in measured] + own_among(measured)
        self._writer.custom_scalars(_layout(self._config, self._nodes, self._workers, shown))

    def _committed(self, record: RoundCommitted) -> None:
        """Write what was added up over the round: what sites trained with and to, times, bytes, the workers' shares."""
        step, root = record.round_number, self._config.federation.root.name
        share = self._account.close(record.time_s)
        self._scalar("time/round", record.duration_s, step)
        for phase, spent_s in share.phase_s.items():
            self._scalar(f"time/{phase}", spent_s, step)
        self._scalar("workers/busy", record.busy_fraction, step)
        self._scalar("schedule/idle", 1.0 - record.busy_fraction, step)
        self._scalar("schedule/floor", record.idle_floor, step)
        self._scalar("schedule/avoidable", max(0.0, 1.0 - record.busy_fraction - record.idle_floor), step)
        self._scalar("schedule/efficiency", record.efficiency, step)
        self._scalar("schedule/goodput", record.goodput, step)
        for what, each in (("device", record.devices), ("hub", record.hubs)):
            for name, figures in each.items():
                for figure, tag in FIGURES.items():
                    self._one_of(f"schedule/{what}/{name}/{tag}", figures.get(figure), step, is_root=name == root)
        self._tape.committed(step, record.time_s)
        for worker, busy in share.busy.items():
            self._one_of(f"workers/{worker}/busy", busy, step)
            self._one_of(f"workers/{worker}/idle", 1.0 - busy, step)
        for device, gpu in self._gpus.take().items():
            self._one_of(f"gpus/{device}/utilisation", gpu.utilisation, step)
            self._one_of(f"gpus/{device}/memory_gb", gpu.peak_bytes / 1e9, step)
        for tag, value in self._trainings.items():
            self._one_of(tag, value, step)
        for hub, num_bytes in self._bytes_up.items():
            self._one_of(f"bytes/{hub}", num_bytes, step, is_root=hub == root)
        self._scalar("bytes/up", sum(self._bytes_up.values()), step)
        for hub, said in self._replaced.items():
            self._scalar(f"replicas/{hub}/replaced", len(said), step)
            assert self._writer is not None
            self._writer.text(f"replicas/{hub}", "\n".join(f"- {line}" for line in said))
        self._replaced.clear()
        if self._bytes_spared:
            self._scalar("bytes/spared", self._bytes_spared, step)
        self._bytes_spared = 0
        self._trainings.clear()
        self._bytes_up.clear()
        if record.time_s >= self._draw_at_s:
            self._draw_at_s = _LONGER * record.time_s
            self._tree()
            self._timeline()

    def _one_of(self, tag: str, value: object, step: int, *, is_root: bool = False, every: int = 1) -> None:
        """Write a point of one of many curves that are alike, or keep it in case that none comes after it; `every`: so
        many rounds lie between two points.
        """
        if is_root or _is_due(-(-step // every)):
            self._undue.pop(tag, None)
            self._scalar(tag, value, step)
        else:
            self._undue[tag] = value, step

    def _scalar(self, tag: str, value: object, step: int) -> None:
        """Write one point, unless it is undefined."""
        number = finite(value)
        if number is not None and self._writer is not None:
            self._writer.scalar(tag, number, step)

    def _tree(self) -> None:
        """Draw the tree once. Matplotlib takes a second to import, so not while a run starts."""
        if self._tree_drawn or self._writer is None:
            return
        from hierfl.monitor import pictures

        federation = self._config.federation
        figure = pictures.tree(federation.nodes, _hub_notes(self._config))
        self._writer.image("tree", pictures.png(figure))
        self._tree_drawn = True

    def _timeline(self) -> None:
        """Draw who worked when so far, or in the last rounds of a long run; the report has all of them."""
        if not self._tape.bars or not self._tape.commits or self._writer is None:
            return
        from hierfl.monitor import pictures

        step = self._tape.commits[-1][0]
        self._writer.image("timeline", pictures.png(pictures.timeline(self._tape)), step)

    def _calibration(self) -> None:
        """Draw how often came true what was predicted, as it was measured last."""
        if self._writer is None or not any(found.get("reliability") for found in self._metrics.values()):
            return
        from hierfl.monitor import pictures

        step = self._tape.commits[-1][0] if self._tape.commits else 0
        self._writer.image("calibration", pictures.png(pictures.reliability(self._metrics)), step)

    def _hparams(self) -> None:
        """Describe the run for the HPARAMS page, by the root's own scalars and in the same run."""
        root = self._config.federation.root.name
        metrics = [
            f"{root}/{name}"
            for name, value in self._final.items()
            if finite(value) is not None and not name.startswith("num_test")
        ]
        assert self._writer is not None, "the run ended before it started"
        self._writer.hparams(_settings(self._config), metrics)


def evenly(items: Sequence[str], limit: int) -> list[str]:
    """Choose at most `limit` items, spread evenly over the sequence, in its order."""
    if len(items) <= limit:
        return list(items)
    return [items[place * len(items) // limit] for place in range(limit)]


def _is_due(number: int) -> bool:
    """Say whether each of many curves has its so many-th point, counted from 1."""
    return number % (1 << ((number - 1) // ALL).bit_length()) == 0


def _settings(config: RunConfig) -> dict[str, Any]:
    """Name what one would compare runs by. Of a setting that differs between sites the one that holds where no hub or
    site overrides it; "mixed" where each is overridden.

    How many rounds there are is left out: TensorBoard keeps the first process's settings, and one may go on to more.
    """
    written = config.resolved
    holds = Training()
    for own in (written.get("training"), written.get("federation", {}).get("training")):
        holds = override_training(holds, own or {})

    def common(name: str) -> Any:
        found = {_worth(site.training, name) for site in config.sites.values()}
        usual = _worth(holds, name)
        return next(iter(found)) if len(found) == 1 else usual if usual in found else "mixed"

    root = config.federation.root
    settings = {name: common(name) for name in _TRAINING}
    settings["strategy"] = _kind(config.hubs[root.name].strategy)
    settings |= {"seed": config.seed, "task": config.task_kind}
    settings |= {"sites": len(config.federation.sites), "tiers": config.federation.num_tiers}
    return {name: value for name, value in settings.items() if value is not None}


def _worth(training: Training, name: str) -> Any:
    """Give a setting as one value: a schedule's is its kind."""
    value = getattr(training, name)
    return value["kind"] if isinstance(value, Mapping) else value


def _layout(
    config: RunConfig, nodes: set[str], workers: Sequence[str], metrics: Sequence[str]
) -> dict[str, dict[str, list[str]]]:
    """Lay out one category per tier, one chart per metric, one line per node; tags are regular expressions there."""
    layout: dict[str, dict[str, list[str]]] = {}
    for depth in range(config.federation.num_tiers):
        tier = [path for path in config.federation.nodes if path in nodes and path.count("/") == depth]
        charts = {name: [_exactly(f"{path}/{name}") for path in tier] for name in metrics}
        trained = [_exactly(f"{path}/train_loss") for path in tier if path in config.federation.sites]
        layout[f"tier {depth}"] = charts | ({"train_loss": trained} if trained else {})
    layout["time"] = {"seconds by phase": [_exactly(f"time/{name}") for name in (*PHASES, "wait")]}
    layout["schedule"] = {"idle, beside the floor": [_exactly("schedule/idle"), _exactly("schedule/floor")]}
    layout["workers"] = {"busy": [_exactly(f"workers/{name}/busy") for name in workers]}
    return layout


def _exactly(tag: str) -> str:
    return f"^{re.escape(tag)}$"


def _hub_notes(config: RunConfig) -> dict[str, str]:
    """Say at each hub how it learns: topology, strategy and rounds."""
    return {
        path: f"{_kind(hub.topology)} · {_kind(config.hubs[path].strategy)} · rounds {hub.rounds}"
        for path, hub in config.federation.hubs.items()
    }


def _kind(thing: object) -> str:
    """Name a kind as the YAML does: its module's name, or the class's for one of the user's own in a script."""
    return type(thing).__module__.rpartition(".")[2] if "." in type(thing).__module__ else type(thing).__name__


def _code_block(resolved: Mapping[str, Any]) -> str:
    """Write the configuration as YAML in a Markdown code block: each line indented by four spaces."""
    text = write(resolved)
    if len(text) > _TEXT_LIMIT:
        text = text[:_TEXT_LIMIT] + "\n... the rest stands in config.yaml\n"
    return "".join(f"    {line}\n" for line in text.splitlines())
