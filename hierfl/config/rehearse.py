"""Tries a topology and a participation policy on the members that they are to have: what they give must be what a hub's
machine can carry out, and the mistake is told before anything starts, not by an assertion in a round.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hierfl.kinds import nearest
from scheduler.participation import Admission, Candidates, Choice, Ending, Limits, Participation, RoundView
from tiers.plan import Partners, Plan
from tiers.topology import Topology

__all__ = ["plan_flaw", "policy_flaw", "told"]


def plan_flaw(topology: Topology, partners: Partners) -> str:
    """Say why a topology's plan of a round of these members cannot be carried out; empty if it can."""
    try:
        plan: Any = topology.plan(partners)
    except Exception as error:  # a user's topology may raise anything
        return f"its plan() failed: {told(error)}"
    if not isinstance(plan, Plan):
        return f"its plan() gave {_kind(plan)}; needed: a Plan of Train and Mix (tiers/plan.py)"
    try:
        stages, exchange = plan.stages, plan.exchange
    except Exception as error:
        return f"its plan() cannot be carried out: {error}"
    for name, times in Counter(plan.trained).items():
        if name not in partners.weights:
            return f"its plan() trains {name!r}, who is no member{nearest(name, partners.weights)}"
        if times > 1:
            return f"its plan() trains {name!r} {times} times; once in a round is all that a member does"
    if not plan.trained:
        return "its plan() trains nobody"
    if bool(exchange) is topology.has_centre:
        where, needed = ("at members", "False") if exchange else ("at the hub", "True")
        return f"its plan() mixes {where}, and has_centre says otherwise; write has_centre: ClassVar[bool] = {needed}"
    if len(stages) > 1 and not topology.sequential:
        return (
            f"its plan() has {len(stages)} stages, each from what the one before it left; write"
            " sequential: ClassVar[bool] = True"
        )
    return ""


def policy_flaw(policy: Participation, hub: str, seed: int, free: Mapping[str, int]) -> str:
    """Say why a policy cannot open and close a first round of these members; empty if it can."""
    method = "choose"
    try:
        choice: Any = policy.choose(Candidates(hub, 0, seed, free))
        if not isinstance(choice, Choice):
            return _gave(method, choice, "a Choice of the members that are asked")
        if not choice.asked:
            return "its choose() asks nobody, though all can; needed: at least one"
        for name in choice.asked:
            if name not in free:
                return f"its choose() asks {name!r}, who is no member{nearest(str(name), free)}"
        method = "limits"
        limits: Any = policy.limits([])
        if not isinstance(limits, Limits):
            return _gave(method, limits, "Limits")
        method = "decide"
        count = len(choice.asked)
        weight = sum(free[name] for name in choice.asked)
        ending: Any = policy.decide(RoundView(count, weight, 0, 0, 0, count, weight, count, limits=limits))
        if not isinstance(ending, Ending) and not (ending is None and policy.rolling):
            return _gave(method, ending, "an Ending, where all that were asked have reported")
        method = "admit"
        admission: Any = policy.admit(1, 1)
        if not isinstance(admission, Admission) or not 0 <= admission.weight <= 1:
            return _gave(method, admission, "an Admission with a weight from 0 to the full one")
    except Exception as error:  # a user's policy may raise anything
        return f"its {method}() failed: {told(error)}"
    return ""


def told(error: Exception) -> str:
    """Tell an exception of the user's code in one line, with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{at}"


def _gave(method: str, given: object, needed: str) -> str:
    return f"its {method}() gave {_kind(given)}; needed: {needed} (scheduler/participation.py)"


def _kind(given: object) -> str:
    return (
        "nothing" if given is None else f"a {type(given).__name__}" if isinstance(given, list | dict) else repr(given)
    )
