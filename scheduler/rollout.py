"""Rollout (Bertsekas et al. 1997): try a few priority rules in the simulator before a round, and take the best.

No rule wins everywhere, but a simulated round costs microseconds per job where the real one takes minutes. At a global
round's begin each rule is played from where the run stands, with durations as they are predicted now, for as many
events as the budget allows; what is left then counts with its lower bound. The rule in use stays unless another one is
better by more than the margin, which is about what predictions are worth.

Since the dispatcher settles unequal devices by claims (`scheduler.claims`), it gains nothing on any of the scenarios
(`docs/benchmarks.md`): nothing uses it by default. It is kept to compare rules of one's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from statistics import median

from scheduler.bounds import Fleet, Task, price_bound, remaining_chain_s, round_bound
from scheduler.forecast import Forecast, Oracle
from scheduler.outlook import Outlook
from scheduler.policy import Policy
from scheduler.simulator import Simulation
from scheduler.stand import HubStand, Stand
from scheduler.views import JobKey
from scheduler.workload import Federation, Hub, Steady, Workload, group_name, site_path

__all__ = ["BUDGET", "Choice", "Rollout", "choose"]

BUDGET = 150
"""Simulated events per choice: some 20 ms."""

MARGIN = 0.01


@dataclass(frozen=True)
class Choice:
    """The rule to use, and why; `ends_s`: the predicted end by rule, in seconds from now."""

    rule: str
    reason: str
    ends_s: Mapping[str, float]
    num_events: int = 0


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
        choice = choose(self._workload, self._forecast, stand, self._rules, self._rule, budget=self._budget)
        self.choices.append(choice)
        if choice.rule == self._rule:
            return None
        self._rule = choice.rule
        return self._rules[choice.rule]


def choose(
    workload: Workload,
    forecast: Forecast,
    stand: Stand,
    rules: Mapping[str, Policy],
    current: str,
    *,
    budget: int = BUDGET,
    margin: float = MARGIN,
) -> Choice:
    """Choose the rule with the earliest predicted end; `current` stays unless beaten by more than `margin`.

    The margin is a fraction of the simulated time, for only what happens within it is compared.
    `workload`: of its durations and speeds nothing is used, `forecast` predicts them; `budget`: simulated events.
    """
    left = [federation for federation in workload.federations if federation.name not in stand.ended]
    predicted = _predict(workload, left, forecast)
    if predicted is None:
        return Choice(current, "not all durations are known yet", {})
    if budget // len(rules) < 1:
        return Choice(current, f"a budget of {budget} events is too small for {len(rules)} rules", {})
    trial = _Trial(workload, left, stand, predicted)
    played = {name: trial.play(policy, budget // len(rules)) for name, policy in rules.items()}
    ends_s = {name: found.end_s for name, found in played.items()}
    best = min(ends_s, key=lambda name: (ends_s[name], name != current))
    gained_s, over_s = ends_s[current] - ends_s[best], played[current].played_s
    num_events = sum(found.num_events for found in played.values())
    if gained_s > margin * over_s:
        reason = f"{best} is predicted to gain {gained_s:.3g} s on {current} in the next {over_s:.3g} s"
        return Choice(best, reason, ends_s, num_events)
    reason = f"no rule is predicted to gain more than {margin:.0%} on {current} in the next {over_s:.3g} s"
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


@dataclass(frozen=True, slots=True)
class _Played:
    """A trial: the predicted end of all federations, the seconds that were simulated, the events that it took."""

    end_s: float
    played_s: float
    num_events: int


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

    def play(self, policy: Policy, budget: int) -> _Played:
        """Play as far as the budget goes; what is left then counts with its bound."""
        forecast = Oracle(self._workload, self._actual)
        run = Simulation(self._workload, policy, self._actual, forecast, stand=self._stand)
        while run.step():
            if run.num_events >= budget:
                return _Played(run.now_s + self._rest_s(run.stand()), run.now_s, run.num_events)
        return _Played(run.now_s, run.now_s, run.num_events)

    def _rest_s(self, stand: Stand) -> float:
        """Bound what is left: the longest remaining chain, or all remaining work."""
        fleet = Fleet.of(self._workload)
        left = [fed for fed in self._workload.federations if fed.name not in stand.ended]
        work = [task for fed in left for hub in fed.hubs for task in self._work(fed, hub, _of(stand, fed, hub))]
        return max([price_bound(work, fleet), *(self._chain_s(fed, stand, fleet) for fed in left)])

    def _tasks(self, federation: Federation, hub: Hub) -> dict[str, Task]:
        """Give the sites of a hub by path."""
        paths = ((site_path(federation, hub, site), site) for site in hub.sites)
        return {path: Task(self._seconds[path], hub.labels, site.memory_bytes) for path, site in paths}

    def _work(self, federation: Federation, hub: Hub, found: HubStand) -> Iterator[Task]:
        """Go through a hub's remaining work: what waits, what is under way, and its later rounds."""
        whole = self._tasks(federation, hub)
        yield from (whole[path] for path in found.waiting)
        for running in found.running:
            speed = self._workload.speeds[self._kinds[running.device]]
            yield replace(whole[running.site], duration_s=running.left_s * speed)
        num_left = federation.rounds * hub.rounds - found.number - found.is_open
        yield from (replace(task, duration_s=task.duration_s * num_left) for task in whole.values())

    def _chain_s(self, federation: Federation, stand: Stand, fleet: Fleet) -> float:
        """Bound a federation's remaining chain: the open rounds, and what must follow them."""
        tasks = {hub.name: self._tasks(federation, hub) for hub in federation.hubs}
        rounds_s = {
            hub.name: round_bound([*tasks[hub.name].values()], fleet) + hub.transfer_s for hub in federation.hubs
        }
        kappa = {hub.name: hub.rounds for hub in federation.hubs}
        chains_s = []
        for hub in federation.hubs:
            found = _of(stand, federation, hub)
            after = found.number + found.is_open
            rounds_left = federation.rounds - -(-after // hub.rounds)
            chain_s = remaining_chain_s(rounds_s, kappa, hub.name, -after % hub.rounds, rounds_left)
            if found.is_open:
                waiting_s = round_bound([tasks[hub.name][path] for path in found.waiting], fleet)
                chain_s += max([waiting_s, *(running.left_s for running in found.running)]) + hub.transfer_s
            chains_s.append(chain_s)
        return max(chains_s)


def _of(stand: Stand, federation: Federation, hub: Hub) -> HubStand:
    """Give where a hub stands."""
    return stand.hubs.get(f"{federation.name}/{hub.name}", HubStand())
