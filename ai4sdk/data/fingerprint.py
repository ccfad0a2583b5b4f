"""A few characters that change when data changes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ai4sdk.data.hashes import hash_files
from ai4sdk.data.source import Source, find_source
from ai4sdk.data.storage import Entry, Location
from ai4sdk.errors import DataError
from ai4sdk.spec import FileDataset, Storage

__all__ = ["Fingerprint", "fingerprint", "fingerprint_path", "fingerprint_source", "require", "require_paths"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fingerprint:
    """What tells one state of a dataset from another.

    Parameters
    ----------
    value
        ``sha256:`` and 64 hexadecimal digits.
    files
        Number of files.
    bytes
        Their size together.
    newest
        Latest time of change among local files, seconds since 1970; it is no part of the value.
    """

    value: str
    files: int
    bytes: int
    newest: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as a mapping for JSON."""
        return asdict(self)


def fingerprint(dataset: FileDataset, storage: Storage, project: Path) -> Fingerprint:
    """Take the fingerprint of a dataset.

    Local files count with their content. Remote ones count with their size and what the server says of their
    version (ETag, checksum or time of change), so that nothing needs to be fetched. With splits given by file or
    folder only the named ones count.

    Parameters
    ----------
    dataset, storage, project
        See `ai4sdk.data.source.find_source`.

    Returns
    -------
    Fingerprint
        The same on every machine for local files of the same names and content.

    Raises
    ------
    DataError
        If the data cannot be reached or read.
    """
    return fingerprint_source(find_source(dataset, storage, project))


def fingerprint_source(source: Source) -> Fingerprint:
    """Take the fingerprint of files that are already listed; see `fingerprint`."""
    entries = source.entries
    if source.location.is_local:
        return _of_content(source.location, entries)
    if blind := [entry for entry in entries if not entry.mark]:
        log.warning(
            "%s tells no version of %s: only a change of its size will be noticed",
            source.location.address,
            blind[0].name or blind[0],
        )
    lines = (f"{entry.size} {entry.mark} {entry.name}" for entry in entries)
    return Fingerprint(_digest("remote", lines), len(entries), source.size)


def fingerprint_path(path: Path) -> str:
    """Take the fingerprint of any file or folder of this machine, by content.

    Parameters
    ----------
    path
        A file, or a folder of which every file counts but hidden ones.

    Returns
    -------
    str
        ``sha256:`` and 64 hexadecimal digits.

    Raises
    ------
    DataError
        If it does not exist or cannot be read.
    """
    location = Location("file", str(path.absolute()), str(path))
    return _of_content(location, tuple(location.entries())).value


def _of_content(location: Location, entries: tuple[Entry, ...]) -> Fingerprint:
    root = location.path
    paths = (f"{root}/{entry.name}" if entry.name else root for entry in entries)
    hashes = hash_files(paths, (entry.mark for entry in entries))
    lines = (f"{content} {entry.name}" for content, entry in zip(hashes, entries, strict=True))
    newest = max((entry.modified for entry in entries if entry.modified is not None), default=None)
    return Fingerprint(_digest("content", lines), len(entries), sum(entry.size for entry in entries), newest)


def _digest(kind: str, lines: Iterable[str]) -> str:
    digest = hashlib.sha256(f"ai4sdk {kind} 1\n".encode())
    for line in lines:
        # A zero byte cannot be in a file name, a line end can.
        digest.update(line.encode("utf-8", "surrogateescape") + b"\0")
    return f"sha256:{digest.hexdigest()}"


def require(found: Fingerprint, expected: str, source: Source) -> None:
    """Refuse data that is not what was asked for.

    Raises
    ------
    DataError
        If the fingerprints differ.
    """
    if found.value != expected:
        raise DataError(
            f"data changed since the plan was made: {source.location.address} is now {found.value[:19]}… "
            f"({found.files} files, {found.bytes} bytes), the plan recorded {expected[:19]}…",
            hint="bring the old data back, or make a new plan: ai4sdk plan",
        )


def require_paths(expected: Mapping[str, str], arguments: Mapping[str, Any], project: Path, section: str) -> None:
    """Refuse files, named by arguments of a target, that are not what they were when the plan was made.

    Parameters
    ----------
    expected
        Argument → fingerprint, as the plan recorded them.
    arguments
        The target's arguments.
    project
        Folder that relative paths start at.
    section
        Key of the target in the job.

    Raises
    ------
    DataError
        If a file or folder is gone or has changed.
    """
    for argument, value in expected.items():
        path = project / str(arguments[argument])
        if not path.exists() or fingerprint_path(path) != value:
            raise DataError(
                f"{section}.{argument}: {path} is gone or not what it was when the plan was made",
                hint="bring the data back, or plan again",
            )
