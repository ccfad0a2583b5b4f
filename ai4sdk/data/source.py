"""A dataset's files: which of those at an address are data, in which format, and for which split."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ai4sdk.data.formats import PICTURES, RECORDINGS
from ai4sdk.data.storage import Entry, Location, locate
from ai4sdk.errors import DataError
from ai4sdk.spec import FileDataset, Storage
from ai4sdk.spec.dataset import Format

__all__ = ["SPLITS", "Source", "find_source", "format_of", "nearest"]

SPLITS = ("train", "val", "test")
"""Names of the splits, in the order they are reported."""

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".npy": "npy",
    ".npz": "npz",
    **dict.fromkeys(PICTURES, "images"),
    **dict.fromkeys(RECORDINGS, "audio"),
}


@dataclass(frozen=True)
class Source:
    """The files of a dataset.

    Parameters
    ----------
    location
        Where they are.
    format
        How they are read.
    entries
        The files that hold data, sorted by name. Never empty.
    parts
        With splits given by file or folder, the files of each split; the names are below `folders`.
    folders
        With splits given by file or folder, the file or folder of each split.
    """

    location: Location
    format: Format
    entries: tuple[Entry, ...]
    parts: dict[str, tuple[Entry, ...]] | None = None
    folders: dict[str, str] | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(max(entry.size, 0) for entry in self.entries)

    def at(self, location: Location) -> Source:
        """Return the same files at another place, such as a local copy."""
        return replace(self, location=location)

    def again(self) -> Source:
        """List the same files once more, to see whether they changed."""
        now = {entry.name: entry for entry in self.location.entries()}
        return replace(self, entries=tuple(now[entry.name] for entry in self.entries if entry.name in now))

    def shown(self, entry: Entry) -> str:
        """Return what to call a file in messages."""
        return f"{self.location.address.rstrip('/')}/{entry.name}" if entry.name else self.location.address

    def named_parts(self) -> Iterable[tuple[str | None, tuple[Entry, ...]]]:
        """Yield splits and their files in the order they are read; one nameless split where files do not tell."""
        if self.parts is None:
            yield None, self.entries
        else:
            yield from self.parts.items()


def find_source(dataset: FileDataset, storage: Storage, project: Path) -> Source:
    """List the files of a dataset.

    Parameters
    ----------
    dataset
        What is asked for.
    storage
        The job's storage.
    project
        Folder that relative paths start from.

    Returns
    -------
    Source
        Its files; none of them is opened.

    Raises
    ------
    DataError
        If the address cannot be reached, holds no data, or its format cannot be told.
    """
    location = locate(dataset.uri, storage, project)
    entries = location.entries()
    format_ = dataset.format or _told_format(location, entries)
    chosen = [entry for entry in entries if _is_data(entry, location, format_)]
    if not chosen:
        raise DataError(
            f"{location.address} holds no files of format {format_}",
            hint=f"files ending in {', '.join(_suffixes(format_))} are read; set dataset.format for others",
        )
    if dataset.splits.method == "given" and dataset.splits.column is None:
        return _given(Source(location, format_, tuple(chosen)), dataset)
    return Source(location, format_, tuple(chosen))


def format_of(name: str) -> Format | None:
    """Tell the format of a file from the end of its name."""
    stem, dot, suffix = name.lower().rpartition(".")
    if suffix == "gz":
        suffix = f"{stem.rpartition('.')[2]}.gz"
    return _SUFFIXES.get(dot + suffix)


def nearest(name: str, names: Iterable[str]) -> str:
    """Say which of the names was meant, or which there are."""
    known = list(names)
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f"did you mean {near[0]!r}?"
    by_case = [other for other in known if other.lower() == name.lower()]
    if by_case:
        return f"did you mean {by_case[0]!r}?"
    shown = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    return f"there are: {shown}" if known else "there are none"


def _suffixes(format_: Format) -> list[str]:
    return [suffix for suffix, found in _SUFFIXES.items() if found == format_]


def _is_data(entry: Entry, location: Location, format_: Format) -> bool:
    """A single file is what the user says it is; in a folder only files of the format count."""
    return not entry.name or format_of(entry.name) == format_


def _told_format(location: Location, entries: list[Entry]) -> Format:
    hint = "set dataset.format to csv, parquet, npy, npz, images or audio"
    names = [entry.name or location.name for entry in entries]
    found = {told for name in names if (told := format_of(name))}
    if len(found) == 1:
        return found.pop()
    if found:
        raise DataError(f"{location.address} holds files of several formats: {', '.join(sorted(found))}", hint=hint)
    if not names:
        raise DataError(f"{location.address} is empty", hint="check dataset.uri")
    raise DataError(f"the format of {location.address} cannot be told from its name", hint=hint)


def _given(source: Source, dataset: FileDataset) -> Source:
    """Sort files into the splits that name them; other files are not read."""
    splits = dataset.splits
    if [entry.name for entry in source.entries] == [""]:
        raise DataError(
            f"splits.method: given needs a folder with a file or folder a split, but {source.location.address} "
            "is one file",
            hint="set splits.column to the column that names the split of a row",
        )
    parts: dict[str, tuple[Entry, ...]] = {}
    folders: dict[str, str] = {}
    for split in SPLITS:
        name = getattr(splits, split)
        if name is None:
            continue
        name = str(name).strip("/")
        parts[split] = tuple(
            entry for entry in source.entries if entry.name == name or entry.name.startswith(f"{name}/")
        )
        folders[split] = name
        if not parts[split]:
            there = {entry.name.split("/")[0] for entry in source.entries} | {entry.name for entry in source.entries}
            raise DataError(
                f"splits.{split} names {name!r}, but {source.location.address} holds no such data",
                hint=nearest(name, sorted(there)),
            )
    chosen = sorted({entry for part in parts.values() for entry in part}, key=lambda entry: entry.name)
    if len(chosen) < sum(len(part) for part in parts.values()):
        raise DataError(
            f"the splits of {source.location.address} share files",
            hint="name a file or folder of its own in each of splits.train, splits.val and splits.test",
        )
    return replace(source, entries=tuple(chosen), parts=parts, folders=folders)
