"""Signed answers: what a signature is about, and replicas that hand out other vectors than they have signed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from late_hub import LAYOUT, Frail, Members, spec_of

from hierfl.config.schema import Replication
from hierfl.learning.state import ModelState
from hierfl.runtime.digests import digest
from hierfl.runtime.driver import Done
from hierfl.runtime.hub import Aggregator
from hierfl.runtime.jobs import Post
from hierfl.runtime.witness import INTRODUCE, Signed, Witness, is_signed
from scheduler.participations.all import All
from scheduler.participations.deadline import Deadline
from tiers.messages import Begin

WEIGHTS = {"a": 3, "b": 5}
VOTE = Replication(3, "vote")

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_digests_are_equal_where_values_are(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (repr(_ordered(one)) == repr(_ordered(other)))


def _ordered(value: Any) -> Any:
    """Put mappings in an order, told from lists; 0.0 and -0.0, and 1 and True, differ here as they do in a digest."""
    if isinstance(value, dict):
        return ("mapping", *sorted(((key, _ordered(item)) for key, item in value.items()), key=lambda pair: pair[0]))
    return [_ordered(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "other",
    [np.arange(4, dtype=np.int32), np.arange(4.0, dtype=np.float64), np.arange(4.0, dtype=np.float32).reshape(2, 2)],
)
def test_an_array_counts_with_its_dtype_and_shape(other: Any) -> None:
    array = np.arange(4.0, dtype=np.float32)
    assert digest(array) == digest(array.copy()) == digest(np.stack([array, array], 1)[:, 0])
    assert digest(array) != digest(other)
    assert digest(ModelState(array, other)) != digest(ModelState(other, array))


def test_a_signature_is_about_who_answers_what() -> None:
    spec, post = spec_of(All(), WEIGHTS, redundancy=VOTE), Post(1, life=4, first=7)
    witness = Witness(spec, post, Aggregator(spec))
    key = witness.introduce()
    model = ModelState(np.zeros(3, np.float32), np.zeros(1, np.int64))
    said, *_ = witness.begin(Begin(0), None, model, None)
    assert is_signed("world", post, 7, said, key)
    assert not is_signed("world", post, 8, said, key)
    assert not is_signed("world/us", post, 7, said, key)
    assert not is_signed("world", replace(post, life=5), 7, said, key)
    assert not is_signed("world", replace(post, replica=2), 7, said, key)
    assert not is_signed("world", post, 7, replace(said, vectors=digest("other")), key)
    assert not is_signed("world", post, 7, replace(said, outcome=replace(said.outcome, orders=())), key)
    assert not is_signed("world", post, 7, said, Witness(spec, post, None).introduce())
    assert not is_signed("world", post, 7, said, b"")


class Forger(Frail):
    """The first replica hands out zeros in place of the model that it has signed; or names another key, once."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def answer(self, actor: str) -> Done:
        done = super().answer(actor)
        if actor != "world":
            return done
        if self.what == "key" and isinstance(done.value, bytes):
            self.what = ""
            return replace(done, value=b"\0" * 32)
        if self.what == "vectors" and isinstance(done.value, Signed) and done.value.outcome.finished is not None:
            model = ModelState(np.zeros(3, np.float32), np.zeros(1, np.int64))
            return replace(done, beside=(done.beside[0], model, done.beside[2]))
        return done


@pytest.mark.parametrize(("what", "cause"), [("vectors", "forged"), ("key", "unsigned")])
def test_who_hands_out_something_else_than_it_has_signed_is_found(
    what: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Deadline(after_s=1.0, quorum=0.5)
    honest = Members(spec_of(policy, WEIGHTS))
    monkeypatch.setattr("late_hub.Frail", lambda: Forger(what))
    lied_to = Members(spec_of(policy, WEIGHTS, redundancy=VOTE))
    for members in (honest, lied_to):
        members.begin()
        for name in WEIGHTS:
            members.arrive(name)
    assert (0, cause) in lied_to.lost and {cause for _, cause in lied_to.lost} == {cause}
    assert lied_to.model.digest(LAYOUT) == honest.model.digest(LAYOUT)
    assert INTRODUCE == "introduce"
