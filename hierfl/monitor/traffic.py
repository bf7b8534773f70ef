"""What came up the tree in a run: bytes of updates, and the bytes that compression spared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from hierfl.monitor.records import Record, RoundClosed
from hierfl.monitor.words import finite, num_bytes, percent

__all__ = ["Traffic", "traffic_lines"]


class Traffic:
    """A monitor that counts what hubs were handed up; since this process took the run up."""

    heeds: ClassVar = (RoundClosed,)

    def __init__(self) -> None:
        self._bytes_up = 0
        self._spared = 0

    def on(self, record: Record) -> None:
        """Take a record."""
        if isinstance(record, RoundClosed):
            self._bytes_up += record.bytes_up
            self._spared += record.bytes_spared

    def close(self) -> None:
        """Nothing is open."""

    def record(self) -> dict[str, Any]:
        """Give the figures for the summary: bytes handed up, and how many more they would be without compression."""
        return {"traffic": {"bytes_up": self._bytes_up, "bytes_spared": self._spared}}


def traffic_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Say what compression spared; nothing where there was none."""
    up, spared = finite(found.get("bytes_up")), finite(found.get("bytes_spared"))
    if up is None or not spared:
        return
    whole = up + spared
    said = f"{percent(spared / whole)} less" if spared > 0 else f"{percent(-spared / whole)} more"
    yield f"sent up  {num_bytes(up)}, {said} than the {num_bytes(whole)} of whole updates"
