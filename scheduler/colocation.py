"""Whether one more job on a busy device pays, learned from how fast jobs were alone and in company.

A company is the models of the jobs that share a device, with repetition. In it each job runs at a share of the rate
that it has alone, and the company's total is the sum of the shares: 1 for a job alone, 2 for two jobs that do not
notice each other. One more job gains if it raises the total by a tenth.

A company that was never measured is tried, one on a kind of device in a while, once its models' rates alone are known.
One without gain is tried again, for things change, but after a wait that doubles each time. After an out-of-memory
error neither the company nor a larger one that contains it is tried for a longer wait, which doubles too. Where company
pays on an eager kind of device nobody is alone any more, so what jobs took alone is forgotten and measured anew, after
waits that double as well. Waits are counted in observations on that kind of device, so that the same events give the
same answers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

__all__ = ["Colocation"]

VERSION = 1

GAIN = 1.1
"""Total rate with one more job over the total without, at least."""

WINDOW = 8
"""Newest rates of a model in a company, of which the median counts, even so that two jobs which share unevenly both do;
so often an eager kind tries one first.
"""

MIN_ALONE = 3
"""Rates alone that must be known before a model is tried in company: the first is often slow."""

WAIT = 16
WAIT_AFTER_ERROR = 64
MAX_WAIT = 65_536
MAX_COMPANIES = 1024
"""Companies remembered per kind of device; the oldest goes first."""

Company = tuple[str, ...]
"""Models in sorted order, with repetition."""


@dataclass(slots=True)
class Wait:
    """When a company may be tried again, and how long the wait was: in observations."""

    until: int = 0
    length: int = 0

    def extend(self, now: int, first: int) -> None:
        """Wait from now on, twice as long as the last time."""
        self.length = min(MAX_WAIT, max(first, 2 * self.length))
        self.until = now + self.length


@dataclass(slots=True)
class Kind:
    """A kind of device: its observations so far, rates by company and model, the waits, and how often a company was
    tried before there was anything to compare it with.
    """

    num: int = 0
    next_trial: int = 0
    rates: dict[Company, dict[str, list[float]]] = field(default_factory=dict)
    waits: dict[Company, Wait] = field(default_factory=dict)
    errors: dict[Company, Wait] = field(default_factory=dict)
    tried: dict[Company, int] = field(default_factory=dict)

    def alone(self, model: str) -> float | None:
        """Give a model's rate alone; None while too little is known."""
        rates = self.rates.get((model,), {}).get(model, [])
        return median(rates) if len(rates) >= MIN_ALONE else None

    def total(self, company: Company) -> float | None:
        """Give a company's total rate; None if it was not measured. A model not yet seen in it gets the usual share."""
        if len(company) == 1:
            return 1.0
        shares = {}
        for model, rates in self.rates.get(company, {}).items():
            alone = self.alone(model)
            if alone is not None:
                shares[model] = median(rates) / alone
        usual = sum(shares.values()) / len(shares) if shares else 0.0
        return sum(shares.get(model, usual) for model in company) if shares else None

    def is_doubted(self, company: Company) -> bool:
        """Say whether a rate alone of one of its models was known once, and has to be measured anew."""
        return any(self.alone(model) is None and (model,) in self.waits for model in company)

    def gains(self, company: Company) -> bool | None:
        """Say whether a company beats each known one with a job less; None if it was not measured."""
        total = self.total(company)
        if total is None:
            return None
        smaller = (self.total(company[:place] + company[place + 1 :]) for place in range(len(company)))
        return all(before is None or total >= GAIN * before for before in smaller)


class Colocation:
    """Gains of companies by kind of device. A question changes nothing.

    `eager`: kinds of devices on which company is thought to pay until it was measured, as for threads on several cores;
    what is tried first there is company, then a few jobs alone, for the comparison, and then company for its rates.
    """

    def __init__(self, eager: Collection[str] = ()) -> None:
        self._kinds: dict[str, Kind] = {}
        self.eager = frozenset(eager)

    def gain(
        self,
        running: Sequence[str],
        candidate: str,
        device: str,
        places: int,
        need_bytes: int = 0,
        free_bytes: int | None = None,
    ) -> bool:
        """Say whether a job of the candidate's model should join those of the running models on such a device.

        `places`: how many jobs may run there at once; `need_bytes`: the candidate's predicted peak, 0 if unknown;
        `free_bytes`: memory that is left, None if it does not matter. Unknown needs never join where memory matters.
        """
        if not running:
            return True
        if len(running) >= places or (free_bytes is not None and not 0 < need_bytes <= free_bytes):
            return False
        kind, company = self._kinds.get(device), _company(running, candidate)
        if self._is_first(device, company):
            return kind is None or not (kind.is_doubted(company) or kind.tried.get(company, 0) >= WINDOW)
        if kind is None or any(
            kind.num < wait.until and _contains(company, part) for part, wait in kind.errors.items()
        ):
            return False
        before, after = kind.total(_company(running)), kind.total(company)
        if before is None or any(kind.alone(model) is None for model in company):
            return False
        if after is not None and after >= GAIN * before:
            return True
        if after is None and device in self.eager:
            return len(running) == 1 or bool(kind.gains(_company(running)))
        wait = kind.waits.get(company)
        return kind.num >= kind.next_trial and (wait is None or kind.num >= wait.until)

    def started(self, running: Sequence[str], candidate: str, device: str) -> None:
        """Note that a job has joined others, so that no second device tries the same at the same time."""
        company = _company(running, candidate)
        if not self._is_first(device, company):
            self._postpone(self._kinds.setdefault(device, Kind()), company)

    def tried(self, model: str, others: Sequence[str], device: str) -> None:
        """Count a job that was in company before any was alone: there is no rate to be told yet."""
        kind, company = self._kinds.setdefault(device, Kind()), _company(others, model)
        kind.num += 1
        kind.tried[company] = kind.tried.get(company, 0) + 1
        _trim(kind.tried)

    def observe(self, model: str, others: Sequence[str], rate: float, device: str) -> None:
        """Learn the rate that a job had from beginning to end in the company of the others' models, or alone.

        `rate`: work per second; best is the duration predicted for the job alone over the measured one, since that
        does not depend on the site.
        """
        assert math.isfinite(rate) and rate > 0.0, f"a rate of {rate}: a finite positive number is needed"
        kind, company = self._kinds.setdefault(device, Kind()), _company(others, model)
        kind.num += 1
        known = kind.rates.pop(company, {})
        known[model] = [*known.get(model, []), rate][-WINDOW:]
        kind.rates[company] = known
        _trim(kind.rates)
        if not others:
            return
        if not kind.gains(company):
            self._postpone(kind, company)
            return
        kind.waits.pop(company, None)
        if device in self.eager:
            self._doubt(kind, company)

    def out_of_memory(self, company: Sequence[str], device: str) -> None:
        """Learn that jobs of these models, two or more, did not fit a device together."""
        assert len(company) >= 2, f"{tuple(company)} is no company: a job that does not fit alone concerns its estimate"
        kind = self._kinds.setdefault(device, Kind())
        kind.errors.setdefault(_company(company), Wait()).extend(kind.num, WAIT_AFTER_ERROR)
        _trim(kind.errors)

    def total(self, company: Sequence[str], device: str) -> float | None:
        """Give a company's total rate; None if it was not measured."""
        kind = self._kinds.get(device)
        return None if kind is None else kind.total(_company(company))

    def pays(self, company: Sequence[str], device: str) -> bool | None:
        """Say whether a company beats those with a job less by a tenth; None if it was not measured."""
        kind = self._kinds.get(device)
        if kind is None or any(kind.alone(model) is None for model in company):
            return None
        return kind.gains(_company(company))

    def curve(self, model: str, device: str) -> dict[int, float]:
        """Give the total rate of k jobs of one model by k, as far as it was measured; 1 for one job."""
        kind = self._kinds.get(device, Kind())
        sizes = sorted(len(company) for company in kind.rates if set(company) == {model})
        totals = {size: kind.total((model,) * size) for size in sizes}
        return {size: total for size, total in totals.items() if total is not None}

    def state(self) -> dict[str, Any]:
        """Return all that was learned, as JSON has it."""
        kinds = {
            device: {
                "num": kind.num,
                "next_trial": kind.next_trial,
                "rates": [[list(company), rates] for company, rates in kind.rates.items()],
                "waits": [[list(company), wait.until, wait.length] for company, wait in kind.waits.items()],
                "errors": [[list(company), wait.until, wait.length] for company, wait in kind.errors.items()],
                "tried": [[list(company), num] for company, num in kind.tried.items()],
            }
            for device, kind in self._kinds.items()
        }
        return {"version": VERSION, "kinds": kinds}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], eager: Collection[str] = ()) -> Colocation:
        """Make what `state` returned work again.

        Raises:
            ValueError: if the state is of another version.
        """
        if state.get("version") != VERSION:
            raise ValueError(f"rates of version {state.get('version')!r} cannot be read, only {VERSION}: learn anew")
        colocation = cls(eager)
        for device, kind in state["kinds"].items():
            colocation._kinds[device] = Kind(
                kind["num"],
                kind["next_trial"],
                {tuple(company): {model: list(r) for model, r in rates.items()} for company, rates in kind["rates"]},
                {tuple(company): Wait(until, length) for company, until, length in kind["waits"]},
                {tuple(company): Wait(until, length) for company, until, length in kind["errors"]},
                {tuple(company): num for company, num in kind.get("tried", [])},
            )
        return colocation

    def _is_first(self, device: str, company: Company) -> bool:
        """Say whether a company is tried on an eager kind of device before there is anything to compare it with."""
        kind = self._kinds.get(device)
        return device in self.eager and (kind is None or any(kind.alone(model) is None for model in company))

    def _doubt(self, kind: Kind, company: Company) -> None:
        """Forget, from time to time, what the models of a company that gains take alone."""
        for model in sorted(set(company)):
            wait = kind.waits.setdefault((model,), Wait())
            _trim(kind.waits)
            if kind.num < wait.until:
                continue
            if wait.length:
                kind.rates.pop((model,), None)
            wait.extend(kind.num, WAIT)

    def _postpone(self, kind: Kind, company: Company) -> None:
        """Let a company that is not known to gain wait, unless it does already; let all other trials wait a little."""
        if kind.gains(company):
            return
        wait = kind.waits.setdefault(company, Wait())
        _trim(kind.waits)
        if kind.num >= wait.until:
            wait.extend(kind.num, WAIT)
            kind.next_trial = kind.num + WAIT


def _company(models: Sequence[str], *more: str) -> Company:
    return tuple(sorted((*models, *more)))


def _trim(companies: dict[Company, Any]) -> None:
    """Forget the first entry if there are too many."""
    if len(companies) > MAX_COMPANIES:
        del companies[next(iter(companies))]


def _contains(company: Company, part: Company) -> bool:
    return not Counter(part) - Counter(company)
