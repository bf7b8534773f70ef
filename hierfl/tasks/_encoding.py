"""How a table's columns become features: numbers, with their gaps filled, and values as one 0 or 1 for each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hierfl.errors import Problem
from hierfl.kinds import nearest
from hierfl.learning.task import IS_MISSING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hierfl.tasks._site_table import SiteTable

__all__ = ["ANY", "LARGEST", "Encoding"]

ANY = "*"
"""In the place of a column: every other one; of a value: every other one, and gaps."""

QUOTE = "YAML takes no, yes, on and off for false and true, unless they are quoted: 'no'"

LARGEST = 3.4028234663852886e38
"""Of float32."""

_PADDED = re.compile(r"[+-]?0[\dxX]")
_TIME = re.compile(r"\d{1,2}:\d\d|\d{4}-\d\d-\d\d[ T]\d")

_TYPICAL = ("median", "mean", "most_frequent")


@dataclass(frozen=True)
class Encoding:
    """`features`: columns, in order; `categories`: of some, their values; `fill`: what stands for gaps, by column;
    `flags_gaps`: whether each column that is filled has one more feature, 1 where there was a gap.
    """

    features: Sequence[str]
    categories: Mapping[str, Sequence[Any]]
    fill: Mapping[str, Any]
    flags_gaps: bool

    @property
    def names(self) -> list[str]:
        """Name the features: a column, `column=value` for each of its values, `column is missing`."""
        found = []
        for name in self.features:
            found += [f"{name}={value}" for value in self._values(name)] if name in self.categories else [name]
        return found + [f"{name}{IS_MISSING}" for name in self._flagged()]

    @property
    def worded(self) -> list[str]:
        """List the columns some of whose values would not be the same if they were read as numbers, 01, 250.10, 1E2, or
        as times, 10:00.
        """
        return [name for name in self.categories if not all(map(_is_kept, self._values(name)))]

    def problems(self) -> Iterator[Problem]:
        """Say what contradicts itself."""
        for where, columns in (("categories", self.categories), ("fill", self.fill)):
            for name in columns:
                if name not in self.features and (name != ANY or where == "categories"):
                    yield Problem(where, f"{name!r} is no feature{nearest(name, self.features)}")
        for name in self.categories:
            values = self._values(name)
            if not values or len(set(values)) < len(values):
                yield Problem("categories", f"{name} needs at least one value, each once, not {list(values)}")
            kinds = {type(value) for value in self.categories[name]}
            if bool in kinds and {*values} - {"true", "false", ANY}:
                yield Problem("categories", f"{name} has true or false among its words; {QUOTE}")
            if kinds & {int, float} and name in self.worded:
                way_out = "quote all of them: '01', '250.10'"
                yield Problem("categories", f"{name} has numbers among codes that are none, such as 01; {way_out}")
            if "" in values:
                way_out = f"let fill say what stands for it, or '{ANY}' take it"
                yield Problem("categories", f"{name} has an empty value, which is a gap; {way_out}")
        for name, value in self.fill.items():
            if name in self.categories:
                allowed = [one for one in self._values(name) if one != ANY]
                if _word(value) not in ("most_frequent", *allowed):
                    yield Problem("fill", f"{name} is {value!r}{nearest(str(value), ['most_frequent', *allowed])}")
            elif value not in _TYPICAL and not _is_number(value):
                yield Problem("fill", f"{name} is {value!r} (allowed: {', '.join(_TYPICAL)}, or a number)")

    def matrix(
        self, table: SiteTable, own: tuple[SiteTable, NDArray[np.bool_]] | None, *, wide: bool
    ) -> NDArray[np.floating]:
        """Give the features of a table, (n, d), as float32, or `wide`, as float64. `own`: the site's own table, and
        which of its rows it trains on, by which gaps are filled.

        Errors: DataError that names the column.
        """
        import numpy as np

        kind, at, gaps = np.float64 if wide else np.float32, 0, {}
        x: NDArray[np.floating] = np.zeros((table.num_rows, len(self.names)), kind)
        for name in self.features:
            if name in self.categories:
                places, gaps[name] = self._places(table, name, own)
                x[np.arange(len(x)), at + places] = 1
                at += len(self.categories[name])
            else:
                x[:, at], gaps[name] = self._number(table, name, own)
                at += 1
        for place, name in enumerate(self._flagged(), start=at):
            x[:, place] = gaps[name]
        return x

    def places(self, table: SiteTable, name: str, way_out: str) -> NDArray[np.int64]:
        """Give which of its categories each value of a column without gaps is, (n,). Errors: DataError."""
        import numpy as np

        words = [_word(value) for value in table.words(name)]
        if None in words:
            raise table.error(f"column {name!r} has {words.count(None)} gaps in {len(words)} rows; drop these rows")
        return np.array(self._known(table, name, words, way_out), dtype=np.int64)

    def _known(self, table: SiteTable, name: str, words: Sequence[str | None], way_out: str) -> list[int]:
        """Give the place of each word among a column's categories. Errors: DataError for one that is none of them."""
        values = self._values(name)
        known: dict[str | None, int] = {value: place for place, value in enumerate(values)}
        for value in {"true", "false"} & {*values}:  # beside other words they stand as their program writes them
            for written in (value.title(), value.upper()):
                known.setdefault(written, known[value])
        others = [word for word in words if word not in known]
        if ANY in known:
            meant = {_plain(value): value for value in values}
            nearly = [word for word in others if word is not None and _plain(word) in meant]
            if nearly:
                raise table.error(
                    f"column {name!r} has {len(nearly)} values that differ from a category of it in case or blanks"
                    f" alone, and would be others ({ANY!r}); write them as they stand there, or name them beside it",
                    f"{nearly[0]!r} is the first ({meant[_plain(nearly[0])]!r} is a category)",
                )
        elif others:
            if {*values} <= {"true", "false"} and str(others[0]).lower() in ("no", "yes", "on", "off"):
                way_out = QUOTE
            raise table.error(
                f"column {name!r} has {len(others)} values that are no category of it; {way_out}",
                f"{others[0]!r} is the first{nearest(str(others[0]), values)}",
            )
        return [known.get(word, known.get(ANY, 0)) for word in words]

    def _number(
        self, table: SiteTable, name: str, own: tuple[SiteTable, NDArray[np.bool_]] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Give a column of numbers (n,), and where it had gaps (n,)."""
        import numpy as np

        values = self._numbers(table, name)
        gap = np.isnan(values)
        if gap.any():
            values = np.where(gap, self._typical(table, name, own), values)
        return values, gap

    def _numbers(self, table: SiteTable, name: str) -> NDArray[np.float64]:
        """Give a column of numbers (n,), NaN where there are gaps that are filled."""
        return table.numbers(
            *(name, LARGEST),
            gaps=self._filled(name) is not None,
            way_out=f"fill them (fill: {{{name}: median}}) or drop them",
            else_way_out=f", or its values (categories: {{{name}: [...]}})",
            empty_way_out=f"; say what stands for it (fill: {{{name}: 0.0}}, say), or do without the column",
        )

    def _places(
        self, table: SiteTable, name: str, own: tuple[SiteTable, NDArray[np.bool_]] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Give which of its categories each value of a column is (n,), and where it had gaps (n,)."""
        import numpy as np

        words: list[str | None] = [_word(value) for value in table.words(name)]
        gap = np.array([word is None for word in words], dtype=np.bool_)
        if gap.any() and self._filled(name) is not None:
            filling = self._typical(table, name, own)
            words = [filling if word is None else word for word in words]
        if None in words and ANY not in self._values(name):
            way_out = f"fill them (fill: {{{name}: most_frequent}}), drop them, or have a category '{ANY}'"
            raise table.error(f"column {name!r} has {int(gap.sum())} gaps in {len(words)} rows; {way_out}")
        places = self._known(table, name, words, f"{ANY!r} among the categories is all others")
        return np.array(places, dtype=np.int64), gap

    def _typical(self, table: SiteTable, name: str, own: tuple[SiteTable, NDArray[np.bool_]] | None) -> Any:
        """Give what stands for a gap. Errors: DataError where nothing is known that would be typical."""
        import numpy as np

        how, is_code = self._filled(name), name in self.categories
        if how not in _TYPICAL:
            return _word(how) if is_code else float(how)
        if own is None:
            raise table.error(
                f"column {name!r} has gaps, which the {how} of the site's own training rows fills; say where these are:"
                " --site NAME --data PATH"
            )
        of, trains = own
        known: list[Any]
        if is_code:
            words = [_word(value) for value in of.words(name)]
            known = [word for word, train in zip(words, trains, strict=True) if train and word is not None]
        else:
            values = self._numbers(of, name)
            known = values[trains & ~np.isnan(values)].tolist()
        if not known:
            way = "one of its categories" if is_code else "a number"
            raise of.error(
                f"column {name!r} has gaps and no value in the training rows, so that nothing is typical here; give"
                f" {way}: fill: {{{name}: ...}}"
            )
        if how == "most_frequent" or is_code:
            distinct, counts = np.unique(np.array(known), return_counts=True)
            return distinct[counts.argmax()].item()
        return float(np.median(known) if how == "median" else np.mean(known))

    def _filled(self, name: str) -> Any:
        """Say what stands for a column's gaps; None where they are refused, or are a value of their own."""
        if name in self.fill:
            return self.fill[name]
        others, values = self.fill.get(ANY), self._values(name)
        is_number = name in self.categories and others not in _TYPICAL and _word(others) not in values
        return None if ANY in values or is_number else others

    def _flagged(self) -> list[str]:
        """List the columns whose gaps are features."""
        return [name for name in self.features if self.flags_gaps and self._filled(name) is not None]

    def _values(self, name: str) -> tuple[str, ...]:
        """Give a column's values as words."""
        return tuple(_word(value) or "" for value in self.categories.get(name, ()))


def _is_kept(word: str) -> bool:
    """Say whether a word is the same after it was read as a number, a time or a truth value, or is none of these."""
    if _PADDED.match(word) or _TIME.match(word) or (word.lower() in ("true", "false") and not word.islower()):
        return False
    try:
        return _word(float(word)) == word or not math.isfinite(float(word))
    except ValueError:
        return True


def _word(value: Any) -> str | None:
    """Write a value as YAML would, 1 for 1.0; None for a gap, which an empty word is."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal) and Decimal(str(float(value))) == value:
        value = float(value)  # 0.10 as 0.1
    if isinstance(value, float | Decimal):
        return None if math.isnan(value) else str(int(value)) if math.isfinite(value) and value % 1 == 0 else str(value)
    return None if value is None else str(value) or None


def _plain(word: str) -> str:
    """Write a word without what people do not see, or do not mind."""
    return "".join(word.split()).casefold()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
