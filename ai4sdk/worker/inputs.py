"""Read what `ai4sdk predict --input` names: JSON, CSV, arrays, pictures or recordings, a batch at a time."""

from __future__ import annotations

import csv
import io
import json
import math
import reprlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from ai4sdk.data.csvfile import is_row
from ai4sdk.data.formats import PICTURES, RECORDINGS, told_by_content, told_by_name
from ai4sdk.errors import DataError, NotFound

__all__ = ["BATCH_SIZE", "Batch", "as_arrays", "columns_of", "csv_records", "read_inputs", "samples_of_json"]

BATCH_SIZE = 64
"""Samples that a model is given at once, where nobody says."""

TABLES = frozenset({".csv", ".tsv"})
ARRAYS = frozenset({".npy", ".npz"})
LINES = frozenset({".jsonl", ".ndjson"})

_BEGINNINGS = {b"\x93NUMPY": ".npy", b"PK\x03\x04": ".npz"}
"""What arrays begin with."""

FORMS = "a list of records or rows, or one of inputs, instances, dataframe_split, dataframe_records"

_DAMAGE = (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
"""What numpy tells a damaged file by."""

Form = Literal["json", "lines", "csv"]


@dataclass(frozen=True)
class Batch:
    """Some samples of one source.

    Parameters
    ----------
    samples
        Records, rows, an array, or paths of pictures or recordings.
    source
        What they come from, as the user named it.
    start
        Number of samples of that source before these.
    names
        For pictures and recordings their paths, one a sample; they are repeated in the answer.
    columns
        For records, the names in the first of the source, in its order.
    """

    samples: Any
    source: str
    start: int = 0
    names: Sequence[str] | None = None
    columns: Sequence[str] | None = None


def read_inputs(inputs: Sequence[str], *, stdin: IO[bytes], batch_size: int) -> Iterator[Batch]:
    """Read inputs one after the other.

    Parameters
    ----------
    inputs
        Files, folders of pictures or recordings, or ``-`` for ``stdin``, which may carry JSON, JSON lines or CSV with
        a header.
    stdin
        What ``-`` reads.
    batch_size
        Most samples in a batch; JSON, which has to be read whole, and arrays are cut too.

    Raises
    ------
    NotFound
        If a file does not exist.
    DataError
        If a file cannot be read; it is named, with the line where there is one.
    """
    for name in inputs:
        if name == "-":
            yield from _read_stream(stdin, batch_size)
            continue
        path = Path(name)
        if path.is_dir():
            yield from _read_media(_media_in(path), batch_size)
            continue
        if not path.is_file():
            hint = "give a file, a folder of pictures or recordings, or - for standard input"
            if "://" in name:
                raise NotFound(f"{name} is an address, and only files of this machine are read", hint="copy it first")
            raise NotFound(f"there is no file {name}", hint=hint)
        yield from _read_file(path, batch_size)


def as_arrays(batch: Batch, shape: Sequence[int]) -> Batch:
    """Take records as arrays of a shape, for a model whose samples have no columns with names: by their order.

    So a CSV or a DataFrame with a column for each number is taken.

    Raises
    ------
    DataError
        If a record has another number of cells, other names than the first, or a cell that is no number.
    """
    if batch.columns is None:
        return batch
    rows, width = [], math.prod(shape)
    for number, record in enumerate(batch.samples, start=batch.start + 1):
        where = f"{batch.source}, record {number}"
        if not isinstance(record, Mapping):
            raise DataError(f"{where} is a {_kind_of(record)}, the first one a record", hint="give one form of samples")
        if len(record) != width:
            message = f"{where} has {len(record)} cells; the model takes arrays of the shape {tuple(shape)}"
            raise DataError(message, hint=f"give CSV with a column for each number, or {FORMS}")
        if missing := [name for name in batch.columns if name not in record]:
            raise DataError(f"{where} lacks {missing[0]!r}, which the first one has", hint="give all the same columns")
        rows.append([_number(record[name], f"{where}, {name!r}") for name in batch.columns])
    return replace(batch, samples=np.array(rows).reshape(len(rows), *shape), columns=None)


def columns_of(samples: Any) -> tuple[str, ...] | None:
    """Return the names in the first of some samples, if it is a record."""
    if isinstance(samples, list) and samples and isinstance(samples[0], Mapping):
        return tuple(samples[0])
    return None


def _number(cell: Any, where: str) -> float:
    try:
        if isinstance(cell, bool):
            raise TypeError("true or false")
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{where}: {reprlib.repr(cell)} is no number", hint="give numbers") from None


def samples_of_json(value: Any, source: str) -> Any:
    """Return the samples in a JSON request.

    Parameters
    ----------
    value
        A list of records or rows; one record; or a mapping with one of the keys ``inputs``, ``instances`` (lists, or
        a mapping of columns), ``dataframe_split`` or ``dataframe_records``, as MLflow's endpoints take them.
    source
        What to call it in an error.

    Raises
    ------
    DataError
        For any other form.
    """
    if isinstance(value, Mapping):
        keys = [key for key in ("inputs", "instances", "dataframe_split", "dataframe_records") if key in value]
        if len(keys) > 1:
            raise DataError(f"{source} has both {keys[0]} and {keys[1]}", hint="give one of them")
        if not keys:
            return [dict(value)]
        key = keys[0]
        body = value[key]
        if key == "dataframe_split":
            return _split_records(body, source)
        if key == "dataframe_records" and not (isinstance(body, list) and all(isinstance(one, dict) for one in body)):
            raise DataError(f"{source}: dataframe_records is no list of records", hint='give [{"column": value}, …]')
        if isinstance(body, Mapping):
            return _columns_to_records(body, f"{source}: {key}")
        value = body
    if not isinstance(value, list):
        raise DataError(f"{source} holds a {_kind_of(value)}", hint=f"give {FORMS}")
    if value and all(isinstance(one, int | float) for one in value):
        return [value]  # a single row
    return value


def _read_file(path: Path, batch_size: int) -> Iterator[Batch]:
    suffix = path.suffix.lower()
    head = b"" if suffix else _head(path)  # services are handed files without names
    suffix = suffix or _suffix_by_content(head)
    if told_by_name(path.name) or told_by_content(head):
        yield from _read_media([path], batch_size)
    elif suffix in ARRAYS:
        yield from _read_arrays(path, batch_size)
    else:
        form: Form = "csv" if suffix in TABLES else "lines" if suffix in LINES else "json"
        with _reported(path), path.open("rb") as file:
            yield from _read_text(file, form, str(path), batch_size, "\t" if suffix == ".tsv" else None)


def _head(path: Path) -> bytes:
    with _reported(path), path.open("rb") as file:
        return file.read(64)


def _suffix_by_content(head: bytes) -> str:
    """Return what a file that is no picture and no recording could end in."""
    for beginning, suffix in _BEGINNINGS.items():
        if head.startswith(beginning):
            return suffix
    return ".json" if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{", b"") else ".csv"


def _read_stream(stream: IO[bytes], batch_size: int) -> Iterator[Batch]:
    """Tell by its first character whether a stream is JSON or CSV."""
    content = io.BytesIO(stream.read())
    first = content.getvalue().lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if not first:
        raise DataError("standard input is empty", hint=f"pipe in CSV with a header, or JSON: {FORMS}")
    head = content.getvalue()[:64]
    if told_by_content(head) or head.startswith(tuple(_BEGINNINGS)):
        raise DataError("standard input holds no text", hint="give arrays, pictures and recordings as files")
    yield from _read_text(content, "json" if first in b"[{" else "csv", "standard input", batch_size, None)


def _read_text(file: IO[bytes], form: Form, source: str, batch_size: int, separator: str | None) -> Iterator[Batch]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        if form == "csv":
            yield from _cut(csv_records(text, source, separator), source, batch_size)
        elif form == "lines":
            yield from _cut(_json_lines(text, source), source, batch_size)
        else:
            yield from _read_json(text.read(), source, batch_size)
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is no UTF-8 text: {error.reason}", hint="save it as UTF-8") from error


def _read_json(content: str, source: str, batch_size: int) -> Iterator[Batch]:
    try:
        value = json.loads(content)
    except ValueError as error:
        lines = [line for line in content.splitlines() if line.strip()]
        if len(lines) > 1 and lines[0].lstrip().startswith("{") and _is_json(lines[0]):
            yield from _cut(_json_lines(lines, source), source, batch_size)
            return
        raise DataError(f"{source} is no JSON: {error}", hint=f"give {FORMS}") from error
    except RecursionError as error:
        raise DataError(f"{source} is nested too deeply", hint=f"give {FORMS}") from error
    yield from _cut(iter(samples_of_json(value, source)), source, batch_size)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _json_lines(lines: Iterable[str], source: str) -> Iterator[Any]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError as error:
            raise DataError(f"{source}, line {number} is no JSON: {error}", hint="give one record a line") from error


def csv_records(text: IO[str], source: str, separator: str | None = None) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV by column; cells stay text, the preprocessing knows what they are.

    Parameters
    ----------
    text
        The file; its first line names the columns.
    source
        What to call it in an error.
    separator
        Character between cells; by default the one of ``,``, ``;``, tab and ``|`` that is most in the header. Where
        none is, a row is one cell, whatever is in it.

    Raises
    ------
    DataError
        If there is no header, a name twice, or a row of another length, with its line.
    """
    blank, head = next(((number, line) for number, line in enumerate(text) if line.strip()), (0, ""))
    if separator is None:
        # names of columns hardly ever hold one
        separator = max(",;\t|", key=head.count) if any(mark in head for mark in ",;\t|") else "\t"
    # Quotes, and blanks before a cell, mean what they mean to `ai4sdk.data.csvfile`.
    reader = csv.reader(chain([head], text), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        if not any(names):
            raise DataError(f"{source} has no header", hint="the first line names the columns")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{source} has two columns {twice!r}", hint="rename one of them")
        for row in reader:
            if not row or (len(names) > 1 and not is_row(row)):
                continue
            if len(row) != len(names):
                raise DataError(
                    f"{source}, line {blank + reader.line_num} has {len(row)} cells, the header {len(names)}",
                    hint="put quotes around cells that hold the separator",
                )
            yield dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{source}, line {blank + reader.line_num} is no CSV: {error}") from error


def _read_arrays(path: Path, batch_size: int) -> Iterator[Batch]:
    """Read an array; the file is mapped, so that no more than a batch is in memory."""
    with _reported(path):
        try:
            loaded = np.load(path, mmap_mode="r" if path.suffix == ".npy" else None, allow_pickle=False)
        except _DAMAGE as error:
            raise DataError(f"{path} holds no array of numbers: {error}", hint="save it with numpy.save") from error
        if isinstance(loaded, np.ndarray):
            array = loaded
        else:
            with loaded:
                names = loaded.files
                name = next((each for each in ("x", "X", "inputs") if each in names), names[0] if names else "")
                if not names or (len(names) > 1 and name not in ("x", "X", "inputs")):
                    found = ", ".join(names) or "nothing"
                    raise DataError(f"{path} holds {found}; expected an array x", hint="numpy.savez(file, x=array)")
                try:
                    array = loaded[name]
                except _DAMAGE as error:
                    raise DataError(f"{path}: {name} is no array of numbers: {error}") from error
    if array.ndim == 0:
        raise DataError(f"{path} holds a single number", hint="the first axis counts the samples")
    for start in range(0, len(array), batch_size):
        yield Batch(np.asarray(array[start : start + batch_size]), str(path), start)


def _media_in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if told_by_name(path.name) and path.is_file())
    kinds = {told_by_name(path.name) for path in found}
    if not found:
        raise DataError(
            f"there is no picture or recording in {folder}",
            hint=f"pictures end in {', '.join(PICTURES)}; recordings in {', '.join(RECORDINGS)}",
        )
    if len(kinds) > 1:
        raise DataError(f"{folder} holds pictures and recordings", hint="give the files, or a folder of one of them")
    return found


def _read_media(paths: Sequence[Path], batch_size: int) -> Iterator[Batch]:
    for start in range(0, len(paths), batch_size):
        names = [str(path) for path in paths[start : start + batch_size]]
        yield Batch(names, names[0], start, names)


def _cut(samples: Iterator[Any], source: str, batch_size: int) -> Iterator[Batch]:
    start, columns = 0, None
    while batch := list(islice(samples, batch_size)):
        columns = columns if start else columns_of(batch)
        yield Batch(batch, source, start, columns=columns)
        start += len(batch)


def _split_records(body: Any, source: str) -> list[Any]:
    columns, rows = (body.get("columns"), body.get("data")) if isinstance(body, Mapping) else (None, None)
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise DataError(f"{source}: dataframe_split has no data", hint='give {"columns": […], "data": [[…], …]}')
    if columns is None:
        return rows
    if not isinstance(columns, list) or len(set(map(str, columns))) < len(columns):
        raise DataError(f"{source}: the columns of dataframe_split are no list of different names", hint="rename them")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise DataError(f"{source}, record {number} has {len(row)} cells for {len(columns)} columns")
    return [dict(zip(map(str, columns), row, strict=True)) for row in rows]


def _columns_to_records(body: Mapping[str, Any], source: str) -> list[Any]:
    lists = [value for value in body.values() if isinstance(value, list)]
    if not lists:
        return [dict(body)]
    if len(lists) != len(body) or len({len(value) for value in lists}) > 1:
        raise DataError(f"{source} has columns of different lengths", hint="give one value a sample in each column")
    return [dict(zip(body, row, strict=True)) for row in zip(*lists, strict=True)]


def _kind_of(value: Any) -> str:
    return {str: "text", int: "number", float: "number", bool: "truth value", type(None): "null"}.get(
        type(value), type(value).__name__
    )


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
