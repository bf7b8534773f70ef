"""An institution's own terms: what it takes part in, whatever a federation's YAML says. They stand in its kit.

The YAML is everybody's, and a site cannot be stricter there than its hub lets it be. Its terms are nobody else's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["SCORES", "Terms"]

SCORES = ("none", "histogram", "exact")
"""What may be told of the scores of test records, the least first; as `evaluation.auc` names them."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Bounds; None: any. `tasks`: kinds of task; `code`: digests of a task's code; `rounds`: of the root; `until`: the
    last day of work, ISO; `members`: in each sum that the hub sees of this node's updates; `epsilon`: what each site
    may pay for its records' privacy; `delta`: at which it is counted, None: below one over the number of these, or of
    patients; `unit`: what noise hides as a whole, None: a record or a patient; `min_count`: records that each number
    of `statistics` stands for, at least.
    """

    tasks: tuple[str, ...] | None = None
    code: tuple[str, ...] | None = None
    rounds: int | None = None
    until: str | None = None
    members: int | None = None
    epsilon: float | None = None
    delta: float | None = None
    unit: Literal["record", "patient"] | None = None
    min_count: int | None = None
    scores: Literal["none", "histogram", "exact"] | None = None
