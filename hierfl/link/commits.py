"""Commits of a hub without a centre over links: each member keeps the model, and what the hub's strategy keeps, in its
own folder; the run's folder says of these who has them, and their digests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hierfl import checkpoint, durable
from hierfl.checkpoint import Checkpoint
from hierfl.config.schema import RunConfig
from hierfl.errors import HierflError, LinkError, OutputError
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.calls import COMMIT, WRITE, model_shape, state_size
from hierfl.link.payload import Shape
from hierfl.link.remote import is_remote, thing_in, thing_out
from hierfl.runtime.driver import Done
from hierfl.runtime.specs import hub_layouts

__all__ = ["COMMITTED", "Commits", "restored"]

COMMITTED = (COMMIT, WRITE, "write_own")
"""What all members do, and the one that is asked counts for; what one keeps of its own goes with the next commit."""


@dataclass
class _Commit:
    """One under way. `others`: the tickets of members beside the one that was asked, and who they are."""

    ticket: int
    path: str
    method: str
    arguments: tuple[Any, ...]
    others: dict[int, str] = field(default_factory=dict)
    main: Done | None = None
    holders: list[str] = field(default_factory=list)


class Commits:
    """Asks all members of a hub for what one of them was asked, and answers for it once all have."""

    def __init__(
        self,
        new_ticket: Callable[[], int],
        ask: Callable[[int, str, str, tuple[Any, ...]], None],
        done: Callable[[Done], None],
        tell: Callable[[str, str, str], None],
    ) -> None:
        self._new_ticket = new_ticket
        self._ask = ask
        self._done = done
        self._tell = tell
        self._open: dict[int, _Commit] = {}
        self._own: dict[str, Any] = {}

    def begin(self, ticket: int, path: str, beside: Sequence[str], method: str, arguments: tuple[Any, ...]) -> None:
        """Take a call of `Place.commit`, `write_own` or `write_model` at a member's place."""
        if method == "write_own":
            self._own[path] = arguments[2]
            self._done(Done(ticket, path))
            return
        made = _Commit(ticket, path, method, arguments)
        for member in (path, *beside):
            own = ticket if member == path else self._new_ticket()
            self._open[own] = made
            if member != path:
                made.others[own] = member
        for member, own in [(path, ticket), *((member, own) for own, member in made.others.items())]:
            self._ask(own, member, method, _asked(method, arguments, self._own.get(member)))

    def heard(self, done: Done) -> list[Done]:
        """Take the end of a call: of a commit's only what it comes to in the end."""
        made = self._open.pop(done.ticket, None)
        if made is None:
            return [done]
        if done.ticket == made.ticket:
            made.main = done
        else:
            member = made.others.pop(done.ticket)
            why = done.crashed or (str(done.error) if done.error is not None else "")
            if why:
                self._tell("warning", member, f"has not kept what was committed: {why}")
            else:
                made.holders.append(member)
        if made.main is None or made.others:
            return []
        return [self._ended(made, made.main)]

    def _ended(self, made: _Commit, done: Done) -> Done:
        """Write what the run's folder says of it."""
        if done.crashed is not None or done.error is not None:
            return done
        holders = [made.path, *made.holders]
        if made.method == WRITE:
            _note(made.arguments[0], {"model_digest": done.value, "holders": holders})
            self._tell("info", made.path, f"has the final model, as {', '.join(holders[1:]) or 'nobody else'} has")
            return replace(done, value=None)
        run_dir, content, keep = made.arguments[:3]
        elsewhere = {"model_digest": done.value, "holders": holders, **_described(made.arguments, self._own)}
        self._own = {}
        try:
            return replace(done, value=_save(run_dir, content, keep, made.arguments, elsewhere))
        except HierflError as error:
            return Done(done.ticket, done.actor, error=error)


def _asked(method: str, arguments: tuple[Any, ...], own: Any) -> tuple[Any, ...]:
    """Give what a member is asked to keep: the model, states that lie with members, and its `own` model."""
    if method == WRITE:
        return (arguments[2],)
    _, content, keep, _, _, model, *kept = arguments
    states = [one for one in kept if is_remote(one)]
    return (content.rounds_done, keep, own is not None, model, *states, *([own] if own is not None else []))


def _save(run_dir: Path, content: Checkpoint, keep: int, arguments: tuple[Any, ...], elsewhere: dict[str, Any]) -> Path:
    """Write a checkpoint of what lies in this process, and of where the rest lies. Errors: OutputError."""
    keys, kept = arguments[4], arguments[6:]
    here = keys.joined([{} if is_remote(one) else one for one in kept])
    return checkpoint.save(run_dir, replace(content, elsewhere=elsewhere, **here), keep)


def restored(config: RunConfig, saved: Checkpoint | None) -> Checkpoint | None:
    """Give a checkpoint whose vectors lie with members so that a run goes on with them there. Errors: OutputError."""
    if saved is None or not saved.elsewhere:
        return saved
    from google.protobuf.json_format import ParseDict, ParseError

    root = config.federation.root.name
    own, below = hub_layouts(config, root, saved.layout)
    shape, size = model_shape(own), state_size(own, below)

    def held(said: Any, expected: Shape | int) -> Any:
        return thing_in(ParseDict(said, wire.Thing()), expected, "what a checkpoint has")

    said = saved.elsewhere
    try:
        states = {hub: held(one, size) for hub, one in said["states"].items()}
        members = {path: held(one, shape) for path, one in said["members"].items()}
        model = held(said["model"], shape)
    except (LinkError, ParseError, KeyError, AttributeError, TypeError) as error:
        raise OutputError(f"the checkpoint after round {saved.rounds_done} cannot be read: {error}") from error
    return replace(saved, model=model, states={**saved.states, **states}, members={**saved.members, **members})


def _note(model: Path, said: dict[str, Any]) -> None:
    """Say in the place of a run's model who has it. Errors: OutputError."""
    try:
        durable.put(model.with_suffix(".json"), json.dumps(said, indent=1) + "\n")
    except OSError as error:
        raise OutputError(f"{model.with_suffix('.json')} cannot be written: {error.strerror or error}") from error


def _described(arguments: tuple[Any, ...], own: Mapping[str, Any]) -> dict[str, Any]:
    """Describe what lies with members, in messages' words."""
    from google.protobuf.json_format import MessageToDict

    keys, model, kept = arguments[4], arguments[5], arguments[6:]
    states = {hub: MessageToDict(thing_out(one)) for hub, one in zip(keys.states, kept, strict=False) if is_remote(one)}
    members = {path: MessageToDict(thing_out(one)) for path, one in own.items() if is_remote(one)}
    return {"model": MessageToDict(thing_out(model)), "states": states, "members": members}
