from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, TensorDataset

from hierfl.errors import DataError
from hierfl.learning.standardise import Moments, apply, by_itself, feature_matrix
from hierfl.learning.task import SiteData

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
rows = st.lists(st.tuples(floats, floats), min_size=1, max_size=20)


def matrix(drawn):
    return np.array(drawn, dtype=np.float32).reshape(-1, 2)


@settings(max_examples=100, deadline=None)
@given(rows)
def test_sums_are_exact(drawn):
    moments = Moments.of(matrix(drawn))
    for column in range(2):
        values = [Fraction(float(x)) for x in matrix(drawn)[:, column]]
        assert Fraction(moments.sums[column], 2**172) == sum(values)
        assert Fraction(moments.squares[column], 2**344) == sum(x * x for x in values)
        mean = sum(values) / len(values)
        variance = sum((x - mean) ** 2 for x in values) / len(values)
        means, stds = moments.mean_and_std()
        assert means[column] == float(mean)
        assert stds[column] == (float(variance) ** 0.5 or 1.0)


@settings(max_examples=60, deadline=None)
@given(rows, st.lists(st.integers(0, 20), max_size=4), st.randoms(use_true_random=False))
def test_any_grouping_has_the_same_bits(drawn, cuts, random):
    x = matrix(drawn)
    parts = [Moments.of(part) for part in np.split(x, sorted(min(cut, len(x)) for cut in cuts))]
    random.shuffle(parts)
    total = sum(parts, Moments())
    assert total == Moments.of(x)
    left, right = sum(parts[:2], Moments()), sum(parts[2:], Moments())
    assert left + right == right + left == total


def test_nothing_cancels_far_from_zero():
    x = np.array([[1.6e9], [1.6e9 + 128], [1.6e9 + 256]], dtype=np.float32)
    mean, std = Moments.of(x).mean_and_std()
    assert mean[0] == 1.6e9 + 128
    assert std[0] == pytest.approx(128 * (2 / 3) ** 0.5, rel=1e-15)


doubles = st.floats(2.0**-90, 1e38) | st.floats(-1e38, -(2.0**-90)) | st.just(0.0)


@settings(max_examples=100, deadline=None)
@given(st.lists(doubles, min_size=1, max_size=20))
def test_sums_of_double_precision_are_exact(drawn):
    moments = Moments.of(np.array(drawn)[:, None], wide=True)
    values = [Fraction(x) for x in drawn]
    assert Fraction(moments.sums[0], 2**172) == sum(values)
    assert Fraction(moments.squares[0], 2**344) == sum(x * x for x in values)
    assert moments.is_possible


@settings(max_examples=60, deadline=None)
@given(rows)
def test_what_single_precision_holds_has_the_same_moments_in_double(drawn):
    x = matrix(drawn)
    assert Moments.of(x.astype(np.float64), wide=True) == Moments.of(x, wide=True) == Moments.of(x)


def test_what_single_precision_does_not_hold_keeps_its_digits():
    x = 1_600_000_000 + np.random.default_rng(0).integers(18, 90, size=(500, 1)).astype(np.float64)
    mean, std = Moments.of(x, wide=True).mean_and_std()
    assert (mean[0], std[0]) == (pytest.approx(x.mean(), rel=1e-15), pytest.approx(x.std(), rel=1e-12))
    scaled = by_itself(SiteData(TensorDataset(torch.from_numpy(x)), TensorDataset(torch.from_numpy(x[:0])))).train
    assert len(scaled.tensors[0].unique()) == len(np.unique(x))


def test_equals_the_plain_formula():
    x = np.random.default_rng(0).normal(3, 5, size=(1000, 4)).astype(np.float32)
    mean, std = Moments.of(x).mean_and_std()
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(std, x.std(axis=0, dtype=np.float64), rtol=1e-12)


def test_a_constant_feature_has_deviation_one():
    mean, std = Moments.of(np.full((3, 1), 0.1)).mean_and_std()
    assert mean[0] == np.float32(0.1)
    assert std[0] == 1.0


def test_what_cannot_be_counted_is_named():
    with pytest.raises(DataError, match=r"column 1 \(2 values\), 2 \(1 values\)"):
        Moments.of(np.array([[0, np.nan, 1], [0, np.inf, 1e300]]))
    with pytest.raises(DataError, match=r"shape \(3,\)"):
        Moments.of(np.zeros(3))
    with pytest.raises(DataError, match="no training samples"):
        Moments.of(np.zeros((0, 2))).mean_and_std()
    with pytest.raises(DataError, match="number of features: 2 and 3"):
        Moments.of(np.zeros((1, 2))) + Moments.of(np.zeros((1, 3)))


def site(train, test, labels=True):
    def dataset(x):
        x = torch.tensor(x, dtype=torch.float32).reshape(-1, 2)
        return TensorDataset(x, torch.arange(len(x))) if labels else TensorDataset(x)

    return SiteData(dataset(train), dataset(test))


def test_apply_scales_both_sets_by_training_moments_and_keeps_the_original():
    data = site([[1, 10], [3, 10]], [[5, 11]])
    moments = Moments.of(feature_matrix(data))
    scaled = apply(data, *moments.mean_and_std())
    assert scaled.train.tensors[0].tolist() == [[-1, 0], [1, 0]]
    assert scaled.test.tensors[0].tolist() == [[3, 1]]
    assert scaled.train.tensors[0].dtype == torch.float32
    assert scaled.train.tensors[1].tolist() == [0, 1]
    assert data.train.tensors[0].tolist() == [[1, 10], [3, 10]]


def test_a_site_without_samples_is_left_alone():
    data = site([], [[5, 11]])
    assert by_itself(data) is data
    assert Moments.of(feature_matrix(data)).count == 0
    empty = apply(data, np.zeros(2), np.ones(2))
    assert len(empty.train) == 0


class Listed(Dataset):
    def __len__(self):
        return 1


def test_needs_a_tensor_dataset_of_float_rows():
    with pytest.raises(DataError, match=r"needs data as torch\.utils.data.TensorDataset, got Listed"):
        feature_matrix(SiteData(Listed(), Listed()))
    whole = TensorDataset(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(DataError, match=r"floats of shape \(n, d\), got torch.int64"):
        feature_matrix(SiteData(whole, whole))
    with pytest.raises(DataError, match="2 columns, the federation's have 3"):
        apply(site([[1, 2]], []), np.zeros(3), np.ones(3))


def test_data_without_samples_may_be_a_plain_list():
    full = site([[0, 1], [2, 5]], [[1, 1]])
    assert feature_matrix(SiteData([], full.test)).size == 0
    assert Moments.of(feature_matrix(SiteData([], full.test))) + Moments() == Moments()
    scaled = apply(SiteData(full.train, []), np.array([1.0, 1.0]), np.array([1.0, 2.0]))
    assert scaled.train.tensors[0].tolist() == [[-1, 0], [1, 2]] and scaled.test == []
