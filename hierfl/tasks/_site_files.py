"""Reads one site's table from Parquet, Arrow (IPC, Feather) or CSV files."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hierfl.errors import QUOTED
from hierfl.kinds import nearest
from hierfl.tasks._csv import Csv
from hierfl.tasks._site_table import SiteTable, error_at

__all__ = ["place_of", "read_table"]

_ASIDE = (".", "_")
"""With what the names begin of files and folders that programs put aside: .ipynb_checkpoints, _temporary, _SUCCESS."""

_FORMATS = {".parquet": "parquet", ".arrow": "ipc", ".ipc": "ipc", ".feather": "ipc", ".csv": "csv"}

_ROW = re.compile(r"(?<=columns, got )(?P<num>\d+): .*")
"""In Arrow's message, a whole row as it stands in the file; an error may be read by others than its hospital."""


def place_of(path: str) -> str:
    """Write where files lie in one way, whichever a path was given in."""
    return os.path.abspath(os.path.expanduser(path))


def read_table(
    site: str, path: str, columns: list[str], csv: Csv, *, words: Sequence[str] = (), whole: bool = False
) -> SiteTable:
    """Read columns of a site's files (none: only the number of rows); `whole`: and all others. `csv`: how they are
    written if they are CSV, where `words` are never numbers. `site`: empty for files that are no site's.
    """
    if not path:
        raise error_at(site, Path(), "data.path is empty; name a file or a folder")
    where = Path(path).expanduser().absolute()
    with _readable(site, where):
        is_there = where.exists()
    if not is_there:
        counted = "" if Path(path).is_absolute() else f" ({path} counts from the folder in which the run was started)"
        said = f"does not exist on the machine that trains this site{counted}" if site else "does not exist"
        raise error_at(site, where, said)
    files = _files(site, where)
    kind = _format(site, where, files)
    if kind != "csv":
        tables = [_columns(site, file, kind, columns, whole) for file in files]
    elif wrong := csv.problem():
        raise error_at(site, where, wrong)
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
        raise error_at(site, Path(error.filename or path), f"cannot be read: {error.strerror}") from error

    files = []
    for folder, inside, names in os.walk(path, onerror=unreadable, followlinks=True):
        where = Path(folder)
        if where.is_symlink() and where.resolve() in [above.resolve() for above in where.parents]:
            raise error_at(site, where, "is a link to a folder that it lies in; remove it")
        inside[:] = [name for name in inside if not name.startswith(_ASIDE)]
        for file in (where / name for name in names if not name.startswith(_ASIDE)):
            if not os.path.exists(file):
                raise error_at(site, file, "is a link to what is not there, or may not be read")
            files += [file] if file.is_file() else []
    if not files:
        raise error_at(site, path, f"is a folder without files ({', '.join(_FORMATS)})")
    return sorted(files)


def _format(site: str, path: Path, files: list[Path]) -> str:
    """Tell the one format of the files by their endings."""
    formats = {_FORMATS.get(file.suffix.lower()) for file in files}
    if len(formats) > 1:
        raise error_at(site, path, f"holds several kinds of files: {', '.join(sorted({f.suffix for f in files}))}")
    name = formats.pop()
    if name is None:
        raise error_at(site, path, f"ends in {files[0].suffix!r} (allowed: {', '.join(_FORMATS)})")
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
                raise error_at(site, file, f"column {name!r}: {said}; write the file anew") from error
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
        raise error_at(site, file, csv.undecoded()) from error
    except pa.ArrowException as error:
        said = _ROW.sub(r"\g<num>", _first_line(csv.of_row(file, words) or error))
        is_text = "invalid UTF8" in said
        wrong = csv.undecoded() if is_text else csv.misread(file) or f"cannot be read: {said}{csv.hint(file)}"
        raise error_at(site, file, wrong) from error
    except OSError as error:
        raise error_at(site, file, f"cannot be read: {error.strerror or _first_line(error)}") from error
    if wrong:
        raise error_at(site, file, wrong)
    _check_columns(site, file, columns, names, whole, csv)
    for name in names if whole else columns:
        if pa.types.is_binary(rows[name].type):
            raise error_at(site, file, f"column {name!r}: {csv.undecoded()}")
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
                raise error_at(site, file, f"has no column {column!r}{nearest(column, names)}")
            first = f"; its first line is to name the columns{QUOTED}it names others{nearest(column, names)}"
            raise error_at(site, file, f"has no column {column!r}{csv.hint(file) or first}")
    for column in columns:
        if counts[column] > 1:
            raise error_at(site, file, f"has several columns {column!r}; rename or drop all but one")
    doubles = sorted(column for column, many in counts.items() if many > 1) if whole else []
    if doubles:
        way_out = f"has several columns of one name; rename or drop all but one{QUOTED}"
        raise error_at(site, file, way_out + ", ".join(map(repr, doubles)))


@contextlib.contextmanager
def _readable(site: str, path: Path) -> Iterator[None]:
    """Tell what cannot be read with its path. Errors: DataError."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise error_at(site, path, f"cannot be read: {_first_line(error)}") from error


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


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
