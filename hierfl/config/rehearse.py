"""Tries what is the user's own on the members, jobs and vectors that it is to have: what it gives must be what can be
carried out, and the mistake is told before anything starts. What a later round brings is checked in it, as here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from hierfl.errors import StrategyFailed
from hierfl.held import OwnAttack, OwnCompression, OwnParticipation, OwnTopology, held_policy, is_users
from hierfl.learning.attack import Attack
from hierfl.learning.compression import Compression
from scheduler.participation import Candidates, Participation, RoundView
from scheduler.policy import Binding, Policy
from scheduler.views import Job
from tiers.plan import Partners
from tiers.topology import Topology

__all__ = ["fewest", "flaw_of", "plan_flaw", "policy_flaw"]


def plan_flaw(topology: Topology, partners: Partners) -> str:
    """Say why a topology's plan of a round of these members cannot be carried out; empty if it can."""
    return _flaw(lambda: OwnTopology(topology).plan(partners))


def policy_flaw(policy: Participation, hub: str, seed: int, free: Mapping[str, int]) -> str:
    """Say why a policy cannot open and close a first round of these members; empty if it can."""

    def rehearse() -> None:
        own = OwnParticipation(policy)
        choice, limits = own.choose(Candidates(hub, 0, seed, free)), own.limits([])
        asked = {name: free[name] for name in choice.asked}
        of = {**asked, **{name: weight for name, weight in free.items() if name not in choice.skipped}}
        weights = sum(of.values()), sum(asked.values())
        own.decide(RoundView(len(of), weights[0], 0, 0, 0, len(asked), weights[1], len(asked), limits=limits))
        own.admit(1, 1)

    return _flaw(rehearse)


def fewest(policy: Participation, hub: str, seed: int, names: Iterable[str]) -> int:
    """Say with how few of these members a round may close in which none is lost; all, where a policy cannot say.

    A round closes early at its deadline, whatever the members weigh. Once one has closed early, a member may be in with
    a late update and a new one: it counts once here, and to a policy as two updates.
    """
    free = dict.fromkeys(names, 1)
    try:
        own = OwnParticipation(policy)
        choice = own.choose(Candidates(hub, 0, seed, free))
        num_asked, num_members = len(choice.asked), len(free) - len(choice.skipped)
        if not policy.may_close_early:
            return num_asked
        limits = own.limits([])

        def closes(num_in: int, num_updates: int) -> bool:
            waiting, weight = num_asked - num_in, num_members
            figures = (num_members, weight, waiting, 0, 0, num_in, weight, num_updates)
            ending = own.decide(RoundView(*figures, limits.close_s, limits))
            return ending is not None and not ending.gives_up

        first = 1 + bisect_left(range(1, num_asked), True, key=lambda number: closes(number, number))
        if first == num_asked:  # then nobody is ever late
            return first
        return 1 + bisect_left(range(1, first), True, key=lambda number: closes(number, 2 * number))
    except StrategyFailed:
        return len(free)


def flaw_of(seam: str, kind: Any) -> str:
    """Say why a dispatch policy, a compression or an attack of the user's own cannot be had; empty if it can."""
    rehearse = _REHEARSALS.get(seam)
    return _flaw(lambda: rehearse(kind)) if rehearse is not None and is_users(kind) else ""


def _order(policy: Policy) -> None:
    """Order two jobs; how long the first one takes is not known yet, as before a site has trained."""
    own = held_policy(policy, "")
    jobs = (Job("hub", "hub/a", 80, None, 0), Job("hub", "hub/b", 40, 1.5, 1, chain_s=3.0))
    for turn, job in enumerate(jobs):
        own.priority(job, 2)
        own.reason(job)
        if isinstance(own, Binding):
            own.device(job, ("device-0", "device-1"), turn, turn)


def _compress(compression: Compression) -> None:
    """Compress a small change and a large one, and a change of nothing."""
    own = OwnCompression(compression)
    if not isinstance(getattr(compression, "error_feedback", None), bool):
        raise StrategyFailed(
            "it does not say whether what it leaves out is added to the next change; write error_feedback: bool = True"
            " among its keys, or error_feedback: ClassVar[bool] = False"
        )
    random = np.random.default_rng(0)
    for change in (np.array([0.5], np.float32), random.standard_normal(1000, np.float32), np.zeros(10)):
        code = own.compress(change.copy(), random)
        own.restore(code, change.size, change.dtype)
        said, has = own.num_bytes(change.size, change.dtype.itemsize), sum(one.nbytes for one in code.values())
        if has > said:
            raise StrategyFailed(
                f"its num_bytes() gave {said} for {change.size} elements, and its compress() made {has}; needed: as"
                " many as there are at most (hierfl/learning/compression.py)"
            )


def _attack(attack: Attack) -> None:
    """Change one attacker's update of four elements; what it poisons comes with the data."""
    changes = np.random.default_rng(0).standard_normal((4, 4), np.float32)
    OwnAttack(attack).change(changes[0].copy(), changes[1:] if attack.knows_honest else changes[:0], 1)


_REHEARSALS: dict[str, Callable[[Any], None]] = {"policy": _order, "compression": _compress, "attack": _attack}


def _flaw(rehearse: Callable[[], object]) -> str:
    try:
        rehearse()
    except StrategyFailed as failed:
        return str(failed)
    return ""
