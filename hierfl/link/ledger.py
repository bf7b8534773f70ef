"""What a member's sites have paid for their records' privacy: kept where the records are, and asked before each round.

A line is written as a round's training ends, and before anybody hears of it. Whether an update came of it does not
matter: that one is refused, and why, follows from what was released. An update that is sent again is in the books
already, and one that is trained anew has noise of its own and is paid for anew. Runs that are served from one state
folder add up, for they are of the same records.

A site's epsilon is of all that it has released, and each run has a delta of its own: all of it is counted at the least
one that the site's records were ever promised. A later run with a larger delta makes nothing cheaper that was paid.
What was paid for single records and for patients does not add up: one state folder is of one of them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from hierfl.accountant import epsilon
from hierfl.budget import Cost
from hierfl.errors import ConfigError, LinkError
from hierfl.learning.patients import RECORD, UNITS, unit_of
from hierfl.learning.privacy import Release
from hierfl.link.files import append_private, whole_lines

__all__ = ["FILE", "Ledger"]

FILE = "privacy.jsonl"


class Ledger:
    """One member's; `file` may not be there yet. Errors: LinkError if it cannot be read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._spent: dict[tuple[str, str], Counter[tuple[float, float]]] = {}  # by run and site: steps of each kind
        self._least: dict[str, float] = {}  # delta by site
        self._units: dict[str, set[str]] = {}  # what was protected, by site
        try:
            for line in whole_lines(file):  # what was not written to its end was never told
                self._take(*_paid_by(line))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LinkError(
                f"{file}, which says what was paid for privacy, cannot be read: {error}; put it back from a copy, for"
                " without it nobody knows what may still be told of the records"
            ) from error

    def epsilon(self, cost: Cost) -> float:
        """Give what a site has paid so far, in all runs."""
        return epsilon(self._releases(cost.site), self._delta(cost))

    def check_run(self, costs: Mapping[str, Cost], run: str) -> None:
        """Errors: ConfigError for a run that would cost more than a site's budget, with what was paid before, or that
        protects something else than was paid for.
        """
        for cost in costs.values():
            others = self._units.get(cost.site, set()) - {unit_of(cost.mechanism)}
            if others:
                raise ConfigError(
                    f"{cost.site}: privacy.unit is {unit_of(cost.mechanism)}, and {self._file} has what was paid before"
                    f" with unit {min(others)}: the two do not add up; go on with unit: {min(others)}, or begin anew"
                    " with a --state folder of its own, which counts nothing of before"
                )
            budget = cost.budget
            if budget is None:
                continue
            before = self._releases(cost.site, None, run)
            whole = [Release(cost.release.rate, cost.release.noise_multiplier, cost.release.count * cost.rounds)]
            delta = self._delta(cost)
            found = epsilon([*before, *whole], delta)
            if found > budget:
                already = f", {epsilon(before, delta):.3g} of it by runs before" if before else ""
                at = _at(delta, cost)
                raise ConfigError(f"{cost.site}: {cost.named_budget}, and it would pay {found:.3g}{already}{at}")

    def check(self, costs: Mapping[str, Cost], planned: Mapping[str, Cost], run: str) -> None:
        """Errors: ConfigError for a round that a site's budget does not allow any more, or that was not planned.

        `planned`: what sites pay for a round of the root, in a run that holds those without a budget to its plan.
        """
        for cost in costs.values():
            budget = cost.budget
            paid = self._releases(cost.site, None if budget is not None else run)
            delta = cost.delta if budget is None else self._delta(cost)
            found = epsilon([*paid, cost.release], delta)
            most = planned[cost.site].epsilon if budget is None else budget
            if found > most:
                what = cost.named_budget if budget is not None else f"the run was to cost {most:.3g}"
                is_own = cost.budget is not None and cost.budget == cost.allowed
                way = "once they allow more" if is_own else "with a higher privacy.epsilon, to which all agree anew,"
                way = f"rounds trained anew cost anew; {way} `hierfl serve --resume` goes on"
                raise ConfigError(
                    f"{cost.site}: {what}, and another round makes it {found:.3g}{_at(delta, cost)}; {way}"
                )

    def pay(self, costs: Mapping[str, Cost], run: str, round_number: int) -> None:
        """Write down what a round costs, so that it lasts. Errors: LinkError."""
        if not costs:
            return
        paid = {site: cost.release for site, cost in costs.items()}
        values = {site: (one.rate, one.noise_multiplier, one.count) for site, one in paid.items()}
        deltas = {site: cost.delta for site, cost in costs.items()}
        units = {site: unit for site, cost in costs.items() if (unit := unit_of(cost.mechanism)) != RECORD}
        line = {"run": run, "round": round_number + 1, "sites": values, "deltas": deltas}
        append_private(self._file, json.dumps({**line, "units": units} if units else line) + "\n")
        self._take(run, paid, deltas, units)

    def _delta(self, cost: Cost) -> float:
        """Give the least delta that a site's records were promised, this run's among them."""
        return min(cost.delta, self._least.get(cost.site, cost.delta))

    def _releases(self, site: str, run: str | None = None, but: str | None = None) -> list[Release]:
        return [
            Release(rate, noise_multiplier, count)
            for (name, whose), paid in self._spent.items()
            if whose == site and (run is None or name == run) and name != but
            for (rate, noise_multiplier), count in paid.items()
        ]

    def _take(
        self, run: str, paid: Mapping[str, Release], deltas: Mapping[str, float], units: Mapping[str, str]
    ) -> None:
        for site, delta in deltas.items():
            self._least[site] = min(delta, self._least.get(site, delta))
        for site, release in paid.items():
            self._units.setdefault(site, set()).add(units.get(site, RECORD))
            paid_before = self._spent.setdefault((run, site), Counter())
            paid_before[release.rate, release.noise_multiplier] += release.count


def _paid_by(line: str) -> tuple[str, dict[str, Release], dict[str, float], dict[str, str]]:
    """Read a line: its run, and by site what was paid, at which delta, and what for.

    Errors: ValueError, KeyError, TypeError.
    """
    said = json.loads(line)
    paid = {site: Release(*one) for site, one in dict(said["sites"]).items()}
    deltas = {site: float(delta) for site, delta in dict(said.get("deltas", {})).items()}  # none in old lines
    is_sound = all(0 < one.rate <= 1 and 0 < one.noise_multiplier < math.inf for one in paid.values())
    is_sound = is_sound and all(type(one.count) is int and one.count >= 0 for one in paid.values())
    units = {site: str(unit) for site, unit in dict(said.get("units", {})).items()}
    is_sound = is_sound and set(units.values()) <= {*UNITS}
    if not (is_sound and all(0 < delta < 1 for delta in deltas.values())):
        raise ValueError(f"{line} is nothing that a round can have paid")
    return said["run"], paid, deltas, units


def _at(delta: float, cost: Cost) -> str:
    """Name the delta at which a site's payments are counted, where it is not its run's own."""
    return f", at delta {delta:g}, the least that its records were promised" if delta != cost.delta else ""
