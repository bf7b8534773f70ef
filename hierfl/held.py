"""Topologies, policies, compressions and attacks of the user's own, held to what can be carried out: what they give is
checked where it is given, in a rehearsal before a run and in each of its rounds. hierfl's own kinds keep the laws of
their folders, and are asked as they are.
"""

from __future__ import annotations

import math
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import QUOTED, HierflError, StrategyFailed
from hierfl.kinds import name_of, nearest
from scheduler.participation import Admission, Candidates, Choice, Ending, Limits, RoundView
from scheduler.policy import Binding, Policy
from scheduler.views import Job
from tiers.federation import Hub
from tiers.plan import Partners, Plan
from tiers.topology import Topology

if TYPE_CHECKING:
    from hierfl.learning.attack import Attack
    from hierfl.learning.compression import Change, Code, Compression

__all__ = [
    "OwnAttack",
    "OwnCompression",
    "OwnParticipation",
    "OwnTopology",
    "held",
    "held_attack",
    "held_compression",
    "held_policy",
    "is_users",
    "told",
]

PARTICIPATION, DISPATCH = "scheduler/participation.py", "scheduler/policy.py"
COMPRESSION, ATTACK = "hierfl/learning/compression.py", "hierfl/learning/attack.py"
"""Where it is written what a kind gives."""


def is_users(kind: object) -> bool:
    """Say whether a kind is the user's, and not one that comes along."""
    return ":" in name_of(type(kind))


def held(hub: Hub, path: str) -> Hub:
    """Give a hub whose topology and participation policy, where they are the user's, are checked as they are asked."""
    own: dict[str, Any] = {}
    if is_users(hub.topology):
        own["topology"] = OwnTopology(hub.topology, f"{path}: the topology {name_of(type(hub.topology))}: ")
    if is_users(hub.participation):
        whose = f"{path}: the participation policy {name_of(type(hub.participation))}: "
        own["participation"] = OwnParticipation(hub.participation, whose)
    return replace(hub, **own) if own else hub


def held_policy(policy: Policy, whose: str | None = None) -> Policy:
    """Give a dispatch policy that is checked as it is asked, where it is the user's. `whose`: what is said before."""
    if not is_users(policy):
        return policy
    if whose is None:
        whose = f"the dispatch policy {name_of(type(policy))}: "
    return _OwnBinding(policy, whose) if isinstance(policy, Binding) else _OwnOrder(policy, whose)


def held_compression(compression: Compression, at: str) -> Compression:
    """Give a compression that is checked as it is asked, where it is the user's. `at`: who compresses, if known."""
    if not is_users(compression):
        return compression
    return OwnCompression(compression, f"{at}{': ' if at else ''}the compression {name_of(type(compression))}: ")


def held_attack(attack: Attack) -> Attack:
    """Give an attack that is checked as it is asked, where it is the user's."""
    own: Any = OwnAttack(attack, f"the attack {name_of(type(attack))}: ") if is_users(attack) else attack
    found: Attack = own
    return found


class _Own:
    """A kind that is asked, and what is said before what is wrong with it; all else of it is as it is.

    Where it is handed updates, what its code raises and gives may quote them: that stands behind `QUOTED`.
    """

    _sees_updates = False

    def __init__(self, kind: Any, whose: str = "") -> None:
        self._kind = kind
        self._whose = whose

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # as it is unpickled it has no kind yet
            raise AttributeError(name)
        return getattr(self._kind, name)

    def _given(self, method: str, *arguments: Any) -> Any:
        """Ask the kind. Errors: StrategyFailed for what it raises; but ours, and memory that is short, as they are."""
        try:
            return getattr(self._kind, method)(*arguments)
        except (HierflError, MemoryError):
            raise
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise self._wrong(method, f"failed{QUOTED if self._sees_updates else ': '}{told(error)}") from None

    def _wrong(self, method: str, said: str) -> StrategyFailed:
        return StrategyFailed(f"{self._whose}its {method}() {said}")

    def _gave(self, method: str, value: object, needed: str, where: str) -> StrategyFailed:
        said = kind_of(value)
        if said != repr(value) or not self._sees_updates:
            return self._wrong(method, f"gave {said}; needed: {needed} ({where})")
        return self._wrong(method, f"gave a {type(value).__name__}; needed: {needed} ({where}){QUOTED}{said}")


class OwnTopology(_Own):
    """A topology of the user's own."""

    def plan(self, partners: Partners) -> Plan:
        """Plan a round. Errors: StrategyFailed for what no hub can carry out."""
        plan = self._given("plan", partners)
        if said := _plan_flaw(self._kind, plan, partners):
            raise self._wrong("plan", said)
        found: Plan = plan
        return found


class OwnParticipation(_Own):
    """A participation policy of the user's own."""

    def choose(self, candidates: Candidates) -> Choice:
        """Choose whom to ask. Errors: StrategyFailed for who cannot be asked, or nobody."""
        choice = self._given("choose", candidates)
        if not isinstance(choice, Choice) or not isinstance(choice.skipped, Mapping):
            raise self._gave("choose", choice, "a Choice of the members that are asked", PARTICIPATION)
        free = candidates.free
        if not choice.asked:
            raise self._wrong("choose", f"asks nobody; needed: at least one of those who can{nearest('', free)}")
        for name in choice.asked:
            if name not in free:
                why = "cannot be asked in this round" if name in candidates.unable else "is no member"
                raise self._wrong("choose", f"asks {name!r}, who {why}{nearest(str(name), free)}")
        return choice

    def limits(self, forecast_s: Sequence[float]) -> Limits:
        """Say when time matters in a round. Errors: StrategyFailed for what is no time."""
        limits = self._given("limits", forecast_s)
        if not isinstance(limits, Limits):
            raise self._gave("limits", limits, "Limits", PARTICIPATION)
        for name in ("close_s", "give_up_s"):
            value = getattr(limits, name)
            if not isinstance(value, Real) or not float(value) >= 0:
                raise self._wrong("limits", f"gave {name} {value!r}; needed: seconds, at least 0, or infinity")
        return limits

    def decide(self, view: RoundView) -> Ending | None:
        """Say whether the round ends. Errors: StrategyFailed where it would wait for nobody."""
        ending = self._given("decide", view)
        if isinstance(ending, Ending):
            return ending
        is_over = not view.num_waiting and not view.num_late
        may_roll = self._kind.rolling and view.num_in + view.num_lost < view.num_members  # somebody is at work yet
        if ending is None and not (is_over and not may_roll):
            return None
        needed = "an Ending, where nobody is waited for" if is_over else "an Ending, or None to wait on"
        raise self._gave("decide", ending, needed, PARTICIPATION)

    def admit(self, weight: int, staleness: int) -> Admission:
        """Weigh a late update. Errors: StrategyFailed for more than its weight, or less than none."""
        found = self._given("admit", weight, staleness)
        is_one = isinstance(found, Admission) and isinstance(found.weight, Integral)
        if not is_one or not 0 <= found.weight <= weight:
            needed = f"an Admission with a whole weight from 0 to the full one, which is {weight}"
            raise self._gave("admit", found, needed, PARTICIPATION)
        admission: Admission = found
        return admission


class _OwnOrder(_Own):
    """A dispatch policy of the user's own."""

    def priority(self, job: Job, num_eligible: int) -> tuple[float, ...]:
        """Give a job's sort key. Errors: StrategyFailed for what does not sort."""
        key = self._given("priority", job, num_eligible)
        if not isinstance(key, tuple) or not all(isinstance(one, Real) and not math.isnan(one) for one in key):
            needed = f"a tuple of numbers, none of them NaN; the job was {job.name}"
            raise self._wrong("priority", f"gave {key!r}; needed: {needed} ({DISPATCH})")
        found: tuple[float, ...] = key
        return found

    def reason(self, job: Job) -> str:
        """Say why a job goes now. Errors: StrategyFailed for what is no text."""
        said = self._given("reason", job)
        if not isinstance(said, str):
            raise self._gave("reason", said, "a few words", DISPATCH)
        return said


class _OwnBinding(_OwnOrder):
    """One that ties each job to a device beforehand."""

    @property
    def work_conserving(self) -> bool:
        """As the kind says."""
        return bool(self._kind.work_conserving)

    def device(self, job: Job, devices: Sequence[str], turn: int, seat: int) -> str:
        """Give the device that runs a job. Errors: StrategyFailed for one that cannot."""
        name = self._given("device", job, devices, turn, seat)
        if name not in devices:
            said = f"binds {job.name} to {name!r}, which cannot run it{nearest(str(name), devices)}"
            raise self._wrong("device", said)
        found: str = name
        return found


class OwnCompression(_Own):
    """A compression of the user's own."""

    _sees_updates = True

    @property
    def error_feedback(self) -> bool:
        """As the kind says."""
        return bool(self._kind.error_feedback)

    def compress(self, change: NDArray[Any], random: np.random.Generator) -> Code:
        """Make a code of a change. Errors: StrategyFailed for what cannot travel."""
        code = self._given("compress", change, random)
        if not isinstance(code, Mapping) or not all(isinstance(one, np.ndarray) for one in code.values()):
            raise self._gave("compress", code, "a dict of NumPy arrays by name", COMPRESSION)
        return code

    def restore(self, code: Code, size: int, dtype: np.dtype[Any]) -> Change:
        """Give what a code stands for. Errors: StrategyFailed for what is no change of `size` elements."""
        given = self._given("restore", code, size, dtype)
        if not isinstance(given, tuple) or len(given) != 2:
            needed = "a tuple of two, the values and their places, or None for all"
            raise self._gave("restore", given, needed, COMPRESSION)
        values, places = given
        if not isinstance(values, np.ndarray) or values.dtype != dtype or values.ndim != 1:
            raise self._gave("restore", values, f"values as an array of one axis and {dtype}", COMPRESSION)
        if places is None:
            if values.size != size:
                needed = f"{size} values, as many as the change has, or their places"
                raise self._gave("restore", values, needed, COMPRESSION)
        elif not _are_places(places, values.size, size):
            needed = f"{values.size} whole numbers as places, one for each value, from 0 to {size - 1}, none twice"
            raise self._gave("restore", places, needed, COMPRESSION)
        return values, places

    def num_bytes(self, size: int, item_bytes: int) -> int:
        """Say how many bytes a code has at most. Errors: StrategyFailed for what is no number."""
        number = self._given("num_bytes", size, item_bytes)
        if not isinstance(number, Integral) or number < 0:
            raise self._gave("num_bytes", number, "a whole number of bytes", COMPRESSION)
        return int(number)


class OwnAttack(_Own):
    """An attack of the user's own."""

    _sees_updates = True

    @property
    def knows_honest(self) -> bool:
        """As the kind says."""
        return bool(self._kind.knows_honest)

    def poison(self, data: Any) -> Any:
        """Give what the attacker trains on. Errors: StrategyFailed for what is no data set."""
        given = self._given("poison", data)
        if not (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
            raise self._gave("poison", given, "a torch Dataset, as the one it is given", ATTACK)
        return given

    def change(self, own: NDArray[Any], honest: NDArray[Any], num_bad: int) -> NDArray[Any]:
        """Give the change that the attacker sends. Errors: StrategyFailed for what is none."""
        given = self._given("change", own, honest, num_bad)
        if not isinstance(given, np.ndarray) or given.shape != own.shape or given.dtype != own.dtype:
            raise self._gave("change", given, f"{kind_of(own)}, as its own is", ATTACK)
        return given


def _are_places(places: Any, num: int, size: int) -> bool:
    """Say whether these are places of so many different elements of a vector."""
    if not isinstance(places, np.ndarray) or places.dtype.kind not in "iu" or places.shape != (num,):
        return False
    return num == 0 or (places.min() >= 0 and places.max() < size and np.unique(places).size == num)


def told(error: BaseException) -> str:
    """Tell an exception of the user's code in one line, with the place where it was raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{at}"


def kind_of(value: object) -> str:
    """Name what was given in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {list(value.shape)} and {value.dtype}"
    if isinstance(value, list | dict | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return "nothing" if value is None else repr(value)


def _plan_flaw(topology: Topology, plan: Any, partners: Partners) -> str:
    """Say why a topology's plan of a round of these members cannot be carried out; empty if it can."""
    if not isinstance(plan, Plan):
        return f"gave {kind_of(plan)}; needed: a Plan of Train and Mix (tiers/plan.py)"
    try:
        stages, exchange = plan.stages, plan.exchange
    except Exception as error:
        return f"cannot be carried out: {error}"
    for name, times in Counter(plan.trained).items():
        if name not in partners.weights:
            why = "takes no part in this round" if name in partners.members else "is no member"
            return f"trains {name!r}, who {why}{nearest(name, partners.weights)}"
        if times > 1:
            return f"trains {name!r} {times} times; once in a round is all that a member does"
    if not plan.trained:
        return "trains nobody"
    if bool(exchange) is topology.has_centre:
        where, needed = ("at members", "False") if exchange else ("at the hub", "True")
        return f"mixes {where}, and has_centre says otherwise; write has_centre: ClassVar[bool] = {needed}"
    if len(stages) > 1 and not topology.sequential:
        return (
            f"has {len(stages)} stages, each from what the one before it left; write sequential: ClassVar[bool] = True"
        )
    return ""
