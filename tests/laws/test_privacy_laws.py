"""What every privacy mechanism keeps: one record's bound, the noise that is asked for, and its price."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

from hierfl.config.schema import Training
from hierfl.errors import ConfigError, SiteFailed
from hierfl.kinds import load, names
from hierfl.learning.flat import FlatModel
from hierfl.learning.local import Pull
from hierfl.learning.noise import BLOCK, Stream
from hierfl.learning.per_record import UNITS, PerRecord
from hierfl.learning.privacy import Mechanism, Release
from hierfl.learning.training import Private, train

KINDS = names("privacy")
FIELDS: dict[str, dict[str, Any]] = {"dp_sgd": {"noise_multiplier": 1.5, "max_grad_norm": 0.5}}
each_kind = pytest.mark.parametrize("kind", KINDS)


def mechanism(kind: str, **fields: Any) -> Any:
    return load("privacy", kind)(**{**FIELDS.get(kind, {}), **fields})


@dataclass(frozen=True)
class Weighted:
    """A record's loss is weighted by its last column: with 0 it is as if the record were not there."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        each = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
        return (each * batch[2]).mean()


def network(*layers: nn.Module) -> FlatModel:
    torch.manual_seed(3)
    return FlatModel(nn.Sequential(nn.Linear(5, 8), *layers, nn.Tanh(), nn.Linear(8, 3)))


def records(n: int = 24, scale: float = 4.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = scale * torch.randn(n, 5, generator=generator)
    return x, torch.randint(0, 3, (n,), generator=generator), torch.ones(n)


def summed(model: FlatModel, data: Dataset[Any], bound: float, at_once: int | None = 5) -> Any:
    return PerRecord(model, Weighted(), data, bound, at_once).clipped_sum(torch.arange(len(data)))  # type: ignore[arg-type]


def gradient(model: FlatModel) -> Any:
    return torch.cat([one.grad.reshape(-1) for one in model.module.parameters() if one.grad is not None]).numpy()


def stepped(model: FlatModel, data: Dataset[Any], one: Any, key: bytes = b"key", **training: Any) -> Any:
    """The private gradients of a training, step by step."""
    settings = Training(**{"batch_size": 6, "local_steps": 3, **training})
    steps = one.gradients(model, Weighted(), data, settings, settings.num_steps(len(data)), Stream(key, b"test"))  # type: ignore[arg-type]
    return np.stack([gradient(model) for _ in steps])


def test_the_folder_is_not_empty() -> None:
    assert "dp_sgd" in KINDS


@each_kind
def test_a_mechanism_is_one_and_repeats_itself_with_its_key_alone(kind: str) -> None:
    one, data = mechanism(kind), TensorDataset(*records())
    assert isinstance(one, Mechanism)
    first = stepped(network(), data, one)
    assert np.array_equal(first, stepped(network(), data, one))
    assert not np.isclose(first, stepped(network(), data, one, b"other")).any()
    assert not np.isclose(first[0], first[1]).any()


@pytest.mark.parametrize(("bound", "at_once"), [(0.01, 1), (0.3, 5), (0.3, None), (2.0, 24), (1e6, 5)])
def test_no_record_does_more_than_the_bound(bound: float, at_once: int | None) -> None:
    model, (x, y, weights) = network(), records()
    each = [summed(model, TensorDataset(x[k : k + 1], y[k : k + 1], weights[:1]), bound, at_once) for k in range(24)]
    lengths = np.linalg.norm(each, axis=1)
    assert np.all(lengths <= UNITS) and np.all(each == np.rint(each))
    assert (lengths.max() > 0.999 * UNITS) == (bound < 1e6)


def test_a_gradient_is_cut_towards_zero_so_that_rounding_makes_none_longer() -> None:
    rows = torch.tensor([[0.3, -0.1, 1.8 / UNITS, -1.8 / UNITS], [3.0, -4.0, 1e-9, 0.0]])
    cut = PerRecord(network(), Weighted(), TensorDataset(*records()), 2.0)._on_grid(rows.double())
    exact = rows.double() * UNITS / torch.tensor([[2.0], [5.0]], dtype=torch.float64)
    assert (cut == cut.trunc()).all() and (cut.abs() <= exact.abs()).all()
    assert (exact.abs() - cut.abs()).max() < 2e-6 * UNITS and cut[0, 3] == cut[0, 2] == 0


@pytest.mark.parametrize("at_once", [None, 7])
def test_a_record_taken_out_changes_the_sum_by_its_own_clipped_gradient(at_once: int | None) -> None:
    """Neighbours by zero-out, exactly: nothing of the other records, or of rounding, is in the difference."""
    model, (x, y, weights) = network(), records()
    whole = summed(model, TensorDataset(x, y, weights), 0.3, at_once)
    for k in (0, 23):
        gone, alone = weights.clone(), torch.zeros(24)
        gone[k], alone[k] = 0.0, 1.0
        change = whole - summed(model, TensorDataset(x, y, gone), 0.3, at_once)
        assert 0 < np.linalg.norm(change) <= UNITS
        assert np.array_equal(change, summed(model, TensorDataset(x, y, alone), 0.3, at_once))


def test_gradients_at_once_are_those_of_one_after_another_and_unclipped_the_batch() -> None:
    model, data = network(nn.GroupNorm(2, 8)), TensorDataset(*records(scale=1.0))
    model.train_mode()
    loop, bound = summed(model, data, 100.0, None), 100.0
    assert np.allclose(summed(model, data, 100.0, 7), loop, atol=1e-6 * UNITS)
    Weighted().loss(model.module, data.tensors).backward()
    assert np.allclose(loop / UNITS * bound / 24, gradient(model), atol=1e-6)


def test_the_noise_is_as_wide_as_asked_and_comes_with_an_empty_batch_too() -> None:
    x, y, weights = records(100)
    model = FlatModel(nn.Linear(5, 200))
    one = mechanism("dp_sgd", noise_multiplier=1.5, max_grad_norm=0.5)
    data = TensorDataset(x, y, torch.zeros_like(weights))
    noise = stepped(model, data, one, batch_size=1, local_steps=20)  # e^-1 of them on no record
    wide = 1.5 * 0.5 / 1
    assert abs(noise.mean()) < 4 * wide / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(wide, rel=4 / np.sqrt(2 * noise.size))
    assert np.abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 4 / np.sqrt(noise.size)


def test_the_sum_is_divided_by_the_expected_batch() -> None:
    model, (x, y, weights) = network(), records()
    data, tiny = TensorDataset(x, y, weights), mechanism("dp_sgd", noise_multiplier=1e-6)
    whole = summed(model, data, 0.5) / UNITS * 0.5
    assert np.allclose(stepped(model, data, tiny, batch_size=None)[0], whole / 24, atol=1e-5)
    drawn = PerRecord(model, Weighted(), data, 0.5, 32).drawn(6 / 24, Stream(b"key", b"test"))
    assert len(drawn) not in (0, 6, 24)
    some = summed(model, TensorDataset(x[drawn], y[drawn], weights[drawn]), 0.5) / UNITS * 0.5
    assert np.allclose(stepped(model, data, tiny)[0], some / 6, atol=1e-5)


def test_records_are_drawn_each_by_itself() -> None:
    holder = PerRecord(network(), Weighted(), TensorDataset(*records(50)), 1.0)
    stream, counts, sizes = Stream(b"draws"), np.zeros(50), []
    for _ in range(2000):
        drawn = holder.drawn(0.1, stream).numpy()
        counts[drawn] += 1
        sizes.append(len(drawn))
    assert np.abs(counts / 2000 - 0.1).max() < 4.5 * np.sqrt(0.09 / 2000)
    assert np.var(sizes) == pytest.approx(50 * 0.09, rel=0.15), "binomial, not of one size"
    assert holder.drawn(1.0, stream).tolist() == list(range(50))


def test_a_gradient_that_is_not_finite_counts_nothing() -> None:
    model, (x, y, weights) = network(), records()
    gone = weights.clone()
    gone[4] = 0.0
    x[4] = float("nan")
    clean = x.clone()
    clean[4] = 0.0
    assert np.array_equal(
        summed(model, TensorDataset(x, y, weights), 0.3), summed(model, TensorDataset(clean, y, gone), 0.3)
    )


def test_what_pulls_a_site_is_added_after_the_noise_and_the_loss_is_not_told() -> None:
    model, data = network(), TensorDataset(*records())
    start = model.start()
    ends = []
    for pull in (None, model.pulling(Pull(shift=np.full(model.layout.num_floats, 7.0, np.float32)))):
        model.load(start)
        private = Private(mechanism("dp_sgd", max_grad_norm=1e-9), Stream(b"key"))
        result = train(model, Weighted(), data, Training(lr=1.0, local_steps=2), 0, pull=pull, private=private)  # type: ignore[arg-type]
        assert result.loss is None and result.num_steps == 2
        ends.append(model.read().floats.copy())
    assert np.allclose(ends[0] - ends[1], 14.0, atol=1e-5)


class Counting(nn.Module):
    """Counts in a buffer what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + x.detach().sum()
        return x


def test_layers_that_keep_something_of_the_records_are_refused_by_name() -> None:
    one = mechanism("dp_sgd")
    assert "'1', a BatchNorm1d" in one.misfit(network(nn.BatchNorm1d(8)).module)
    assert "InstanceNorm2d" in one.misfit(nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True)))
    assert not one.misfit(network(nn.GroupNorm(2, 8)).module) and not one.misfit(nn.InstanceNorm2d(3))
    for method, said in (("loop", r"its '1\.seen'"), ("vmap", "method: loop")):
        with pytest.raises(SiteFailed, match=said):
            stepped(network(Counting()), TensorDataset(*records()), mechanism("dp_sgd", method=method))
    whole = TensorDataset(*records())
    with pytest.raises(SiteFailed, match=r"its '1\.seen'"):
        stepped(network(Counting()), whole, mechanism("dp_sgd"), batch_size=None, local_steps=1)


class Writing(nn.Module):
    """Writes what it has seen into a parameter, that trains or that does not."""

    def __init__(self, trains: bool, replaces: bool) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(8), requires_grad=trains)
        self.replaces = replaces

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            seen = 0.5 * self.mean + x.detach().mean(dim=0)
            if self.replaces:
                self.mean = nn.Parameter(seen, requires_grad=self.mean.requires_grad)
            else:
                self.mean.data.copy_(seen)  # what autograd does not notice
        return x + 0.0 * self.mean


@pytest.mark.parametrize(
    ("method", "trains", "replaces"),
    [
        *(("loop", trains, replaces) for trains in (True, False) for replaces in (True, False)),
        *(
            ("vmap", True, False),
            ("vmap", False, False),
            ("vmap", False, True),
        ),  # one put in its place is gone after it
    ],
)
def test_a_model_that_writes_into_its_parameters_by_itself_is_refused(
    method: str, trains: bool, replaces: bool
) -> None:
    one = mechanism("dp_sgd", method=method)
    with pytest.raises(SiteFailed, match=r"its '1\.mean'|method: loop"):
        stepped(network(Writing(trains, replaces)), TensorDataset(*records()), one)


def test_embeddings_that_shorten_themselves_are_refused_by_name() -> None:
    one = mechanism("dp_sgd")
    assert "'0', Embedding(max_norm)" in one.misfit(nn.Sequential(nn.Embedding(4, 3, max_norm=1.0)))
    assert "EmbeddingBag(max_norm)" in one.misfit(nn.Sequential(nn.EmbeddingBag(4, 3, max_norm=1.0)))
    assert not one.misfit(nn.Sequential(nn.Embedding(4, 3)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("noise_multiplier", 0.0),
        ("noise_multiplier", float("nan")),
        ("noise_multiplier", 1e6),
        ("noise_multiplier", 1e-200),
        ("max_grad_norm", -1.0),
        ("delta", 0.0),
        ("delta", 1.0),
        ("epsilon", 0.0),
        ("method", "map"),
        ("at_once", 0),
    ],
)
def test_fields_that_mean_nothing_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        mechanism("dp_sgd", **{field: value})


@pytest.mark.parametrize("deviations", [5.0, 6.0, 7.0, 9.0])
def test_far_out_normal_numbers_lie_closer_together_than_the_sums_grid(deviations: float) -> None:
    whole, found = int(2**64 * np.exp(-(deviations**2) / 2.0)), []

    class Words(Stream):
        low = 0

        def _words(self, number: int) -> Any:
            return np.repeat(np.array([whole, self.low, 0], np.uint64), number // 3)

    for low in (0, 2 ** min(63, 18 + whole.bit_length())):  # some of the least of 53 bits
        stream = Words(b"key")
        stream.low = low
        found.append(stream.normals(2)[0])
    assert found[0] == pytest.approx(deviations, rel=0.01) and 0 < found[0] - found[1] < 2.0**-30


def test_numbers_come_from_the_key_and_the_purpose_and_are_normal() -> None:
    size = 2 * BLOCK + 3
    drawn = Stream(b"key", b"a").normals(size)
    assert np.array_equal(drawn, Stream(b"key", b"a").normals(size)) and np.unique(drawn).size == size
    for other in (Stream(b"key", b"b"), Stream(b"keya"), Stream(b"key", b"a", b""), Stream(b"k", b"eya")):
        assert (other.normals(size) != drawn).all()
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert (drawn**power).mean() == pytest.approx(moment, abs=0.06)
    assert np.mean(np.abs(drawn) < 1.959964) == pytest.approx(0.95, abs=0.002)
    uniform = Stream(b"key", b"u").uniforms(BLOCK + 1)
    assert uniform.min() > 0 and uniform.max() < 1
    assert np.histogram(uniform, 10, (0, 1))[0] == pytest.approx(uniform.size / 10, rel=0.03)


def test_what_a_training_tells_is_counted_by_its_steps() -> None:
    one = mechanism("dp_sgd")
    assert one.release(Training(batch_size=5), 50, 20) == Release(0.1, 1.5, 20)
    for batch in (50, 80, None):
        assert one.release(Training(batch_size=batch), 50, 2) == Release(1.0, 1.5, 2)


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "about"),
    [(0.01, 1.1, 10_000, 5.632), (256 / 60_000, 1.1, 14_063, 2.6), (1, 10, 100, 4.73)],
)
def test_the_price_is_that_of_dp_accounting(rate: float, noise: float, steps: int, about: float) -> None:
    dp = pytest.importorskip("dp_accounting")
    from dp_accounting.rdp import RdpAccountant

    from hierfl.accountant import epsilon

    counted = RdpAccountant(neighboring_relation=dp.NeighboringRelation.ADD_OR_REMOVE_ONE)
    counted.compose(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise)), steps)
    halves = [Release(rate, noise, steps // 2), Release(rate, noise, steps - steps // 2)]
    assert epsilon(halves, 1e-5) == pytest.approx(counted.get_epsilon(1e-5), rel=1e-9)
    assert epsilon(halves, 1e-5) == pytest.approx(about, rel=0.02)
    assert epsilon([], 1e-5) == epsilon([Release(rate, noise, 0)], 1e-5) == 0.0


def test_what_fits_into_a_budget_is_the_most_that_does() -> None:
    pytest.importorskip("dp_accounting")
    from hierfl.accountant import epsilon, least_noise, most_often

    one = Release(0.05, 1.0, 20)
    times = most_often(one, 1e-5, 3.0, 1000)
    assert epsilon([Release(0.05, 1.0, 20 * times)], 1e-5) <= 3.0 < epsilon([Release(0.05, 1.0, 20 * times + 20)], 1e-5)
    assert most_often(one, 1e-5, 0.01, 1000) == 0 and most_often(one, 1e-5, 1e9, 7) == 7
    whole = Release(1.0, 1.0, 20)  # on all records: quick to count
    noise = least_noise(whole, 1e-5, 0.5)
    assert noise is not None
    assert epsilon([replace(whole, noise_multiplier=noise)], 1e-5) <= 0.5
    assert epsilon([replace(whole, noise_multiplier=noise - 0.01)], 1e-5) > 0.5
    assert least_noise(whole, 1e-5, 1e-9) is None
