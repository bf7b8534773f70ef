import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hierfl.errors import ConfigError, DataError
from hierfl.learning.task import KnowsSites, Standardised, Task
from hierfl.tasks import _partition as shards
from hierfl.tasks.breast_cancer import BreastCancer
from hierfl.tasks.digits import Digits

TASKS = [Digits(), Digits(num_sites=3, partition="by_class"), Digits(partition="iid", network="mlp"), BreastCancer()]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=200),
    st.integers(1, 30),
    st.sampled_from(shards.PARTITIONS),
    st.sampled_from([1e-9, 0.01, 0.5, 100.0]),
    st.integers(0, 2**32 - 1),
)
def test_every_sample_goes_to_one_site_and_every_site_gets_one(labels, num_sites, how, alpha, seed):
    labels = np.array(labels)
    num_sites = min(num_sites, len(labels))
    parts = shards.partition(labels, num_sites, how, alpha, seed)
    assert len(parts) == num_sites
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert min(map(len, parts)) >= 1
    again = shards.partition(labels, num_sites, how, alpha, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_partitions_are_as_uneven_as_they_say():
    labels = np.repeat(np.arange(10), 100)

    def classes(how, alpha=0.5):
        parts = shards.partition(labels, 10, how, alpha, 0)
        return np.mean([len(set(labels[part])) for part in parts]), np.std([len(part) for part in parts])

    assert classes("by_class") == (1, 0)
    assert classes("iid") == (10, 0)
    assert classes("dirichlet", 0.05)[0] < classes("dirichlet", 0.5)[0] < classes("dirichlet", 100.0)[0] == 10


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 100), st.floats(0, 0.99), st.text(max_size=5), st.integers(0, 2**32 - 1))
def test_test_samples(num_samples, fraction, site, seed):
    mask = shards.test_mask(num_samples, fraction, site, seed)
    assert len(mask) == num_samples
    assert mask.sum() == min(round(fraction * num_samples), max(num_samples - 1, 0))
    assert np.array_equal(mask, shards.test_mask(num_samples, fraction, site, seed))


def test_splits_stay_the_same_for_good():
    parts = shards.partition(np.arange(12) % 3, 3, "dirichlet", 0.5, 0)
    assert [part.tolist() for part in parts] == [[6, 9, 8, 11, 2, 3], [0, 4, 5], [1, 7, 10]]
    assert np.flatnonzero(shards.test_mask(10, 0.3, "site-0", 0)).tolist() == [1, 4, 7]


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_counts_agree_with_the_data(task):
    assert isinstance(task, Task)
    assert isinstance(task, KnowsSites)
    for site in task.sites():
        data = task.data(site)
        assert task.num_samples(site) == (len(data.train), len(data.test))
        assert data.train.tensors[0].dtype == torch.float32
    total = sum(sum(task.num_samples(site)) for site in task.sites())
    assert total == (1797 if isinstance(task, Digits) else 569)


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_a_step_lowers_the_loss(task):
    torch.manual_seed(0)
    model, batch = task.model(), task.data("site-0").train[:]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3 if isinstance(task, Digits) else 1e-7)
    before = task.loss(model, batch)
    before.backward()
    optimizer.step()
    assert task.loss(model, batch) < before
    prediction = task.predict(model, batch)
    n = len(batch[1])
    assert prediction.scores.shape == ((n, 10) if isinstance(task, Digits) else (n,))
    assert prediction.labels.shape == (n,)


def test_standardisation_is_for_features_of_unlike_scales():
    assert isinstance(BreastCancer(), Standardised)
    assert BreastCancer(standardise="site").data("site-1").train.tensors[0].mean(dim=0).abs().max() < 1e-5
    assert Digits().data("site-0").train.tensors[0].max() == 1.0


@pytest.mark.parametrize("site", ["site-10", "site-01", "site--1", "site-x", "elsewhere", "site-²"])
def test_unknown_sites_are_named(site):
    with pytest.raises(DataError, match="the task has site-0 to site-9"):
        Digits().data(site)


def test_mistakes_are_named():
    with pytest.raises(ConfigError) as caught:
        Digits(num_sites=0, partition="dirichlt", alpha=0, test_fraction=1.0, seed=-1, hidden=0, network="cnn")
    assert [problem.path for problem in caught.value.problems] == [
        *("num_sites", "partition", "alpha", "seed", "network", "hidden", "test_fraction")
    ]
    with pytest.raises(ConfigError, match="1800 must be at least 1 and below 1798"):
        Digits(num_sites=1800)
    with pytest.raises(ConfigError, match="standardise"):
        BreastCancer(standardise="all")


def test_without_scikit_learn_the_way_out_is_named(monkeypatch):
    shards.bundled.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ConfigError, match=r"digits needs scikit-learn.*pip install 'hierfl\[tasks\]'"):
        shards.bundled("digits")
