"""The folder of a run that shared devices, as the run itself would have written it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hierfl.monitor.files import JsonLines
from hierfl.monitor.idle import IdleTime
from hierfl.monitor.records import Evaluated, Phase, Record, RoundClosed, RunStarted, SiteTrained
from scheduler import Device
from tiers.federation import Federation, Hub, Site

__all__ = ["write_run"]

DEVICES = {"x": Device("x"), "y.0": Device("y"), "y.1": Device("y")}


def train(tell: Callable[[Record], None], worker: str, site: str, start_s: float, end_s: float) -> None:
    tell(Phase(end_s, worker, "train", start_s, end_s, [f"world/{site}"], 1))
    tell(SiteTrained(end_s, f"world/{site}", 1, worker, end_s - start_s, 10, 1, 0.5))


def write_run(folder: Path, name: str, epoch_s: float, cluster: str = "head:6379", opened_s: float = 1.0) -> IdleTime:
    """Write a run of one round, from `opened_s` to 6 s: 4 s on x and 2 s on y; measured then for 1 s on x."""
    folder.mkdir()
    (folder / "config.yaml").write_text(f"name: {name}\n")
    files = JsonLines(folder)
    idle = IdleTime(Federation(Hub("world", (Site("a"), Site("b")))), DEVICES, {}, tell=files.on)

    def tell(record: Record) -> None:
        idle.on(record)
        files.on(record)

    tell(RunStarted(0.5, name, str(folder), "ray", list(DEVICES), 1, 1, 7, {"world": 20}, epoch_s, cluster))
    train(tell, "x", "a", opened_s, opened_s + 4.0)
    train(tell, "y.1", "b", opened_s + 1.0, opened_s + 3.0)
    tell(RoundClosed(6.0, "world", 1, "all reported", ["a", "b"], {}, 6.0 - opened_s, 0))
    tell(Phase(7.0, "x", "evaluate", 6.0, 7.0, ["world/a", "world/b"], 1))
    tell(Evaluated(7.0, 1, {"world": {"auc": 0.5}}))
    files.close()
    return idle
