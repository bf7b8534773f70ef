"""Finds hubs whose strategy cannot be had there: too few members that train, or a strategy above that fills the whole
subtree; and compression below a strategy that sends as much again beside the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hierfl.config.membership import Roster
from hierfl.config.places import join
from hierfl.config.rehearse import fewest
from hierfl.config.rules import MOST_WEIGHT
from hierfl.config.section import Report
from hierfl.config.tree import Node
from hierfl.learning.compressions.none import Whole
from hierfl.learning.local import LocalRule, adds_up
from hierfl.learning.strategy import Reducer

__all__ = ["check_strategies"]

RULE = ("shortage", "promise")
"""What makes a strategy with `reduce` a `Reducer`, beside it."""


def check_strategies(root: Node, rosters: Mapping[int, Sequence[Roster]], seed: int, report: Report) -> None:
    """Report hubs whose strategy needs more members that train than they have, or than their rounds take, or stands
    below one that sends more than models. `rosters`: who trains at each hub; `seed`: the run's, for whom rounds ask.
    """
    if not _trains(root):
        report("federation", "has no site that trains: give at least one the role training")
        return
    stack: list[tuple[Node, Node | None, str]] = [(root, None, root.name)]
    compressed = _compressed(root)
    told: set[str] = set()
    while stack:
        node, above, path = stack.pop()
        strategy = node.own.strategy
        if node.members is None:
            if above is not None and _grows(above) and (place := compressed[id(node)]) and place not in told:
                told.add(place)
                kind = above.own.written["strategy"]["kind"]
                report(
                    place,
                    f"{kind} at {above.name!r} sends vectors beside the model that must arrive as they are;"
                    " leave compression out (compression: none), or take another strategy",
                )
            continue
        if said := _too_heavy(node):
            report(join(node.place, "members"), said)
        if strategy is not None and above is not None:
            said = (
                f"what sites do under the strategy of {above.name!r} goes for every site below; leave strategy out here"
            )
            report(join(node.place, "strategy"), said)
        if (
            above is not None
            and (said := _too_often(node, above))
            and (place := join(node.place, "rounds")) not in told
        ):
            told.add(place)
            report(place, said)
        if strategy is not None and (said := _unsaid(type(strategy))):
            report(join(node.place, "strategy"), said)
        if isinstance(strategy, Reducer):
            _check_numbers(node, path, rosters[id(node)], seed, report)
        if above is None and strategy is not None and _binds(strategy.objective()):
            above = node
        stack.extend((member, above, f"{path}/{member.name}") for member in reversed(node.members))


def _too_often(node: Node, above: Node) -> str:
    """Say that a hub has more rounds than the strategy above can step along; empty if it has not."""
    rounds = node.own.settings.get("rounds", 1)
    if rounds == 1 or not getattr(above.own.strategy, "one_round_below", False):
        return ""
    kind = above.own.written["strategy"]["kind"]
    return (
        f"is {rounds}, and {kind} at {above.name!r} steps along one round of the hubs below: of {rounds} both changes"
        f" and steps would add up, and move the model {rounds} times too far; leave it at 1 (more local_steps train"
        f" more), or take another strategy than {kind}"
    )


def _too_heavy(node: Node) -> str:
    """Say that the members' weights have no room in a round's sum; empty if they have."""
    policy = node.own.participation
    may_come_twice = policy is not None and policy.may_close_early
    most = MOST_WEIGHT // 2 if may_come_twice else MOST_WEIGHT
    if sum(member.own.settings.get("weight", 1.0) for member in node.members or ()) <= most:
        return ""
    why = ""
    if may_come_twice:
        kind = node.own.written["participation"]["kind"]
        why = f" (under participation {kind} a late update may be in the sum beside a new one)"
    return f"have weights that add up to more than {most:,}{why}: scale them down"


def _check_numbers(node: Node, path: str, rosters: Sequence[Roster], seed: int, report: Report) -> None:
    """Check that a rule has members enough, in each round and whenever they are others."""
    for roster in rosters:
        if not roster.names and len(rosters) > 1:  # nobody is asked here in these rounds
            continue
        if said := _shortage(node, path, roster.names, seed):
            report(join(node.place, "strategy"), f"{roster.when}{said}")
            return


def _shortage(node: Node, path: str, names: Sequence[str], seed: int) -> str:
    """Say that these are too few for what a hub's rule promises, or that a round of theirs may be; empty if not."""
    strategy, policy = node.own.strategy, node.own.participation
    short: str = strategy.shortage(len(names))
    if short or policy is None:
        return short
    num = fewest(policy, path, seed, names)
    if num == len(names) or not (short := strategy.shortage(num)):
        return ""
    kind = node.own.written["participation"]["kind"]
    twice = ", since one may be in with a late update and a new one" if policy.rolling else ""
    rounds = f"a round of participation {kind} may have as few as {num} of {len(names)} members{twice}"
    return f"{rounds}: {short}, or rounds of more members (participation: all has each)"


def _binds(rule: LocalRule) -> bool:
    """Say whether a hub's step needs what sites do by its strategy's rule: they send, or keep, parts of it."""
    return bool(rule.channels(1)) or adds_up(rule)


def _unsaid(cls: type) -> str:
    """Say of a strategy with a step of its own that it takes `linear` over: nobody would take the step at an inner hub
    that hands up its raw sum. Say what one that reduces lacks so that it is asked to. Empty where all is said.
    """
    if callable(getattr(cls, "reduce", None)):
        missing = [f"{name}(num_members)" for name in RULE if not callable(getattr(cls, name, None))]
        if missing:
            return (
                f"{cls.__name__} has reduce, and no {' and no '.join(missing)}: its members would be averaged, and"
                " it never asked; what these say is in hierfl/learning/strategy.py"
            )
        if getattr(cls, "linear", False):
            return (
                f"{cls.__name__} has reduce, and linear says that a mean is all: an inner hub would hand up its"
                f" members' sum, and never reduce; write into {cls.__name__} linear: ClassVar[bool] = False"
            )
    says, steps = (next((one for one in cls.__mro__ if name in vars(one)), cls) for name in ("linear", "step"))
    if says is steps or issubclass(says, steps) or not getattr(cls, "linear", False):
        return ""
    return (
        f"{steps.__name__} has a step of its own, and linear from {says.__name__}, which says that the step is model +"
        f" mean change; write into {steps.__name__} linear: ClassVar[bool] = False, or True if it is"
    )


def _grows(node: Node) -> bool:
    """Say whether what a hub's strategy sends beside the model is as large as the model."""
    objective: LocalRule = node.own.strategy.objective()
    return sum(objective.channels(2).values()) > sum(objective.channels(1).values())


def _compressed(root: Node) -> dict[int, str]:
    """Name the place whose compression holds at each node, by identity; empty where updates travel whole."""
    found: dict[int, str] = {}
    stack = [(root, "")]
    while stack:
        node, above = stack.pop()
        own = node.own.compression
        place = above if own is None else "" if isinstance(own, Whole) else join(node.place, "compression")
        found[id(node)] = place
        stack.extend((member, place) for member in node.members or ())
    return found


def _trains(root: Node) -> bool:
    """Say whether any site trains; of a hub that lists no members it is told already that it has none."""
    stack = [root]
    while stack:
        node = stack.pop()
        if node.members is None and node.own.settings.get("role", "training") == "training":
            return True
        if node.members is not None and not node.members:
            return True
        stack.extend(node.members or ())
    return False
