"""A user's own policy, topology, compression or attack that goes wrong in a later round, as no rehearsal can tell: the
run ends in one sentence that names who asked, the kind and its method, what it gave and what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import hierfl
from hierfl.errors import SiteFailed, StrategyFailed
from hierfl.learning.attacks.sign_flip import SignFlip
from hierfl.learning.compressions.top_k import TopK
from scheduler.participation import Admission, Choice, Ending, Limits
from scheduler.participations.all import All
from scheduler.participations.deadline import Deadline
from scheduler.policies.fifo import Fifo
from scheduler.policies.static import Static
from tiers.plan import Mix, Plan, Train
from tiers.topologies.star import Star
from tiers.topologies.swarm import Swarm

GIVES: dict[str, Any] = {}
"""What the methods of the kinds below give once it is late; a configuration holds a kind's fields alone."""


@pytest.fixture(autouse=True)
def nothing_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    GIVES.clear()


def given(method: str, is_late: bool, own: Any, *arguments: Any) -> Any:
    """Give what a test has left for a method, if it is late; else what the kind itself gives."""
    found = GIVES.get(method, own) if is_late else own
    return found(*arguments) if callable(found) else found


@dataclass(frozen=True)
class Policy(All):
    def choose(self, candidates: Any) -> Any:
        GIVES["round"] = candidates.round_number
        return given("choose", candidates.round_number > 0, super().choose, candidates)

    def limits(self, forecast_s: Any) -> Any:
        return given("limits", GIVES["round"] > 0, super().limits, forecast_s)

    def decide(self, view: Any) -> Any:
        return given("decide", GIVES["round"] > 0, super().decide, view)


@dataclass(frozen=True)
class Drawn(Star):
    def plan(self, partners: Any) -> Any:
        return given("plan", partners.round_number > 0, super().plan, partners)


@dataclass(frozen=True)
class Apart(Swarm):
    def plan(self, partners: Any) -> Any:
        return given("plan", partners.round_number > 0, super().plan, partners)


@dataclass(frozen=True)
class Order(Fifo):
    def priority(self, job: Any, num_eligible: int) -> Any:
        return given("priority", job.order > 3, super().priority, job, num_eligible)

    def reason(self, job: Any) -> Any:
        return given("reason", job.order > 3, super().reason, job)


@dataclass(frozen=True)
class Bound(Static):
    def device(self, job: Any, devices: Any, turn: int, seat: int) -> Any:
        return given("device", job.order > 3, super().device, job, devices, turn, seat)


REHEARSED = 1, 10, 1000
"""Elements of the changes that a compression is tried with."""

TASK = {"kind": "synthetic", "num_parameters": 64}


@dataclass(frozen=True)
class Code(TopK):
    def compress(self, change: Any, random: Any) -> Any:
        return given("compress", change.size not in REHEARSED, super().compress, change, random)

    def restore(self, code: Any, size: int, dtype: Any) -> Any:
        return given("restore", size not in REHEARSED, super().restore, code, size, dtype)


@dataclass(frozen=True)
class Flip(SignFlip):
    def poison(self, data: Any) -> Any:
        return given("poison", True, super().poison, data)

    def change(self, own: Any, honest: Any, num_bad: int) -> Any:
        return given("change", own.size != 4, super().change, own, honest, num_bad)


def ended(us: Any = None, runtime: Any = None, error: type[Exception] = StrategyFailed, site: Any = None) -> str:
    """Run three rounds with these settings of a hub below the root, and of one of its sites; give how they ended."""
    members = [{"name": "a", **(site or {})}, {"name": "b"}, {"name": "c"}]
    config = {
        "task": TASK,
        "federation": {"name": "world", "rounds": 3, "members": [{"name": "us", "members": members, **(us or {})}]},
        "runtime": {"kind": "local", "num_workers": 1, **(runtime or {})},
        "output": {"tensorboard": False},
    }
    with pytest.raises(error) as caught:
        hierfl.run(config)
    return str(caught.value)


def later(method: str, gives: Any) -> None:
    GIVES[method] = gives


CHOOSE = [
    (Choice(()), "its choose() asks nobody; needed: at least one of those who can (allowed: a, b, c)"),
    (Choice(("bb",)), "its choose() asks 'bb', who is no member (did you mean 'b'? allowed: a, b, c)"),
    (None, "its choose() gave nothing; needed: a Choice of the members that are asked (scheduler/participation.py)"),
    (lambda candidates: candidates.all, "its choose() failed: AttributeError: 'Candidates' object has no attribute"),
]
OTHERS = [
    ("limits", Limits(-1.0), "its limits() gave close_s -1.0; needed: seconds, at least 0, or infinity"),
    ("limits", 30.0, "its limits() gave 30.0; needed: Limits (scheduler/participation.py)"),
    ("decide", None, "its decide() gave nothing; needed: an Ending, where nobody is waited for"),
    ("decide", "all in", "its decide() gave 'all in'; needed: an Ending"),
]


@pytest.mark.parametrize(("method", "gives", "said"), [*(("choose", *case) for case in CHOOSE), *OTHERS])
def test_a_participation_policy_that_goes_wrong_later_is_named(method: str, gives: Any, said: str) -> None:
    later(method, gives)
    found = ended({"participation": Policy()})
    assert found.startswith(f"world/us: the participation policy {__name__}:Policy: {said}") and "\n" not in found


def test_what_a_policy_raises_is_told_with_its_place() -> None:
    later("choose", lambda candidates: 1 // 0)
    found = ended({"participation": Policy()})
    assert "its choose() failed: ZeroDivisionError: " in found and "(test_scenario_own_kinds.py, line " in found


def three(*names: str) -> Plan:
    return Plan((*map(Train, names), Mix(names)))


PLANS = [
    (Drawn, lambda partners: three("a", "x"), "its plan() trains 'x', who is no member (allowed: a, b, c)"),
    (Drawn, None, "its plan() gave nothing; needed: a Plan of Train and Mix (tiers/plan.py)"),
    (Apart, Plan((Train("a"), Mix(("b",), "a"))), "its plan() cannot be carried out: "),
]


@pytest.mark.parametrize(("topology", "gives", "said"), PLANS)
def test_a_topology_that_goes_wrong_later_is_named(topology: Any, gives: Any, said: str) -> None:
    later("plan", gives)
    found = ended({"topology": topology()})
    assert found.startswith(f"world/us: the topology {__name__}:{topology.__name__}: {said}") and "\n" not in found


def test_whom_a_plan_trains_must_take_part_in_the_round() -> None:
    later("choose", lambda candidates: Choice(("a", "b"), {"c": "has a rest"}))
    later("plan", lambda partners: three("a", "c"))
    found = ended({"participation": Policy(), "topology": Drawn()})
    assert "its plan() trains 'c', who takes no part in this round (allowed: a, b)" in found


ORDERS = [
    (
        Order,
        "priority",
        (float("nan"), 1.0),
        "its priority() gave (nan, 1.0); needed: a tuple of numbers, none of them",
    ),
    (Order, "priority", 3.0, "its priority() gave 3.0; needed: a tuple of numbers, none of them NaN; the job was"),
    (Order, "priority", lambda job, _: job.seconds, "its priority() failed: AttributeError: 'Job' object has no"),
    (Order, "reason", None, "its reason() gave nothing; needed: a few words (scheduler/policy.py)"),
    (Bound, "device", "gpu-9", "its device() binds "),
]


@pytest.mark.parametrize(("policy", "method", "gives", "said"), ORDERS)
def test_a_dispatch_policy_that_goes_wrong_later_is_named(policy: Any, method: str, gives: Any, said: str) -> None:
    later(method, gives)
    found = ended(runtime={"policy": policy()})
    assert found.startswith(f"the dispatch policy {__name__}:{policy.__name__}: {said}") and "\n" not in found


CODES = [
    ("compress", [1.0], "its compress() gave a list of 1; needed: a dict of NumPy arrays by name"),
    ("restore", None, "its restore() gave nothing; needed: a tuple of two"),
    ("restore", lambda code, size, dtype: (np.zeros(2, dtype), None), "values, as many as the change has, or their"),
    (
        "restore",
        lambda code, size, dtype: (np.zeros(2), None),
        "gave an array of shape [2] and float64; needed: values",
    ),
    ("restore", lambda code, size, dtype: (np.zeros(2, dtype), np.array([0, 0])), "2 whole numbers as places, one for"),
    ("restore", lambda code, size, dtype: (np.zeros(1, dtype), np.array([size])), "from 0 to "),
]


@pytest.mark.parametrize(("method", "gives", "said"), CODES)
def test_a_compression_that_goes_wrong_later_is_named(method: str, gives: Any, said: str) -> None:
    later(method, gives)
    found = ended({"compression": Code()}, error=SiteFailed)
    assert found.startswith(f"world/us/a could not be trained: the compression {__name__}:Code: its {method}() ")
    assert said in found and "Traceback" not in found


def test_a_hub_that_compresses_its_own_change_names_itself() -> None:
    later("restore", None)
    found = ended({"rounds": 2, "compression": Code(), "members": [{"name": "a", "compression": "none"}]})
    assert found.startswith(f"world/us: the compression {__name__}:Code: its restore() gave nothing")


ATTACKS = [
    ("change", lambda own, honest, num_bad: own[:2], "its change() gave an array of shape [2] and float32; needed: an"),
    ("change", lambda own, honest, num_bad: own.tolist(), "its change() gave a list of "),
    ("poison", None, "its poison() gave nothing; needed: a torch Dataset, as the one it is given"),
]


@pytest.mark.parametrize(("method", "gives", "said"), ATTACKS)
def test_an_attack_that_goes_wrong_later_is_named(method: str, gives: Any, said: str) -> None:
    later(method, gives)
    found = ended(site={"attack": Flip()}, error=SiteFailed)
    assert found.startswith(f"world/us/a could not be trained: the attack {__name__}:Flip: {said}")
    assert "Traceback" not in found


def test_a_sound_kind_of_ones_own_has_the_bits_of_the_one_that_it_is_made_of() -> None:
    """Asked through what checks it, too: its flags and its answers are its own."""

    def digest(us: Any, policy: Any, attack: Any) -> str:
        members = [{"name": "a", "attack": attack}, {"name": "b"}, {"name": "c"}]
        config = {
            "task": TASK,
            "federation": {"name": "world", "rounds": 2, "members": [{"name": "us", "members": members, **us}]},
            "runtime": {"kind": "local", "num_workers": 2, "policy": policy},
            "output": {"tensorboard": False},
        }
        return hierfl.run(config).digest

    own = digest({"participation": Policy(), "topology": Drawn(), "compression": Code()}, Bound(), Flip())
    ours = digest({"participation": "all", "topology": "star", "compression": "top_k"}, "static", "sign_flip")
    assert own == ours


@dataclass(frozen=True)
class Heavy(Deadline):
    """Makes more of a late update than it is."""

    def admit(self, weight: int, staleness: int) -> Any:
        return Admission(weight if weight == 1 else weight + 1, "welcome")


def test_a_late_update_never_counts_for_more_than_it_is() -> None:
    from hierfl.held import held
    from tiers.federation import Hub, Site

    policy = held(Hub("us", (Site("a"),), participation=Heavy()), "world/us").participation
    assert policy.admit(1, 1).weight == 1
    with pytest.raises(
        StrategyFailed, match=r"^world/us: .*:Heavy: its admit\(\) gave Admission\(weight=81, reason=.*80"
    ):
        policy.admit(80, 1)


@dataclass(frozen=True)
class Rolls(All):
    rolling: ClassVar[bool] = True
    may_close_early: ClassVar[bool] = True

    def decide(self, view: Any) -> Any:
        return None if view.num_in < view.num_members else Ending("all in")


def test_a_policy_that_rolls_may_wait_for_who_is_at_work_and_for_nobody_else() -> None:
    from hierfl.held import OwnParticipation
    from scheduler.participation import RoundView

    own = OwnParticipation(Rolls())
    assert own.rolling and own.decide(RoundView(3, 3, 0, 0, 0, 2, 2, 2)) is None
    with pytest.raises(
        StrategyFailed, match=r"its decide\(\) gave nothing; needed: an Ending, where nobody is waited for"
    ):
        own.decide(RoundView(3, 3, 0, 0, 1, 2, 2, 2))
