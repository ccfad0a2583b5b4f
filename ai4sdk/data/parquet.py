"""Parquet files to columns."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from ai4sdk.data.columns import Column, Table
from ai4sdk.data.source import SPLITS, Source
from ai4sdk.data.storage import Entry
from ai4sdk.errors import DataError

__all__ = ["count_parquet_rows", "read_parquet_names", "read_parquet_table"]


def read_parquet_names(source: Source) -> list[str]:
    """Return the names of the columns, from the end of the first file.

    Raises
    ------
    DataError
        If it is no Parquet file, or cut short.
    """
    with _opened(source, source.entries[0]) as file:
        return _names(file)


def count_parquet_rows(source: Source) -> int:
    """Return the number of rows, from the ends of the files."""
    rows = 0
    for entry in source.entries:
        with _opened(source, entry) as file:
            rows += file.metadata.num_rows
    return rows


def read_parquet_table(source: Source, wanted: Collection[str], as_text: Collection[str], limit: int | None) -> Table:
    """Read columns of Parquet files, one file after another.

    Parameters
    ----------
    source
        The files; all must have the same columns.
    wanted
        Columns to read.
    as_text
        Columns that are text whatever is in them.
    limit
        Bytes of the files after which to stop, at the end of a row group; nothing reads everything.

    Returns
    -------
    Table
        The columns. Where not everything is read, ``rows`` counts those read.

    Raises
    ------
    DataError
        If a file is cut short, has other columns, or holds a kind of value that is no cell.
    """
    columns: dict[str, Column] = {}
    names: list[str] | None = None
    parts = array("b")
    files: list[tuple[int, str]] = []
    rows, left, complete = 0, limit, True
    for split, entries in source.named_parts():
        for entry in entries:
            with _opened(source, entry) as file:
                found = _names(file)
                if names is None:
                    names = found
                elif found != names:
                    odd = sorted(set(found) ^ set(names)) or found
                    raise DataError(
                        f"{source.shown(entry)} has other columns than {files[0][1]}: {', '.join(map(repr, odd[:5]))}",
                        hint="all files of a dataset need the same columns in the same order",
                    )
                files.append((rows, source.shown(entry)))
                before = rows
                asked = [name for name in names if name in wanted]
                for group in range(file.metadata.num_row_groups):
                    if left is not None and left <= 0:
                        complete = False
                        break
                    read = file.read_row_group(group, columns=asked)
                    for name in asked:
                        _append(columns, _column(name, read.column(name), name in as_text, source.shown(entry)))
                    rows += read.num_rows
                    if left is not None:
                        left -= file.metadata.row_group(group).total_byte_size
                if split is not None:
                    parts.extend(array("b", [SPLITS.index(split)]) * (rows - before))
    starts = [start for start, _ in files]

    def place(row: int) -> str:
        start, shown = files[bisect_right(starts, row) - 1]
        return f"{shown} row {row - start + 1}"

    columns = {name: columns.get(name) or Column(name, "number") for name in names or () if name in wanted}
    return Table(columns, names or [], rows, place, parts if len(parts) else None, complete)


def _names(file: Any) -> list[str]:
    """Return the columns; the row index that pandas may have written along is none."""
    return [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]


def _append(columns: dict[str, Column], column: Column) -> None:
    if column.name not in columns:
        columns[column.name] = column
        return
    known = columns[column.name]
    if known.kind != column.kind:
        raise DataError(
            f"column {column.name!r} is {known.kind} in one file and {column.kind} in another",
            hint="write all files with the same types",
        )
    known.extend(column)


def _column(name: str, values: Any, as_text: bool, shown: str) -> Column:
    """Turn an Arrow column into ours."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
        kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _texts(name, values)
    if pa.types.is_null(kind):
        column = Column(name, "number", array("d", [float("nan")]) * len(values))
    elif pa.types.is_boolean(kind):
        column = Column(name, "bool", _floats(values.cast(pa.int8()).cast(pa.float64())))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        column = Column(name, "number", _floats(values.cast(pa.float64(), safe=False)))
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        micros = values.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False).cast(pa.int64())
        column = Column(name, "time", _floats(pc.cast(micros, pa.float64(), safe=False)))
    else:
        raise DataError(
            f"{shown}, column {name!r}: values of type {kind} are no cells of a table",
            hint=f"leave it out (dataset.drop: [{name}])",
        )
    return column.as_text() if as_text else column


def _floats(values: Any) -> array[float]:
    """Copy an Arrow column of doubles, NaN where null."""
    found = array("d")
    for chunk in values.chunks:
        filled = chunk.fill_null(float("nan"))
        data = filled.buffers()[1]
        if data is not None and len(filled):
            found.frombytes(memoryview(data)[filled.offset * 8 : (filled.offset + len(filled)) * 8])
    return found


def _texts(name: str, values: Any) -> Column:
    """Copy an Arrow column of texts; as in CSV files blanks around them do not count, and nothing is an empty cell."""
    column = Column(name, "text")
    known: dict[str, int] = {"": -1}
    for chunk in values.chunks:
        encoded = chunk.dictionary_encode()
        codes = []
        for text in map(str.strip, encoded.dictionary.to_pylist()):
            if text not in known:
                known[text] = len(column.texts)
                column.texts.append(text)
            codes.append(known[text])
        column.codes.extend(-1 if index is None else codes[index] for index in encoded.indices.to_pylist())
    return column


@contextmanager
def _opened(source: Source, entry: Entry) -> Iterator[Any]:
    """Open a file, and tell a damaged one as such."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shown = source.shown(entry)
    with source.location.open(entry) as raw:
        try:
            yield pq.ParquetFile(raw)
        except (pa.ArrowException, OSError, EOFError) as error:
            reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            raise DataError(f"{shown} is no whole Parquet file: {reason}", hint="fetch or write it again") from error
