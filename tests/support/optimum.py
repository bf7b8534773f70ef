"""The exact optimum of small instances by integer programs (HiGHS through SciPy): what bounds and policies meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_matrix


@dataclass(frozen=True)
class Piece:
    """A job: its whole seconds on each device (None where it may not run), its memory, the group of its barrier."""

    durations: tuple[int | None, ...]
    memory: int = 0
    group: str = ""


def best_assignment(durations: Sequence[Sequence[float | None]], num_devices: int) -> float:
    """The shortest makespan on devices that run one job at a time: each job's seconds by device, None is forbidden."""
    pairs = [(j, d) for j, row in enumerate(durations) for d in range(num_devices) if row[d] is not None]
    num = len(pairs)
    once, load = lil_matrix((len(durations), num + 1)), lil_matrix((num_devices, num + 1))
    for column, (job, device) in enumerate(pairs):
        once[job, column] = 1
        load[device, column] = durations[job][device]
    load[:, num] = -1
    return _solve(num, [LinearConstraint(once.tocsr(), 1, 1), LinearConstraint(load.tocsr(), -np.inf, 0)])


def best_schedule(
    pieces: Sequence[Piece],
    places: Sequence[int],
    memory: Sequence[float],
    after: Mapping[str, Sequence[str]] | None = None,
) -> float:
    """The shortest makespan with several places per device, their memory, and groups that wait for others to end.

    Indexed by whole seconds: an optimum on integers is one of all schedules.
    """
    horizon = sum(min(d for d in piece.durations if d is not None) for piece in pieces)
    starts = [
        (j, device, start)
        for j, piece in enumerate(pieces)
        for device, duration in enumerate(piece.durations)
        if duration is not None
        for start in range(horizon - duration + 1)
    ]
    num = len(starts)
    rows: list[tuple[dict[int, float], float, float]] = []
    begins: list[dict[int, float]] = [{} for _ in pieces]
    ends: list[dict[int, float]] = [{} for _ in pieces]
    held: dict[tuple[int, int], dict[int, float]] = {}
    for column, (job, device, start) in enumerate(starts):
        duration = pieces[job].durations[device]
        assert duration is not None
        begins[job][column], ends[job][column] = start, start + duration
        for now in range(start, start + duration):
            held.setdefault((device, now), {})[column] = 1
    for job in range(len(pieces)):
        rows.append((dict.fromkeys(begins[job], 1.0), 1, 1))
        rows.append(({**ends[job], num: -1}, -np.inf, 0))
    for (device, _), columns in held.items():
        rows.append((columns, -np.inf, places[device]))
        if np.isfinite(memory[device]):
            rows.append(({c: pieces[starts[c][0]].memory for c in columns}, -np.inf, memory[device]))
    for job, piece in enumerate(pieces):
        for other, before in enumerate(pieces):
            if before.group in (after or {}).get(piece.group, ()):
                waits = {**{c: -float(t) for c, t in begins[job].items()}, **ends[other]}
                rows.append((waits, -np.inf, 0))
    matrix = lil_matrix((len(rows), num + 1))
    for number, (columns, _, _) in enumerate(rows):
        for column, value in columns.items():
            matrix[number, column] = value
    limits = LinearConstraint(matrix.tocsr(), [low for _, low, _ in rows], [high for _, _, high in rows])
    return _solve(num, [limits])


def _solve(num: int, constraints: list[LinearConstraint]) -> float:
    """Minimise the last variable; the others are 0 or 1."""
    found = milp(
        c=np.append(np.zeros(num), 1.0),
        integrality=np.append(np.ones(num), 0),
        bounds=Bounds(0, np.append(np.ones(num), np.inf)),
        constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )
    assert found.success, found.message
    return float(found.fun)
