"""Whose a site's records are: what privacy may protect as a whole, and what a figure's interval goes by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import SiteFailed
from hierfl.learning.task import KnowsPatients, offers

if TYPE_CHECKING:
    from torch.utils.data import Dataset

__all__ = ["PATIENT", "RECORD", "UNITS", "codes_of", "knows_patients", "places_by_patient", "spoken_units", "unit_of"]

RECORD, PATIENT = UNITS = ("record", "patient")
"""What a mechanism may protect as a whole."""


def unit_of(mechanism: object) -> str:
    """Say what a privacy mechanism protects as a whole; single records where it says nothing."""
    return str(getattr(mechanism, "unit", RECORD))


def spoken_units(mechanisms: Iterable[object]) -> str:
    """Name what any of these protect to a person: records, patients, or both; records where there are none."""
    units = {unit_of(mechanism) for mechanism in mechanisms} or {RECORD}
    return " or ".join(f"{unit}s" for unit in UNITS if unit in units)


def knows_patients(task: object) -> bool:
    """Say whether a task can tell whose its records are; a key `patients` of its YAML is no answer."""
    return offers(task, KnowsPatients)


def places_by_patient(task: Any, data: Dataset[Any]) -> list[NDArray[np.int64]]:
    """Give the places of each patient's records in a site's training data, rising, (k,) with k at least 1.

    Errors: as of `codes_of`.
    """
    codes = codes_of(task, data, "training")
    if not len(codes):
        return []
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(codes))[:-1])


def codes_of(task: Any, data: Dataset[Any], use: str) -> NDArray[np.int64]:
    """Number a site's patients from 0 on, and say whose each record of these data is, (n,). `use`: training or test.

    Errors: SiteFailed for what is no number or word for each record; whatever the task raises.
    """
    num_samples = len(data)  # type: ignore[arg-type]
    given: Any = task.patients(data)
    what = type(given).__name__
    try:
        owners = np.asarray(given.cpu() if hasattr(given, "cpu") else given)
        what += f" of {owners.dtype}, shape {owners.shape}"
        if owners.dtype == object and all(isinstance(one, str) for one in owners.flat):  # as pandas keeps words
            owners = owners.astype(str)
        known = owners.shape == (num_samples,) and (not num_samples or owners.dtype.kind in "biuUS")
        if (
            owners.dtype.kind in "US"
            and not hasattr(given, "dtype")
            and not all(isinstance(x, str | bytes) for x in given)
        ):
            known, what = False, f"{what}, words among others"  # NumPy makes the word nan of a gap
    except (TypeError, ValueError, RuntimeError):
        known = False
    if not known:
        raise SiteFailed(
            f"the task's patients() gave {what}; needed: for each of the {num_samples} {use} samples an integer or a"
            " word, the same for all of one patient"
        )
    return np.unique(owners, return_inverse=True)[1].astype(np.int64)
