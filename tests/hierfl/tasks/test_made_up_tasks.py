"""The tasks on made-up patients: sites of natural sizes, shifts that do what they say, and losses one can recompute."""

import sys

import numpy as np
import pytest
import torch

from hierfl.config.schema import Evaluation
from hierfl.errors import ConfigError, DataError
from hierfl.learning.measuring import measure
from hierfl.learning.task import CountsSamples, KnowsSites, Standardised, Task
from hierfl.tasks._sites import FEWEST, Sites
from hierfl.tasks.images import Images
from hierfl.tasks.multitask import Multitask
from hierfl.tasks.tabular import Tabular
from hierfl.tasks.volumes import Volumes

SMALL = {"num_sites": 3, "num_cases": 60, "size_spread": 0.5, "shift": 0.3, "label_shift": 0.3}
TASKS = [
    Images(**SMALL),
    Images(**SMALL, num_classes=4, channels=3, norm="group"),
    Volumes(**SMALL, size=8, levels=2),
    Multitask(**SMALL),
    Tabular(**SMALL, missing=0.2, alignment=0.1),
    Tabular(**SMALL, network="experts", num_classes=3),
    Tabular(**SMALL, num_classes=3, network="logistic"),
]


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_sites_have_the_samples_that_were_counted_and_the_same_each_time(task):
    assert isinstance(task, Task) and isinstance(task, KnowsSites) and isinstance(task, CountsSamples)
    for site in task.sites():
        data, again = task.data(site), task.data(site)
        assert task.num_samples(site) == (len(data.train), len(data.test))
        assert data.train.tensors[0].dtype == torch.float32
        assert all(map(torch.equal, data.train.tensors, again.train.tensors))
    one, other = (task.data(site).train[:4][0] for site in task.sites()[:2])
    assert not torch.equal(one, other)
    with pytest.raises(DataError, match="the task has site-0 to site-2"):
        task.data("site-3")


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_steps_lower_the_loss(task):
    torch.manual_seed(0)
    model, batch = task.model().train(), task.data("site-0").train[:]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        losses.append(task.loss(model, batch))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    prediction = task.predict(model.eval(), batch)
    assert len(prediction.scores) == len(prediction.labels)
    assert prediction.labels.dtype == torch.int64


def test_sizes_are_log_normal_and_the_first_has_its_share():
    sizes = Sites(num_sites=30, num_cases=100_000, size_spread=1.27).sizes()
    assert np.std(np.log(sizes)) == pytest.approx(1.27, rel=0.05)
    assert max(sizes) == sizes[0] and sizes[1:] != sorted(sizes[1:], reverse=True)
    sizes = Sites(num_sites=30, num_cases=100_000, size_spread=1.27, largest_share=0.41).sizes()
    assert sizes[0] == 41_000 and sum(sizes) == pytest.approx(100_000, abs=30)
    assert Sites(num_sites=5, num_cases=100).sizes() == [20] * 5
    assert min(Sites(num_sites=9, num_cases=40, size_spread=3.0).sizes()) == FEWEST
    assert Sites(num_sites=1, num_cases=50, largest_share=0.5).sizes() == [50]


def test_shifts_are_none_at_zero_and_grow():
    values = np.random.default_rng(0).standard_normal((200, 3))
    assert np.array_equal(Sites().measured("site-0", values, 1), values)
    for shift in (0.1, 1.0):
        means = [Sites(num_sites=50, shift=shift).measured(f"site-{i}", values, 1).mean() for i in range(50)]
        assert np.std(means) == pytest.approx(shift / 3**0.5, rel=0.5)
    alike = [Sites().frequencies(f"site-{i}", (0.8, 0.2)) for i in range(3)]
    assert np.allclose(alike, (0.8, 0.2))
    own = [Sites(label_shift=1.0).frequencies(f"site-{i}", (0.8, 0.2))[1] for i in range(50)]
    assert np.std(own) > 0.1


def test_classes_are_as_frequent_as_asked_for():
    scores = np.random.default_rng(0).standard_normal(1000)
    labels = Sites().classes("site-0", scores, (0.7, 0.2, 0.1))
    assert np.bincount(labels).tolist() == [700, 200, 100]
    assert scores[labels == 2].min() > scores[labels == 1].max()


def test_what_is_measured_are_the_labels_that_are_known():
    task = Multitask(num_sites=2, num_cases=80, missing=0.8)
    model, data = task.model().eval(), task.data("site-1")
    x, labels = data.test.tensors
    known = labels >= 0
    assert 0 < known.sum() < labels.numel()
    values = measure(model, task, data.test, Evaluation(batch_size=3), torch.device("cpu")).scalars()
    assert values["num_test"] == known.sum()
    p = model(x).sigmoid()[known].double()
    y = labels[known]
    by_hand = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    assert values["loss"] == pytest.approx(float(by_hand.detach()), rel=1e-5)
    nothing = torch.full_like(labels, -1)
    loss = task.loss(model, (x, nothing))
    loss.backward()
    assert loss == 0 and all(not parameter.grad.any() for parameter in model.parameters())


def test_companies_have_assays_of_their_own():
    task = Multitask(num_sites=10, num_cases=1000, missing=0.0, num_assays=8)
    counts = [int((task.data(site).train.tensors[1] >= 0).any(dim=0).sum()) for site in task.sites()]
    assert 4 <= min(counts) < max(counts) <= 8
    assert {name.split(".")[0] for name in task.model().state_dict()} == {"trunk", "head"}


def test_soft_dice_by_hand():
    task = Volumes(size=8, levels=2)

    class Given(torch.nn.Module):
        def forward(self, x):
            return x

    logits = torch.full((1, 1, 1, 1, 4), -50.0)
    logits[..., :2] = 50.0
    labels = torch.tensor([0, 1, 1, 0]).view(1, 1, 1, 4)
    assert task.loss(Given(), (logits, labels)) == pytest.approx(1 - (2 * 1 + 1) / (2 + 2 + 1))
    prediction = task.predict(Given(), (logits, labels))
    assert prediction.scores.round().tolist() == [1, 1, 0, 0] and prediction.labels.tolist() == [0, 1, 1, 0]


def test_tumours_take_their_share():
    labels = Volumes(num_sites=1, num_cases=200, tumour=0.05).data("site-0").train.tensors[1]
    assert labels.float().mean() == pytest.approx(0.05, abs=0.01)
    assert labels.flatten(1).any(dim=1).all()


def test_voxels_are_counted_and_the_loss_is_the_volumes_mean():
    task = Volumes(num_sites=1, num_cases=20, size=8, levels=2)
    model, test = task.model().eval(), task.data("site-0").test
    values = measure(model, task, test, Evaluation(batch_size=2), torch.device("cpu")).scalars()
    assert values["num_test"] == len(test) * 8**3
    assert values["loss"] == pytest.approx(task.loss(model, test[:]).item(), rel=1e-5)


def test_each_scan_has_a_dice_of_its_own():
    class Given(torch.nn.Module):
        def forward(self, x):
            return x

    found = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]).view(3, 1, 1, 1, 4)
    labels = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]).view(3, 1, 1, 4)
    prediction = Volumes().predict(Given(), (100.0 * found - 50.0, labels))
    assert prediction.own["case_dice"].tolist() == [0.5, 1.0, 0.0]
    task = Volumes(num_sites=1, num_cases=20, size=8, levels=2)
    values = measure(task.model(), task, task.data("site-0").test, Evaluation(), torch.device("cpu")).scalars()
    assert 0 <= values["case_dice"] <= 1 and values.keys() >= task.metrics().keys()


def test_monai_is_asked_for_by_name_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(ConfigError, match=r"pip install 'hierfl\[medical\]', or take unet"):
        Volumes(network="monai").model()


def test_monai_takes_the_same_scans():
    pytest.importorskip("monai")
    task = Volumes(network="monai", size=8, levels=2, num_cases=40)
    task.loss(task.model(), task.data("site-0").train[:4]).backward()


def test_gaps_are_filled_from_the_sites_own_training_patients():
    whole, gappy = Tabular(num_cases=400), Tabular(num_cases=400, missing=0.3)
    before, (after, labels) = whole.data("site-0").train.tensors[0], gappy.data("site-0").train.tensors
    values, gaps = after[:, :16], after[:, 16:].bool()
    assert gaps.float().mean() == pytest.approx(0.3, abs=0.1)
    assert torch.equal(values[~gaps], before[~gaps])
    for column in range(16):
        known = before[~gaps[:, column], column]
        assert np.allclose(values[gaps[:, column], column], np.median(known))
    assert torch.equal(labels, whole.data("site-0").train.tensors[1])


def test_a_column_that_a_site_never_measured_is_filled_with_zero():
    data = Tabular(num_cases=40, missing=0.99, num_features=40).data("site-0")
    never = data.train.tensors[0][:, 40:].all(dim=0)
    assert never.any()
    assert not data.train.tensors[0][:, :40][:, never].any()


def test_another_outcome_is_of_the_same_patients():
    mortality, stay = Tabular().data("site-0").train, Tabular(outcome="length_of_stay").data("site-0").train
    assert torch.equal(mortality.tensors[0], stay.tensors[0])
    assert 0.1 < (mortality.tensors[1] == stay.tensors[1]).float().mean() < 0.9
    assert isinstance(Tabular(), Standardised)
    assert Tabular(standardise="site").data("site-1").train.tensors[0].mean(dim=0).abs().max() < 1e-5


def test_alignment_is_a_term_of_training_alone():
    plain, aligned = Tabular(standardise="none"), Tabular(standardise="none", alignment=0.5)
    model, batch = plain.model(), plain.data("site-0").train[:]
    hidden = model.trunk(batch[0])
    variances = hidden.var(dim=0, unbiased=False)
    term = hidden.mean(dim=0).square().mean() + (variances - 1).square().mean()
    more = aligned.loss(model.train(), batch) - plain.loss(model, batch)
    assert more.item() == pytest.approx(0.5 * term.item(), rel=1e-4)
    assert torch.equal(aligned.loss(model.eval(), batch), plain.loss(model, batch))


def test_mistakes_are_named():
    for task, fields, named in (
        (
            Images,
            {"size": 18, "norm": "layer", "num_classes": 1, "largest_share": 1.0},
            "largest_share num_classes size norm",
        ),
        (Volumes, {"size": 20, "levels": 4, "tumour": 0, "network": "vnet"}, "size tumour network"),
        (Multitask, {"active": 0, "num_assays": 0, "num_sites": 0}, "num_sites num_assays active"),
        (Tabular, {"alignment": 1, "network": "logistic", "num_cases": 15}, "num_cases alignment"),
    ):
        with pytest.raises(ConfigError) as caught:
            task(**fields)
        assert [problem.path for problem in caught.value.problems] == named.split(), task
    with pytest.raises(ConfigError, match="18 must be a multiple of 4, at least 8"):
        Images(size=18)
