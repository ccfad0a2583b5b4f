"""A request's body: fields and files of a form, or JSON. Files are written to a folder while they arrive.

JSON is kept as it came: reading some megabytes of it may take a minute, which the server's process does not have.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, Self
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

__all__ = ["BadRequest", "Body", "BodyReader", "Limits", "Scratch", "Upload"]


class BadRequest(Exception):
    """A request that cannot be read.

    Parameters
    ----------
    status
        The HTTP status to answer it with.
    message
        Why.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class Limits:
    """How much a request may bring.

    Parameters
    ----------
    body
        Bytes in all.
    text
        Bytes of JSON, of an urlencoded form, or of one field of a form.
    parts
        Fields and files of a form.
    """

    body: int = 1 << 30
    text: int = 64 << 20
    parts: int = 1000


@dataclass(frozen=True)
class Upload:
    """A file that came with a request.

    Parameters
    ----------
    path
        Where its content is.
    original_name
        What the client calls it, without folders.
    content_type
        What the client says it is.
    """

    path: Path
    original_name: str
    content_type: str


class Scratch:
    """A folder for a request's files: made when it is first needed, as most bring none, and removed at the end."""

    def __init__(self) -> None:
        self._made: tempfile.TemporaryDirectory[str] | None = None

    @property
    def folder(self) -> Path:
        """The folder."""
        if self._made is None:
            self._made = tempfile.TemporaryDirectory(prefix="ai4sdk-request-")
        return Path(self._made.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._made is not None:
            self._made.cleanup()


@dataclass
class Body:
    """What a body holds: ``form`` by name in the order it came, or ``json``; neither if it is something else."""

    form: dict[str, list[str | Upload]] = field(default_factory=dict)
    json: bytes = b""

    def add(self, name: str, value: str | Upload) -> None:
        """Add a field or file to the form."""
        self.form.setdefault(name, []).append(value)


class BodyReader:
    """Reads a body piece by piece.

    Parameters
    ----------
    content_type
        The header's value.
    scratch
        Where files are written.
    limits
        What it may hold.

    Raises
    ------
    BadRequest
        If it is a form without a boundary.
    """

    def __init__(self, content_type: str, scratch: Scratch, limits: Limits) -> None:
        self._limits = limits
        self._size = 0
        self._text = bytearray()
        self._body = Body()
        kind, options = parse_options_header(content_type.encode("latin-1", "replace"))
        self._kind = kind.decode("latin-1")
        self._parts: _Parts | None = None
        if self._kind == "multipart/form-data":
            if not options.get(b"boundary"):
                raise BadRequest(400, "the form names no boundary")
            self._parts = _Parts(options[b"boundary"], scratch, limits, self._body)

    def write(self, chunk: bytes) -> None:
        """Read a piece.

        Raises
        ------
        BadRequest
            If it is not what the type says, or too much.
        """
        self._size += len(chunk)
        if self._size > self._limits.body:
            raise BadRequest(413, f"the body has more than {self._limits.body} bytes")
        if self._parts is not None:
            self._parts.write(chunk)
        elif self._is_text:
            self._text += chunk
            if len(self._text) > self._limits.text:
                raise BadRequest(413, f"the body has more than {self._limits.text} bytes")

    def finish(self) -> Body:
        """Return what was read.

        Raises
        ------
        BadRequest
            If it is not whole.
        """
        if self._parts is not None:
            self._parts.finish()
        elif self._is_json:
            self._body.json = bytes(self._text)
        elif self._text:
            self._read_urlencoded()
        return self._body

    def close(self) -> None:
        """Close files that are not complete."""
        if self._parts is not None:
            self._parts.close()

    @property
    def _is_json(self) -> bool:
        return self._kind == "application/json" or (
            self._kind.startswith("application/") and self._kind.endswith("+json")
        )

    @property
    def _is_text(self) -> bool:
        return self._is_json or self._kind == "application/x-www-form-urlencoded"

    def _read_urlencoded(self) -> None:
        try:
            pairs = parse_qsl(
                self._text.decode(), keep_blank_values=True, max_num_fields=self._limits.parts, errors="strict"
            )
        except ValueError as error:
            raise BadRequest(400, f"the form cannot be read: {error}") from error
        for name, value in pairs:
            self._body.add(name, value)


class _Parts:
    """The parts of a multipart form."""

    def __init__(self, boundary: bytes, scratch: Scratch, limits: Limits, body: Body) -> None:
        self._scratch = scratch
        self._limits = limits
        self._body = body
        self._count = 0
        self._is_over = False
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._headers: dict[str, str] = {}
        self._name = ""
        self._file_name: str | None = None
        self._text = bytearray()
        self._file: BinaryIO | None = None
        callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._all,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        except FormParserError as error:
            raise BadRequest(400, f"the form cannot be read: {error}") from error

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadRequest(400, f"the form cannot be read: {error}") from error

    def finish(self) -> None:
        self.close()
        if not self._is_over:
            raise BadRequest(400, "the form is cut short")

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _begin(self) -> None:
        self._count += 1
        if self._count > self._limits.parts:
            raise BadRequest(413, f"the form has more than {self._limits.parts} parts")
        self._headers = {}
        self._text = bytearray()

    def _end_header(self) -> None:
        name, value = (bytes(part).decode("utf-8", "surrogateescape") for part in self._header)
        self._headers[name.lower()] = value
        self._header = (bytearray(), bytearray())

    def _end_headers(self) -> None:
        disposition = self._headers.get("content-disposition", "")
        _, options = parse_options_header(disposition.encode("utf-8", "surrogateescape").decode("latin-1"))
        if not options.get(b"name"):
            raise BadRequest(400, "a part of the form has no name")
        if self._headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
            raise BadRequest(415, "a part of the form has a transfer encoding; send it as it is")
        self._name = options[b"name"].decode("utf-8", "replace")
        self._file_name = None
        if b"filename" in options:
            self._file_name = _without_folders(options[b"filename"].decode("utf-8", "replace"))
            try:
                self._file = open(self._scratch.folder / f"upload-{self._count}", "xb")  # noqa: SIM115 - closed in _end
            except OSError as error:
                raise _not_kept(error) from error

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            try:
                self._file.write(data[start:end])
            except OSError as error:
                raise _not_kept(error) from error
            return
        self._text += data[start:end]
        if len(self._text) > self._limits.text:
            raise BadRequest(413, f"{self._name!r} has more than {self._limits.text} bytes")

    def _end(self) -> None:
        if self._file is None:
            try:
                self._body.add(self._name, self._text.decode())
            except UnicodeDecodeError as error:
                raise BadRequest(400, f"{self._name!r} is no UTF-8 text; send it as a file") from error
            return
        try:
            is_empty = self._file.tell() == 0
            self.close()
        except OSError as error:  # the disk may be full only now
            raise _not_kept(error) from error
        if not self._file_name and is_empty:
            return  # what a browser sends for a file nobody has chosen
        kind = self._headers.get("content-type", "application/octet-stream")
        path = self._scratch.folder / f"upload-{self._count}"
        self._body.add(self._name, Upload(path, self._file_name or "", kind))

    def _all(self) -> None:
        self._is_over = True


def _without_folders(name: str) -> str:
    """Return the last part of a name: a path of the client's would lead a module that uses it out of its folder."""
    last = PureWindowsPath(name.replace("\0", "")).name
    return "" if last == ".." else last


def _not_kept(error: OSError) -> BadRequest:
    return BadRequest(507, f"a file cannot be kept here: {error.strerror or error}")
