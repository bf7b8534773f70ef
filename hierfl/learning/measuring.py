"""Measuring a model at one site: predictions batch by batch, counted in parts, so that memory does not grow with them.

A site may have millions of predictions, as every voxel of its volumes. They are counted whenever a quarter of a million
is at hand, and the counts, which are integers, add (`metrics.Tally`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module
from torch.utils.data import Dataset, TensorDataset

from hierfl.config.schema import Evaluation
from hierfl.errors import DataError
from hierfl.learning.batches import Feed, in_order, moved
from hierfl.learning.clusters import Spread
from hierfl.learning.contract import checked_loss, checked_prediction, form_of
from hierfl.learning.labels import known_of, tally_of_labels
from hierfl.learning.metrics import Tally
from hierfl.learning.task import Prediction, Task

__all__ = ["measure"]

MOST_AT_ONCE = 1024
"""Samples of a batch at most, where the configuration says nothing."""

MOST_NUMBERS = 1 << 22
"""Numbers in a batch at most, likewise: a thousand tables' rows, some thirty pictures of 224 x 224 x 3, or one scan."""

MANY, PARTS = 1 << 18, 16
"""Predictions that are counted at once, and counts that are added at once."""


def measure(
    module: Module,
    task: Task,
    dataset: Dataset[Any],
    evaluation: Evaluation,
    device: torch.device,
    workers: int = 0,
    owners: NDArray[np.int64] | None = None,
) -> Tally:
    """Measure the module on a dataset, in its order; the empty dataset gives the empty tally. `workers`: processes that
    take samples; `owners`: whose each sample is, (n,), numbered from 0, where it is counted how predictions are spread.

    A sample may have any number of predictions (the voxels of a volume, the labels that are known): they are what is
    counted, and each batch's mean loss weighs as many as it has. Metrics of the task's own are means over these, or
    over the samples.

    Errors: DataError for scores or labels that are no classes'; SiteFailed as for `train`, and for predictions of one
    batch that are unlike another's.
    """
    num_samples = len(dataset)  # type: ignore[arg-type]
    if num_samples == 0:
        return Tally()
    module.eval()
    found, form, at = _Counted(evaluation), "", 0
    if owners is not None:
        found.spread = Spread(int(owners.max()) + 1)
    orders = in_order(num_samples, evaluation.batch_size or _at_once(dataset))
    with torch.no_grad():  # what a module keeps of this may be trained with afterwards
        for batch, size in Feed(task, device, workers).batches(dataset, orders):
            loss = float(checked_loss(task, module, moved(batch, device, copy=True), size))
            prediction = checked_prediction(task.predict(module, batch), size)
            form = form_of(prediction, form)
            found.add(prediction, loss, None if owners is None else owners[at : at + size])
            at += size
    return found.total()


def _at_once(dataset: Dataset[Any]) -> int:
    """Say how many samples are measured at once, by the numbers in the first one."""
    first = [one[0] for one in dataset.tensors] if isinstance(dataset, TensorDataset) else dataset[0]
    return max(1, min(MOST_AT_ONCE, MOST_NUMBERS // max(1, _numbers(first))))


def _numbers(sample: Any) -> int:
    """Count the numbers of a sample."""
    if isinstance(sample, Mapping):
        return sum(map(_numbers, sample.values()))
    if isinstance(sample, list | tuple):
        return sum(map(_numbers, sample))
    if isinstance(sample, Tensor):
        return sample.numel()
    size = getattr(sample, "size", 1)  # an array's is a number, a picture's (width, height)
    return prod(size) if isinstance(size, tuple) else int(size) if isinstance(size, int) else 1


@dataclass
class _Counted:
    """What has been predicted so far: parts that are counted, and what waits for that, float64 and on the CPU."""

    evaluation: Evaluation
    parts: list[Tally] = field(default_factory=list)
    waiting: list[Prediction] = field(default_factory=list)
    owners: list[NDArray[np.int64]] = field(default_factory=list)
    spread: Spread | None = None
    loss_sum: float = 0.0
    num: int = 0

    def add(self, prediction: Prediction, loss: float, owners: NDArray[np.int64] | None) -> None:
        """Take a batch's predictions, and its mean loss; over nothing that may be NaN. `owners`: whose each sample is.

        Errors: DataError.
        """
        size = _size(prediction)
        self.loss_sum += loss * size if size else 0.0
        whose = None if owners is None else _owners(prediction, owners)
        if whose is None:  # then it is not known of all
            self.spread = None
        for part, place in _parts(prediction, size):
            num = _size(part)
            if num and self.num >= MANY:  # samples of which nothing is predicted go with those before them
                self._count()
            self.waiting.append(part)
            if whose is not None:
                self.owners.append(whose[place])
            self.num += num

    def total(self) -> Tally:
        """Give the whole tally. Where anything is not finite, nothing of the site counts. Errors: DataError."""
        if self.waiting:
            self._count()
        found = self._added()
        if self.spread is None or found.confusion is None or found.num_left_out:
            return found
        return replace(found, clusters=self.spread.clusters())

    def _added(self) -> Tally:
        """Add the parts up."""
        if len(self.parts) == 1:
            return self.parts[0]
        if all(part.num_left_out == 0 for part in self.parts):
            return Tally.total(self.parts)
        size, bad = (sum(getattr(part, name) for part in self.parts) for name in ("num_samples", "num_not_finite"))
        labels = next((part.labels for part in self.parts if part.labels), ())
        is_told = labels or all(part.confusion is None for part in self.parts)
        names = next((part.own for part in self.parts if part.own), {}) if is_told else {}
        return Tally(size, bad, size, own=dict.fromkeys(names, 0), labels=labels)

    def _count(self) -> None:
        """Count what waits. Errors: DataError."""
        if len(self.parts) == PARTS:
            self.parts = [self._added()]
        given, self.waiting, self.num = self.waiting, [], 0
        owners, self.owners = self.owners, []
        loss_sum, self.loss_sum = self.loss_sum, 0.0
        own = {name: torch.cat([one.own[name] for one in given]).numpy() for name in given[0].own}
        scores = [one.scores for one in given if one.scores is not None]
        labels = [one.labels for one in given if one.labels is not None]
        try:
            if not scores or not labels:
                self.parts.append(Tally.measured(own, loss_sum=loss_sum))
                return
            settings: dict[str, Any] = {"auc": self.evaluation.auc, "bins": self.evaluation.bins, "own": own}
            found, truth = torch.cat(scores).numpy(), torch.cat(labels).numpy()
            if given[0].names:
                self.parts.append(tally_of_labels(found, truth, given[0].names, loss_sum=loss_sum, **settings))
            else:
                self.parts.append(Tally.of(found, truth, loss_sum=loss_sum, **settings))
            if self.spread is not None and not self.parts[-1].num_left_out:
                self._spread(np.concatenate(owners), found, truth, has_labels=bool(given[0].names))
        except (ValueError, RuntimeError) as error:
            raise DataError(f"the task's predictions cannot be measured: {error}") from error

    def _spread(
        self, owners: NDArray[np.int64], scores: NDArray[Any], labels: NDArray[Any], *, has_labels: bool
    ) -> None:
        """Count how predictions, which have been counted, are spread over patients."""
        assert self.spread is not None
        if has_labels:
            self.spread.add_labels(owners, labels, known_of(labels), has_curves=self.evaluation.auc != "none")
        else:
            self.spread.add(owners, scores, labels)


def _owners(prediction: Prediction, owners: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Say whose each prediction of a batch is, of several labels each row; None where that cannot be told: predictions
    that are more, or fewer, than samples, and do not stand by these.
    """
    labels = prediction.labels
    if labels is None or (len(owners) > 1 and (not labels.dim() or len(labels) != len(owners))):
        return None
    return np.repeat(owners, (len(labels) if prediction.names else labels.numel()) // len(owners))


def _size(prediction: Prediction) -> int:
    """Count the predictions of a batch."""
    if prediction.scores is None or prediction.labels is None:
        return len(next(iter(prediction.own.values())))
    if prediction.names:
        return int(known_of(_plain(prediction.labels).numpy()).sum())
    return prediction.labels.numel()


def _parts(prediction: Prediction, size: int) -> Iterator[tuple[Prediction, slice]]:
    """Cut a batch's predictions into parts that are counted at once, as they are counted; each with its place."""
    rows, most, names = size, MANY, prediction.names
    if prediction.labels is not None and names:
        rows, most = len(prediction.labels), max(1, MANY // len(names))
    fits = prediction.scores is None or prediction.labels is None or len(prediction.scores) == rows
    for first in range(0, rows, most) if rows > most and fits else [None]:
        part = slice(None) if first is None else slice(first, first + most)
        labels = prediction.labels if prediction.labels is None or names else prediction.labels.reshape(-1)
        found = Prediction(
            None if prediction.scores is None else _plain(prediction.scores[part]),
            None if labels is None else _plain(labels[part]),
            {name: _plain(values[part]) for name, values in prediction.own.items()},
            names,
        )
        yield found, part


def _plain(values: Tensor) -> Tensor:
    """Widen floats, so that NumPy knows them, and bring what was predicted to the CPU."""
    values = values.detach()
    return (values.to(torch.float64) if values.is_floating_point() else values).cpu()
