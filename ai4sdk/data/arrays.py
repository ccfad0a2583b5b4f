"""NPY and NPZ files: their headers, and the few values a plan needs, without NumPy."""

from __future__ import annotations

import ast
import math
import struct
import sys
import zipfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from ai4sdk.data.columns import Column
from ai4sdk.data.source import Source, nearest
from ai4sdk.data.storage import Entry
from ai4sdk.errors import DataError

__all__ = ["Array", "find_array", "opened_array", "read_column", "read_headers", "rows_with_nan"]

_MAGIC = b"\x93NUMPY"
_CODES = {
    "i1": "b", "u1": "B", "b1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q",
    "f4": "f", "f8": "d",
}  # fmt: skip
_CHUNK = 2**20


@dataclass(frozen=True)
class Array:
    """What the header of an array says.

    Parameters
    ----------
    entry
        The file it is in.
    name
        Its name in an npz; empty in an npy.
    shape
        Its shape, samples first.
    dtype
        NumPy's text for the kind of its values, such as ``<f4``.
    fortran
        Whether the first axis varies fastest.
    """

    entry: Entry
    name: str
    shape: tuple[int, ...]
    dtype: str
    fortran: bool

    @property
    def kind(self) -> str:
        """NumPy's letter for the kind: ``b`` truth, ``i`` and ``u`` whole, ``f`` real, ``U`` and ``S`` text."""
        return self.dtype[1]

    @property
    def itemsize(self) -> int:
        """Bytes of one value."""
        size = int(self.dtype[2:].partition("[")[0] or 0)
        return size * 4 if self.kind == "U" else size

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.itemsize


def read_headers(source: Source, entry: Entry) -> dict[str, Array]:
    """Read what arrays a file holds.

    Parameters
    ----------
    source
        The dataset's files; their format is ``npy`` or ``npz``.
    entry
        One of them.

    Returns
    -------
    dict
        Arrays by name; an npy has one, with an empty name.

    Raises
    ------
    DataError
        If the file is damaged or cut short, or an array holds Python objects.
    """
    shown = source.shown(entry)
    with source.location.open(entry) as raw, _damage_told(shown):
        if source.format == "npy":
            header = _header(raw, entry, "", shown)
            start = raw.tell()
            if raw.seek(0, 2) - start < header.nbytes:
                raise DataError(f"{shown} is cut short", hint="fetch or write it again")
            return {"": header}
        with zipfile.ZipFile(raw) as archive:
            found = {}
            for item in archive.infolist():
                if item.filename.endswith(".npy"):
                    name = item.filename.removesuffix(".npy")
                    with archive.open(item) as member:
                        found[name] = _header(cast(BinaryIO, member), entry, name, f"{shown}:{name}")
            return found


@contextmanager
def opened_array(source: Source, header: Array) -> Iterator[BinaryIO]:
    """Open an array's file at its first value.

    Raises
    ------
    DataError
        If the file is damaged or cut short.
    """
    shown = source.shown(header.entry)
    with source.location.open(header.entry) as raw, _damage_told(shown):
        if source.format == "npy":
            _header(raw, header.entry, "", shown)
            yield raw
            return
        with zipfile.ZipFile(raw) as archive, archive.open(f"{header.name}.npy") as member:
            _header(cast(BinaryIO, member), header.entry, header.name, shown)
            yield cast(BinaryIO, member)


def read_column(source: Source, header: Array) -> Column:
    """Read an array of one value a sample as a column.

    Raises
    ------
    DataError
        If it has more axes, or holds what is no number, truth value or text.
    """
    name = header.name
    if len(header.shape) != 1 and not (len(header.shape) == 2 and header.shape[1] == 1):
        raise DataError(
            f"{source.shown(header.entry)}: array {name!r} has shape {header.shape}, not one value a sample",
            hint="name another array",
        )
    if header.kind in "US":
        column = Column(name, "text")
        known: dict[str, int] = {}
        for text in _texts(source, header):
            column.codes.append(known.setdefault(text, len(known)) if text else -1)
        column.texts = list(known)
        return column
    numbers = array("d")
    for chunk in _numbers(source, header):
        numbers.extend(array("d", chunk))
    return Column(name, "bool" if header.kind == "b" else "number", numbers)


def rows_with_nan(source: Source, header: Array) -> list[int]:
    """Find the samples in which a value is no number (NaN).

    Raises
    ------
    DataError
        If a value is infinite; or the file is cut short.
    """
    if header.kind != "f":
        with opened_array(source, header) as file:  # read to its end, so that a damaged file is found
            _pass_over(file, header, source.shown(header.entry))
        return []
    width = math.prod(header.shape[1:])
    rows: set[int] = set()
    done = 0
    for chunk in _numbers(source, header):
        if not math.isfinite(sum(chunk)):
            for index, value in enumerate(chunk, start=done):
                if math.isfinite(value):
                    continue
                row = index % header.shape[0] if header.fortran else index // width
                if value == value:
                    shown = source.shown(header.entry)
                    raise DataError(
                        f"{shown} row {row + 1} of {header.name or 'the array'}: an infinite number",
                        hint="correct the data",
                    )
                rows.add(row)
        done += len(chunk)
    return sorted(rows)


def find_array(headers: dict[str, Array], name: str, key: str, shown: str) -> Array:
    """Pick an array by name.

    Raises
    ------
    DataError
        If there is none of that name.
    """
    if name not in headers:
        raise DataError(f"{shown} has no array {name!r}, which {key} names", hint=nearest(name, headers))
    return headers[name]


def _header(file: BinaryIO, entry: Entry, name: str, shown: str) -> Array:
    """Read the header; the file stands at the first value afterwards. The layout is NumPy's own, version 1 to 3."""
    start = file.read(8)
    if start[:6] != _MAGIC:
        raise DataError(f"{shown} is no NPY array", hint="save it with numpy.save or numpy.savez")
    short = DataError(f"{shown} is cut short", hint="fetch or write it again")
    size = struct.Struct("<H" if start[6] == 1 else "<I")
    length = file.read(size.size)
    if len(length) < size.size:
        raise short
    (characters,) = size.unpack(length)
    text = file.read(characters)
    if len(text) < characters:
        raise short
    try:
        said = ast.literal_eval(text.decode("latin-1").strip())
        dtype, fortran, shape = said["descr"], bool(said["fortran_order"]), tuple(map(int, said["shape"]))
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise DataError(f"{shown} has a damaged header", hint="fetch or write it again") from error
    if not isinstance(dtype, str):
        raise DataError(f"{shown} is an array of records", hint="save plain arrays, or a table as CSV or Parquet")
    if dtype[1] == "O":
        raise DataError(
            f"{shown} holds Python objects, which are never loaded because doing so may run code",
            hint="save numbers, for example array.astype('float32')",
        )
    if dtype[1] not in "biufUS":
        raise DataError(f"{shown} holds values of type {dtype}, which are no numbers", hint="save numbers")
    return Array(entry, name, shape, dtype, fortran)


def _numbers(source: Source, header: Array) -> Iterator[Sequence[float]]:
    """Yield the values in the order of the file, some at a time."""
    code = _CODES.get(header.dtype[1:])
    if code is None and header.dtype[1:] != "f2":
        raise DataError(
            f"{source.shown(header.entry)}: values of type {header.dtype} cannot be read", hint="save float32"
        )
    swap = header.dtype[0] == (">" if sys.byteorder == "little" else "<")
    left = header.nbytes
    with opened_array(source, header) as file:
        while left:
            data = file.read(min(left, _CHUNK))
            if not data or len(data) % header.itemsize:
                raise DataError(f"{source.shown(header.entry)} is cut short", hint="fetch or write it again")
            left -= len(data)
            if code is None:
                yield struct.unpack(f"{header.dtype[0].replace('|', '=')}{len(data) // 2}e", data)
                continue
            values = array(code, data)
            if swap:
                values.byteswap()
            yield values


def _texts(source: Source, header: Array) -> Iterator[str]:
    size = header.itemsize
    encoding = "latin-1"
    if header.kind == "U":
        encoding = "utf-32-be" if header.dtype[0] == ">" else "utf-32-le"
    with opened_array(source, header) as file:
        for _ in range(header.shape[0]):
            data = file.read(size)
            if len(data) < size:
                raise DataError(f"{source.shown(header.entry)} is cut short", hint="fetch or write it again")
            yield data.decode(encoding).rstrip("\0").strip()


def _pass_over(file: BinaryIO, header: Array, shown: str) -> None:
    left = header.nbytes
    while left:
        data = file.read(min(left, _CHUNK))
        if not data:
            raise DataError(f"{shown} is cut short", hint="fetch or write it again")
        left -= len(data)


@contextmanager
def _damage_told(shown: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{shown} is no whole NumPy file: {error}", hint="fetch or write it again") from error
    except KeyError as error:
        raise DataError(f"{shown} lost an array while it was read: {error}", hint="fetch or write it again") from error
