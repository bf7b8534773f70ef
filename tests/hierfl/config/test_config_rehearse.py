"""Topologies and participation policies of one's own are tried before a run: what no hub can carry out is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from small_runs import hub

from hierfl.config import from_mapping
from hierfl.errors import ConfigError
from hierfl.learning.attacks.sign_flip import SignFlip
from hierfl.learning.compressions.top_k import TopK
from hierfl.learning.strategies.fedavg import FedAvg
from scheduler.participation import Admission, Choice, Ending, Limits
from scheduler.participations.all import All
from scheduler.policies.fifo import Fifo
from tiers.plan import Gather, Mix, Plan, Train
from tiers.topologies.star import Star

ALL = ("a", "b", "c")


GIVES: dict[str, Any] = {}
"""What the methods of the kinds below give, or are; a configuration holds a kind's fields alone."""


@pytest.fixture(autouse=True)
def nothing_given() -> Iterator[None]:
    yield
    GIVES.clear()


def given(method: str, *arguments: Any) -> Any:
    """Give what a test has left for a method, else what a star, or a policy that waits for all, gives."""
    kind = next(one for one in (All, Star, Fifo, TopK, SignFlip) if hasattr(one, method))
    own = GIVES.get(method, getattr(kind, method))
    return own(*arguments) if callable(own) else own


@dataclass(frozen=True)
class Drawn(Star):
    """A topology whose flags are a star's."""

    def plan(self, partners: Any) -> Any:
        return given("plan", self, partners)


@dataclass(frozen=True)
class Staged(Drawn):
    sequential: ClassVar[bool] = True


@dataclass(frozen=True)
class Apart(Drawn):
    has_centre: ClassVar[bool] = False


@dataclass(frozen=True)
class Policy(All):
    """A policy that waits for all."""

    def choose(self, candidates: Any) -> Any:
        return given("choose", self, candidates)

    def limits(self, forecast_s: Any) -> Any:
        return given("limits", self, forecast_s)

    def decide(self, view: Any) -> Any:
        return given("decide", self, view)

    def admit(self, weight: int, staleness: int) -> Any:
        return given("admit", self, weight, staleness)


@dataclass(frozen=True)
class Rolling(Policy):
    rolling: ClassVar[bool] = True


@dataclass(frozen=True)
class NoFlags:
    """A topology but for what its class is to say."""

    def plan(self, partners: Any) -> Any:
        return Star().plan(partners)

    def misfit(self, partners: Any) -> str:
        return ""


def said(**settings: Any) -> str:
    """What is said of a hub of three sites with these settings, below the root; empty where all is well."""
    config = {
        "task": {"kind": "synthetic"},
        "federation": hub("world", hub("us", *ALL, **settings), "d"),
        "runtime": {"kind": "local"},
    }
    try:
        from_mapping(config)
    except ConfigError as error:
        return "\n".join(str(problem) for problem in error.problems)
    return ""


def trained(*names: str) -> tuple[Train, ...]:
    return tuple(map(Train, names))


SOUND = Plan((*trained(*ALL), Mix(ALL)))
TWO_STAGES = Plan((Train("a"), Mix(("a",)), *trained("b", "c"), Mix(("b", "c"))))
AT_MEMBERS = Plan((*trained(*ALL), *(Mix(ALL, at=name) for name in ALL)))
SLICES = Plan((*trained(*ALL), *(Mix(ALL, name, (k, 3)) for k, name in enumerate(ALL)), *(Gather(ALL, n) for n in ALL)))

WRONG_PLANS = [
    (Drawn, None, "its plan() gave nothing; needed: a Plan of Train and Mix (tiers/plan.py)"),
    (Drawn, list(SOUND.steps), "its plan() gave a list of 4; needed: a Plan"),
    (Drawn, lambda self, partners: partners.names, "its plan() failed: AttributeError: 'Partners' object has no"),
    (Drawn, lambda self, partners: partners.names, "(test_config_rehearse.py, line "),
    (Drawn, Plan(trained(*ALL)), "its plan() cannot be carried out: ['a', 'b', 'c'] train and are not mixed"),
    (Drawn, Plan((Train("a"), Train("b", "a"), Mix(("a", "b")))), "members train from what lies at the hub"),
    (Drawn, Plan((Train("aa"), Mix(("aa",)))), "trains 'aa', who is no member (did you mean 'a'? allowed: a, b, c)"),
    (Staged, Plan(SOUND.steps * 2), "trains 'a' 2 times; once in a round is all that a member does"),
    (Drawn, Plan(()), "its plan() trains nobody"),
    (Drawn, AT_MEMBERS, "mixes at members, and has_centre says otherwise; write has_centre: ClassVar[bool] = False"),
    (Apart, SOUND, "mixes at the hub, and has_centre says otherwise; write has_centre: ClassVar[bool] = True"),
    (Drawn, TWO_STAGES, "its plan() has 2 stages, each from what the one before it left; write sequential"),
    (NoFlags, None, "NoFlags is no topology: it has no sequential, has_centre, keeps_models"),
]


@pytest.mark.parametrize(("topology", "plan", "why"), WRONG_PLANS)
def test_a_plan_that_no_hub_can_carry_out_is_named_before_the_start(topology: Any, plan: Any, why: str) -> None:
    GIVES["plan"] = plan
    found = said(topology=topology())
    assert why in found and found.startswith("federation.members.us.topology"), found


@pytest.mark.parametrize(("topology", "plan"), [(Drawn, SOUND), (Staged, TWO_STAGES), (Apart, SLICES)])
def test_a_sound_plan_of_ones_own_is_taken(topology: Any, plan: Plan) -> None:
    GIVES["plan"] = plan
    assert said(topology=topology()) == ""


WRONG_POLICIES = [
    ("choose", list(ALL), "its choose() gave a list of 3; needed: a Choice"),
    ("choose", Choice(()), "its choose() asks nobody; needed: at least one of those who can (allowed: a, b, c)"),
    ("choose", Choice(("bb",)), "its choose() asks 'bb', who is no member (did you mean 'b'? allowed: a, b, c)"),
    ("choose", lambda self, candidates: candidates.members, "its choose() failed: AttributeError: 'Candidates' object"),
    ("limits", None, "its limits() gave nothing; needed: Limits"),
    ("decide", None, "its decide() gave nothing; needed: an Ending, where nobody is waited for"),
    ("limits", Limits(float("nan")), "its limits() gave close_s nan; needed: seconds, at least 0, or infinity"),
    ("decide", True, "its decide() gave True; needed: an Ending"),
    ("admit", Admission(2, "more"), "needed: an Admission with a whole weight from 0 to the full one, which is 1"),
]


@pytest.mark.parametrize(("method", "gives", "why"), WRONG_POLICIES)
def test_a_policy_that_opens_or_closes_no_round_is_named_before_the_start(method: str, gives: Any, why: str) -> None:
    GIVES[method] = gives
    found = said(participation=Policy())
    assert why in found and found.startswith("federation.members.us.participation"), found


def test_a_sound_policy_of_ones_own_is_taken() -> None:
    assert said(participation=Policy()) == ""
    GIVES.update(choose=Choice(("b",)), limits=Limits(1.0), decide=Ending("enough"), admit=Admission(1, "welcome"))
    assert said(participation=Policy()) == ""
    GIVES["decide"] = None  # it may ask the same members once more
    assert said(participation=Rolling()) == ""


@dataclass(frozen=True)
class Half(FedAvg):
    """Reduces, and does not say what it promises."""

    linear: ClassVar[bool] = False

    def reduce(self, deltas: Any, weights: Any, state: Any) -> Any:
        return deltas[0]


@dataclass(frozen=True)
class Whole(Half):
    """Says all that a rule is to say."""

    def shortage(self, num_members: int) -> str:
        return ""

    def promise(self, num_members: int) -> str:
        return "nothing"


@dataclass(frozen=True)
class Summed(Whole):
    """Reduces, and says that a mean is all."""

    linear: ClassVar[bool] = True


def test_a_rule_that_would_never_be_asked_is_named_before_the_start() -> None:
    """At an inner hub that hands up its members' sum nobody reduces, and without a promise nobody does anywhere."""
    assert said(strategy=Whole()) == ""
    half, summed = said(strategy=Half()), said(strategy=Summed())
    assert half.startswith(
        "federation.members.us.strategy: Half has reduce, and no shortage(num_members) and no promise"
    )
    assert "Summed has reduce, and linear says that a mean is all" in summed
    assert "write into Summed linear: ClassVar[bool] = False" in summed


class Undecorated(FedAvg):
    """Has a field for its author, and none for a configuration."""

    linear: ClassVar[bool] = True
    decay: float = 0.5


class Plainer(FedAvg):
    """Declares no key, and so needs no decorator of its own."""

    linear: ClassVar[bool] = True
    _note: str = "its own business"


def test_a_class_that_forgot_its_decorator_is_told_so() -> None:
    found = said(strategy={"kind": f"{__name__}:Undecorated", "decay": 0.9})
    assert "Undecorated declares decay and is no dataclass of its own, so that the YAML could not set it" in found
    assert found.endswith("write @dataclass(frozen=True) above it")
    assert said(strategy={"kind": f"{__name__}:Plainer", "weights": "uniform"}) == ""


def test_what_is_wrong_further_down_is_told_beside_a_policy_that_is_wrong() -> None:
    GIVES.update(plan=None, choose=None)
    below = hub("ny", "x", topology=Drawn())
    config = {
        "task": {"kind": "synthetic"},
        "federation": hub("world", below, participation=Policy()),
    }
    with pytest.raises(ConfigError) as caught:
        from_mapping(config)
    places = {problem.path for problem in caught.value.problems}
    assert places == {"federation.participation", "federation.members.ny.topology"}


def test_hierfl_s_own_policies_are_not_asked_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep their folder's laws; a draw for each of a million members would take seconds."""
    monkeypatch.setattr(All, "choose", lambda *_: SimpleNamespace())
    assert said(participation="all") == ""


@dataclass(frozen=True)
class Order(Fifo):
    """An order as jobs were asked for."""

    def priority(self, job: Any, num_eligible: int) -> Any:
        return given("priority", self, job, num_eligible)


@dataclass(frozen=True)
class Coded(TopK):
    """A tenth of the elements."""

    fraction: float = 0.1

    def compress(self, change: Any, random: Any) -> Any:
        return given("compress", self, change, random)

    def restore(self, code: Any, size: int, dtype: Any) -> Any:
        return given("restore", self, code, size, dtype)

    def num_bytes(self, size: int, item_bytes: int) -> Any:
        return given("num_bytes", self, size, item_bytes)


@dataclass(frozen=True)
class Silent:
    """A compression but for what it is to say of what it leaves out."""

    compress, restore, num_bytes = TopK.compress, TopK.restore, TopK.num_bytes


@dataclass(frozen=True)
class Flipped(SignFlip):
    """The opposite of what it learned."""

    def change(self, own: Any, honest: Any, num_bad: int) -> Any:
        return given("change", self, own, honest, num_bad)


@dataclass(frozen=True)
class Unflagged:
    """An attack but for what its class is to say."""

    def poison(self, data: Any) -> Any:
        return data

    def change(self, own: Any, honest: Any, num_bad: int) -> Any:
        return own


OTHERS = [
    ("priority", lambda self, job, num: (-job.estimate_s,), "its priority() failed: TypeError: bad operand type"),
    ("priority", [1.0], "its priority() gave [1.0]; needed: a tuple of numbers, none of them NaN; the job was hub/a"),
    ("compress", None, "its compress() gave nothing; needed: a dict of NumPy arrays by name"),
    ("restore", lambda self, code, size, dtype: (code["values"], None), "values, as many as the change has, or their"),
    ("num_bytes", 1, "its num_bytes() gave 1 for 1 elements, and its compress() made 8; needed: as many as there are"),
    ("num_bytes", 1.5, "its num_bytes() gave a float; needed: a whole number of bytes"),
    ("change", lambda self, own, honest, num: own.astype("f8"), "its change() gave an array of shape [4] and float64"),
]


@pytest.mark.parametrize(("method", "gives", "why"), OTHERS)
def test_an_order_a_compression_or_an_attack_that_is_none_is_named_before_the_start(
    method: str, gives: Any, why: str
) -> None:
    assert everywhere() == ""
    GIVES[method] = gives
    found = everywhere()
    kind, place = PLACES[{"priority": "Order", "change": "Flipped"}.get(method, "Coded")]
    assert why in found and found.startswith(f"{place}: {__name__}:{kind.__name__}: "), found


PLACES = {
    "Order": (Order, "runtime.policy"),
    "Coded": (Coded, "federation.compression"),
    "Flipped": (Flipped, "federation.members.a.attack"),
}


def everywhere(compression: str = "Coded", attack: str = "Flipped") -> str:
    """What is said of a run with kinds of one's own wherever there may be one."""
    own = {"kind": f"{__name__}:{attack}"}
    config = {
        "task": {"kind": "synthetic"},
        "federation": hub("world", {"name": "a", "attack": own}, "b", compression=f"{__name__}:{compression}"),
        "runtime": {"kind": "local", "policy": f"{__name__}:Order"},
    }
    try:
        from_mapping(config)
    except ConfigError as error:
        return "\n".join(str(problem) for problem in error.problems)
    return ""


def test_what_a_class_is_to_say_of_itself_is_asked_for() -> None:
    assert "Unflagged is no attack: it has no knows_honest" in everywhere(attack="Unflagged")
    assert "it does not say whether what it leaves out is added to the next change; write error" in everywhere("Silent")
