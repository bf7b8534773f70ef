"""One site's table, from Parquet, Arrow (IPC, Feather) or CSV files, and its columns as numbers or words."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierfl.errors import QUOTED, DataError
from hierfl.kinds import nearest
from hierfl.tasks._csv import Csv

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SiteTable", "read_table"]

_ASIDE = (".", "_")
"""With what the names begin of files and folders that programs put aside: .ipynb_checkpoints, _temporary, _SUCCESS."""

_FORMATS = {".parquet": "parquet", ".arrow": "ipc", ".ipc": "ipc", ".feather": "ipc", ".csv": "csv"}

_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf|nan|infinity)", re.IGNORECASE)
_KEY = re.compile(r"data: \{(?P<key>\w+): (?P<value>[^}]+)\}")
_ROW = re.compile(r"(?<=columns, got )(?P<num>\d+): .*")
"""In Arrow's message, a whole row as it stands in the file; an error may be read by others than its hospital."""


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
        return _error(self.site, self.path, message + (QUOTED + quoted if quoted else ""))

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
        NaN among numbers and a blank among words, too: who has no name is not one with others.
        """
        import numpy as np
        import pyarrow as pa

        column = self._plain(name)
        try:
            found = column.cast(pa.string()).combine_chunks().dictionary_encode()
        except pa.ArrowException:
            raise self.error(f"column {name!r} is of type {column.type}; needed: words or integers") from None
        values = np.array(found.dictionary.to_pylist(), dtype=object)
        gap = "nan" if pa.types.is_floating(column.type) else ""
        empty = [place for place, word in enumerate(values) if word.strip() == gap]
        places = found.indices.to_numpy(zero_copy_only=False)
        num_gaps = found.null_count + int(np.isin(places, empty).sum())
        if num_gaps:
            raise self.error(f"column {name!r} has gaps in {num_gaps} of {len(found)} rows; fill or drop them")
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


def read_table(
    site: str, path: str, columns: list[str], csv: Csv, *, words: Sequence[str] = (), whole: bool = False
) -> SiteTable:
    """Read columns of a site's files (none: only the number of rows); `whole`: and all others. `csv`: how they are
    written if they are CSV, where `words` are never numbers. `site`: empty for files that are no site's.
    """
    if not path:
        raise _error(site, Path(), "data.path is empty; name a file or a folder")
    where = Path(path).expanduser().absolute()
    with _readable(site, where):
        is_there = where.exists()
    if not is_there:
        counted = "" if Path(path).is_absolute() else f" ({path} counts from the folder in which the run was started)"
        said = f"does not exist on the machine that trains this site{counted}" if site else "does not exist"
        raise _error(site, where, said)
    files = _files(site, where)
    kind = _format(site, where, files)
    if kind != "csv":
        tables = [_columns(site, file, kind, columns, whole) for file in files]
    elif wrong := csv.problem():
        raise _error(site, where, wrong)
    else:
        tables = [_of_csv(site, file, columns, whole, csv, words) for file in files]
    with _readable(site, where):
        table = tables[0] if len(tables) == 1 else _together(tables)
    return SiteTable(site, where, table, csv if kind == "csv" else None)


def _files(site: str, path: Path) -> list[Path]:
    """List the files under a path, sorted; those that begin with "." or "_", and all in such folders, are left out.

    Errors: DataError for what is there and cannot be read: its records would be missing.
    """
    if path.is_file():
        return [path]

    def unreadable(error: OSError) -> None:
        raise _error(site, Path(error.filename or path), f"cannot be read: {error.strerror}") from error

    files = []
    for folder, inside, names in os.walk(path, onerror=unreadable, followlinks=True):
        where = Path(folder)
        if where.is_symlink() and where.resolve() in [above.resolve() for above in where.parents]:
            raise _error(site, where, "is a link to a folder that it lies in; remove it")
        inside[:] = [name for name in inside if not name.startswith(_ASIDE)]
        for file in (where / name for name in names if not name.startswith(_ASIDE)):
            if not os.path.exists(file):
                raise _error(site, file, "is a link to what is not there, or may not be read")
            files += [file] if file.is_file() else []
    if not files:
        raise _error(site, path, f"is a folder without files ({', '.join(_FORMATS)})")
    return sorted(files)


def _format(site: str, path: Path, files: list[Path]) -> str:
    """Tell the one format of the files by their endings."""
    formats = {_FORMATS.get(file.suffix.lower()) for file in files}
    if len(formats) > 1:
        raise _error(site, path, f"holds several kinds of files: {', '.join(sorted({f.suffix for f in files}))}")
    name = formats.pop()
    if name is None:
        raise _error(site, path, f"ends in {files[0].suffix!r} (allowed: {', '.join(_FORMATS)})")
    return name


def _columns(site: str, file: Path, kind: str, columns: list[str], whole: bool) -> Any:
    """Read columns of a file (`whole`: all). Parquet's pages are held against their checksums, where it was written
    with any.
    """
    import pyarrow as pa
    from pyarrow import dataset, fs

    with _readable(site, file):
        options = dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
        checked = dataset.ParquetFileFormat(default_fragment_scan_options=options)
        made = checked if kind == "parquet" else dataset.IpcFileFormat()
        schema = made.inspect(str(file), filesystem=fs.LocalFileSystem())
        _check_columns(site, file, columns, schema.names, whole)
        wanted = schema if whole else pa.schema([schema.field(column) for column in columns])
        table = dataset.dataset(str(file), schema=wanted, format=made).to_table(wanted.names)
    for place, name in enumerate(table.column_names):
        column = table.column(place)
        if pa.types.is_primitive(column.type):
            continue
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            is_text = "UTF8" in str(error)
            if is_text or pa.types.is_dictionary(column.type):  # all else can be read as it is
                said = "some of its text is no UTF-8" if is_text else "it is damaged"
                raise _error(site, file, f"column {name!r}: {said}; write the file anew") from error
        if (usual := _as_usual(column)) is not column:
            table = table.set_column(place, name, usual)
    return table


def _as_usual(column: Any) -> Any:
    """Give a column as most programs write it: Polars has text as views, which Arrow does little with."""
    from pyarrow import compute, types

    if types.is_run_end_encoded(column.type):
        column = compute.run_end_decode(column)
    return column.cast("large_string") if str(column.type) == "string_view" else column


def _of_csv(site: str, file: Path, columns: list[str], whole: bool, csv: Csv, words: Sequence[str]) -> Any:
    """Read columns of a CSV file. Errors: DataError that tells what the file looks like, where that is not as told."""
    import pyarrow as pa

    try:
        rows = csv.read(file, words)
        names = rows.column_names
        wrong = csv.misread(file, rows)
    except UnicodeError as error:
        raise _error(site, file, csv.undecoded()) from error
    except pa.ArrowException as error:
        said = _ROW.sub(r"\g<num>", _first_line(csv.of_row(file, words) or error))
        is_text = "invalid UTF8" in said
        wrong = csv.undecoded() if is_text else csv.misread(file) or f"cannot be read: {said}{csv.hint(file)}"
        raise _error(site, file, wrong) from error
    except OSError as error:
        raise _error(site, file, f"cannot be read: {error.strerror or _first_line(error)}") from error
    if wrong:
        raise _error(site, file, wrong)
    _check_columns(site, file, columns, names, whole, csv)
    for name in names if whole else columns:
        if pa.types.is_binary(rows[name].type):
            raise _error(site, file, f"column {name!r}: {csv.undecoded()}")
    if not whole:
        return rows.select(columns)
    texts = csv.read(file, names, as_is=True)
    return pa.table({name: rows[name] if name in columns else _as_it_was(rows[name], texts[name]) for name in names})


def _as_it_was(read: Any, text: Any) -> Any:
    """Give a column that is only passed on: as it was read, if what stands in the file can be had from that again."""
    import pyarrow as pa

    try:
        return read if read.cast(pa.string()).fill_null("").equals(text) else text
    except pa.ArrowException:
        return text


def _check_columns(
    site: str, file: Path, columns: list[str], names: list[str], whole: bool, csv: Csv | None = None
) -> None:
    """Errors: DataError for a column that is not there, or there twice. `csv`: of a file that may have no names of
    columns at all, but a patient's record in their place.
    """
    counts = Counter(names)  # there may be tens of thousands
    for column in columns:
        if column not in counts:
            if csv is None:
                raise _error(site, file, f"has no column {column!r}{nearest(column, names)}")
            first = f"; its first line is to name the columns{QUOTED}it names others{nearest(column, names)}"
            raise _error(site, file, f"has no column {column!r}{csv.hint(file) or first}")
    for column in columns:
        if counts[column] > 1:
            raise _error(site, file, f"has several columns {column!r}; rename or drop all but one")
    doubles = sorted(column for column, many in counts.items() if many > 1) if whole else []
    if doubles:
        way_out = f"has several columns of one name; rename or drop all but one{QUOTED}"
        raise _error(site, file, way_out + ", ".join(map(repr, doubles)))


@contextlib.contextmanager
def _readable(site: str, path: Path) -> Iterator[None]:
    """Tell what cannot be read with its path. Errors: DataError."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _error(site, path, f"cannot be read: {_first_line(error)}") from error


def _together(tables: list[Any]) -> Any:
    """Put the rows of several files together, each column in the type that holds what each file has: of integers and
    floats floats, of numbers and words words.
    """
    import pyarrow as pa

    names = list(dict.fromkeys(name for table in tables for name in table.column_names))
    if not names:
        return pa.table({"": pa.nulls(sum(table.num_rows for table in tables))}).select([])
    types = {name: _type([table[name].type for table in tables if name in table.column_names]) for name in names}
    return pa.concat_tables(
        pa.table(
            {
                name: table[name].cast(kind, safe=pa.types.is_integer(kind))
                if name in table.column_names
                else pa.nulls(table.num_rows, kind)
                for name, kind in types.items()
            }
        )
        for table in tables
    )


def _type(types: list[Any]) -> Any:
    import pyarrow as pa

    if len(set(types)) == 1:
        return types[0]
    plain = [one.value_type if pa.types.is_dictionary(one) else one for one in types]
    if not any(pa.types.is_string(one) for one in plain):
        plain = [pa.uint8() if pa.types.is_boolean(one) else one for one in plain]
    if any(map(pa.types.is_decimal, plain)):
        plain = [pa.decimal128(20) if pa.types.is_integer(one) else one for one in plain]  # digits of any of them
    try:
        found = pa.unify_schemas([pa.schema([("", one)]) for one in plain], promote_options="permissive")
        return found.field(0).type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.string()


def _error(site: str, path: Path, message: str) -> DataError:
    if not site:  # there is no YAML that has a `data`
        message = _KEY.sub(r"\g<key>=\g<value>", message)
    return DataError(f"site {site!r}: {path}: {message}" if site else f"{path}: {message}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
