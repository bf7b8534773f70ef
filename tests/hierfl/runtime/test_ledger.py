"""What has happened stands in the ledger before it happens, and happens no more often than it may."""

from __future__ import annotations

from pathlib import Path

import pytest

from hierfl.fault import Fault, Moment, Plan, Where, steps
from hierfl.faults.kill import Kill
from hierfl.runtime.ledger import Ledger, News, read_ledger


def fault(times: int = 1, number: int = 0, probability: float = 1.0, node: str = "w") -> Fault:
    return Fault("kill", Where(node, "open", times=times, probability=probability), Kill(), number)


def test_a_fault_happens_as_often_as_it_may_in_each_round_also_where_the_run_is_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "faults.jsonl"
    first = Ledger(path)
    assert [first.claim(fault(2), Moment("w", "open", 1)) for _ in range(3)] == [True, True, False]
    assert first.claim(fault(2, number=1), Moment("w", "open", 1)), "its equal in the list is another"
    again = Ledger(path)
    assert not again.claim(fault(2), Moment("w", "open", 1)) and again.claim(fault(2), Moment("w", "open", 2))
    assert [line["round"] for line in read_ledger(path)] == [1, 1, 1, 2]


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "faults.jsonl"
    Ledger(path).claim(fault(), Moment("w", "open", 1))
    with path.open("a") as file:
        file.write('{"fault": "ki')
    news = News(path)
    assert len(news.take()) == 1 and news.take() == []
    assert Ledger(path).claim(fault(), Moment("w", "open", 2))
    assert [line["round"] for line in read_ledger(path)] == [1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_drawn_is_drawn_for_each_node_and_round_and_repeats_itself(seed: int) -> None:
    plan = Plan([fault(probability=0.3, node="w*")], seed)
    moments = [Moment(node, "open", number) for node in ("w", "w/a", "w/b") for number in range(1, 201)]
    drawn = [bool(list(plan.due(moment))) for moment in moments]
    assert drawn == [bool(list(plan.due(moment))) for moment in moments]
    assert 0.25 < sum(drawn) / len(drawn) < 0.35
    assert drawn[:200] != drawn[200:400]


def test_a_pattern_names_nodes_and_a_path_itself_even_where_it_looks_like_one() -> None:
    def struck(node: str, other: str) -> bool:
        return bool(list(Plan([fault(node=node)]).due(Moment(other, "open", 1))))

    assert struck("w/*", "w/a") and struck("w/[a]", "w/[a]") and struck("w/[a]", "w/a")
    assert not struck("w/*", "w") and not struck("w/a", "w/b")


def test_the_usual_step_comes_first() -> None:
    assert steps(site="trained") == {"site": ("trained", "training", "exchange")}
