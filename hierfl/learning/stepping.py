"""What a strategy gives, checked where it is given: one sentence that names it, and not a traceback from where a worker
or a checkpoint chokes on it.

A strategy is handed its model and its state to read, not to write: the hub still needs the model that its rounds began
from, and where several replicas serve it, they share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import HierflError, StrategyFailed
from hierfl.frames import spelt
from hierfl.kinds import name_of
from hierfl.learning.state import Layout
from hierfl.learning.strategy import Reducer, State, Strategy, Vector

__all__ = ["first_state", "reduced", "sent_down", "stepped"]


def first_state(hub: str, strategy: Strategy, model: Vector) -> State:
    """Let a strategy make its first state for a model (P,). Errors: StrategyFailed."""
    ask = _Asked(hub, strategy, "init")
    return ask.state(ask.call(_still(model)))


def sent_down(hub: str, strategy: Strategy, model: Vector, state: State, size: int) -> Vector:
    """Let a strategy make what goes down, `size` numbers: the model (P,) and its channels. Errors: StrategyFailed."""
    ask, like = _Asked(hub, strategy, "broadcast"), np.broadcast_to(model.dtype.type(0), size)
    return ask.vector("what goes down", ask.call(_still(model), _all_still(state)), like)


def reduced(
    hub: str, strategy: Reducer, deltas: Vector, weights: NDArray[np.float64], state: State, layout: Layout
) -> Vector:
    """Let a strategy make one change (P,) of the members' (n, P). Where a rule carries something over from round to
    round, buffers move by the members' median: half-way back to an old variance is no variance.

    Errors: StrategyFailed; UpdateRefused as the strategy raises it.
    """
    ask = _Asked(hub, strategy, "reduce")
    change = ask.vector("change", ask.call(deltas, weights, _all_still(state)), deltas[0])
    if layout.buffers and not getattr(strategy, "stays_among", True):
        mask = layout.buffers_mask
        change = change.copy()
        change[: mask.size][mask] = np.median(deltas[:, : mask.size][:, mask], axis=0)
    return change


def stepped(
    hub: str, strategy: Strategy, model: Vector, delta: Vector, state: State, layout: Layout, share: float = 1.0
) -> tuple[Vector, State]:
    """Let a strategy take its step: the next model (P,) and state.

    Of buffers, the running statistics of batch normalisation, the model has the members' mean under every strategy:
    momentum and the like are for what is trained, and would make a variance negative. Errors: StrategyFailed.
    """
    ask = _Asked(hub, strategy, "step")
    given = ask.call(_still(model), delta, _all_still(state), share)
    if not isinstance(given, tuple) or len(given) != 2:
        raise ask.failed(f"gave {_kind(given)}; needed: a tuple of two, the next model and state")
    after = ask.vector("model", given[0], model)
    if layout.buffers and not strategy.linear:
        after = np.where(layout.buffers_mask, model + delta[: model.size], after)
    if num_bad := 0 if strategy.linear else _num_bad(after):
        raise ask.failed(
            f"gave a model with NaN or Inf in {num_bad:,} of {after.size:,} parameters, of a change without; look at"
            " what it divides by, and at its keys"
        )
    return after, ask.state(given[1])


@dataclass(frozen=True)
class _Asked:
    """A method of a hub's strategy that is asked for something."""

    hub: str
    strategy: Any
    method: str

    def call(self, *arguments: Any) -> Any:
        """Call it. Errors: StrategyFailed with the traceback of what it raises; ours and memory that is short, as they
        are raised.
        """
        try:
            return getattr(self.strategy, self.method)(*arguments)
        except (HierflError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            where = "; it may not write into what it is given" if "read-only" in str(error) else ""
            raise self.failed(f"failed{where}: {spelt(error)}") from None

    def vector(self, what: str, given: Any, like: Vector) -> Vector:
        """Take a vector that must be as `like` is."""
        if not isinstance(given, np.ndarray) or given.shape != like.shape or given.dtype != like.dtype:
            way = " (.astype keeps it so)" if getattr(given, "shape", None) == like.shape else ""
            raise self.failed(f"gave {_kind(given)} as {what}; needed: {_kind(like)}, as it is given{way}")
        return given

    def state(self, given: Any) -> State:
        """Take a state: what a checkpoint can hold."""
        if not isinstance(given, Mapping):
            raise self.failed(f"gave {_kind(given)} as state; needed: a dict of NumPy arrays by name")
        for name, value in given.items():
            is_number = isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf"
            if not isinstance(name, str) or not is_number:
                raise self.failed(
                    f"gave {_kind(value)} as {name!r} of its state; needed: a NumPy array of numbers"
                    " (np.asarray(...)), for a checkpoint holds it"
                )
        return {name: np.asarray(value) for name, value in given.items()}

    def failed(self, said: str) -> StrategyFailed:
        """Say what is wrong, and whose it is."""
        at = f"{self.hub}: " if self.hub else ""
        return StrategyFailed(f"{at}the strategy {name_of(type(self.strategy))}: its {self.method}() {said}")


def _num_bad(vector: Vector) -> int:
    """Count NaN and Inf in a vector; where there are none that takes one pass, and no memory."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(vector.sum(dtype=np.float64)):
            return 0
    return int((~np.isfinite(vector)).sum())


def _still(vector: Vector) -> Vector:
    """Give a vector to read alone; no copy."""
    view = vector.view()
    view.flags.writeable = False
    return view


def _all_still(state: State) -> State:
    return {name: _still(np.asarray(value)) for name, value in state.items()}


def _kind(given: Any) -> str:
    """Name what was given, an array with its shape and type."""
    if isinstance(given, np.ndarray):
        return f"an array of shape {list(given.shape)} and {given.dtype}"
    if isinstance(given, tuple):
        return f"a tuple of {len(given)}"
    return "nothing" if given is None else f"a {type(given).__name__}"
