"""What a site's data take: whoever wraps them, they count, and one memory counts once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, StackDataset, Subset, TensorDataset

from hierfl.config.schema import SiteSettings, Training
from hierfl.learning.task import SiteData
from hierfl.runtime import loading
from hierfl.runtime.footprint import UNKNOWN_BYTES, Held, footprint
from hierfl.runtime.loading import Loader

N = 10_000
BYTES = 4 * N * 3
NOTHING: Any = TensorDataset(torch.zeros(0))


@dataclass
class Own(Dataset):
    """A data set of one's own, which holds its records as it likes."""

    records: Any
    labels: Any = None
    random: Any = field(default_factory=lambda: torch.Generator())

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        return self.records[index]


def table() -> TensorDataset:
    return TensorDataset(torch.zeros(N, 3))


def counted(*parts: Any) -> int:
    return sum(footprint(SiteData(parts[0], parts[1] if parts[1:] else NOTHING)).values())


def stacked() -> StackDataset[Any]:
    return StackDataset(x=torch.zeros(N, 3), y=range(N))


@pytest.mark.parametrize(
    "given",
    [
        table,
        lambda: Subset(table(), range(5)),
        lambda: Subset(Subset(table(), range(5)), [1, 2]),
        lambda: ConcatDataset([TensorDataset(torch.zeros(N, 2)), TensorDataset(torch.zeros(N, 1))]),
        stacked,
        lambda: [torch.zeros(3) for _ in range(N)],
        lambda: [(row, 1) for row in torch.zeros(N, 3)],
        lambda: Own(np.zeros((N, 3), np.float32)),
        lambda: Own({"x": torch.zeros(N, 3)[5:]}, [None, 1]),
        lambda: Own(torch.zeros(N, 3), torch.zeros(0).numpy()),
        lambda: Own(pa.table({"x": np.zeros(3 * N, np.float32)})),
        lambda: Own(torch.zeros(N, 3).numpy()[1:]),
    ],
)
def test_records_count_wherever_they_lie(given: Any) -> None:
    assert BYTES <= counted(given()) <= BYTES + 100_000


def test_one_memory_counts_once_among_parts_and_among_sites() -> None:
    whole = table()
    parts = [footprint(SiteData(Subset(whole, range(start, start + 9)), NOTHING)) for start in range(0, 90, 9)]
    assert BYTES <= counted(Subset(whole, range(3)), Subset(whole, range(3, 9))) <= BYTES + 2000
    held = Held()
    for part in parts:
        held.add(part)
    assert BYTES <= held.num_bytes <= BYTES + 2000 * len(parts)
    for part in parts[:-1]:
        held.drop(part)
    assert held.num_bytes == sum(parts[-1].values())
    held.drop(parts[-1])
    assert held.num_bytes == 0


def test_what_lies_on_a_disk_takes_nothing_and_what_nobody_knows_takes_much(tmp_path: Any) -> None:
    np.zeros((N, 3)).tofile(tmp_path / "records")
    assert counted(Own(np.memmap(tmp_path / "records"))) < 1000
    assert counted(Own([str(number) for number in range(9)])) < 1000, "files that are read when they are wanted"
    assert counted(Own(iter(()))) >= UNKNOWN_BYTES
    assert counted(Own({number: [] for number in range(300_000)})) >= UNKNOWN_BYTES, "too many to look at"


def test_a_worker_keeps_as_many_sites_as_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrapped:
        standardise = "none"

        def data(self, site: str) -> SiteData:
            lazy = site.startswith("lazy")
            return SiteData(Own(iter(())) if lazy else Subset(table(), range(9)), NOTHING)

    def kept(name: str) -> int:
        sites = {f"w/{name}{number}": SiteSettings(Training(), f"{name}{number}") for number in range(14)}
        loader = Loader(Wrapped(), sites, 0)  # type: ignore[arg-type]
        for site in sites:
            loader.get(site)
        return sum(site in loader for site in sites)

    assert kept("lazy") == 7, "those of which nothing is known are few"
    assert kept("table") == 14
    monkeypatch.setattr(loading, "CACHE_BYTES", 5 * (BYTES + 2000))
    assert kept("table") == 5
