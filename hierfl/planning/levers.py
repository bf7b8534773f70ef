"""Levers: changes of the configuration that would shorten a round or keep the devices busier, each simulated.

What is gained is told in two ways, for they can differ: less time for a round, and less idle time. A lever counts if it
gains more than 2% of the time or one point of a hundred of idle time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from hierfl.config.places import join
from hierfl.config.schema import RunConfig
from hierfl.monitor.words import percent, plural, seconds
from hierfl.planning.case import Case, Figures
from hierfl.planning.costs import Knowledge
from hierfl.planning.lever import LEAST_IDLE, LEAST_TIME, Bench, Lever, Say, place_of, silent
from hierfl.planning.ran import Ran
from hierfl.planning.simulation import simulate
from scheduler.bounds import Task, round_bound
from scheduler.participation import needed
from scheduler.policy import Policy
from scheduler.workload import eligible
from tiers.federation import Hub, parent, rounds_per_round

__all__ = ["find_levers"]

MAX_PARTS = 8
MAX_SPLITS = 3
MAX_HUBS = 8
QUORUM = 0.8
NEARLY_ALL = 0.9
SLOWER = 0.05
"""What a round may be longer where fewer devices carry it."""


def find_levers(
    config: RunConfig, known: Knowledge, case: Case, policy: Policy, ran: Ran, say: Say = silent
) -> list[Lever]:
    """Try the levers of a case under its policy, whose simulation is given; the one that gains most comes first."""
    bench = Bench(config, known, case, policy, ran, say)
    ways: Sequence[Callable[[Bench], Iterator[Lever | None]]] = (_splits, _fleet, _company, _deadline, _kappa)
    found = [lever for way in ways for lever in way(bench) if lever is not None and lever.counts]
    return sorted(found, key=lambda lever: -(lever.time_gain + lever.idle_gain))


def _splits(bench: Bench) -> Iterator[Lever | None]:
    """Split sites that take more than half of what their round takes at least, the longest first."""
    overrides: tuple[str, ...] = ()
    names: list[str] = []
    case, figures = bench.case, bench.before
    for _ in range(MAX_SPLITS):
        site = _dominating(case)
        if site is None or site not in bench.config.sites:
            return
        base, num_now = _whole(bench.config, site)
        bench.say(f"split {_name(base)}")
        where = sum(eligible(case.sites[site].labels, case.sites[site].memory_bytes, device) for device in case.devices)
        nums = range(num_now + 1, min(where, MAX_PARTS) + 1)
        options = {num: (*overrides, f"{place_of(base)}.split={num}") for num in nums}
        tried = [(num, changed) for num, more in options.items() if (changed := bench.changed(more)) is not None]
        if not tried:
            return
        least_s = min(changed.bound_s for _, changed in tried) * (1 + LEAST_TIME)
        first = next(place for place, (_, changed) in enumerate(tried) if changed.bound_s <= least_s)
        gains = ((num, following, bench.after(following)) for num, following in tried[first:])
        found = next((one for one in gains if one[2].round_s <= figures.round_s * (1 - LEAST_TIME)), None)
        if found is None:
            return
        num, following, after = found
        reason = ("after the first split " if names else "") + _wait(case, site, figures)
        overrides, names = options[num], [*names, base]
        words = [f"{place.rpartition('.split=')[2]}" for place in overrides]
        parts = " and ".join(f"{_name(name)} over {num}" for name, num in zip(names, words, strict=True))
        yield Lever("split", f"split {parts} devices", reason, overrides, bench.before, after)
        case, figures = following, after


def _dominating(case: Case) -> str | None:
    """Name the longest site if it takes more than half of the bound of the round that it is in."""
    longest = max(case.sites, key=lambda site: case.sites[site].seconds)
    hub = parent(longest) or ""
    while (above := parent(hub)) is not None and case.tree.hubs[hub].rounds == 1:
        hub = above
    together = [site for site in case.sites if site.startswith(f"{hub}/")]
    tasks = [
        Task(case.sites[site].seconds, case.sites[site].labels, case.sites[site].memory_bytes) for site in together
    ]
    return longest if case.sites[longest].seconds > round_bound(tasks, case.fleet) / 2 else None


def _whole(config: RunConfig, site: str) -> tuple[str, int]:
    """Give the site that a part is of, and into how many parts it is split now."""
    part = config.sites[site].part
    return (site, 1) if part is None else (parent(site) or "", part[1])


def _wait(case: Case, site: str, figures: Figures) -> str:
    """Say how the others wait for a site, whose device does little else if it takes nearly all of the round."""
    share = case.sites[site].seconds * rounds_per_round(case.tree, parent(site) or "") / figures.round_s
    num = len(case.devices)
    whole = _name(site) if not _name(site).startswith("part-") else f"a part of {_name(parent(site) or '')}"
    said = f"{whole} takes {percent(share)} of the round"
    if num == 1:
        return said
    if share < NEARLY_ALL:
        return f"{said}; the {num} devices stand idle {percent(figures.idle)} of it"
    others = max(0.0, num * figures.idle - (1.0 - share)) / (num - 1)
    return f"{said}; the other{f' {num - 1} devices wait' if num > 2 else ' device waits'} {percent(others)} of it"


def _fleet(bench: Bench) -> Iterator[Lever | None]:
    """Try one device more and one less in each group."""
    runtime = bench.config.runtime
    names = [group.name for group in runtime.devices]
    groups = [(name, group.count) for name, group in zip(names, runtime.devices, strict=True)]
    for name, num in groups or [("", runtime.num_workers or 1)]:
        if names.count(name) > 1:
            continue
        place = f"{join('runtime.devices', name)}.count" if name else "runtime.num_workers"
        of = f" of {name}" if name else ""
        longest = max(work.seconds for work in bench.case.sites.values())
        gains_s, slower_s = bench.before.round_s * (1 - LEAST_TIME), bench.before.round_s * (1 + SLOWER)
        what = f"one device more{of}"
        more = bench.lever("devices", what, _busy(bench), (f"{place}={num + 1}",), at_most_s=gains_s)
        if more is not None and more.time_gain > LEAST_TIME:
            yield more
        if num == 1:
            continue
        fewer = f"{len(bench.case.devices) - 1} in all do the same work"
        if longest > NEARLY_ALL * bench.before.round_s:
            fewer += f": the longest site alone takes {seconds(longest)} of the round's {seconds(bench.before.round_s)}"
        what = f"one device less{of}"
        less = bench.lever("devices", what, fewer, (f"{place}={num - 1}",), at_most_s=slower_s)
        if less is not None and less.time_gain > -SLOWER:
            yield less


def _busy(bench: Bench) -> str:
    num, busy = len(bench.case.devices), percent(1.0 - bench.before.idle)
    return f"the {num} devices are busy {busy} of the time" if num > 1 else f"the device is busy {busy} of the time"


def _company(bench: Bench) -> Iterator[Lever | None]:
    """Run a second federation of the same kind beside the first."""
    case = bench.case
    if bench.before.idle <= LEAST_IDLE:
        return  # it could only take turns
    bench.say("a second federation beside it")
    after = case.figures(simulate(case, bench.policy, beside=[case]))
    found = Lever("company", "run a second federation of this kind beside it", "", (), bench.before, after, 2)
    longer = after.round_s / bench.before.round_s - 1.0
    reason = (
        f"the other has work while one waits for its longest site: both take {percent(found.time_gain)} less than"
        f" one after the other, each {percent(longer)} longer than alone"
    )
    yield replace(found, reason=reason)


def _deadline(bench: Bench) -> Iterator[Lever | None]:
    """Let the rounds of the hub with the dominating site close without the slowest; these go on, and come late."""
    case = bench.case
    site = _dominating(case)
    hub = parent(site) if site is not None else None
    if site is None or hub is None or bench.config.sites[site].part is not None:
        return
    topology = case.tree.hubs[hub].topology
    if case.tree.hubs[hub].participation.may_close_early or topology.sequential or not topology.has_centre:
        return
    members = case.tree.members(hub)
    num_free = len(members) - needed(QUORUM, len(members))
    sites = sorted((path for path in members if path in case.sites), key=lambda path: -case.sites[path].seconds)
    late = [path for path in sites[:num_free] if case.sites[path].seconds > case.sites[site].seconds / 2]
    rest = _without(case, late)
    if not late or rest is None:
        return
    hub_round_s = rest.figures(simulate(rest, bench.policy)).round_s / rounds_per_round(case.tree, hub)
    total = sum(work.weight for path, work in case.sites.items() if path.startswith(f"{hub}/"))
    share = sum(case.sites[path].weight for path in late) / total
    staleness = max(2, math.ceil(max(case.sites[path].seconds for path in late) / hub_round_s))
    settings = (
        f"{{kind: deadline, after_s: {_ceiling(hub_round_s)}, quorum: {QUORUM},"
        f" weight: {min(QUORUM, math.floor(100 * (1 - share)) / 100):g}, staleness: {staleness}}}"
    )
    named = " and ".join(_name(path) for path in late)
    what = f"close {_name(hub)}'s rounds without {named}, {percent(share)} of its weight is then late in each round"
    overrides = (f"{place_of(hub)}.participation={settings}",)
    yield bench.lever("deadline", what, _wait(case, site, bench.before), overrides)


def _without(case: Case, late: Sequence[str]) -> Case | None:
    """Take sites out of a case; None if too little is left."""
    sites = {path: work for path, work in case.sites.items() if path not in late}
    took = {
        key: kept for key, own in case.took.items() if (kept := {path: s for path, s in own.items() if path in sites})
    }
    return replace(case, sites=sites, took=took) if took else None


def _ceiling(value_s: float) -> str:
    """Write seconds with three digits, rounded up."""
    digits = 2 - math.floor(math.log10(value_s))
    return f"{math.ceil(value_s * 10**digits) / 10**digits:g}"


def _kappa(bench: Bench) -> Iterator[Lever | None]:
    """Try one round more or less of each inner hub: more where it waits anyway, less where the others wait for it."""
    case = bench.case
    parts = {parent(path) for path, settings in bench.config.sites.items() if settings.part is not None}
    inner = [path for path in case.tree.hubs if parent(path) is not None and path not in parts]
    for path in inner if len(inner) <= MAX_HUBS else []:
        hub = case.tree.hubs[path]
        place = f"{place_of(path)}.rounds"
        own_s = _alone_s(case, path)
        above_s = bench.before.round_s / rounds_per_round(case.tree, parent(path) or "")
        share = percent(min(1.0, own_s / above_s))
        more = bench.lever(
            *("kappa", _kappa_words(path, hub, 1), _slack(path, share), (f"{place}={hub.rounds + 1}",)),
            at_most_s=bench.before.round_s * (1 + LEAST_TIME),
        )
        if more is not None and more.time_gain > -LEAST_TIME:
            yield more
        if hub.rounds > 1:
            reason = f"its rounds take {share} of a round of {_name(parent(path) or '')}"
            yield bench.lever("kappa", _kappa_words(path, hub, -1), reason, (f"{place}={hub.rounds - 1}",))


def _kappa_words(path: str, hub: Hub, step: int) -> str:
    num = hub.rounds + step
    return f"{plural(num, 'round')} of {_name(path)} in place of {hub.rounds} (it learns otherwise then)"


def _slack(path: str, share: str) -> str:
    return f"{_name(path)} could be done after {share} of the round, and waits for the others"


def _alone_s(case: Case, path: str) -> float:
    """Bound what a hub's own rounds take per round of its parent, alone on the devices."""
    hub = case.tree.hubs[path]
    own = [work for site, work in case.sites.items() if site.startswith(f"{path}/")]
    tasks = [Task(work.seconds, work.labels, work.memory_bytes) for work in own]
    return hub.rounds * round_bound(tasks, case.fleet)


def _name(path: str) -> str:
    return path.rpartition("/")[2]
