"""How batches are made: by the task's own rule, by weights, by processes that work ahead; bits hang on none of it."""

from __future__ import annotations

import random
from collections import Counter, UserDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import config_of, go, hub
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_sequence
from torch.utils.data import Dataset, Subset, TensorDataset

from hierfl.errors import ConfigError, SiteFailed
from hierfl.learning.batches import Feed, drawn, in_order, moved
from hierfl.learning.task import Prediction, SiteData

CPU = torch.device("cpu")
WORKERS = [0, 1, 3]


class Stays(Dataset[Any]):
    """Stays of unlike lengths; `noise`: every draw is another one."""

    def __init__(self, num: int = 13, noise: bool = False) -> None:
        self.num, self.noise = num, noise

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        days = torch.arange(1.0, 2 + index % 4) / (index + 1)
        if self.noise:
            days = days + torch.rand(1) + np.random.rand() + random.random()
        return days, float(index % 2)


@dataclass(frozen=True)
class Ragged:
    """Sequences, padded by the task."""

    noise: bool = False

    def model(self) -> nn.Module:
        return nn.GRU(1, 2, batch_first=True)

    def data(self, site: str) -> SiteData:
        return SiteData(Stays(noise=self.noise), Stays(7))

    def collate(self, samples: list[tuple[Tensor, float]]) -> dict[str, Tensor]:
        days, labels = zip(*samples, strict=True)
        return {"days": pad_sequence(list(days), batch_first=True), "back": torch.tensor(labels)}

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return binary_cross_entropy_with_logits(self.logits(model, batch), batch["back"])

    def predict(self, model: nn.Module, batch: Any) -> Prediction:
        return Prediction(self.logits(model, batch).sigmoid(), batch["back"].long())

    def logits(self, model: nn.Module, batch: Any) -> Tensor:
        logits: Tensor = model(batch["days"][:, :, None])[1][0].sum(1)
        return logits


@dataclass(frozen=True)
class Rare(Ragged):
    """Draws those who came back nine times as often."""

    wrong: Any = None

    def sample_weights(self, train: Dataset[Any]) -> Any:
        weights = [9.0 if index % 2 else 1.0 for index in range(len(train))]  # type: ignore[arg-type]
        return weights if self.wrong is None else self.wrong


class Plain:
    """A task without an own rule."""


def batches(task: Any, dataset: Dataset[Any], workers: int, seed: int = 3, steps: int = 5) -> list[tuple[Any, int]]:
    return list(Feed(task, CPU, workers, seed).batches(dataset, drawn(task, dataset, 4, steps, seed)))


@pytest.mark.parametrize("workers", WORKERS)
def test_a_task_may_make_batches_itself(workers: int) -> None:
    made = batches(Ragged(), Stays(), workers)
    assert [size for _, size in made] == [4, 4, 4, 1, 4]
    for batch, size in made:
        assert set(batch) == {"days", "back"} and batch["days"].shape[0] == len(batch["back"]) == size
    tensors = TensorDataset(torch.arange(4.0)[:, None], torch.tensor([0.0, 1.0, 0.0, 1.0]))
    [(batch, size)] = Feed(Ragged(), CPU, workers).batches(tensors, in_order(4, 4))
    assert size == 4 and batch["days"].tolist() == [[0.0], [1.0], [2.0], [3.0]]


def test_processes_take_the_samples_that_would_be_taken_here() -> None:
    dataset = Subset(TensorDataset(torch.arange(20.0), torch.arange(20)), list(range(3, 20)))
    for one, other in zip(batches(Plain(), dataset, 0), batches(Plain(), dataset, 2), strict=True):
        assert one[1] == other[1] and all(map(torch.equal, one[0], other[0]))


def test_what_samples_draw_is_the_same_for_any_number_of_processes_and_none_of_this_ones() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[union-attr, index]
    one, three, other = (batches(Ragged(), Stays(noise=True), n, seed) for n, seed in ((1, 3), (3, 3), (3, 4)))
    for (mine, _), (yours, _), (third, _) in zip(one, three, other, strict=True):
        assert torch.equal(mine["days"], yours["days"]) and not torch.equal(mine["days"][:1, :1], third["days"][:1, :1])
    assert torch.equal(before[0], torch.get_rng_state()) and before[2] == random.getstate()
    assert np.array_equal(before[1], np.random.get_state()[1])  # type: ignore[arg-type]


def test_weights_say_how_often_a_sample_is_drawn() -> None:
    counted: Counter[int] = Counter()
    for chosen in drawn(Rare(), Stays(10), None, 400, 0):  # type: ignore[arg-type]
        assert len(chosen) == 10, "a pass has as many samples as the data set"
        counted.update(int(index) % 2 for index in chosen)
    assert 0.88 < counted[1] / counted.total() < 0.92
    first, again = (list(drawn(Rare(), Stays(10), 4, 6, 5)) for _ in range(2))  # type: ignore[arg-type]
    assert [len(one) for one in first] == [4, 4, 2, 4, 4, 2] and all(map(torch.equal, first, again))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([1.0, 2.0], r"gave a tensor of shape \[2\]; needed: shape \[13\], one each"),
        ([-1.0] * 13, "below 0, NaN or Inf, or none above 0"),
        ([0.0] * 13, "none above 0"),
        ([float("nan")] * 13, "NaN or Inf"),
        (["much"] * 13, "gave a list; needed: a number for each sample"),
    ],
)
def test_weights_that_are_none_are_told(wrong: Any, said: str) -> None:
    with pytest.raises(SiteFailed, match=said):
        list(drawn(Rare(wrong=wrong), Stays(), 4, 1, 0))  # type: ignore[arg-type]


def test_privacy_draws_all_records_alike(tmp_path: Path) -> None:
    private = {"kind": "dp_sgd", "noise_multiplier": 1.0, "max_grad_norm": 1.0}
    with pytest.raises(ConfigError, match="the task has sample_weights: not both"):
        config_of(tmp_path, hub("world", "a", "b", privacy=private), {"kind": f"{__name__}:Rare"})


@pytest.mark.parametrize("kind", ["Ragged", "Rare"])
def test_a_whole_run_has_the_same_bits_with_processes_that_work_ahead(tmp_path: Path, kind: str) -> None:
    digests = set()
    for number, workers in enumerate([0, 2]):
        training = {"batch_size": 4, "lr": 0.1, "loader_workers": workers}
        ran = go(
            tmp_path / str(number), hub("world", "a", "b", rounds=2), {"kind": f"{__name__}:{kind}"}, training=training
        )
        digests.add(ran.digest)
        assert ran.summary["nodes"]["world"]["num_test"] == 14
    assert len(digests) == 1


META = torch.device("meta")
"""Stands for a GPU: what is there is not on the CPU."""


class Graph:
    """What moves itself, as graphs of other libraries do; `to` gives it back as it is where it is there already."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def to(self, device: torch.device) -> Graph:
        return self if self.x.device == device else Graph(self.x.to(device))


def test_tensors_in_mappings_of_any_class_and_in_what_moves_itself_are_moved() -> None:
    batch = UserDict(x=torch.ones(3), deep=[UserDict(y=torch.ones(2))], name="a")
    there = moved(batch, META)
    assert type(there) is UserDict and there["x"].device == META and there["deep"][0]["y"].device == META
    assert there["name"] == "a" and batch["x"].device == CPU, "the caller's own is left alone"
    assert moved({"g": Graph(torch.ones(3))}, META)["g"].x.device == META
    packed = moved(pack_sequence([torch.ones(3), torch.ones(2)]), META)
    assert isinstance(packed, PackedSequence) and packed.data.device == META and packed.batch_sizes.device == CPU


@pytest.mark.parametrize("make", [UserDict, dict], ids=["UserDict", "dict"])
def test_a_copy_shares_no_memory_whatever_holds_it(make: Any) -> None:
    batch = make(x=torch.ones(3), a=np.ones(3), g=Graph(torch.ones(3)), p=pack_sequence([torch.ones(2)]))
    copy = moved(batch, CPU, copy=True)
    assert type(copy) is type(batch)
    for one in (copy["x"], copy["a"], copy["g"].x, copy["p"].data):
        one *= 2
    assert all(float(one[0]) == 1.0 for one in (batch["x"], batch["a"], batch["g"].x, batch["p"].data))
    assert moved(batch, CPU)["x"] is batch["x"], "nothing is copied that need not be"
