"""How predictions are spread over patients arrives as it was counted, and what contradicts itself does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierfl.errors import LinkError
from hierfl.learning.clusters import Spread
from hierfl.learning.labels import tally_of_labels
from hierfl.learning.metrics import Tally
from hierfl.link._wire import link_pb2 as wire
from hierfl.link.codec import integer_out
from hierfl.link.tallies import tally_in, tally_out


def tally(classes: int = 2, n: int = 30, patients: int = 6, seed: int = 0) -> Tally:
    chance, spread = np.random.default_rng(seed), Spread(patients)
    scores = chance.random(n) if classes == 2 else chance.dirichlet(np.ones(classes), n)
    labels = chance.integers(0, classes, n)
    spread.add(chance.integers(0, patients, n), scores, labels)
    return replace(Tally.of(scores, labels, loss_sum=3.25), clusters=spread.clusters())


def of_labels(auc: str = "histogram") -> Tally:
    chance, spread = np.random.default_rng(1), Spread(5)
    labels = chance.integers(-1, 2, (20, 3)).astype(float)
    spread.add_labels(chance.integers(0, 5, 20), labels, labels >= 0, has_curves=auc != "none")
    counted = tally_of_labels(chance.random((20, 3)), labels, ("a", "b", "c"), loss_sum=1.0, auc=auc)
    return replace(counted, clusters=spread.clusters())


@given(st.integers(2, 4), st.integers(1, 40), st.integers(1, 40), st.integers(0, 999))
def test_whatever_patients_have_arrives_as_it_was(classes: int, n: int, patients: int, seed: int) -> None:
    counted = tally(classes, n, patients, seed)
    assert tally_in(wire.Tally.FromString(tally_out(counted).SerializeToString())) == counted
    total = counted + replace(tally(classes, n, 1, seed + 1), clusters=None)
    assert tally_in(tally_out(total)) == total


@pytest.mark.parametrize("auc", ["histogram", "exact", "none"])
def test_labels_arrive_as_they_were(auc: str) -> None:
    counted = of_labels(auc)
    assert tally_in(tally_out(counted)) == counted and tally_out(counted).HasField("clusters")
    assert len(tally_out(counted).clusters.sizes) == (1 if auc == "none" else 7)


def test_nothing_travels_where_it_is_not_asked_for() -> None:
    assert not tally_out(replace(tally(), clusters=None)).HasField("clusters")


def put(of: Any, name: str, by: int) -> None:
    """Change a sum by so much."""
    setattr(of, name, integer_out(int.from_bytes(getattr(of, name), "little", signed=True) + by))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.sizes.add(), "4 and 3 sums over patients; needed: 3 and 3"),
        (lambda c: c.right.pop(), "3 and 2 sums over patients"),
        (lambda c: c.ClearField("sizes"), "0 and 3 sums"),
        (lambda c: setattr(c.sizes[0], "num_patients", 0), "the number of patients is 0; from 1 to 30"),
        (lambda c: setattr(c.sizes[0], "num_patients", 31), "the number of patients is 31"),
        (lambda c: setattr(c.sizes[0], "num_patients", 2**63), "the number of patients"),
        (lambda c: put(c.sizes[0], "squares", 900), "squares that 30 predictions of 6 patients do not have"),
        (lambda c: put(c.sizes[0], "squares", -100), "squares that 30 predictions of 6 patients do not have"),
        (lambda c: setattr(c.sizes[1], "squares", integer_out(-4)), "squares that 1[0-9] predictions"),
        (lambda c: setattr(c.sizes[0], "squares", b"\x01" * 97), "97 bytes"),
        (lambda c: put(c.right[0], "squares", -200), "right ones of 30 predictions of 6 patients"),
        (lambda c: put(c.right[0], "squares", 200), "right ones of 30 predictions of 6 patients"),
        (lambda c: put(c.right[1], "products", 200), "right ones of 1[0-9] predictions"),
        (lambda c: put(c.right[2], "products", -200), "right ones of 1[0-9] predictions"),
        (lambda c: setattr(c.sizes[1], "num_patients", 7), "of other patients than there are"),
    ],
)
def test_what_no_patients_have_is_refused(change: Callable[[Any], None], said: str) -> None:
    message = tally_out(tally())
    change(message.clusters)
    with pytest.raises(LinkError, match=said):
        tally_in(message)


def test_of_nothing_that_was_counted_into_classes_nothing_is_spread() -> None:
    for counted in (Tally(), Tally(4, 1, 4), Tally(3, own={"mae": 0}, num_own=3)):
        message = tally_out(counted)
        assert tally_in(message) == counted
        message.clusters.sizes.add()
        with pytest.raises(LinkError, match="counts of"):
            tally_in(message)
