"""CSV files to columns, without any library, in one reading where possible.

A column is of numbers if every cell that is not empty is one, of truth values if every cell is ``true`` or
``false``, else of text. Blanks around cells do not count.
"""

from __future__ import annotations

import csv
import gzip
import io
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import BinaryIO, cast

from ai4sdk.data.columns import Column, Table
from ai4sdk.data.notation import Notation
from ai4sdk.data.source import SPLITS, Source
from ai4sdk.data.storage import Entry
from ai4sdk.errors import DataError
from ai4sdk.spec.dataset import CsvOptions

__all__ = ["EMPTY", "is_row", "read_csv_names", "read_csv_table"]

EMPTY = frozenset({"", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "#N/A", "#NA"})
"""Texts of an empty cell."""

_TRUTH = {"true": 1.0, "false": 0.0}
_CHUNK = 4096
"""Rows that are turned into columns at a time."""


def read_csv_names(source: Source, options: CsvOptions) -> list[str]:
    """Return the names of the columns.

    Raises
    ------
    DataError
        If the first file is empty, or two columns have one name.
    """
    return _Reading(source, source.entries[0], options).names


def read_csv_table(
    source: Source, options: CsvOptions, wanted: Collection[str], as_text: Collection[str], limit: int | None
) -> Table:
    """Read columns of CSV files, one file after another.

    Parameters
    ----------
    source
        The files; all must have the same columns.
    options
        How they are written.
    wanted
        Columns to read.
    as_text
        Columns that are text whatever is in them.
    limit
        Characters after which to stop; nothing reads everything.

    Returns
    -------
    Table
        The columns.

    Raises
    ------
    DataError
        If a file is empty, a row has more or fewer cells than there are columns, quotes do not match, or the
        encoding is wrong; with file and line.
    """
    text = set(as_text)
    while True:
        gathered = _gather(source, options, wanted, text, limit)
        if not gathered.turned:
            return gathered.table()
        # A column that began with numbers holds text further down: its first cells must be read again as text.
        text |= gathered.turned


class _Gathered:
    """Columns while they grow."""

    def __init__(self, names: list[str], wanted: Collection[str], text: set[str], options: CsvOptions) -> None:
        self.names = names
        self.places = [(index, name) for index, name in enumerate(names) if name in wanted]
        self.columns = {name: Column(name, "text" if name in text else "number") for _, name in self.places}
        self.codes: dict[str, dict[str, int]] = {name: {} for _, name in self.places}
        self.notation = Notation.of(options)
        self.empty = EMPTY.union(self.notation.na_values)
        self.turned: set[str] = set()
        self.lines = array("L")
        self.files: list[tuple[int, str]] = []
        self.parts = array("b")
        self.complete = True
        self.read = 0

    def add(self, rows: list[list[str]]) -> None:
        """Append rows, all of them of the right length."""
        cells = list(zip(*rows, strict=True))
        for index, name in self.places:
            if name not in self.turned and not self._append(self.columns[name], cells[index]):
                self._change_kind(self.columns[name], cells[index])

    def _change_kind(self, column: Column, cells: Sequence[str]) -> None:
        """Make room for cells that do not fit the kind seen so far."""
        if column.kind != "number" or any(number == number for number in column.numbers):
            self.turned.add(column.name)
            return
        found = {cell for cell in map(str.strip, cells) if cell not in self.empty}
        if all(cell.lower() in _TRUTH for cell in found):
            column.kind = "bool"
        else:
            column.kind = "text"
            column.codes = array("l", [-1]) * len(column.numbers)
            column.numbers = array("d")
        self._append(column, cells)

    def _append(self, column: Column, cells: Sequence[str]) -> bool:
        if column.kind == "number":
            return self._append_numbers(column, cells)
        if column.kind == "bool":
            return self._append_truths(column, cells)
        self._append_texts(column, cells)
        return True

    def _append_numbers(self, column: Column, cells: Sequence[str]) -> bool:
        """Append cells as numbers, or nothing if one is none."""
        if self.notation == Notation():
            try:
                numbers = array("d", map(float, cells))
            except ValueError:
                pass
            else:
                if "_" not in "".join(cells):
                    column.numbers.extend(numbers)
                    return True
        numbers = array("d")
        for cell in map(str.strip, cells):
            number = float("nan") if cell in self.empty else self.notation.number(cell)
            if number is None:
                return False
            numbers.append(number)
        column.numbers.extend(numbers)
        return True

    def _append_truths(self, column: Column, cells: Sequence[str]) -> bool:
        truths = array("d")
        for cell in map(str.strip, cells):
            truth = float("nan") if cell in self.empty else _TRUTH.get(cell.lower())
            if truth is None:
                return False
            truths.append(truth)
        column.numbers.extend(truths)
        return True

    def _append_texts(self, column: Column, cells: Sequence[str]) -> None:
        known = self.codes[column.name]
        for cell in map(str.strip, cells):
            if cell in self.empty:
                column.codes.append(-1)
                continue
            code = known.setdefault(cell, len(known))
            if code == len(column.texts):
                column.texts.append(cell)
            column.codes.append(code)

    def table(self) -> Table:
        starts = [start for start, _ in self.files]

        def place(row: int) -> str:
            return f"{self.files[bisect_right(starts, row) - 1][1]} line {self.lines[row]}"

        parts = self.parts if len(self.parts) else None
        return Table(self.columns, self.names, len(self.lines), place, parts, self.complete, self.read)


def _gather(
    source: Source, options: CsvOptions, wanted: Collection[str], text: set[str], limit: int | None
) -> _Gathered:
    gathered: _Gathered | None = None
    for split, entries in source.named_parts():
        for entry in entries:
            reading = _Reading(source, entry, options)
            if gathered is None:
                gathered = _Gathered(reading.names, wanted, text, options)
            elif reading.names != gathered.names:
                odd = sorted(set(reading.names) ^ set(gathered.names)) or reading.names
                raise DataError(
                    f"{reading.shown} has other columns than {gathered.files[0][1]}: {', '.join(map(repr, odd[:5]))}",
                    hint="all files of a dataset need the same columns in the same order",
                )
            before = len(gathered.lines)
            gathered.files.append((before, reading.shown))
            for rows, lines in reading.chunks():
                gathered.add(rows)
                gathered.lines.extend(lines)
                if limit is not None:
                    gathered.read += sum(sum(map(len, row)) + len(row) for row in rows)
                    if gathered.read >= limit:
                        gathered.complete = False
                        break
            if split is not None:
                gathered.parts.extend(array("b", [SPLITS.index(split)]) * (len(gathered.lines) - before))
            if not gathered.complete:
                return gathered
    assert gathered is not None
    return gathered


def is_row(row: list[str]) -> bool:
    """Tell a row from a blank line."""
    return len(row) > 1 or bool(row and row[0].strip())


def _line_ends(cell: str) -> int:
    return cell.count("\n") + cell.count("\r") - cell.count("\r\n")


class _Reading:
    """One file: its column names, then its rows."""

    def __init__(self, source: Source, entry: Entry, options: CsvOptions) -> None:
        self.source = source
        self.entry = entry
        self.options = options
        self.shown = source.shown(entry)
        name = (entry.name or source.location.name).lower()
        self.zipped = name.endswith(".gz")
        self.sep = options.sep or ("\t" if name.endswith((".tsv", ".tsv.gz")) else ",")
        first = next((row for rows, _, _ in self._raw_chunks(1) for row in rows if is_row(row)), None)
        if first is None:
            raise DataError(f"{self.shown} is empty", hint="check dataset.uri")
        self.names = self._named(first)

    def chunks(self) -> Iterator[tuple[list[list[str]], Iterable[int]]]:
        """Yield rows and the numbers of the lines they end on, some thousand at a time."""
        skip = 1 if self.options.header else 0
        width = len(self.names)
        for rows, start, end in self._raw_chunks():
            lines: Iterable[int] = range(start + 1, end + 1)
            if end - start != len(rows) or set(map(len, rows)) != {width}:
                rows, lines = self._looked_over(rows, start, skip)
            elif skip:
                rows, lines = rows[skip:], range(start + 1 + skip, end + 1)
            skip = 0
            if rows:
                yield rows, lines

    def _looked_over(self, rows: list[list[str]], start: int, skip: int) -> tuple[list[list[str]], list[int]]:
        """Leave out blank lines, refuse rows of another width, and count the lines of cells that have several."""
        width = len(self.names)
        kept: list[list[str]] = []
        lines: list[int] = []
        line = start
        for row in rows:
            line += 1 + sum(map(_line_ends, row))
            if not is_row(row):
                continue
            if skip:
                skip -= 1
            elif len(row) != width:
                raise DataError(
                    f"{self.shown} line {line}: {len(row)} cells, but there are {width} columns",
                    hint="put quotes around cells that hold the separator, or set dataset.options.sep",
                )
            else:
                kept.append(row)
                lines.append(line)
        return kept, lines

    def _named(self, first: list[str]) -> list[str]:
        if self.options.names is not None:
            names = list(self.options.names)
            if len(names) != len(first):
                raise DataError(
                    f"{self.shown} has {len(first)} columns, but dataset.options.names names {len(names)}",
                    hint="name every column, also those to drop",
                )
        elif self.options.header:
            names = [name.strip() for name in first]
        else:
            names = [str(index) for index in range(len(first))]
        if twice := next((name for index, name in enumerate(names) if name in names[:index]), None):
            raise DataError(f"{self.shown} has two columns named {twice!r}", hint="set dataset.options.names")
        return names

    def _raw_chunks(self, size: int = _CHUNK) -> Iterator[tuple[list[list[str]], int, int]]:
        """Yield rows as they are, with the numbers of the line before the first and of the last."""
        options = self.options
        line = options.skiprows
        with self._open() as file:
            lines: Iterable[str] = file
            try:
                for _ in range(options.skiprows):
                    next(file, "")
                if comment := options.comment:
                    # Blanked rather than left out, so that lines keep their numbers.
                    lines = ("\n" if line.startswith(comment) else line for line in file)
                reader = csv.reader(
                    lines, delimiter=self.sep, quotechar=options.quotechar, skipinitialspace=True, strict=True
                )
                while rows := list(islice(reader, size)):
                    end = reader.line_num + options.skiprows
                    yield rows, line, end
                    line = end
            except UnicodeDecodeError:
                raise self._badly_encoded() from None
            except csv.Error as error:
                raise DataError(
                    f"{self.shown} line {reader.line_num + options.skiprows}: {error}",
                    hint="check the quotes there, or set dataset.options.quotechar",
                ) from error
            except (EOFError, gzip.BadGzipFile) as error:
                raise DataError(f"{self.shown} is cut short or damaged: {error}", hint="fetch it again") from error

    def _open(self) -> io.TextIOWrapper:
        raw = self.source.location.open(self.entry)
        encoding = (
            "utf-8-sig"
            if self.options.encoding.lower().replace("_", "-") in ("utf-8", "utf8")
            else self.options.encoding
        )
        try:
            content = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if self.zipped else raw
            return io.TextIOWrapper(content, encoding=encoding, newline="")
        except LookupError:
            raw.close()
            raise DataError(
                f"dataset.options.encoding: no character encoding is called {self.options.encoding!r}",
                hint="write utf-8, latin-1, cp1252 or utf-16",
            ) from None

    def _badly_encoded(self) -> DataError:
        """Find the line that is not in the encoding."""
        line = 0
        with self.source.location.open(self.entry) as raw:
            content = gzip.GzipFile(fileobj=raw) if self.zipped else raw
            for text in content:
                line += 1
                try:
                    text.decode(self.options.encoding)
                except UnicodeDecodeError:
                    break
        return DataError(
            f"{self.shown} line {line}: this is not {self.options.encoding} text",
            hint="set dataset.options.encoding, often latin-1 or cp1252",
        )
