"""What a task that comes along says that it measures is what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch.utils.data import default_collate

from hierfl.kinds import load, names
from hierfl.learning.metrics import Tally
from hierfl.learning.own_metrics import BUILT_IN

CLASSES: dict[str, Any] = {"images": 3, "tabular": 4}


@pytest.mark.parametrize("kind", names("task"))
def test_a_task_measures_what_it_names(kind: str, tmp_path: Path) -> None:
    source: dict[str, Any] = {}
    if kind == "parquet":
        table = {"age": np.arange(40.0), "sick": np.arange(40) % 3}
        pq.write_table(pa.table(table), source.setdefault("path", tmp_path / "a.parquet"))
        tasks = [load("task", kind)(features=["age"], label="sick", num_classes=3)]
    else:
        tasks = [load("task", kind)()]
        tasks += [load("task", kind)(num_classes=CLASSES[kind])] if kind in CLASSES else []
    for task in tasks:
        site = task.sites()[0] if hasattr(task, "sites") and task.sites() else "site-0"
        test = task.data(site, **source).test
        given = task.predict(task.model().eval(), default_collate([test[i] for i in range(min(8, len(test)))]))
        scores, labels = given.scores.detach().numpy(), given.labels.numpy()
        found = Tally.of(scores, labels, loss_sum=1.0).scalars().keys() & BUILT_IN.keys()
        own = {name: task.metrics()[name] for name in given.own}
        assert {**task.metrics(), "loss": "min"} == {name: BUILT_IN[name] for name in found} | own
