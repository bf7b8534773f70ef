"""The starter federation on tables: invented patients of four hospitals, with gaps as real tables have them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

__all__ = ["PATIENTS", "table"]

PATIENTS = {"aalborg": 180, "bergen": 150, "porto": 120, "seville": 90}
"""Patients by hospital."""

_WARDS = ("cardiology", "internal", "surgery", "oncology")
_OLDER = {"aalborg": 4.0, "seville": -6.0}


def table(site: str) -> str:
    """Write a hospital's patients as CSV, the same each time."""
    return "\n".join(["age,sex,ward,crp,creatinine,previous_stays,readmitted", *_rows(site)]) + "\n"


def _rows(site: str) -> Iterator[str]:
    draw = random.Random(f"patients of {site}")
    for _ in range(PATIENTS[site]):
        age = round(min(max(draw.gauss(64 + _OLDER.get(site, 0.0), 13), 18), 99))
        sex, ward = draw.choice("fm"), draw.choices(_WARDS, (3, 4, 3, 1))[0]
        crp, creatinine = draw.lognormvariate(2.5, 1.0), draw.gauss(0.95, 0.25) + 0.004 * (age - 60)
        stays = min(draw.getrandbits(2), draw.getrandbits(2))
        odds = 0.05 * (age - 66) + 0.02 * (crp - 18) + 2.0 * (creatinine - 1.0) + 0.9 * (stays - 1)
        is_back = draw.random() < 1 / (1 + math.exp(-odds - 0.5 * (ward == "cardiology")))
        yield ",".join(
            [
                *(str(age), sex, ward),
                "" if draw.random() < 0.12 else f"{crp:.1f}",
                "" if site == "seville" else f"{creatinine:.2f}",
                *(str(stays), str(int(is_back))),
            ]
        )
