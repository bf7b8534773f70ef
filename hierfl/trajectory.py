"""The model's way through a federation in one round, before it runs: each hub's compute plan, step by step.

What is drawn is what the hub's machine will ask for in its first round if nobody is lost. Whom a policy draws and in
which order members take turns follows from their weights; where the task cannot count a site's samples, it counts one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from hierfl.config.membership import epochs
from hierfl.held import held
from hierfl.runtime.specs import knowing_hub, member_weights
from hierfl.tree import Node, describe
from tiers.federation import parent
from tiers.messages import Begin, Open
from tiers.plan import HUB, Gather, Partners, Plan, Step, Train
from tiers.round import HubRounds

if TYPE_CHECKING:
    from rich.text import Text

    from hierfl.config.schema import RunConfig

__all__ = ["Way", "draw_ways", "ways"]

NAMED = 8
"""Members that one line of a drawing names; the rest is counted."""
LINES = 24
"""Lines of one hub's plan that are drawn at most."""

_WHO = "/who/"
"""Stands for members in a line; no name holds a slash."""


@dataclass(frozen=True, slots=True)
class Way:
    """One hub's plan of its first round, and who does not take part, each for a reason."""

    topology: str
    plan: Plan
    skipped: Mapping[str, str]

    def record(self) -> dict[str, Any]:
        """Give the steps in order, ready for JSON; "." is the hub itself."""
        return {"topology": self.topology, "steps": list(map(_record, self.plan.steps)), "skipped": dict(self.skipped)}


def ways(config: RunConfig, nodes: Mapping[str, Node]) -> dict[str, Way]:
    """Plan the first round of every hub by its path, parents before children. `nodes`: the tree as it was surveyed.

    Who joins later is in none.
    """
    config = epochs(config)[0].config
    num_samples = _num_samples({path: node for path, node in nodes.items() if path in config.federation.nodes})
    found = {}
    for path, hub in config.federation.hubs.items():
        weights = member_weights(config, path, num_samples)
        machine = HubRounds(held(knowing_hub(config, path, num_samples), path), weights, path=path, seed=config.seed)
        opened = [command for command in machine.handle(Begin(0)) if isinstance(command, Open)]
        asked = {*machine.waiting, *machine.upcoming}
        members = tuple(name for name, weight in weights.items() if weight)
        own = {name: weights[name] for name in weights if name in asked}
        partners = Partners(path, 0, config.seed, own, members)
        plan = hub.topology.plan(partners) if asked else Plan(())
        found[path] = Way(describe(hub.topology), plan, opened[0].skipped if opened else {})
    return found


def _num_samples(nodes: Mapping[str, Node]) -> dict[str, int]:
    """Count the samples that are trained on by path, hubs rolled up."""
    counts = dict.fromkeys(nodes, 0)
    for path, node in reversed(list(nodes.items())):
        if not node.is_hub:
            counts[path] = 1 if node.num_train is None else node.num_train
        above = parent(path)
        if above is not None:
            counts[above] += counts[path]
    return counts


def draw_ways(found: Mapping[str, Way]) -> Text:
    """Draw every hub's steps, those that go on at the same time in one line."""
    from rich.text import Text

    drawing = Text()
    for path, way in found.items():
        drawing.append(f"{path}", style="bold cyan").append(f"  {way.topology}\n")
        lines = list(_lines(way.plan))
        for number, line in enumerate(lines[:LINES], start=1):
            drawing.append(f"  {number:>3}  {line}\n")
        if len(lines) > LINES:
            drawing.append(f"       {len(lines) - LINES} more steps\n", style="dim italic")
        if way.skipped:
            drawing.append(f"       {len(way.skipped)} not in it: {_few(list(way.skipped))}\n", style="dim italic")
    drawing.rstrip()
    return drawing


def _lines(plan: Plan) -> Iterator[str]:
    """Write the steps; what goes on at the same time, and reads alike, is one line."""
    for text, group in groupby(plan.steps, _text):
        steps = list(group)
        verb, _, rest = text.partition(" ")
        who = _few([step.member if isinstance(step, Train) else step.at for step in steps])
        yield f"{verb:<6} {rest}".replace(_WHO, who)


def _text(step: Step) -> str:
    """Write a step, without those who do it."""
    if isinstance(step, Train):
        return f"train {_WHO}, from " + ("the hub's model" if step.source == HUB else "its own model each")
    if isinstance(step, Gather):
        return f"gather the slices' sum, at {_WHO} each"
    if step.part is not None:
        return f"mix a slice each of {_few(step.of)}, at {_WHO}"
    if step.weights:
        shares = [f"{weight} {name}" for name, weight in zip(step.of, step.weights, strict=True)]
        return f"mix {_few(shares)}, at {step.at}"
    what = _few(step.of) if len(step.of) > 1 else f"{step.of[0]} alone"
    return f"mix {what}, at {'the hub' if step.at == HUB else step.at}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


def _record(step: Step) -> dict[str, Any]:
    if isinstance(step, Train):
        return {"train": step.member, "from": step.source}
    if isinstance(step, Gather):
        return {"gather": list(step.of), "at": step.at}
    part = {} if step.part is None else {"part": list(step.part)}
    weights = {"weights": list(map(str, step.weights)), "turn": step.turn} if step.weights else {}
    return {"mix": list(step.of), "at": step.at, **part, **weights}
