"""One site's table, and its columns as numbers or words."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierfl.errors import QUOTED, DataError
from hierfl.tasks._csv import Csv

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SiteTable", "error_at"]

_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf|nan|infinity)", re.IGNORECASE)
_KEY = re.compile(r"data: \{(?P<key>\w+): (?P<value>[^}]+)\}")

GAPS = ("", "nan", "none", "null", "nat", "<na>")
"""What stands for a gap among words, in any case: Python and its tables write such a word where they had no value."""


@dataclass(frozen=True)
class SiteTable:
    """One site's columns, and what to call them in an error."""

    site: str
    path: Path
    arrow: Any
    csv: Csv | None = None
    """How its files are written, if they are CSV."""

    @property
    def num_rows(self) -> int:
        return int(self.arrow.num_rows)

    def error(self, message: str, quoted: str = "") -> DataError:
        """Say what is wrong with the table; `quoted`: what the site alone is to read, for it stands in its records."""
        return error_at(self.site, self.path, message + (QUOTED + quoted if quoted else ""))

    def numbers(
        self,
        name: str,
        largest: float = math.inf,
        *,
        gaps: bool = False,
        way_out: str = "fill or drop them",
        else_way_out: str = "",
        empty_way_out: str = "",
    ) -> NDArray[np.float64]:
        """Return a column as float64 (n,), NaN where a value is missing and `gaps` may be; else nulls and NaN are
        errors, as Inf, text and what is beyond `largest` are in any case. `way_out`: of a gap,
        `else_way_out`: of another type, `empty_way_out`: of a column of gaps alone.
        """
        import numpy as np
        from pyarrow import types

        column = self._plain(name)
        kind = column.type
        if types.is_null(kind) and (gaps or not len(column)):
            return np.full(len(column), np.nan)
        if types.is_null(kind):
            raise self.error(f"column {name!r} is empty in all {len(column)} rows{empty_way_out}")
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)):
            words = self.words(name) if self.csv is not None and types.is_string(kind) else []
            comma = self.csv.comma(words) if self.csv is not None else ""
            others = [
                place for place, word in enumerate(words) if word is not None and not _NUMBER.fullmatch(word.strip())
            ]
            if not comma and 0 < 2 * len(others) <= len(words):
                few = "1 value that is no number" if len(others) == 1 else f"{len(others)} values that are no numbers"
                raise self.error(
                    f"column {name!r} has {few}; needed: numbers, or an empty cell{else_way_out}",
                    f"{words[others[0]]!r} in row {others[0] + 1} is the first",
                )
            raise self.error(
                f"column {name!r} is of type {kind}; needed: integers, floats or booleans{comma or else_way_out}"
            )
        if column.null_count and not gaps:
            many = f"{column.null_count} null{'s' if column.null_count > 1 else ''} in {len(column)} rows"
            raise self.error(f"column {name!r} has {many}; {way_out}")
        column = column.cast("uint8") if types.is_boolean(kind) else column
        values: NDArray[np.float64] = column.cast("float64", safe=False).to_numpy().astype(float)
        bad = (~np.isfinite(values) & ~(gaps & np.isnan(values))) | (np.abs(values) > largest)
        if bad.any():
            what = "NaN or Inf" if np.isnan(values[bad]).any() or np.isinf(values[bad]).any() else "beyond float32"
            way = way_out if np.isnan(values[bad]).all() else "mend them, or leave them empty (fill is for gaps alone)"
            raise self.error(f"column {name!r} has {int(bad.sum())} values that are {what}; {way}")
        return values

    def check_told_apart(self, name: str, kind: np.dtype[Any], way_out: str = "") -> None:
        """Errors: DataError where a column's numbers, as floats of a kind, are off by a hundredth of their deviation or
        more: times in seconds since 1970 are so as float32, and would be constant, or nearly so.
        """
        import numpy as np
        from pyarrow import types

        column = self._plain(name).drop_null()
        column = column.cast("float64", safe=False) if types.is_decimal(column.type) else column
        if not (types.is_integer(column.type) or types.is_floating(column.type)) or not len(column):
            return
        exact = column.to_numpy()
        exact = exact[exact == exact]
        held = exact.astype(kind).astype(np.float64)
        if types.is_integer(column.type):
            exact = exact.astype(np.uint64) - exact.min().astype(np.uint64)  # wraps round, to the right difference
        offsets = exact.astype(np.float64)
        if not len(held) or np.abs((held - held.min()) - (offsets - offsets.min())).max() <= offsets.std() / 100:
            return
        many, few = len(np.unique(exact)), len(np.unique(held))
        raise self.error(
            f"column {name!r} has {many} distinct values, of which {kind} tells {few} apart; {way_out}"
            "subtract a constant from it (a time: count from a later day)"
        )

    def codes(self, name: str) -> NDArray[np.int64]:
        """Number a column's values from 0 on, in the order of their texts: (n,). Errors: DataError for a gap, which is
        NaN among numbers, and among words a blank, or what programs write for a gap, too: who has no name is not one
        with others. So it is for numbers that their type cannot tell apart.
        """
        import numpy as np
        import pyarrow as pa

        column = self._plain(name)
        try:
            found = column.cast(pa.string()).combine_chunks().dictionary_encode()
        except pa.ArrowException:
            raise self.error(f"column {name!r} is of type {column.type}; needed: words or integers") from None
        values = np.array(found.dictionary.to_pylist(), dtype=object)
        empty = [place for place, word in enumerate(values) if word.strip().casefold() in GAPS]
        places = found.indices.to_numpy(zero_copy_only=False)
        num_gaps = found.null_count + int(np.isin(places, empty).sum())
        if num_gaps:
            words = sorted({values[place].strip() for place in empty} - {""})
            which = f" ({', '.join(words)})" if words else ""
            raise self.error(f"column {name!r} has gaps{which} in {num_gaps} of {len(found)} rows; fill or drop them")
        if pa.types.is_floating(column.type):
            given = column.to_numpy()
            if np.abs(given).max(initial=0.0) >= 2.0 ** (np.finfo(given.dtype).nmant + 1):
                raise self.error(
                    f"column {name!r} is of type {column.type}, in which numbers as large as these run into each other;"
                    " write them as integers or words"
                )
        ranks = np.empty(len(values), dtype=np.int64)
        ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
        numbers: NDArray[np.int64] = ranks[places]
        return numbers

    def words(self, name: str) -> list[Any]:
        """Return a column as Python values. Errors: DataError for one of a type that has no words."""
        from pyarrow import types

        column = self._plain(name)
        kind = column.type
        is_text = types.is_string(kind) or types.is_large_string(kind)
        if not (is_text or types.is_primitive(kind) or types.is_decimal(kind) or types.is_null(kind)):
            raise self.error(f"column {name!r} is of type {kind}; needed: words (text, in UTF-8), or numbers")
        if types.is_timestamp(kind) or types.is_float32(kind):
            column = column.cast("string")
        if types.is_float32(kind):
            column = column.cast("float64")  # 0.1 as it is written, and not 0.10000000149
        values: list[Any] = column.to_pylist()
        return values

    def _plain(self, name: str) -> Any:
        """Give a column, not as a dictionary (a factor) and its codes."""
        from pyarrow import types

        column = self.arrow[name]
        return column.cast(column.type.value_type) if types.is_dictionary(column.type) else column


def error_at(site: str, path: Path, message: str) -> DataError:
    """Say what is wrong with a site's files, or with files that are no site's (empty)."""
    if not site:  # there is no YAML that has a `data`
        message = _KEY.sub(r"\g<key>=\g<value>", message)
    return DataError(f"site {site!r}: {path}: {message}" if site else f"{path}: {message}")
