"""What is said of the bytes that went up the tree."""

from __future__ import annotations

import pytest

from hierfl.monitor.records import RoundClosed
from hierfl.monitor.traffic import Traffic, traffic_lines
from hierfl.monitor.words import num_bytes


def test_bytes_of_all_hubs_and_rounds_are_added_up() -> None:
    traffic = Traffic()
    for node, up, spared in (("world", 100, 300), ("world/us", 50, 0), ("world", 100, 300)):
        traffic.on(RoundClosed(0.0, node, 1, "all", (), {}, 1.0, up, bytes_spared=spared))
    assert traffic.record() == {"traffic": {"bytes_up": 250, "bytes_spared": 600}}


@pytest.mark.parametrize(
    ("up", "spared", "said"),
    [
        (250, 750, ["sent up  250 B, 75% less than the 1.0 kB of whole updates"]),
        (1200, -200, ["sent up  1.2 kB, 20% more than the 1.0 kB of whole updates"]),
        (1200, 0, []),
    ],
)
def test_what_compression_spared_is_said_where_there_was_any(up: int, spared: int, said: list[str]) -> None:
    assert list(traffic_lines({"bytes_up": up, "bytes_spared": spared})) == said
    assert list(traffic_lines({})) == []


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (123456, "123 kB"),
        (2.5e6, "2.5 MB"),
        (7e9, "7.0 GB"),
        (3e13, "30.0 TB"),
    ],
)
def test_amounts_of_data_read_in_the_unit_that_fits(amount: float, said: str) -> None:
    assert num_bytes(amount) == said
