"""CSV files as programs of many countries write them: how one is read, and what to say of one that is read wrongly."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hierfl.kinds import nearest

__all__ = ["Csv"]

DECIMALS = (".", ",")
_DELIMITERS = (";", "\t", "|", ",")
_COMMA = re.compile(r"[+-]?\d*,\d+")
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Csv:
    """How a file is written: what stands between its values and before decimals; its encoding, as Python names it."""

    delimiter: str = ","
    decimal: str = "."
    encoding: str = "utf-8"

    @property
    def between(self) -> str:
        """Give the delimiter itself: a tab may be called by its name."""
        return "\t" if self.delimiter in ("tab", "\\t") else self.delimiter

    def problem(self) -> str:
        """Say what is wrong with it; nothing if nothing is."""
        if len(self.between) != 1 or self.between in '"\n\r':
            return f"delimiter is {self.delimiter!r} (allowed: one character such as ';', or tab)"
        if self.decimal not in DECIMALS:
            return f"decimal is {self.decimal!r} (allowed: {', '.join(map(repr, DECIMALS))})"
        if self.decimal == self.between:
            return f"delimiter and decimal are both {self.decimal!r}; files with decimal commas have another, often ';'"
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            known = ["utf-8", "latin-1", "cp1252", "utf-16"]
            return f"encoding is {self.encoding!r}, which Python does not know{nearest(self.encoding, known)}"
        return ""

    def read(self, file: Path, words: Iterable[str] = ()) -> Any:
        """Read a file as an Arrow table; types are those of all rows, and `words` are never numbers.

        What is a gap among numbers (an empty cell, NA, NaN, null) is one among words. Errors: pyarrow's, OSError,
        UnicodeError.
        """
        import pyarrow as pa
        from pyarrow import csv

        return csv.read_csv(
            file,
            read_options=csv.ReadOptions(encoding=self.encoding),
            parse_options=csv.ParseOptions(delimiter=self.between, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                strings_can_be_null=True,
                decimal_point=self.decimal,
                column_types=dict.fromkeys(words, pa.string()),
            ),
        )

    def hint(self, file: Path) -> str:
        """Say what a file looks like by its first line, where that is another than was told; else nothing. Of the line
        itself nothing is said: it may be a patient's.
        """
        with file.open("rb") as opened:
            begin = opened.read(4096)
        for mark, encoding in _MARKS.items():
            if begin.startswith(mark) and codecs.lookup(self.encoding).name != encoding:
                return f"; it is written in {encoding.upper()}, so tell its encoding: data: {{encoding: {encoding}}}"
        first = begin.decode(self.encoding, "replace").partition("\n")[0].strip()
        counts = {one: first.count(one) for one in _DELIMITERS}
        likely = max(counts, key=counts.__getitem__)
        if counts[likely] <= first.count(self.between):
            return ""
        shown, told = ("tab" if one == "\t" else f"'{one}'" for one in (likely, self.between))
        found = f"its first line has {counts[likely]} times {shown} and {first.count(self.between)} times {told}"
        return f"; {found}, so tell what separates values: data: {{delimiter: {shown}}}"

    def undecoded(self) -> str:
        """Say what to do with text that is not of the encoding."""
        other = "latin-1" if codecs.lookup(self.encoding).name == "utf-8" else "utf-8"
        return (
            f"it is not written in {self.encoding}; tell its encoding: data: {{encoding: {other}}}, or cp1252, utf-16"
        )

    def comma(self, values: Sequence[Any]) -> str:
        """Say what to do with words that are numbers with a decimal comma; nothing if they are not."""
        first = next((value for value in values if value), None)
        if self.decimal == "," or not isinstance(first, str) or not _COMMA.fullmatch(first.strip()):
            return ""
        return "; it has decimal commas, which is to be told: data: {decimal: ','}"
