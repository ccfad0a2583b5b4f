"""Hashes of local files, remembered as long as a file does not change."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from ai4sdk.errors import DataError

__all__ = ["cache_folder", "file_state", "hash_files"]

log = logging.getLogger(__name__)

_TABLE = "CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL)"
_SETTLED = 2.0
"""Seconds after which a change that keeps size and time of change is thought impossible; some file systems keep
times in whole seconds."""


def cache_folder() -> Path:
    """Return ``~/.cache/ai4sdk``, or ``ai4sdk`` under ``XDG_CACHE_HOME``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ai4sdk"


def hash_files(paths: Iterable[Path | str], states: Iterable[str] | None = None) -> list[str]:
    """Hash the content of files.

    Parameters
    ----------
    paths
        Files of this machine.
    states
        What `file_state` just told of each, where known; saves asking again.

    Returns
    -------
    list of str
        The SHA-256 of each as hexadecimal digits, in the same order. Files seen before and not changed since are
        not read again.

    Raises
    ------
    DataError
        If a file cannot be read.
    """
    files = [os.fspath(path) for path in paths]
    told = list(states) if states is not None else [""] * len(files)
    store = cache_folder() / "hashes.sqlite"
    known = _recall(store, files)
    fresh: dict[str, tuple[str, str]] = {}
    hashes = []
    for file, state in zip(files, told, strict=True):
        remembered = known.get(file)
        if remembered and state == remembered[0]:
            hashes.append(remembered[1])
            continue
        path = Path(file)
        try:
            before = file_state(path.stat())
            if remembered and before == remembered[0]:
                hashes.append(remembered[1])
                continue
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            after = path.stat()
        except OSError as error:
            raise DataError(
                f"cannot read {file}: {error.strerror}", hint="check that it exists and its permissions"
            ) from error
        hashes.append(digest)
        if before == file_state(after) and time.time() - max(after.st_mtime, after.st_ctime) > _SETTLED:
            fresh[file] = (before, digest)
    if fresh:
        _remember(store, fresh)
    return hashes


def file_state(status: os.stat_result) -> str:
    """Return what tells two states of a local file apart without reading it."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_dev} {status.st_ino}"


def _recall(store: Path, files: list[str]) -> dict[str, tuple[str, str]]:
    """Return what is known about files. The store only saves time: without a usable one nothing is known."""
    if not store.exists():
        return {}
    import sqlite3

    try:
        with closing(sqlite3.connect(store, timeout=2)) as database:
            if len(files) > 500:
                rows: Iterator[tuple[str, str, str]] = database.execute("SELECT path, state, sha256 FROM hashes")
                return {path: (state, digest) for path, state, digest in rows}
            marks = ",".join("?" * len(files))
            rows = database.execute(f"SELECT path, state, sha256 FROM hashes WHERE path IN ({marks})", files)
            return {path: (state, digest) for path, state, digest in rows}
    except (sqlite3.DatabaseError, UnicodeEncodeError) as error:
        _discard_if_damaged(store, error)
        return {}


def _remember(store: Path, fresh: dict[str, tuple[str, str]]) -> None:
    import sqlite3

    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(store, timeout=2)) as database, database:
            database.execute(_TABLE)
            database.executemany(
                "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)",
                [(path, state, digest) for path, (state, digest) in fresh.items()],
            )
    except (sqlite3.DatabaseError, OSError, UnicodeEncodeError) as error:
        _discard_if_damaged(store, error)


def _discard_if_damaged(store: Path, error: Exception) -> None:
    """Throw a damaged store away; one that is merely locked or on a full disk stays."""
    import sqlite3

    log.debug("hashes are not remembered: %s", error)
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        try:
            store.unlink(missing_ok=True)
        except OSError as failure:
            log.debug("cannot delete %s: %s", store, failure)
