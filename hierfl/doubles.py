"""Sites that have the same data, as by a line of YAML that was copied: its records count once for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hierfl.config.schema import RunConfig, SiteSettings
from hierfl.learning.task import ReadsFiles, Task, offers
from hierfl.monitor.words import few
from tiers.federation import parent

__all__ = ["doubles"]

SHOWN = 3
"""Data that are told with their sites; of more it is said how many there are."""


def doubles(config: RunConfig) -> dict[str, str]:
    """Say at the root which sites are trained on the same records; empty where none are. Nothing is opened.

    A task is called alike for them, with one key and one `data:`, or says that it reads the same. The parts of a split
    site are one. Left out are sites that rehearse an attack, and those that are not there in the same rounds; nor are
    sites held against each other that links or residency keep to other machines, where a path leads elsewhere.
    """
    sites: dict[tuple[Any, ...], dict[str, SiteSettings]] = {}
    for path, site in config.sites.items():
        if site.counts and site.attack is None:
            owner = path if site.part is None else parent(path) or ""
            records = _records(config.task, site), site.labels, _served_at(config.links, path)
            sites.setdefault(records, {})[owner] = site
    found = [(what, alike, paths) for (what, *_), alike in sites.items() if (paths := _together(alike))]
    if not found:
        return {}
    told = [f"{few(paths)} have the same records ({what:.200})" for what, _, paths in found[:SHOWN]]
    rest = f"; and {len(found) - SHOWN} more like these" if len(found) > SHOWN else ""
    is_split_anew = any(len({site.key for site in alike.values()}) > 1 for _, alike, _ in found)
    once = "these count once for each site" + (", and one may train on what another tests on" if is_split_anew else "")
    way = "unless that is meant, give each site data of its own (data: at the site), or leave all but one out"
    return {config.federation.root.name: f"{'; '.join(told)}{rest}: {once}; {way}"}


def _records(task: Task, site: SiteSettings) -> str:
    """Tell which records a site has: by where they are read, or by all that the task's `data` is called with."""
    if offers(task, ReadsFiles):
        try:
            return str(task.records_at(site.key, **site.source))
        except Exception:  # the user's task may raise anything, and will again as it loads the data
            pass
    return ", ".join([f"key: {site.key}", *(f"{name}: {value!r}" for name, value in sorted(site.source.items()))])


def _together(sites: Mapping[str, SiteSettings]) -> list[str]:
    """Name the sites that are members of the federation in a round in which another one of these is."""
    found: set[str] = set()
    last, until = "", 0.0
    for path in sorted(sites, key=lambda path: sites[path].joins_at):
        begins, ends = sites[path].joins_at, sites[path].leaves_at
        if begins < until:
            found |= {last, path}
        if ends is None or ends > until:
            last, until = path, float("inf") if ends is None else ends
    return [path for path in sites if path in found]


def _served_at(links: Mapping[str, object], path: str) -> str:
    """Name the node whose institution serves a site; empty for what the root's process has."""
    at: str | None = path if links else None
    while at is not None and at not in links:
        at = parent(at)
    return at or ""
