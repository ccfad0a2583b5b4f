"""Files that are a sample each, such as pictures, in folders that say which class they are of."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from ai4sdk.data.source import SPLITS, Source
from ai4sdk.data.storage import Entry
from ai4sdk.errors import DataError

__all__ = ["FilesByClass", "files_by_class"]


@dataclass(frozen=True)
class FilesByClass:
    """Files and their classes.

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


def files_by_class(source: Source) -> FilesByClass:
    """Tell the class of each file from the folder it is in.

    Parameters
    ----------
    source
        Files as ``CLASS/.../NAME``, below the folder of their split if splits are given by folder; or all of them
        without folders, which makes no classes.

    Returns
    -------
    FilesByClass
        Files and classes; none is opened.

    Raises
    ------
    DataError
        If some files lie in class folders and some beside them, or a file is empty.
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
        return FilesByClass(entries, None, None, told)
    if found[0] == "":
        stray = entries[folders.index("")]
        raise DataError(
            f"{source.shown(stray)} lies beside the folders of the classes {', '.join(found[1:4])}",
            hint="move it into the folder of its class",
        )
    number = {name: index for index, name in enumerate(found)}
    return FilesByClass(entries, array("l", (number[folder] for folder in folders)), tuple(found), told)
