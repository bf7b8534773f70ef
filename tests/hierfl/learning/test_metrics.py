import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from hierfl.learning.metrics import AUC_KINDS, Curve, Tally


def make(seed, n, num_classes=2, auc="histogram", bins=64, ties=False):
    random = np.random.default_rng(seed)
    labels = random.integers(num_classes, size=n)
    if num_classes == 2:
        scores = random.random(n)
        scores = np.round(scores, 1) if ties else scores
    else:
        scores = random.dirichlet(np.ones(num_classes), size=n)
    tally = Tally.of(scores, labels, loss_sum=float(random.random() * n), auc=auc, bins=bins)
    return tally, scores, labels


sites = st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 40)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(sites, st.sampled_from([2, 3]), st.sampled_from(AUC_KINDS), st.randoms(use_true_random=False))
def test_any_order_and_grouping_has_the_same_bits(drawn, num_classes, auc, random):
    tallies = [make(seed, n, num_classes, auc)[0] for seed, n in drawn]
    total = Tally.total(tallies)
    random.shuffle(tallies)
    cut = random.randint(0, len(tallies))
    left = sum(tallies[:cut], Tally())
    right = Tally()
    for tally in tallies[cut:]:
        right = tally + right
    assert left + right == total
    assert right + left == total
    assert (left + right).scalars() == total.scalars()
    assert Tally() + total == total == total + Tally()


@settings(max_examples=60, deadline=None)
@given(sites, st.booleans())
def test_the_roll_up_is_what_pooled_predictions_give(drawn, ties):
    parts = [make(seed, n, auc="exact", ties=ties) for seed, n in drawn]
    scores, labels = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    total = Tally.total(part[0] for part in parts)
    values = total.scalars()
    if not len(labels):
        assert values["accuracy"] is None
        return
    predicted = scores > 0.5
    assert values["num_test"] == len(labels)
    assert values["accuracy"] == pytest.approx(oracle.accuracy_score(labels, predicted))
    assert values["brier"] == pytest.approx(np.mean((scores - labels) ** 2))
    assert total.confusion.tolist() == oracle.confusion_matrix(labels, predicted, labels=[0, 1]).tolist()
    clipped = np.clip(scores, 2.0**-23, 1 - 2.0**-23)
    assert values["log_loss"] == pytest.approx(oracle.log_loss(labels, clipped, labels=[0, 1]))
    if 0 < labels.sum() < len(labels):
        assert values["auc"] == pytest.approx(oracle.roc_auc_score(labels, scores), abs=1e-12)
        assert values["sensitivity"] == pytest.approx(oracle.recall_score(labels, predicted))
        assert values["specificity"] == pytest.approx(oracle.recall_score(labels, predicted, pos_label=0))
        assert values["dice"] == pytest.approx(oracle.f1_score(labels, predicted))
    else:
        assert values["auc"] is None
        assert total.why_undefined("auc") == "one class"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 300), st.integers(2, 50))
def test_histogram_auc_lies_within_its_stated_error(seed, n, bins):
    tally, scores, labels = make(seed, n, bins=bins)
    (curve,) = tally.curves
    if 0 < labels.sum() < n:
        assert abs(curve.auc() - oracle.roc_auc_score(labels, scores)) <= curve.auc_error() + 1e-12
        assert len(curve.scores) <= bins


def test_many_classes_average_one_against_the_rest():
    tally, scores, labels = make(3, 200, num_classes=4, auc="exact")
    values = tally.scalars()
    one_hot = np.eye(4)[labels]
    assert values["auc"] == pytest.approx(oracle.roc_auc_score(labels, scores, multi_class="ovr", average="macro"))
    assert values["brier"] == pytest.approx(np.mean(np.sum((scores - one_hot) ** 2, axis=1)))
    assert values["accuracy"] == pytest.approx(np.mean(scores.argmax(axis=1) == labels))
    assert "sensitivity" not in values and "true_positives" not in values
    assert values["confusion"] == oracle.confusion_matrix(labels, scores.argmax(axis=1), labels=range(4)).tolist()


def test_the_table_of_very_many_classes_is_not_told():
    assert "confusion" in make(0, 40, num_classes=32)[0].scalars()
    assert "confusion" not in make(0, 40, num_classes=33)[0].scalars()


def test_many_classes_leave_out_a_class_that_nobody_has():
    scores, labels = np.array([[0.5, 0.2, 0.3], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]]), np.array([0, 1, 1])
    tally = Tally.of(scores, labels, loss_sum=1.0, auc="exact")
    assert tally.curves[2].auc() is None
    assert tally.scalars()["auc"] == pytest.approx((0.5 + 1.0) / 2)


def test_small_numbers_one_can_recompute():
    tally = Tally.of(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0]), loss_sum=3.0, auc="exact")
    assert tally.scalars() == {
        "num_test": 4,
        "accuracy": 0.75,
        "auc": (2 + 1 + 0.5) / 4,
        "loss": 0.75,
        "log_loss": pytest.approx(-(2 * np.log(0.9) + 2 * np.log(0.5)) / 4),
        "brier": pytest.approx((0.01 + 0.25 + 0.25 + 0.01) / 4),
        "sensitivity": 0.5,
        "specificity": 1.0,
        "dice": 2 / 3,
        "true_positives": 1,
        "false_positives": 0,
        "true_negatives": 2,
        "false_negatives": 1,
        "ece": pytest.approx((abs(0 - 0.1) + 2 * abs(0.5 - 0.5) + abs(1 - 0.9)) / 4),
        "reliability": [[1, 0, pytest.approx(0.1)], [2, 1, 0.5], [1, 1, pytest.approx(0.9)]],
    }


def test_one_class_is_undefined_here_and_defined_above():
    swiss = Tally.of(np.array([0.8, 0.6]), np.array([1, 1]), loss_sum=1.0)
    other = Tally.of(np.array([0.7, 0.1]), np.array([1, 0]), loss_sum=1.0)
    assert swiss.scalars()["auc"] is None
    assert swiss.why_undefined("auc") == "one class"
    assert swiss.why_undefined("specificity") == "no negatives"
    assert swiss.why_undefined("accuracy") is None
    assert (swiss + other).scalars()["auc"] == 1.0
    assert (swiss + other).why_undefined("auc") is None


def test_dice_adds_over_the_tree():
    one = Tally.of(np.array([0.9, 0.8, 0.1]), np.array([1, 0, 0]), loss_sum=1.0)
    other = Tally.of(np.array([0.9, 0.8, 0.1]), np.array([1, 1, 0]), loss_sum=1.0)
    assert (one.scalars()["dice"], other.scalars()["dice"]) == (2 / 3, 1.0)
    assert (one + other).scalars()["dice"] == 6 / 7
    nobody = Tally.of(np.array([0.1, 0.2]), np.array([0, 0]), loss_sum=1.0)
    assert nobody.scalars()["dice"] is None
    assert nobody.why_undefined("dice") == "no positives"
    assert (one + nobody).scalars()["dice"] == 2 / 3


def test_no_samples():
    empty = Tally.of(np.empty(0), np.empty(0), loss_sum=0.0)
    assert empty == Tally() == Tally.of(np.empty((0, 3)), np.empty(0), loss_sum=0.0)
    assert set(empty.scalars()) == {"num_test", "accuracy", "auc", "loss", "log_loss", "brier", "ece"}
    assert empty.scalars()["num_test"] == 0
    assert empty.why_undefined("loss") == "no samples"
    assert empty.why_undefined("num_test") is None


def test_auc_not_measured():
    tally = make(0, 20, auc="none")[0]
    assert tally.curves == ()
    assert tally.scalars()["auc"] is None
    assert tally.why_undefined("auc") == "not measured"
    assert tally.scalars()["accuracy"] is not None


@pytest.mark.parametrize(("scores", "loss"), [([0.5, np.nan], 1.0), ([0.5, np.inf], 1.0), ([0.5, 0.1], np.nan)])
def test_a_model_that_diverged_is_undefined_not_a_crash(scores, loss):
    bad = Tally.of(np.array(scores), np.array([0, 1]), loss_sum=loss)
    values = bad.scalars()
    assert values["accuracy"] is None and values["loss"] is None
    assert "of 2 not finite" in bad.why_undefined("accuracy")
    assert (values["num_left_out"], values["num_not_finite"]) == (2, 0 if np.isfinite(scores).all() else 1)


@settings(max_examples=30, deadline=None)
@given(sites, st.integers(1, 20))
def test_a_site_that_diverged_is_left_out_above_and_counted(drawn, num_bad):
    good = Tally.total(make(seed, n)[0] for seed, n in drawn)
    bad = Tally.of(np.full(num_bad, np.nan), np.zeros(num_bad), loss_sum=1.0)
    expected = good.scalars()
    expected["num_test"] += num_bad
    expected |= {"num_left_out": num_bad, "num_not_finite": num_bad}
    assert (good + bad).scalars() == expected == (bad + good).scalars()


def test_two_columns_and_one_column_say_the_same():
    tally, scores, labels = make(1, 50)
    loss_sum = tally.loss / 2**40
    wide = Tally.of(np.stack([1 - scores, scores], axis=1), labels, loss_sum=loss_sum, bins=64)
    assert wide == tally == Tally.of(scores[:, np.newaxis], labels.astype(np.float32), loss_sum=loss_sum, bins=64)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.5, 3.0], [0, 1], r"(?s)beyond 0 to 1; needed: probabilities.*range from 0 to 3"),
        ([0.5, 0.5], [0, 2], r"(?s)1 labels are no class; allowed: 0 to 1.*label 2"),
        ([0.5, 0.5], [0, 0.5], r"(?s)1 labels are no class.*label 0\.5"),
        ([0.5, 0.5], [0], "2 scores for 1 labels"),
        ([[[0.5]]], [0], r"shape \(1, 1, 1\); needed"),
    ],
)
def test_wrong_predictions_are_named(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        Tally.of(np.array(scores), np.array(labels), loss_sum=0.0)


def test_wrong_auc_kind_and_class_numbers_are_named():
    with pytest.raises(ValueError, match="allowed: histogram, exact, none"):
        Tally.of(np.array([0.5]), np.array([1]), loss_sum=0.0, auc="roc")
    with pytest.raises(ValueError, match="number of classes: 2 and 3"):
        make(0, 5)[0] + make(0, 5, num_classes=3)[0]


def test_huge_counts_stay_exact():
    big = np.array([2**40, 2**40 + 1])
    curve = Curve(np.array([0.0, 0.5]), big, big)
    half = 2**40
    pairs = (2 * half + 1) ** 2
    wins = half * half + (half + 1) * (2 * half + half + 1)
    assert curve.auc() == wins / (2 * pairs)


def test_survives_pickling_and_is_small():
    tally = make(5, 32, bins=1024)[0]
    copy = pickle.loads(pickle.dumps(tally))
    assert copy == tally
    assert copy + tally == tally + tally
    assert len(pickle.dumps(tally)) < 3000
