"""What `summary.json` says of a run: of every node, and of how its devices were used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hierfl.best import BEST
from hierfl.config.baseline import BASELINES
from hierfl.config.membership import Epoch
from hierfl.config.schema import RunConfig
from hierfl.learning.state import Layout
from hierfl.learning.stopping import Progress
from hierfl.monitor.cross_site import Matrix
from hierfl.monitor.fairness import fairness, titles
from hierfl.monitor.gpus import GpuTime
from hierfl.monitor.idle import IdleTime
from hierfl.monitor.records import MembershipChanged, NodesChanged, Notice, Record, Scalars
from hierfl.monitor.words import few, plural
from hierfl.runtime.crew import Crew
from hierfl.runtime.estimates import Estimates
from hierfl.runtime.jobs import Inventory
from hierfl.runtime.scribe import first_line
from hierfl.tree import describe
from scheduler import Idle

_UP, _DOWN = "parametrizations.weight.0.up", "parametrizations.weight.0.down"
_EMPTY = "has no training samples and is not trained"

__all__ = [
    "changed",
    "idle_nodes",
    "idle_time",
    "of_best",
    "of_epochs",
    "of_fairness",
    "of_nodes",
    "of_round",
    "of_schedule",
    "on_all_data",
    "simulated",
    "unloaded",
    "unmixed",
    "wide_adapters",
]


def of_nodes(
    config: RunConfig, metrics: Mapping[str, Scalars], num_samples: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Write every node's newest metrics, `num_test` among them, and its training samples, `num_samples`.

    Of a site that does not train, its `role`.
    """
    roles = {path: {"role": site.role} for path, site in config.sites.items() if not site.trains}
    return {
        path: {**metrics.get(path, {}), "num_samples": num_samples[path], **roles.get(path, {})}
        for path in config.federation.nodes
    }


def unloaded(inventories: Mapping[str, Inventory]) -> dict[str, str]:
    """Say of the sites whose data could not be loaded why, in a line."""
    return {
        path: f"could not be loaded: {first_line(found.error)}"
        for path, found in inventories.items()
        if found.error is not None
    }


def of_best(config: RunConfig, progress: Progress, *, is_kept: bool) -> dict[str, Any]:
    """Write which model is the best by the metric of early stopping; empty where none is kept."""
    if not progress.best_round or not is_kept:
        return {}
    said = {"metric": config.stopping.metric, "value": progress.best, "round": progress.best_round}
    return {"best": {**said, "file": BEST}}


def of_fairness(config: RunConfig, metrics: Mapping[str, Scalars]) -> dict[str, Any]:
    """Write how evenly the model serves the sites that count in their hubs' figures, `fairness`, and how evenly what
    they have made of it does, `personal_fairness`, where they have; empty where none was measured.
    """
    sites = {path: metrics[path] for path, site in config.sites.items() if site.counts and path in metrics}
    told = {"fairness": fairness(sites, config.better)}
    own = fairness({path: _personal(found) for path, found in sites.items()}, config.better)
    return {**told, "personal_fairness": own} if own else told


def _personal(found: Scalars) -> dict[str, Any]:
    """Give the figures of a site's fine-tuned model, under the names that the federation's have."""
    return {name.removeprefix("personal_"): value for name, value in found.items() if name.startswith("personal_")}


def on_all_data(matrix: Matrix, root: str) -> dict[str, Any]:
    """Write how each site's own model does on the test samples of all sites, and how these models differ in it."""
    wanted = ("num_test", *titles(*(found[root] for found in matrix.models.values())))
    sites = {owner: {name: found[root].get(name) for name in wanted} for owner, found in matrix.models.items()}
    return {"sites": sites, "fairness": fairness(sites, matrix.better)}


def idle_nodes(
    config: RunConfig, epoch: Epoch, inventory: Mapping[str, Inventory], num_samples: Mapping[str, int]
) -> Iterator[tuple[str, str, str]]:
    """Name the nodes that are not trained: path, level of the notice, and why; beside a pool nothing is said of it.

    `epoch`: who is there.
    """
    if config.baseline == "pooled":
        return
    for path, site in config.sites.items():
        if path not in epoch.config.sites:
            yield path, "info", f"joins at round {site.joins_at}" if site.joins_at > epoch.first else "has left"
    why = {"evaluation": "is measured beside the others, and not trained on", "statistics": "gives its statistics only"}
    for path in epoch.config.federation.nodes:
        role = config.sites[path].role if path in config.sites else ""
        if num_samples[path] or (path in inventory and inventory[path].error is not None):
            continue
        yield (path, "info", why[role]) if role in why else (path, "warning", _EMPTY)


def of_epochs(found: Sequence[Epoch], now: Epoch) -> dict[str, Any]:
    """Write the epochs of the tree so far, with who joined and left; nothing where members never change."""
    if len(found) == 1:
        return {}
    said = [
        {"epoch": epoch.number, "first_round": epoch.first, "joined": list(epoch.joined), "left": list(epoch.left)}
        for epoch in found
        if epoch.number <= now.number
    ]
    return {"epochs": said}


def changed(epoch: Epoch, num_samples: Mapping[str, int | None], time_s: float) -> Iterator[Record]:
    """Say who has joined and left, to files and to people."""
    tree = epoch.config.federation
    there = {path: num_samples[path] for path in tree.nodes}
    yield MembershipChanged(time_s, epoch.number, epoch.first, epoch.joined, epoch.left, there)
    if epoch.left:
        yield NodesChanged(time_s, epoch.left, "skipped", epoch.first)
    verbs = ((epoch.joined, "joined"), (epoch.left, "left"), (epoch.renewed, "with other members below"))
    moves = [f"{few(paths)} {verb}" for paths, verb in verbs if paths]
    said = f"from round {epoch.first} on, epoch {epoch.number} of the tree: {', '.join(moves)}"
    yield Notice(time_s, "info", tree.root.name, f"{said}; {plural(len(tree.sites), 'site')}")


def simulated(config: RunConfig) -> Iterator[tuple[str, str, str]]:
    """Say what of a run is simulation only: path, level of the notice, and what. A baseline, and sites that attack."""
    root = config.federation.root.name
    if config.baseline is not None:
        yield root, "info", BASELINES[config.baseline]
    attackers: dict[str, list[str]] = {}
    for path, site in config.sites.items():
        if site.attack is not None:
            attackers.setdefault(describe(site.attack), []).append(path)
    for attack, paths in attackers.items():
        yield root, "warning", f"rehearses an attack, {attack}, at {few(paths)}: the model is not to be used"


def unmixed(config: RunConfig, inventories: Mapping[str, Inventory]) -> str:
    """Name the sites that ask for mixed precision and were found on a CPU, which has none; empty where none is."""
    on_cpu = (path for path in config.sites if path in inventories and inventories[path].on_cpu)
    wanted = {path: config.sites[path].training.precision for path in on_cpu}
    paths = [path for path, precision in wanted.items() if precision != "float32"]
    said = f"training.precision {', '.join(sorted({wanted[path] for path in paths}))} is for CUDA: on a CPU, as here"
    return f"{said}, sites train in float32 ({few(paths)})" if paths else ""


def wide_adapters(layout: Layout) -> str:
    """Name the weights that are smaller than their low-rank adapters, and the way out; empty where none is."""
    shapes = {spec.name: spec.shape for spec in layout.tensors}
    wide = []
    for name, (rows, rank) in ((name, shape) for name, shape in shapes.items() if name.endswith(_UP)):
        layer = name.removesuffix(_UP).removesuffix(".")
        columns = shapes.get(f"{layer}.{_DOWN}".lstrip("."), (0, 0))[
            1
        ]  # one that stays as it was drawn does not travel
        if rank * (rows + columns) > rows * columns > 0:
            wide.append(
                f"{layer}.weight".lstrip(".") + f" ({rank} x ({rows} + {columns}) in place of {rows} x {columns})"
            )
    way = "name them under lora.whole, leave them out of lora.layers, or take a lower lora.rank"
    return f"lora: adapters are larger than the weights that they change: {few(wide)}; {way}" if wide else ""


def idle_time(config: RunConfig, crew: Crew, tell: Callable[[Record], None]) -> IdleTime:
    """Make the monitor of a run's idle time: speeds, and what company does, are those that the run has learned."""
    durations, usual = crew.estimates.durations, crew.usual_kind(frozenset())
    return IdleTime(
        *(config.federation, crew.devices, {path: settings.labels for path, settings in config.sites.items()}),
        speed=lambda kind: durations.speed(kind, usual),
        rates=crew.estimates.rates,
        held_s=crew.gate.held_s,
        tell=tell,
    )


def of_round(idle: IdleTime) -> tuple[float, float, float, Mapping[str, Scalars], Mapping[str, Scalars]]:
    """Give the last round's floor, efficiency and goodput, and the figures of devices and hubs."""
    found = idle.last()
    devices = {name: _figures(own) for name, own in idle.devices(last=True).items()}
    hubs = {path: _figures(own) for path, own in idle.hubs(last=True).items()}
    return found.floor, found.efficiency, found.goodput, devices, hubs


def of_schedule(idle: IdleTime, estimates: Estimates, gpus: GpuTime) -> dict[str, Any]:
    """Write busy and idle fractions beside the floor: of the run, of workers, devices and hubs; prediction errors.

    Of GPUs that could be read, how much they were used.
    """
    total = idle.total()
    return {
        "workers": {worker: _shares(busy) for worker, busy in idle.workers().items()},
        **_figures(total),
        "schedule": {
            "devices": {device: _figures(found) for device, found in idle.devices().items()},
            "hubs": {path: _figures(found) for path, found in idle.hubs().items()},
            "prediction_error": estimates.errors(),
            **({"gpus": {device: found.record() for device, found in read.items()}} if (read := gpus.total()) else {}),
        },
    }


def _shares(busy: float) -> dict[str, float]:
    return {"busy_fraction": busy, "idle_fraction": 1.0 - busy}


def _figures(idle: Idle) -> dict[str, float]:
    return {
        "busy_fraction": 1.0 - idle.idle,
        "idle_fraction": idle.idle,
        "idle_floor": idle.floor,
        "idle_avoidable": idle.avoidable,
        "efficiency": idle.efficiency,
        "goodput": idle.goodput,
    }
