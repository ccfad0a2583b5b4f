"""Folders of pictures: which class each is of, and whether files are whole, without a library for pictures."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import BinaryIO

from ai4sdk.data.source import SPLITS, Source
from ai4sdk.data.storage import Entry
from ai4sdk.errors import DataError

__all__ = ["Pictures", "check_picture", "list_pictures"]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_TAIL = 65536


@dataclass(frozen=True)
class Pictures:
    """Pictures and their classes.

    Parameters
    ----------
    entries
        The files, by split if those are given by folder, then by name.
    classes
        Number of the class of each; nothing where the files lie in no class folders.
    names
        Names of the classes, sorted.
    parts
        With splits given by folder, the split of each as its number in `ai4sdk.data.source.SPLITS`.
    """

    entries: list[Entry]
    classes: array[int] | None
    names: tuple[str, ...] | None
    parts: array[int] | None


def list_pictures(source: Source) -> Pictures:
    """Tell the class of each picture from the folder it is in.

    Parameters
    ----------
    source
        Files as ``CLASS/.../NAME``, below the folder of their split if splits are given by folder; or all of them
        without folders, which makes no classes.

    Returns
    -------
    Pictures
        Pictures and classes; no file is opened.

    Raises
    ------
    DataError
        If some pictures lie in class folders and some beside them, or a file is empty.
    """
    entries: list[Entry] = []
    folders: list[str] = []
    parts = array("b")
    for split, members in source.named_parts():
        prefix = len((source.folders or {})[split]) + 1 if split is not None else 0
        for entry in members:
            if entry.size == 0:
                raise DataError(f"{source.shown(entry)} is empty", hint="fetch it again, or delete it")
            entries.append(entry)
            folders.append(entry.name[prefix:].rpartition("/")[0].partition("/")[0])
            if split is not None:
                parts.append(SPLITS.index(split))
    found = sorted(set(folders))
    told = parts if source.parts is not None else None
    if found == [""]:
        return Pictures(entries, None, None, told)
    if found[0] == "":
        stray = entries[folders.index("")]
        raise DataError(
            f"{source.shown(stray)} lies beside the folders of the classes {', '.join(found[1:4])}",
            hint="move it into the folder of its class",
        )
    number = {name: index for index, name in enumerate(found)}
    return Pictures(entries, array("l", (number[folder] for folder in folders)), tuple(found), told)


def check_picture(file: BinaryIO, shown: str) -> None:
    """Refuse a PNG or JPEG file that is cut short; pictures of other formats are not looked into.

    Raises
    ------
    DataError
        If the file ends too early.
    """
    start = file.read(8)
    whole = True
    if start == _PNG:
        whole = _png_ends(file)
    elif start[:2] == _JPEG:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        whole = b"\xff\xd9" in file.read()
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
