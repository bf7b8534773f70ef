"""The comparison of small models on one card: without a card a line and no failure; the code itself, on threads."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import main
from benchmarks.colocation import Scale, rows


def test_without_a_card_it_says_that_it_needs_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["colocation"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "colocation needs a CUDA GPU, and there is none; --device cpu shows that it works"
    ]


def test_the_curve_begins_with_serial_and_ends_with_hierfl() -> None:
    found = list(rows(Scale(most=3, rounds=1, steps=1), "cpu", kind="local"))
    assert [row.contender for row in found] == ["serial, one at a time", "2 at once", "3 at once", "hierfl, 3 places"]
    assert found[0].ratio == 1.0 and all(row.sites_per_s > 0.0 and row.out_of_memory == 0 for row in found)
