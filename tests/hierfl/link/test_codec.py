"""What is counted at a member arrives as it was, and what contradicts itself does not."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierfl.config.rules import MOST_NODES
from hierfl.errors import LinkError
from hierfl.learning.metrics import AUC_KINDS, Tally
from hierfl.learning.ring import Accumulator, Grid
from hierfl.learning.score_bins import edges
from hierfl.learning.standardise import Moments
from hierfl.learning.state import Layout, ModelState
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.answers import limit_of
from hierfl.link.codec import (
    LARGEST_LOSS,
    MAX_WEIGHT,
    MOST_PREDICTIONS,
    MOST_SAMPLES,
    MOST_SECONDS,
    integer_out,
    moments_in,
    moments_out,
    scale_in,
    seconds,
    shortfalls_in,
    shortfalls_out,
)
from hierfl.link.tallies import tally_in, tally_out
from hierfl.monitor.fairness import fairness
from scheduler.durations import Durations
from tiers.messages import Shortfall

ROOT = Path(__file__).parents[3]


def tally(classes: int = 2, n: int = 30, **more: Any) -> Tally:
    chance = np.random.default_rng(classes)
    scores = chance.random(n) if classes == 2 else chance.dirichlet(np.ones(classes), n)
    return Tally.of(scores, chance.integers(0, classes, n), loss_sum=more.pop("loss_sum", 3.25), **more)


@pytest.mark.parametrize(
    "counted",
    [
        Tally(),
        tally(),
        tally(5),
        tally(auc="exact"),
        tally(auc="none"),
        tally(loss_sum=-4.0),
        tally(loss_sum=float("nan")),
        tally() + tally(loss_sum=float("inf")),
        Tally.total([tally(), tally(n=7)]),
    ],
)
def test_a_tally_arrives_as_it_was(counted: Tally) -> None:
    assert tally_in(wire.Tally.FromString(tally_out(counted).SerializeToString())) == counted


@pytest.mark.parametrize("values", [[[1.0, -2.5], [3.0, 1e38]], [[1e-45, 0.0]], [[-3.4e38, 3.4e38]] * 50])
def test_moments_arrive_as_they_were(values: list[list[float]]) -> None:
    moments = Moments.of(np.array(values, np.float32))
    assert moments_in(wire.Moments.FromString(moments_out(moments).SerializeToString())) == moments


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: setattr(t, "num_samples", 31), "counts"),
        (lambda t: setattr(t, "num_left_out", 31), "num_left_out"),
        (lambda t: setattr(t, "num_not_finite", 1), "num_not_finite"),
        (lambda t: t.confusion.append(0), "no" if False else "none of true and predicted"),
        (lambda t: t.confusion.__setitem__(0, 2**63), "counts"),
        (lambda t: t.curves.add(), "2 curves for 2 classes"),
        (lambda t: t.curves[0].scores.__setitem__(0, float("nan")), "do not rise"),
        (lambda t: t.curves[0].scores.__setitem__(-1, 1.5), "do not rise"),
        (lambda t: t.curves[0].positives.append(1), "other numbers"),
        (lambda t: setattr(t.curves[0], "bins", 1023), "no edges of 1023 bins"),
        (lambda t: t.curves[0].scores.__setitem__(-1, 1.0), "no edges of 2048 bins"),
        (lambda t: setattr(t, "loss", b"\x01" * 97), "97 bytes"),
        (lambda t: setattr(t, "num_left_out", 30), "where none was counted"),
        (lambda t: setattr(t, "num_samples", MOST_PREDICTIONS + 1), "num_samples"),
        (lambda t: setattr(t, "loss", integer_out(-(2**700))), "a sum of loss"),
        (lambda t: setattr(t, "loss", integer_out((30 * LARGEST_LOSS << 40) + 1)), "a sum of loss"),
        (lambda t: setattr(t, "log_loss", integer_out(-1)), "a sum of log_loss"),
        (lambda t: setattr(t, "log_loss", integer_out((30 * 16 << 40) + 1)), "a sum of log_loss"),
        (lambda t: setattr(t, "brier", integer_out((30 * 2 << 40) + 1)), "a sum of brier"),
        (lambda t: t.own.update(mae=integer_out(2**700)), "a sum of mae"),
    ],
)
def test_counts_that_contradict_each_other_are_refused(change: Callable[[Any], None], said: str) -> None:
    message = tally_out(tally())
    change(message)
    with pytest.raises(LinkError, match=said):
        tally_in(message)


@pytest.mark.parametrize("classes", [2, 5])
def test_of_scores_no_more_is_told_than_evaluation_auc_says(classes: int) -> None:
    """One sample in a bin is told to a 1024th, and not as a sum to 2^-40 beside."""
    told = {auc: tally_out(tally(classes, auc=auc)) for auc in AUC_KINDS}
    names = {auc: {one.name for one, _ in message.ListFields()} for auc, message in told.items()}
    assert names["none"] == {"num_samples", "loss", "log_loss", "brier", "confusion"}
    assert names["histogram"] == names["exact"] == names["none"] | {"curves"}
    for curve in told["histogram"].curves:
        assert curve.bins == 2048 and set(curve.scores) <= set(edges(2048)[:-1])


def test_no_numbers_that_are_admitted_are_too_large_for_what_is_made_of_them() -> None:
    """At the largest tree each of its sites may have so many samples, twice in one round where updates come late."""
    assert 4 * MOST_NODES * MOST_SAMPLES <= MAX_WEIGHT
    Grid(32, 8.0, 4 * MOST_NODES * MOST_SAMPLES)
    ends = (-LARGEST_LOSS, LARGEST_LOSS)
    assert MOST_NODES * MOST_PREDICTIONS < 2**63
    own: dict[str, Any] = {"own": {"mae": 0}, "num_own": MOST_PREDICTIONS}
    tallies = [Tally(MOST_PREDICTIONS, loss=MOST_PREDICTIONS * loss << 40, **own) for loss in ends]
    sites = {str(n): tally_in(tally_out(one)).scalars() for n, one in enumerate(tallies)}
    assert fairness(sites)["loss"]["std"] == float(LARGEST_LOSS)
    durations = Durations()
    for duration_s in (0.0, MOST_SECONDS, 0.0, MOST_SECONDS):
        durations.observe("train", "a", 1, seconds(duration_s, "duration_s"))
    assert "train" in durations.error()
    with pytest.raises(LinkError, match="seconds are from 0 to 1e\\+09"):
        seconds(1e308, "duration_s")


@pytest.mark.parametrize("honest", [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [0.5, 0.5, 0.5]])
def test_the_worst_predictions_are_admitted(honest: list[float]) -> None:
    """Each class wrong with certainty has the largest log loss and Brier score."""
    for scores, labels in ((np.array([1.0, 0.0]), np.array([0, 1])), (np.array([honest]), np.array([0]))):
        worst = Tally.of(scores, labels, loss_sum=float(np.finfo(np.float32).max) ** 2)
        assert tally_in(tally_out(worst)) == worst


def test_moments_that_do_not_fit_are_refused() -> None:
    moments = moments_out(Moments.of(np.ones((2, 2), np.float32)))
    moments.sums.append(b"")
    with pytest.raises(LinkError, match="3 sums and 2"):
        moments_in(moments)
    for count, plain, squared in (
        (1, 1, -1),
        (1, 2, 1),
        (9, 10, 0),
        (0, 1, 1),
        (2, 1, 1 << 700),
        (1, 1 << 400, 1 << 750),
    ):
        with pytest.raises(LinkError, match=f"sums of squares, that no {count} numbers have"):
            moments_in(moments_out(Moments(count, (plain,), (squared,))))


@given(
    st.integers(1, 4), st.integers(1, 2000), st.integers(0, 5000), st.sampled_from([32, 64]), st.floats(-8, 8, width=32)
)
def test_no_honest_sum_is_over_the_limit(num_sites: int, weight: int, others: int, width: int, change: float) -> None:
    """The largest sum that sites within the clip can make is within what the hub takes for their weight."""
    grid = Grid(width, 8.0, num_sites * weight + others)
    layout = Layout.of({"w": ((2,), "float32")})
    total = Accumulator(grid, layout)
    nothing = np.zeros(0, np.int64)
    for value in (8.0, change, -8.0, 8.0)[:num_sites]:
        moved = np.array([value, change], np.float32)
        total.add_update(ModelState(moved, nothing), ModelState(np.zeros(2, np.float32), nothing), weight)
    largest = int(np.abs(total.total().floats.astype(object)).max())
    assert largest <= limit_of(grid, num_sites * weight, num_sites)


def test_the_generated_messages_are_current() -> None:
    pytest.importorskip("grpc_tools")
    from importlib.metadata import version

    from hierfl.link.generate import FOLDER, generated

    if tuple(map(int, version("grpcio-tools").split(".")[:2])) < (1, 85):
        pytest.skip("an older compiler writes the same in other words")

    for name, text in generated().items():
        assert (FOLDER / name).read_text() == text, "python -m hierfl.link.generate"


FORBIDDEN = {"pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib"}


def test_no_pickle_is_reachable_from_the_link() -> None:
    """Nothing in the rooms that bytes from a link go through can load objects; their imports are followed."""
    seen: set[str] = set()
    todo = [f"hierfl.link.{file.stem}" for file in (ROOT / "hierfl" / "link").glob("*.py")]
    while todo:
        name = todo.pop()
        place = ROOT / Path(*name.split("."))
        path = next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.exists()), None)
        if name in seen or path is None:
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            assert not {one.partition(".")[0] for one in names} & FORBIDDEN, f"{name} imports {names}"
            todo.extend(one for one in names if one.partition(".")[0] in ("hierfl", "tiers", "scheduler"))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                call = f"{node.value.id}.{node.attr}"
                assert call not in ("torch.load", "np.load", "numpy.load"), f"{name} calls {call}"
    assert {"hierfl.link.service", "hierfl.link.lane", "hierfl.learning.ring", "hierfl.checkpoint"} <= seen


def test_what_did_not_count_whole_arrives_as_it_was_or_not_at_all() -> None:
    told = (Shortfall(3, 28, 40), Shortfall(5, 0, 1))
    assert shortfalls_in(shortfalls_out(told)) == told
    for refused in ([Shortfall(3, 41, 40)], [Shortfall(3, 0, 0)], [*told, *told, *told]):
        with pytest.raises(LinkError):
            shortfalls_in(shortfalls_out(refused))


def test_a_scale_of_features_is_whole_and_finite() -> None:
    assert scale_in(wire.Prepare()) is None
    found = scale_in(wire.Prepare(mean=[0.5, -1.0], std=[1.0, 2.0]))
    assert found is not None and [part.tolist() for part in found] == [[0.5, -1.0], [1.0, 2.0]]
    for mean, std in (([1.0], []), ([1.0], [0.0]), ([1.0], [-1.0]), ([float("nan")], [1.0]), ([1.0], [float("inf")])):
        with pytest.raises(LinkError, match="features"):
            scale_in(wire.Prepare(mean=mean, std=std))
