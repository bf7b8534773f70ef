"""What sites have told of their records: as the run's folder keeps it, and as a table for a person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierfl import durable
from hierfl.errors import OutputError
from hierfl.monitor.cross_site import short
from hierfl.monitor.files import as_json
from hierfl.monitor.words import count, few, finite, percent, plural

if TYPE_CHECKING:
    from rich.table import Table

    from hierfl.config.learning import Statistics

__all__ = ["FILE", "Told", "asked", "read_statistics", "write_statistics"]

FILE = "statistics.json"


@dataclass(frozen=True)
class Told:
    """Statistics by node, the root first, as `TableStatistics.as_json` writes them; `min_count`: the fewest records
    that a number stands for.
    """

    min_count: int
    nodes: Mapping[str, Mapping[str, Any]]

    @property
    def columns(self) -> list[str]:
        """List the columns of all nodes, in the order of the tables."""
        return list(dict.fromkeys(name for node in self.nodes.values() for name in node["columns"]))

    @property
    def has_histograms(self) -> bool:
        """Whether any column has one at the root."""
        return any(column.get("histogram") for column in next(iter(self.nodes.values()))["columns"].values())

    def cells(self) -> dict[str, dict[str, str]]:
        """Write each column's figures in few words, by column and node; first of all the records."""
        rows = {"records": {path: count(node["num_rows"]) for path, node in self.nodes.items()}}
        whole = next(iter(self.nodes.values()))["columns"] if self.nodes else {}
        for name in self.columns:
            values = whole.get(name, {}).get("values")
            label = _shown(name) if _shown(name) not in rows else repr(name)
            rows[label] = {path: _cell(node["columns"].get(name), values) for path, node in self.nodes.items()}
        return rows

    def rows(self) -> list[dict[str, Any]]:
        """Give a row for each node and column."""
        found = []
        for path, node in self.nodes.items():
            for name, column in node["columns"].items():
                values = list(column["values"].items()) if "values" in column else None
                found.append({"node": path, "column": name, **column, "values": values})
        return found

    def legend(self) -> str:
        """Say what the table shows."""
        return (
            "mean ± standard deviation of numbers, the most frequent value of others (≥: at least, as some are not told"
            " by value), and how many values are missing;"
            f" no number of values stands for fewer than {plural(self.min_count, 'record')}, - where it would"
        )

    def table(self, width: int) -> Table:
        """Make a rich table of the nodes that fit into `width`; the others are named below."""
        from rich.table import Table
        from rich.text import Text

        rows, names = self.cells(), short(list(self.nodes))
        room = width - max(map(len, rows))
        wide = accumulate(_wide(names[path], rows, path) for path in self.nodes)
        shown = list(self.nodes)[: max(1, sum(so_far <= room for so_far in wide))]
        made = Table(box=None, pad_edge=False)
        made.add_column("")
        for path in shown:
            made.add_column(Text(names[path]), justify="right", no_wrap=True)
        for name, row in rows.items():
            made.add_row(Text(name), *(Text(row[path]) for path in shown))
        if rest := [names[path] for path in list(self.nodes)[len(shown) :]]:
            made.caption = Text(f"no room for {few(rest)}: {FILE} has all")
            made.caption_justify = "left"
        return made

    def record(self) -> dict[str, Any]:
        """Give it ready for JSON."""
        return {"min_count": self.min_count, "nodes": self.nodes}


def asked(wanted: Statistics) -> str:
    """Say what sites tell of their records."""
    which = "each column" if wanted.columns is None else f"the columns {', '.join(wanted.columns)}"
    said = f"{which} of its records how many values are missing, mean and deviation of numbers, and how often each of"
    said = f"{said} its {wanted.max_values} most frequent values is there"
    if wanted.ranges:
        spans = ", ".join(f"{name} ({low:g} to {high:g})" for name, (low, high) in wanted.ranges.items())
        said = f"{said}, of {spans} instead how many values lie in each of {wanted.bins} bins"
    if wanted.min_count == 1:
        return f"{said}: a number may stand for one record"
    kept = f"stands for fewer than {wanted.min_count} records of a site"
    return f"{said}: no number but those of all records and of missing values {kept}"


def write_statistics(run_dir: Path, told: Told) -> None:
    """Keep them in the run's folder. Errors: OutputError."""
    try:
        durable.put(run_dir / FILE, as_json(told.record()) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write {run_dir / FILE}: {error.strerror or error}") from error


def read_statistics(run_dir: Path) -> Told | None:
    """Read what sites have told; None where nothing was asked. Errors: OutputError for a damaged file."""
    try:
        said = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
        told = Told(said["min_count"], said["nodes"])
        told.cells()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"cannot read {run_dir / FILE}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(f"{run_dir / FILE} is damaged; delete it, or put it back") from error
    return told


def _wide(name: str, rows: Mapping[str, Mapping[str, str]], path: str) -> int:
    """Give a node's width with the gap before it."""
    return max(len(name), *(len(row[path]) for row in rows.values())) + 2


def _shown(word: str) -> str:
    """Write a word that somebody else has chosen: nothing in it moves a cursor."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in word)


def _cell(column: Mapping[str, Any] | None, of_all: Mapping[str, int] | None) -> str:
    """Write one column at one node: what is typical, and what is missing. `of_all`: the root's counts by value."""
    if column is None:
        return ""
    said = _typical(column, of_all)
    missing = column["missing"]
    if not missing:
        return said
    if column.get("num_withheld"):  # of how many is not told
        return f"{said} ({count(missing)} missing)"
    share = missing / (column["count"] + missing)
    return f"{said} ({'<1%' if share < 0.005 else percent(share)} missing)"


def _typical(column: Mapping[str, Any], of_all: Mapping[str, int] | None) -> str:
    """Write what a column's values are like: of codes and words how many are the most frequent, of 0 and 1 the 1."""
    values, there = column.get("values"), column["count"]
    if not there:
        return "-"
    if values and (of_all or column["kind"] == "category"):
        most = "1" if set(of_all or values) <= {"0", "1"} else next(iter(values))
        return f"{_shown(most)}: {'≥' if column.get('others') else ''}{percent(values.get(most, 0) / there)}"
    if finite(column.get("mean")) is not None:
        of_some = f" of {count(column['mean_of'])}" if "mean_of" in column else ""
        return f"{column['mean']:.4g} ± {column['std']:.3g}{of_some}"
    if column["kind"] == "mixed":
        return "not the same everywhere"
    return f"{count(there)} values"
