"""A site's own training: which samples each step sees, and what becomes of their gradient."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from hierfl.config.schema import Evaluation, Training
from hierfl.errors import DataError, SiteFailed
from hierfl.learning.contract import checked_prediction
from hierfl.learning.flat import FlatModel
from hierfl.learning.measuring import measure
from hierfl.learning.task import Prediction
from hierfl.learning.training import train


class Squares:
    """A task that is its loss, and remembers which samples it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        self.batches.append(batch[2].tolist())
        return (module(batch[0]).squeeze(1) - batch[1]).square().mean()


def site(n: int = 12) -> TensorDataset:
    drawn = torch.Generator().manual_seed(3)
    return TensorDataset(torch.randn(n, 3, generator=drawn), torch.randn(n, generator=drawn), torch.arange(n))


def model() -> FlatModel:
    torch.manual_seed(1)
    return FlatModel(nn.Linear(3, 1))


def test_an_epoch_sees_every_sample_once_in_an_order_of_its_own() -> None:
    task = Squares()
    settings = Training(batch_size=5, local_epochs=2)
    assert train(model(), task, site(), settings, 7).num_steps == 6  # type: ignore[arg-type]
    assert [len(batch) for batch in task.batches] == [5, 5, 2, 5, 5, 2]
    first, second = (list(chain(*task.batches[i : i + 3])) for i in (0, 3))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second != list(range(12))


def test_steps_go_on_over_the_samples_and_all_of_them_are_one_batch_where_no_size_is_given() -> None:
    task = Squares()
    train(model(), task, site(), Training(batch_size=5, local_steps=5), 7)  # type: ignore[arg-type]
    assert [len(batch) for batch in task.batches] == [5, 5, 2, 5, 5]
    task = Squares()
    train(model(), task, site(), Training(batch_size=None, local_epochs=3), 7)  # type: ignore[arg-type]
    assert [len(batch) for batch in task.batches] == [12, 12, 12]


@pytest.mark.parametrize("clip_norm", [0.05, None])
def test_gradients_are_clipped_to_their_norm(clip_norm: float | None) -> None:
    bound, plain = model(), model()
    optimizer = torch.optim.SGD(plain.module.parameters(), lr=0.5)
    for _ in range(4):
        optimizer.zero_grad()
        Squares().loss(plain.module, site().tensors).backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(plain.module.parameters(), clip_norm or float("inf"))
        assert norm > 0.05, "there is something to clip"
        optimizer.step()
    settings = Training(optimizer="sgd", lr=0.5, batch_size=None, local_steps=4, clip_norm=clip_norm)
    train(bound, Squares(), site(), settings, 0)  # type: ignore[arg-type]
    assert bound.read().floats.tobytes() == plain.read().floats.tobytes()


class Known:
    """A task some of whose labels are known, those that are no NaN; `own`: it tells no classes, but a metric."""

    def __init__(self, *, own: bool) -> None:
        self.own = own

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        scores, labels = self._known(module, batch)
        return nn.functional.binary_cross_entropy(scores, labels)

    def predict(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Prediction:
        scores, labels = self._known(module, batch)
        return Prediction(own={"distance": (scores - labels).abs()}) if self.own else Prediction(scores, labels)

    def _known(self, module: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        is_known = ~batch[1].isnan()
        return torch.sigmoid(module(batch[0]).squeeze(1)[is_known]), batch[1][is_known]


@pytest.mark.parametrize("own", [False, True])
def test_a_batch_without_predictions_adds_no_loss(own: bool) -> None:
    features, unknown = site().tensors[0], [float("nan")] * 4
    part = TensorDataset(features, torch.tensor([0.0, 1, 0, 1, *unknown, 1, 0, 1, 0]))
    module = nn.Linear(3, 1)
    found = [
        measure(module, Known(own=own), part, Evaluation(batch_size=size), torch.device("cpu")).scalars()
        for size in (12, 4)
    ]
    for told in found:
        assert told["num_test"] == 8 and "num_left_out" not in told
        assert told["loss"] == pytest.approx(found[0]["loss"])
    nothing = TensorDataset(features[:4], torch.tensor(unknown))
    assert not measure(module, Known(own=own), nothing, Evaluation(), torch.device("cpu")).num_samples


class Greedy:
    """A task that changes its batch in place, in its loss and its predictions, where `changes`."""

    def __init__(self, *, changes: bool = True) -> None:
        self.changes = changes

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return (module(self._quarter(batch[0])).squeeze(1) - batch[1]).square().mean()

    def predict(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Prediction:
        return Prediction(own={"error": (module(self._quarter(batch[0])).squeeze(1) - batch[1]).abs()})

    def _quarter(self, x: Tensor) -> Tensor:
        return x.div_(4.0) if self.changes else x / 4.0


class Pairs(Dataset):
    """Samples that are handed out as they lie in the data set."""

    def __init__(self, tensors: tuple[Tensor, ...]) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)


@pytest.mark.parametrize("of", [TensorDataset, Pairs])
@pytest.mark.parametrize("batch_size", [None, 5])
def test_what_a_task_does_to_a_batch_is_done_to_no_record(of: type, batch_size: int | None) -> None:
    data, found = site(), {}
    given = data if of is TensorDataset else Pairs(data.tensors)
    before = [tensor.clone() for tensor in data.tensors]
    for changes in (False, True):
        bound, told = model(), []
        for _ in range(3):
            train(bound, Greedy(changes=changes), given, Training(batch_size=batch_size), 7)  # type: ignore[arg-type]
            tally = measure(bound.module, Greedy(changes=changes), given, Evaluation(batch_size=5), bound.device)  # type: ignore[arg-type]
            told.append(tally.scalars())
        found[changes] = bound.read().floats.tobytes(), told
    assert found[True] == found[False]
    assert all(torch.equal(tensor, kept) for tensor, kept in zip(data.tensors, before, strict=True))


class Mixed:
    """A task whose predictions of batches are as they are told, one after another."""

    def __init__(self, *given: Prediction) -> None:
        self.given = iter(given)

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        return module(batch[0]).mean()

    def predict(self, module: nn.Module, batch: tuple[Tensor, ...]) -> Prediction:
        return next(self.given)


HALVES, ZEROS = torch.full((6,), 0.5), torch.zeros(6)
CLASSES = Prediction(HALVES, ZEROS)


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (CLASSES, Prediction(own={"mae": ZEROS}), r"\[scores of shape \(n\), labels\], and for a later one \[mae\]"),
        (Prediction(own={"mae": ZEROS}), Prediction(HALVES, ZEROS, {"mae": ZEROS}), r"\[mae\].*labels, mae\]"),
        (Prediction(own={"mae": ZEROS}), Prediction(own={"mae": ZEROS, "rmse": ZEROS}), r"\[mae\].*\[mae, rmse\]"),
        (CLASSES, Prediction(HALVES[:, None].expand(6, 3), ZEROS), r"\(n\), labels\].*\[scores of shape \(n, 3\)"),
    ],
)
def test_batches_whose_predictions_are_unlike_are_named(first: Prediction, second: Prediction, says: str) -> None:
    with pytest.raises(SiteFailed, match=rf"^the task's predict\(\) gave for one test batch .*{says}"):
        measure(nn.Linear(3, 1), Mixed(first, second), site(), Evaluation(batch_size=6), torch.device("cpu"))  # type: ignore[arg-type]
    alike = measure(nn.Linear(3, 1), Mixed(first, first), site(), Evaluation(batch_size=6), torch.device("cpu"))  # type: ignore[arg-type]
    assert alike.num_samples == 12


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ((torch.zeros(5, 3), torch.zeros(())), r"unlike in part 0: shape \[7, 3\] and shape \[5, 3\]"),
        ((torch.zeros(7, 3), torch.zeros(2)), r"unlike in part 1: shape \[\] and shape \[2\]"),
        ((torch.zeros(7, 3),), r"unlike: length 2 and length 1"),
    ],
)
def test_samples_of_unlike_shapes_are_named(other: tuple[Tensor, ...], says: str) -> None:
    ragged: Any = [(torch.zeros(7, 3), torch.zeros(()))] * 4 + [other]
    with pytest.raises(DataError, match=rf"^samples 0 and 4 of the data set are {says}; .*pad them in the data set"):
        train(model(), Squares(), ragged, Training(batch_size=None), 7)  # type: ignore[arg-type]


def test_several_labels_of_a_sample_may_be_flattened() -> None:
    scores, labels = torch.full((6, 3), 0.5), torch.zeros(6, 3)
    checked_prediction(Prediction(scores.flatten(), labels.flatten()))
    checked_prediction(Prediction(scores[:, :1], labels[:, :1]))
