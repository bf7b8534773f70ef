"""Rollout (Bertsekas et al. 1997): try a few priority rules in the simulator before a round, and take the best.

No rule wins everywhere, but a simulated round costs microseconds per job where the real one takes minutes. At a global
round's begin each rule is played from where the run stands, with durations as they are predicted now, to the end of
the round. The rule in use stays unless another one is better by more than the margin, which is about what predictions
are worth; and where there is more to simulate than some 20 ms suffice for, in events or by a clock. Rules that were
played for a part only would be compared by bounds of the rest, which favour whatever puts its trouble off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from statistics import median

from scheduler.forecast import Forecast, Oracle
from scheduler.outlook import Outlook
from scheduler.policies.fifo import Fifo
from scheduler.policies.longest_first import LongestFirst
from scheduler.policy import Policy
from scheduler.simulator import Simulation
from scheduler.stand import HubStand, Stand
from scheduler.views import JobKey
from scheduler.workload import Federation, Hub, Steady, Workload, group_name

__all__ = ["BUDGET", "BUDGET_S", "Choice", "Rollout", "choose", "rules_for"]

BUDGET = 150
"""Simulated events per choice: some 20 ms."""

BUDGET_S = 0.020
MARGIN = 0.01


@dataclass(frozen=True)
class Choice:
    """The rule to use, and why; `ends_s`: the predicted end by rule, in seconds from now, if all were tried."""

    rule: str
    reason: str
    ends_s: Mapping[str, float]
    num_events: int = 0


def rules_for(policy: Policy) -> dict[str, Policy]:
    """List what a policy is compared with, itself first."""
    others: dict[str, Policy] = {"longest_first": LongestFirst(), "fifo": Fifo()}
    return {"chain_first": policy, **others}


class Rollout:
    """Advises a simulation: chooses among rules by name, the first of which is in use at the beginning."""

    def __init__(
        self, workload: Workload, forecast: Forecast, rules: Mapping[str, Policy], *, budget: int = BUDGET
    ) -> None:
        self.choices: list[Choice] = []
        self._workload = workload
        self._forecast = forecast
        self._rules = rules
        self._budget = budget
        self._rule = next(iter(rules))

    def __call__(self, stand: Stand) -> Policy | None:
        """Choose for the round that begins; None where the rule in use stays."""
        work = _open_round(self._workload, stand) if len(self._workload.federations) == 1 else self._workload
        choice = choose(work, self._forecast, stand, self._rules, self._rule, budget=self._budget)
        self.choices.append(choice)
        if choice.rule == self._rule:
            return None
        self._rule = choice.rule
        return self._rules[choice.rule]


def _open_round(workload: Workload, stand: Stand) -> Workload:
    """Leave a federation that is alone its open round only: what follows can be chosen for then."""
    (federation,) = workload.federations
    done = min(_of(stand, federation, hub).number // hub.rounds for hub in federation.hubs)
    return replace(workload, federations=(replace(federation, rounds=min(federation.rounds, done + 1)),))


def choose(
    workload: Workload,
    forecast: Forecast,
    stand: Stand,
    rules: Mapping[str, Policy],
    current: str,
    *,
    budget: int = BUDGET,
    margin: float = MARGIN,
    clock: Callable[[], float] | None = None,
) -> Choice:
    """Choose the rule with the earliest predicted end; `current` stays unless beaten by more than `margin`, a fraction.

    `workload`: of its durations and speeds nothing is used, `forecast` predicts them; `budget`: simulated events;
    `clock`: seconds, of which a choice may take `BUDGET_S`.
    """
    until_s = math.inf if clock is None else clock() + BUDGET_S

    def is_late() -> bool:
        return clock is not None and clock() >= until_s

    left = [federation for federation in workload.federations if federation.name not in stand.ended]
    predicted = _predict(workload, left, forecast)
    if predicted is None:
        return Choice(current, "not all durations are known yet", {})
    if budget // len(rules) < 1:
        return Choice(current, f"a budget of {budget} events is too small for {len(rules)} rules", {})
    trial = _Trial(workload, left, stand, predicted)
    ends_s: dict[str, float] = {}
    num_events = 0
    for name, policy in rules.items():
        run = trial.play(policy)
        while run.step():
            if is_late() or run.num_events >= budget // len(rules):
                reason = f"there is more to simulate than {len(rules)} rules can be tried on"
                return Choice(current, reason, {}, num_events + run.num_events)
        ends_s[name], num_events = run.now_s, num_events + run.num_events
    best = min(ends_s, key=lambda name: (ends_s[name], name != current))
    gained_s, usual_s = ends_s[current] - ends_s[best], ends_s[current]
    if gained_s > margin * usual_s:
        reason = f"predicted to take {ends_s[best]:.3g} s, {gained_s / usual_s:.0%} less than {current}"
        return Choice(best, reason, ends_s, num_events)
    reason = f"no rule is predicted to gain more than {margin:.0%} on {current} in {usual_s:.3g} s"
    return Choice(current, reason, ends_s, num_events)


@dataclass(frozen=True)
class _Predicted:
    """Seconds by site path on a device of speed 1, and the speeds by kind."""

    seconds: Mapping[str, float]
    speeds: Mapping[str, float]


def _predict(workload: Workload, left: Sequence[Federation], forecast: Forecast) -> _Predicted | None:
    """Predict every site on every kind of device, the most frequent one at speed 1; None if a site is unknown."""
    outlook, orders = Outlook(workload, forecast), count()
    seconds: dict[str, float] = {}
    ratios: dict[str, list[float]] = {device.kind: [] for device in workload.devices}
    for federation in left:
        for hub in federation.hubs:
            for job in outlook.jobs(federation, [(hub, 0, hub.sites)], orders)[0]:
                if not job.estimate_s:
                    return None
                seconds[job.name] = job.estimate_s
                for kind, found in ratios.items():
                    found.append(job.estimate_s / (forecast.predict(job, kind) or job.estimate_s))
    return _Predicted(seconds, {kind: median(found) for kind, found in ratios.items()})


class _Trial:
    """The run from here on, with predicted durations as if they were true."""

    def __init__(self, workload: Workload, left: Sequence[Federation], stand: Stand, predicted: _Predicted) -> None:
        federations = tuple(replace(fed, start_s=max(0.0, fed.start_s - stand.now_s)) for fed in left)
        self._workload = replace(workload, federations=federations, speeds=predicted.speeds)
        self._stand = stand
        self._seconds = predicted.seconds
        self._kinds = {device.name: device.kind for device in workload.devices}
        under_way: dict[JobKey, float] = {}
        for federation in federations:
            for hub in federation.hubs:
                found = _of(stand, federation, hub)
                for running in found.running:
                    key = group_name(federation, hub, found.number), running.site
                    under_way[key] = running.left_s * predicted.speeds[self._kinds[running.device]]
        self._actual = Steady(self._workload, predicted.seconds, under_way)

    def play(self, policy: Policy) -> Simulation:
        """Begin a run under a policy."""
        forecast = Oracle(self._workload, self._actual)
        return Simulation(self._workload, policy, self._actual, forecast, stand=self._stand)


def _of(stand: Stand, federation: Federation, hub: Hub) -> HubStand:
    """Give where a hub stands."""
    return stand.hubs.get(f"{federation.name}/{hub.name}", HubStand())
