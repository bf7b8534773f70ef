from __future__ import annotations

import monitor_script as script
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierfl.monitor.busy import Account
from hierfl.monitor.outline import members_by_hub, outline, sites_below
from hierfl.monitor.records import Phase
from hierfl.monitor.words import count, metric, percent, seconds


def drawn(federation, **limits):
    return outline(members_by_hub(federation.nodes), federation.root.name, **limits)


def test_a_small_tree_is_drawn_whole():
    rows = drawn(script.heart())
    assert [row.path for row in rows] == list(script.heart().nodes)
    assert rows[2].guide == "│  ├─ "
    assert not any(row.hidden for row in rows)


def test_siblings_beyond_the_limit_are_summed_up():
    rows = drawn(script.wide(1, 100))
    assert len(rows) == 2 + 12 + 1
    assert len(rows[-1].hidden) == 88


def test_a_single_one_more_is_shown_instead():
    assert not any(row.hidden for row in drawn(script.wide(1, 13)))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(2, 45))
def test_every_node_is_shown_or_counted_once_within_the_limit(hubs, sites, limit):
    federation = script.wide(hubs, sites)
    members = members_by_hub(federation.nodes)
    rows = drawn(federation, rows=limit)
    assert len(rows) <= limit
    told = [row.path for row in rows if not row.hidden and row.path not in members]
    told += [site for row in rows for site in sites_below(members, row.hidden)]
    assert sorted(told) == sorted(federation.sites)


def test_a_chain_deeper_than_the_screen_is_cut_and_needs_no_recursion():
    paths = ["/".join(["n"] * depth) for depth in range(1, 3000)]
    rows = outline(members_by_hub(paths), "n", rows=20)
    assert len(rows) == 20
    assert rows[-1].hidden


def test_a_window_is_busy_and_waiting_time_and_nothing_else():
    account = Account(("a", "b"), 10.0)
    account.add(Phase(12, "a", "train", 10, 12, ["s"], 1))
    account.add(Phase(12, "a", "load", 11, 13, ["s"], 1))
    account.add(Phase(12, "hub", "aggregate", 12, 13, ["hub"], 1))
    share = account.close(14.0)
    assert share.busy == {"a": 0.75, "b": 0.0}
    assert share.phase_s["wait"] == pytest.approx(1 + 4)
    assert share.phase_s["aggregate"] == pytest.approx(1)
    assert account.close(14.0).busy == {"a": 0.0, "b": 0.0}


def test_numbers_read_alike_everywhere():
    assert (metric(0.87349), metric(None), metric(float("nan"))) == ("0.873", "\N{EN DASH}", "\N{EN DASH}")
    small = [metric(value) for value in (4.5878e-6, -4.5878e-6, 0.00099, 0.001, 0.0, 1e-17, 45_878_000)]
    assert small == ["4.59e-06", "-4.59e-06", "9.90e-04", "0.001", "0.000", "0.000", "4.59e+07"]
    assert (count(10000), percent(0.866)) == ("10,000", "87%")
    told = [seconds(value) for value in (0.0401, 0.0996, 1.237, 9.996, 59.96, 185, 7620)]
    assert told == ["40 ms", "0.10 s", "1.24 s", "10.0 s", "1 min 00 s", "3 min 05 s", "2 h 07 min"]
