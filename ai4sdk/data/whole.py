"""Whether files of pictures and recordings are whole, without a library that decodes them."""

from __future__ import annotations

import struct
from typing import BinaryIO

from ai4sdk.errors import DataError

__all__ = ["check_whole"]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_TAIL = 65536
_UNKNOWN = 0x7FFF_F000
"""Programs that write WAV into a pipe give a length about as large as goes."""
_MOST_CHUNKS = 1000
"""Who sends more has other things in mind; what decodes the file looks for the sound itself."""


def check_whole(file: BinaryIO, shown: str) -> None:
    """Refuse a PNG, JPEG or WAV file that is cut short; files of other formats are not looked into.

    Raises
    ------
    DataError
        If the file ends too early.
    """
    start = file.read(12)
    whole = True
    if start[:8] == _PNG:
        file.seek(8)
        whole = _png_ends(file)
    elif start[:2] == _JPEG:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        whole = b"\xff\xd9" in file.read()
    elif start[:4] == b"RIFF" and start[8:] == b"WAVE":
        whole = _wave_ends(file)
    if not whole or len(start) < 2:
        raise DataError(f"{shown} is cut short", hint="fetch it again, or delete it")


def _png_ends(file: BinaryIO) -> bool:
    """Step from chunk to chunk until the one that ends a PNG file."""
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return len(file.read(4)) == 4
        file.seek(length + 4, 1)
    return False


def _wave_ends(file: BinaryIO) -> bool:
    """Step from chunk to chunk to that of the sound, and see whether the file is as long as it says."""
    for _ in range(_MOST_CHUNKS):
        if len(head := file.read(8)) < 8:
            return False
        kind, length = struct.unpack("<4sI", head)
        if kind == b"data":
            start = file.tell()
            return bool(length >= _UNKNOWN or file.seek(0, 2) >= start + length)
        file.seek(length + length % 2, 1)
    return True
