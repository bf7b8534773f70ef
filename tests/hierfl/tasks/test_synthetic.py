import time

import numpy as np
import pytest
import torch

from hierfl.errors import ConfigError, DataError
from hierfl.learning.task import KnowsSites, Task
from hierfl.tasks.synthetic import Synthetic


@pytest.mark.parametrize(("network", "features"), [("flat", 20), ("mlp", 20), ("mlp", 784), ("flat", 1), ("mlp", 1)])
@pytest.mark.parametrize("extra", [0, 1, 17, 100_000])
def test_the_model_has_exactly_so_many_parameters(network, features, extra):
    wanted = features + (1 if network == "flat" else 3) + extra
    task = Synthetic(num_parameters=wanted, network=network, num_features=features)
    model = task.model()
    assert sum(parameter.numel() for parameter in model.parameters()) == wanted
    loss = task.loss(model, task.data("anywhere").train[:])
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_model_of_25_million_parameters_is_cheap():
    task = Synthetic(num_parameters=25_000_000)
    start = time.thread_time()
    model = task.model()
    assert time.thread_time() - start < 1.0
    assert sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) == 100_000_000


def test_any_site_the_same_samples_each_time():
    task = Synthetic()
    assert isinstance(task, Task)
    assert not isinstance(task, KnowsSites)
    one, again, other = task.data("a"), task.data("a"), task.data("b")
    assert all(map(torch.equal, one.train.tensors, again.train.tensors))
    assert not torch.equal(one.train.tensors[0], other.train.tensors[0])
    assert not torch.equal(one.train.tensors[0], Synthetic(seed=1).data("a").train.tensors[0])
    assert task.num_samples("a") == (32, 8) == (len(one.train), len(one.test))


def test_sizes_and_times_are_drawn_per_site_within_their_range():
    task = Synthetic(num_samples_min=10, num_samples_max=20, step_s=0.1, step_s_max=0.3, num_test=0)
    names = [f"site-{i}" for i in range(200)]
    sizes = [task.num_samples(name)[0] for name in names]
    times = [float(task.data(name).train.tensors[2][0]) for name in names]
    assert set(sizes) == set(range(10, 21))
    assert min(times) >= 0.1
    assert max(times) <= 0.3
    assert np.std(times) > 0.03
    assert len(task.data(names[0]).train) == sizes[0]


def test_a_step_takes_its_time_in_training_only():
    task = Synthetic(step_s=0.05)
    model, batch = task.model(), task.data("a").train[:]
    start = time.monotonic()
    task.loss(model.train(), batch)
    assert time.monotonic() - start >= 0.05
    own = task.data("a", step_s=0)
    assert not own.train.tensors[2].any()
    slow = Synthetic(step_s=3600.0)
    slow.loss(model.eval(), slow.data("a").train[:])


def test_busy_burns_cpu():
    task = Synthetic(step_s=0.05, busy=True)
    model, batch = task.model(), task.data("a").train[:]
    start = time.thread_time()
    task.loss(model.train(), batch)
    assert time.thread_time() - start >= 0.05


def test_there_is_something_to_learn():
    task = Synthetic(num_parameters=21, num_samples_min=256, num_test=256)
    model = task.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for i in range(60):
        optimizer.zero_grad()
        task.loss(model, task.data(f"site-{i % 10}").train[:]).backward()
        optimizer.step()
    prediction = task.predict(model, task.data("unseen").test[:])
    assert ((prediction.scores > 0.5) == prediction.labels).float().mean() > 0.75


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match=r"num_parameters: 5 must be at least 23"):
        Synthetic(num_parameters=5, network="mlp")
    with pytest.raises(ConfigError) as caught:
        Synthetic(network="flt", num_samples_min=9, num_samples_max=8, step_s=0.2, step_s_max=0.1, noise=-1)
    assert [problem.path for problem in caught.value.problems] == [
        *("network", "num_samples_max", "step_s_max", "noise")
    ]
    with pytest.raises(DataError, match=r"data\.step_s is -1"):
        Synthetic().data("a", step_s=-1)
