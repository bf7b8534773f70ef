"""CSV files as programs of many countries write them: how one is read, and what to say of one that is read wrongly.

Of what stands in a file no message says anything: it may be a patient's, and an error is read by others, too.
"""

from __future__ import annotations

import codecs
import csv as plain
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from hierfl.kinds import nearest
from hierfl.learning.task import Check

__all__ = ["Csv", "Decimal", "Delimiter", "TextEncoding"]

Delimiter: TypeAlias = Literal[",", ";", "tab", "|", ":", "space"]
Decimal: TypeAlias = Literal[".", ","]

_NAMED = {"tab": "\t", "space": " "}
_DELIMITERS = (",", ";", "\t", "|", ":")
_ENCODINGS = ("utf-8", "latin-1", "cp1252", "utf-16")
_NO_ENCODINGS = ("idna", "punycode")
"""Text encodings of Python that no file is written in."""

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(([., '\u00a0\u202f\u2019])\d{3})(\2\d{3})*([.,]\d+)?")
_TEXT = re.compile(r'"[^"]*"')
_BLOCK_BYTES = 1 << 24
"""No line may be longer: a row of a hundred thousand columns has a megabyte."""


def _no_encoding(name: str) -> str:
    """Say why a name is not of a text encoding; nothing if it is."""
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        found = None
    if found is None or not found._is_text_encoding or found.name in _NO_ENCODINGS:
        return f"is {name!r}, which is none{nearest(name, _ENCODINGS)}"
    return ""


TextEncoding: TypeAlias = Annotated[str, Check(_no_encoding)]


@dataclass(frozen=True)
class Csv:
    """How a file is written: what stands between its values and before decimals; its encoding, as Python names it."""

    delimiter: str = ","
    decimal: str = "."
    encoding: str = "utf-8"

    @property
    def between(self) -> str:
        """Give the delimiter itself."""
        return _NAMED.get(self.delimiter, self.delimiter)

    def problem(self) -> str:
        """Say what is wrong with it; nothing if nothing is."""
        for name, value, allowed in (
            ("delimiter", self.delimiter, Delimiter.__args__),  # type: ignore[attr-defined]
            ("decimal", self.decimal, Decimal.__args__),  # type: ignore[attr-defined]
        ):
            if value not in allowed:
                return f"{name} is {value!r} (allowed: {', '.join(map(repr, allowed))})"
        said = _no_encoding(self.encoding)
        return f"encoding {said}" if said else ""

    def of_row(self, file: Path, words: Iterable[str] = ()) -> Exception | None:
        """Read a file that cannot be read once more, row by row: Arrow's error then says which one it is."""
        import pyarrow as pa

        try:
            self.read(file, words, in_turn=True)
        except (pa.ArrowException, UnicodeError, OSError) as error:
            return error
        return None

    def read(self, file: Path, words: Iterable[str] = (), *, as_is: bool = False, in_turn: bool = False) -> Any:
        """Read a file as an Arrow table; types are those of all rows, and `words` are never numbers.

        What is a gap among numbers (an empty cell, NA, NaN, null) is one among words, but where they are wanted
        `as_is`. `in_turn`: one block after another. Errors: pyarrow's, OSError, UnicodeError.
        """
        import pyarrow as pa
        from pyarrow import csv

        return csv.read_csv(
            file,
            read_options=csv.ReadOptions(encoding=self.encoding, block_size=_BLOCK_BYTES, use_threads=not in_turn),
            parse_options=csv.ParseOptions(delimiter=self.between, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                strings_can_be_null=not as_is,
                decimal_point=self.decimal,
                column_types=dict.fromkeys(words, pa.string()),
            ),
        )

    def misread(self, file: Path, rows: Any = None) -> str:
        """Say why a file that could be read, as `rows`, or could not, is none that is written so; else nothing."""
        import pyarrow as pa
        from pyarrow import compute

        if codecs.lookup(self.encoding).name.partition("-")[0] != "utf":
            content = file.read_bytes()
            if not content.isascii() and _is_utf8(content):
                return f"it is written in utf-8, not in {self.encoding}: data: {{encoding: utf-8}}"
        texts = [] if rows is None else [one for one in rows.columns if pa.types.is_string(one.type)]
        if rows is None or any(compute.any(compute.match_substring(one, "\n")).as_py() for one in texts):
            return self._open_quote(file)
        return ""

    def _open_quote(self, file: Path) -> str:
        """Say where a quote ends no value, and takes all up to the next one for a text of several lines."""
        with file.open(encoding=self.encoding, newline="") as opened:
            reader = plain.reader(opened, delimiter=self.between, strict=True)
            try:
                for _ in reader:
                    pass
            except UnicodeError:
                return ""
            except plain.Error:
                where = f"in line {reader.line_num}, or in the text of several lines that ends there,"
                return f"{where} a quote stands where none can; within a text write it twice, and the text in quotes"
        return ""

    def hint(self, file: Path) -> str:
        """Say what a file looks like by its first line, where that is another than was told; else nothing."""
        try:
            with file.open("rb") as opened:
                begin = opened.read(1 << 16)
        except OSError:
            return ""
        for mark, encoding in _MARKS.items():
            if begin.startswith(mark):
                if codecs.lookup(self.encoding).name == encoding:
                    break
                return f"; it is written in {encoding.upper()}, so tell its encoding: data: {{encoding: {encoding}}}"
        first = begin.decode(self.encoding, "replace").partition("\n")[0].strip()
        if first.lower().startswith("sep="):
            return "; its first line is Excel's sep=, where the names of the columns are to be: delete that line"
        names = _TEXT.sub("", first)
        counts = {one: names.count(one) for one in _DELIMITERS}
        likely = max(counts, key=counts.__getitem__)
        if counts[likely] <= names.count(self.between):
            return ""
        shown, told = (
            f"'{one}'" if one.strip() else "tab" if one == "\t" else "space" for one in (likely, self.between)
        )
        found = f"its first line has {counts[likely]} times {shown} and {names.count(self.between)} times {told}"
        return f"; {found}, so tell what separates values: data: {{delimiter: {shown}}}"

    def undecoded(self) -> str:
        """Say what to do with text that is not of the encoding."""
        name = codecs.lookup(self.encoding).name
        others = {"utf-8": "latin-1}, or cp1252, utf-16", "utf-16": "utf-16-le}, or utf-16-be"}
        way_out = others.get(name, "utf-8}, or latin-1, cp1252, utf-16")
        return f"it is not written in {self.encoding}; tell its encoding: data: {{encoding: {way_out}"

    def comma(self, values: Sequence[Any]) -> str:
        """Say what to do with words that are numbers with other decimals than were told; nothing if they are not."""
        words = [value.strip() for value in values if isinstance(value, str)]
        other = {".": ",", ",": "."}[self.decimal]
        what = "commas" if other == "," else "points"
        told = [word for word in words if not _NUMBER.fullmatch(word) or {*word} >= {*".,"}]
        if told and all(map(_THOUSANDS.fullmatch, told)):
            return "; it has separators of thousands: write its numbers without them"
        is_other = any(other in word for word in words) and not any(self.decimal in word for word in words)
        if told or not is_other:
            return ""
        way_out = f"data: {{decimal: '{other}'}}"
        if all(map(_THOUSANDS.fullmatch, (word for word in words if other in word))):
            return (
                f"; it has {what}: of decimals, which is to be told, {way_out}, or of thousands: write it without them"
            )
        return f"; it has decimal {what}, which is to be told: {way_out}"


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
