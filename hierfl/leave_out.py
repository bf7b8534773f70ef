"""Leave one site out: how does a model do at a hospital that it has seen nothing of, and how if it had? And how at the
others: what the hospital gives to them (leave-one-out valuation, as in Ghorbani & Zou 2019, "Data Shapley").

The federation runs once whole, and once more for each site that is left out, with the role `evaluation` there: on the
same seed, so that nothing but the site's part in the training differs. The whole run's folder keeps the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierfl.config.places import join
from hierfl.errors import ConfigError, OutputError
from hierfl.kinds import nearest
from hierfl.monitor.afterwards import log_left_out
from hierfl.monitor.fairness import titles
from hierfl.monitor.files import as_json
from hierfl.monitor.words import finite

if TYPE_CHECKING:
    from hierfl.config.schema import RunConfig

__all__ = ["EACH", "OTHERS", "leave_out", "table", "without"]

FILE = "leave_out.json"
EACH = "each"

OTHERS = "what a site gives to the others: their means, of each site once, without it and with it"


def without(path: Path, overrides: Sequence[str], which: str) -> tuple[RunConfig, dict[str, RunConfig]]:
    """Read the whole federation's configuration, and by site that of the federation without it.

    `which`: a site's path, or "each" for all that train. Errors: ConfigError.
    """
    from hierfl.config import load

    whole = load(path, overrides)
    whole.must_train("--leave-out")
    sites = _sites(whole)
    if whole.baseline == "local":
        raise ConfigError("--leave-out compares models that sites share, and under baseline: local there is none")
    if which != EACH and which not in sites:
        raise ConfigError(f"--leave-out {which}: there is no such site that trains{nearest(which, (EACH, *sites))}")
    if len(sites) < 2:
        raise ConfigError(f"--leave-out needs two sites that train, and there is {sites[0]} alone")
    return whole, {
        site: load(path, [*overrides, *_left_out(whole.name, site)]) for site in sites if which in (EACH, site)
    }


def leave_out(
    whole: RunConfig, others: Mapping[str, RunConfig], run: Callable[[RunConfig], Mapping[str, Any]]
) -> dict[str, Any]:
    """Run all, one after the other; say of each site what it measured with the model that saw it and without, and what
    the other sites that train did on the mean.

    The whole run's folder keeps what there is so far, in leave_out.json. Errors: as of `run`; OutputError.
    """
    summary = run(whole)
    trained, found = _sites(whole), dict[str, Any]()
    answer = {"run_dir": summary["run_dir"], "sites": found}
    for site, config in others.items():
        apart = run(config)
        found[site] = {
            "with": _figures(summary, site),
            "without": _figures(apart, site),
            "others": _of_others(summary, apart, [path for path in trained if path != site]),
            "run_dir": apart["run_dir"],
        }
        _keep(Path(summary["run_dir"]), answer)
    log_left_out(Path(summary["run_dir"]), table(answer), table(answer, others=True))
    return answer


def table(answer: Mapping[str, Any], *, others: bool = False) -> dict[str, dict[str, Any]]:
    """Write it as rows by site: each metric without the site in the training, and with it; there, or at the others."""
    figures = {site: found.get("others") if others else found for site, found in answer["sites"].items()}
    return {
        site: {
            f"{title} {which}": found[which][name]
            for name, title in titles(found["with"], found["without"]).items()
            for which in ("without", "with")
            if name in found[which]
        }
        for site, found in figures.items()
        if found
    }


def _keep(run_dir: Path, answer: Mapping[str, Any]) -> None:
    """Write the comparison into the whole run's folder. Errors: OutputError."""
    try:
        (run_dir / FILE).write_text(as_json(answer) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {run_dir / FILE}: {error.strerror or error}") from error


def _sites(config: RunConfig) -> list[str]:
    """List the sites of the YAML that train, those in a pool included and a split one once."""
    tree = config.federation.root.name
    named = (path.rpartition("/")[0] if site.part else path for path, site in config.sites.items() if site.counts)
    return [path for path in dict.fromkeys(named) if path != tree]


def _left_out(name: str, site: str) -> list[str]:
    """Write the overrides that leave a site out; the run is named by it."""
    from hierfl.config.overrides import renaming

    _, *way = site.split("/")
    parts = [part for node in way for part in ("members", node)]
    return [f"{join('federation', *parts, 'role')}=evaluation", renaming(f"{name}-without-{'-'.join(way)}")]


def _figures(summary: Mapping[str, Any], site: str) -> dict[str, Any]:
    """Give a site's figures at the end of a run; a split site's are its hub's, counted or held out."""
    node = summary["nodes"].get(site, {})
    beside = "" if node.get("num_test") or "held_out_num_test" not in node else "held_out_"
    figures = {name.removeprefix(beside): value for name, value in node.items() if name.startswith(beside)}
    return {name: figures[name] for name in ("num_test", *titles(figures)) if name in figures}


def _of_others(whole: Mapping[str, Any], apart: Mapping[str, Any], sites: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give the mean of what sites measured at the end of two runs, each site once, where both have it."""
    pairs = [(_figures(whole, site), _figures(apart, site)) for site in sites]
    found: dict[str, dict[str, Any]] = {"with": {}, "without": {}}
    for name in titles(*(figures for pair in pairs for figures in pair)):
        both = [
            (one, other)
            for with_it, without_it in pairs
            if None not in (one := finite(with_it.get(name)), other := finite(without_it.get(name)))
        ]
        if both:
            found["with"][name], found["without"][name] = (
                math.fsum(values) / len(both) for values in zip(*both, strict=True)
            )
    return found
