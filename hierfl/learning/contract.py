"""What a task gives, checked where it is given: one sentence, and not a traceback from deep inside torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import OutOfMemoryError, Tensor
from torch.nn import Module
from torch.utils.data import IterableDataset, default_collate

from hierfl.errors import DataError, HierflError, SiteFailed
from hierfl.frames import spelt
from hierfl.learning.beside import made
from hierfl.learning.overlaps import has_values, overlapping
from hierfl.learning.own_metrics import LABEL_NAMES, MAX_OWN, MOST_LABELS, auc_of, is_own_name, other_name
from hierfl.learning.task import Prediction, SiteData, Task

if TYPE_CHECKING:
    from pyarrow import Table

__all__ = [
    "checked_batch",
    "checked_data",
    "checked_loss",
    "checked_model",
    "checked_prediction",
    "checked_table",
    "checked_weights",
    "form_of",
]


def checked_model(task: Task, *, is_base: bool = False) -> Module:
    """Let the task build its model; `is_base`: adapters train in its place, so that nothing of it need train.

    It is nobody else's: a copy where the task holds it (`beside`).

    Errors: SiteFailed for what is no module, has nothing to train, is not finite, or has tensors that overlap; with its
    traceback for what it raises; memory that is short as it is raised.
    """
    try:
        given: Any = made(task.model)
    except (HierflError, MemoryError, OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise SiteFailed(f"the task's model() failed: {spelt(error)}") from None
    if not isinstance(given, Module):
        raise SiteFailed(f"the task's model() gave {_kind(given)}; needed: a torch.nn.Module")
    if not is_base and not any(parameter.requires_grad for parameter in given.parameters()):
        raise SiteFailed("the task's model() gave a module without a parameter that trains (requires_grad)")
    for name, parameter in given.named_parameters():
        if has_values(parameter) and not parameter.isfinite().all():
            raise SiteFailed(
                f"the task's model() gave {name!r} with NaN or Inf in it: every site would begin from that"
            )
    _check_buffers(given)
    _check_memory(given)
    return given


def _check_buffers(module: Module) -> None:
    """Errors: SiteFailed for a buffer of the state that is not finite."""
    for name, buffer in module.state_dict(keep_vars=True).items():
        is_summed = isinstance(buffer, Tensor) and has_values(buffer) and buffer.is_floating_point()
        if is_summed and not buffer.isfinite().all():
            raise SiteFailed(
                f"the task's model() gave the buffer {name!r} with NaN or Inf in it, of which no site's update could be"
                f" added up; leave it out of the state, register_buffer({name.rpartition('.')[2]!r}, ...,"
                " persistent=False), or let it be finite (torch.finfo(torch.float32).min in place of -inf)"
            )


def _check_memory(module: Module) -> None:
    """Errors: SiteFailed for tensors that share memory, and are not one and the same."""
    parameters = dict(module.named_parameters())
    tensors = {**parameters, **dict(module.named_buffers())}
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    found = overlapping(floats, parameters.keys() | module.state_dict(keep_vars=True).keys())
    if found is None:
        return
    one, other = found
    both = f"the task's model() gave {one!r} and {other!r}, which share memory and are two tensors all the same"
    if one in parameters and other in parameters:
        raise SiteFailed(
            f"{both} (tied by .data, or views of one); they would be trained apart: tie the parameter itself,"
            f" {other} = {one}, or give each its own (.clone())"
        )
    raise SiteFailed(
        f"{both}; they would go apart: register one tensor under both names, or give each its own (.clone())"
    )


def checked_data(given: Any) -> SiteData:
    """Take what `Task.data` gave. Errors: DataError for anything but SiteData of two map-style datasets."""
    if not isinstance(given, SiteData):
        raise DataError(f"the task's data() gave {_kind(given)}; needed: SiteData(train=..., test=...)")
    for name in ("train", "test"):
        part = getattr(given, name)
        is_map = hasattr(part, "__len__") and hasattr(part, "__getitem__") and not isinstance(part, IterableDataset)
        if not is_map or isinstance(part, Tensor) or _are_columns(part):
            raise DataError(
                f"the task's data() gave {_kind(part)} as {name}; needed: a map-style Dataset, with len(data) and"
                " data[i], the samples (a TensorDataset(x, y), say)"
            )
    return given


def checked_weights(given: Any, num_samples: int) -> Tensor:
    """Take what a task's `sample_weights` gave. Errors: SiteFailed for anything but a weight for each sample, not
    below 0, some above.
    """
    try:
        weights = torch.as_tensor(given, dtype=torch.float64).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise SiteFailed(f"the task's sample_weights() gave {_kind(given)}; needed: a number for each sample") from None
    if weights.shape != (num_samples,):
        raise SiteFailed(f"the task's sample_weights() gave {_kind(weights)}; needed: shape [{num_samples}], one each")
    if not bool(weights.isfinite().all()) or float(weights.min()) < 0.0 or float(weights.sum()) <= 0.0:
        raise SiteFailed("the task's sample_weights() gave weights below 0, NaN or Inf, or none above 0")
    return weights


def checked_table(given: Any) -> Table:
    """Take what a task's `table` gave. Errors: DataError for anything but a pyarrow.Table."""
    import pyarrow as pa

    if not isinstance(given, pa.Table):
        raise DataError(
            f"the task's table() gave {_kind(given)}; needed: a pyarrow.Table (pyarrow.table(columns), say)"
        )
    return given


def checked_batch(chosen: Sequence[int], samples: Sequence[Any]) -> Any:
    """Collate samples of a data set, of these places. Errors: DataError for two of unlike shapes; else torch's."""
    try:
        return default_collate([*samples])
    except Exception as error:
        first = dict(_shapes(samples[0]))
        for place, sample in zip(chosen, samples, strict=True):
            other = dict(_shapes(sample))
            for where in [where for where in first | other if first.get(where) != other.get(where)][:1]:
                had, has = first.get(where, "not there"), other.get(where, "not there")
                raise DataError(
                    f"samples {chosen[0]} and {place} of the data set are unlike{where}: {had} and {has}; a batch needs"
                    " one shape: pad them in the data set, or in the task's collate(samples)"
                ) from error
        raise


def checked_loss(task: Task, module: Module, batch: Any, size: int) -> Tensor:
    """Let the task take the loss of a batch of `size` samples, with a gradient where the module is in training.

    Errors: SiteFailed for what is not a scalar tensor, and for batch normalisation over one sample, which has no
    variance; whatever the task raises.
    """
    try:
        loss: Any = task.loss(module, batch)
    except ValueError as error:
        if size == 1 and "more than 1 value per channel" in str(error):
            raise SiteFailed(
                "batch normalisation cannot train on a batch of one sample; choose a training.batch_size that leaves no"
                " single one over (null: all of the site's at once), or a model with GroupNorm or LayerNorm"
            ) from error
        raise
    if not isinstance(loss, Tensor) or loss.dim():
        raise SiteFailed(f"the task's loss() gave {_kind(loss)}; needed: a tensor without dimensions, the batch's mean")
    if module.training and not loss.requires_grad:
        raise SiteFailed("the task's loss() gave a tensor without a gradient (was it detached, or made of numbers?)")
    return loss


def checked_prediction(given: object, num_samples: int | None = None) -> Prediction:
    """Take what `Task.predict` gave of so many samples; there may be more predictions, or none.

    Errors: SiteFailed for anything but a Prediction of two tensors, or of its own.
    """
    if not isinstance(given, Prediction):
        raise SiteFailed(f"the task's predict() gave {_kind(given)}; needed: Prediction(scores=..., labels=...)")
    names: Any = given.names  # in whatever holds them: a list, an array, a table's columns
    if not isinstance(names, tuple):
        given = replace(given, names=() if names is None else tuple(names))
    is_classes = not given.own or given.scores is not None or given.labels is not None or given.names
    for name in ("scores", "labels") if is_classes else ():
        if not isinstance(getattr(given, name), Tensor):
            raise SiteFailed(f"the task's predict() gave {_kind(getattr(given, name))} as {name}; needed: a tensor")
    for name, values in given.own.items():
        if not is_own_name(name):
            raise SiteFailed(f"the task's predict() names a metric {name!r}; needed: {other_name(name)}")
        if not isinstance(values, Tensor) or values.dim() != 1:
            raise SiteFailed(f"the task's predict() gave {_kind(values)} as {name}; needed: a tensor of shape (n,)")
    _check_labels(given)
    sizes = {name: len(values) for name, values in given.own.items()}
    if given.names:
        sizes["labels"] = len(given.labels)  # type: ignore[arg-type]
    elif given.labels is not None and set(sizes.values()) != {num_samples}:
        sizes["labels"] = given.labels.numel()
    if len(set(sizes.values())) > 1:
        raise SiteFailed(f"the task's predict() gave unlike numbers of samples: {sizes}")
    if len(given.own) > MAX_OWN:
        raise SiteFailed(f"the task's predict() gave {len(given.own)} metrics of its own; at most {MAX_OWN}")
    return given


def _check_labels(given: Prediction) -> None:
    """Errors: SiteFailed for several labels of each sample without names, or with names that are not theirs."""
    scores, labels, names = given.scores, given.labels, given.names
    if scores is None or labels is None:
        return
    if not names:
        if labels.dim() == 2 and scores.shape == labels.shape and scores.shape[1] > 1:
            raise SiteFailed(
                f"the task's predict() gave scores and labels of shape {[*scores.shape]}, several of each sample; name"
                " these labels, Prediction(scores, labels, names=[...]), or give the one class of each, shape (n,)"
            )
        return
    if scores.dim() != 2 or scores.shape != labels.shape or scores.shape[1] != len(names):
        raise SiteFailed(
            f"the task's predict() names {len(names)} labels, and gave {_kind(scores)} as scores and {_kind(labels)} as"
            f" labels; needed: both of shape (n, {len(names)})"
        )
    if len(names) > MOST_LABELS:
        raise SiteFailed(f"the task's predict() names {len(names)} labels; at most {MOST_LABELS}")
    for place, name in enumerate(names):
        own = auc_of(name) if isinstance(name, str) else ""
        if not is_own_name(own) or own in given.own or name in names[:place]:
            raise SiteFailed(f"the task's predict() names a label {name!r}; needed: {LABEL_NAMES}")


def form_of(given: Prediction, first: str = "") -> str:
    """Say what a prediction is made of, `scores of shape (n, 3), labels, mae`. `first`: what the first one was.

    Errors: SiteFailed where it is another: batches are put together, and would count some samples and not others.
    """
    labels = f"labels {', '.join(given.names)}" if given.names else "labels"
    parts = [*([labels] if given.labels is not None else []), *sorted(given.own)]
    if given.scores is not None:
        parts.insert(0, f"scores of shape ({', '.join(['n', *map(str, given.scores.shape[1:])])})")
    found = ", ".join(parts)
    if first and found != first:
        raise SiteFailed(
            f"the task's predict() gave for one test batch [{first}], and for a later one [{found}]; needed: the same"
            " of every batch, with 0 values where there is nothing to tell"
        )
    return found


def _shapes(sample: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Give the shapes of what a sample is made of, and the lengths of its lists, by where they are."""
    if isinstance(sample, Tensor | np.ndarray):
        yield where, f"shape {[*sample.shape]}"
    elif isinstance(sample, Mapping):
        for key, value in sample.items():
            yield from _shapes(value, f"{where} in {key!r}")
    elif isinstance(sample, tuple | list):
        yield where, f"length {len(sample)}"
        for place, value in enumerate(sample):
            yield from _shapes(value, f"{where} in part {place}")


def _are_columns(part: Any) -> bool:
    """Say whether a part is (x, y), all features and all labels: its length would be 2, and no batch could be made."""
    if not isinstance(part, tuple | list) or not all(isinstance(column, Tensor | np.ndarray) for column in part):
        return False
    return len({tuple(column.shape) for column in part}) > 1


def _kind(given: Any) -> str:
    """Name what was given, a tensor with its shape."""
    if isinstance(given, Tensor):
        return f"a tensor of shape {list(given.shape)}"
    return "nothing" if given is None else f"a {type(given).__name__}"
