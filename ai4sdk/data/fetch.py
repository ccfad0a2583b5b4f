"""Copies of remote data on this machine, kept by fingerprint."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from ai4sdk.data.fingerprint import fingerprint_source, require
from ai4sdk.data.hashes import cache_folder, hash_files
from ai4sdk.data.reach import explain, out_of_space
from ai4sdk.data.source import Source
from ai4sdk.data.storage import Entry, Location
from ai4sdk.errors import Ai4Error, DataError, EnvironmentFault
from ai4sdk.runs.files import read_json, write_json
from ai4sdk.spec import Storage
from ai4sdk.spec.units import format_size

__all__ = ["local_source"]

log = logging.getLogger(__name__)

_BLOCK = 2**20
_STREAMS = 8
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


def local_source(source: Source, storage: Storage) -> Source:
    """Bring a dataset's files to this machine.

    Files that are there already, whole and unchanged, are not fetched again; one that was cut off is continued.
    Several processes may ask for the same data at once: one fetches, the others wait.

    Parameters
    ----------
    source
        Files anywhere.
    storage
        The job's storage, whose ``cache`` is the folder for copies.

    Returns
    -------
    Source
        The same files on this machine; local ones are returned as they are.

    Raises
    ------
    DataError
        If files cannot be fetched, or changed meanwhile.
    EnvironmentFault
        If the disk is full or the folder cannot be written.
    """
    if source.location.is_local:
        return source
    found = fingerprint_source(source)
    root = Path(storage.cache).expanduser() if storage.cache else cache_folder() / "data"
    folder = root.absolute() / found.value.removeprefix("sha256:")[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / ".lock"):
            copy = _Copy(source, folder)
            if not copy.is_whole():
                copy.fetch()
                require(fingerprint_source(source.again()), found.value, source)
                copy.record()
    except OSError as error:
        if out_of_space(error):
            raise _full(folder, source) from error
        raise EnvironmentFault(
            f"cannot keep a copy of {source.location.address} in {folder}: {error.strerror or error}",
            hint="set storage.cache to a folder that can be written",
        ) from error
    return source.at(copy.location)


class _Copy:
    """A folder with the files of one fingerprint, and a manifest of them once all are there."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.source = source
        self.manifest = folder / "manifest.json"
        files = folder / "files"
        single = source.location.name or "data"
        self.targets = {entry: files / _safe(entry.name or single, source) for entry in source.entries}
        is_file = [entry.name for entry in source.entries] == [""]
        self.location = Location("file", str(files / single if is_file else files), source.location.address)

    def is_whole(self) -> bool:
        """Tell whether every file is there with the content it was fetched with; damaged ones are deleted."""
        try:
            recorded = read_json(self.manifest)["files"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        there = {entry: target for entry, target in self.targets.items() if target.is_file()}
        hashes = dict(zip(there, hash_files(there.values()), strict=True))
        whole = True
        for entry, target in self.targets.items():
            if hashes.get(entry) != recorded.get(entry.name):
                whole = False
                target.unlink(missing_ok=True)
                log.warning("the copy of %s is damaged and fetched again", self.source.shown(entry))
        return whole

    def fetch(self) -> None:
        """Fetch the files that are not there."""
        todo = {entry: target for entry, target in self.targets.items() if not target.exists()}
        needed = sum(max(entry.size, 0) for entry in todo)
        for folder in {target.parent for target in todo.values()}:
            folder.mkdir(parents=True, exist_ok=True)
        if needed > shutil.disk_usage(self.manifest.parent).free:
            raise _full(self.manifest.parent, self.source)
        log.info("fetching %s: %d files, %s", self.source.location.address, len(todo), format_size(needed))
        self.source.location.filesystem()
        with ThreadPoolExecutor(_STREAMS) as pool:
            jobs = [pool.submit(_fetch_file, self.source, entry, target) for entry, target in todo.items()]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                for job in jobs:
                    job.cancel()
                raise

    def record(self) -> None:
        """Write the manifest: from now on the copy is whole."""
        hashes = hash_files(self.targets.values())
        files = {entry.name: found for entry, found in zip(self.targets, hashes, strict=True)}
        write_json(self.manifest, {"address": self.source.location.address, "files": files})


def _safe(name: str, source: Source) -> str:
    """Refuse a name with which a server could have files written elsewhere."""
    if ".." in PurePosixPath(name).parts or name.startswith("/") or "\0" in name:
        raise DataError(f"{source.location.address} lists a file named {name!r}", hint="rename it on the server")
    return name


def _fetch_file(source: Source, entry: Entry, target: Path) -> None:
    """Fetch one file under a name for the time being; go on as long as each attempt brings bytes."""
    part = target.with_name(f"{target.name}.part")
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _append_rest(source, entry, part)
            break
        except Ai4Error:
            raise
        except Exception as error:
            if isinstance(error, OSError) and out_of_space(error):
                raise _full(target.parent, source) from error
            if not part.exists() or part.stat().st_size <= before:
                raise explain(error, source.shown(entry)) from error
            log.info("fetching %s broke off (%s) and goes on", source.shown(entry), type(error).__name__)
            time.sleep(0.5)
    size = part.stat().st_size
    if entry.size not in (-1, size):
        part.unlink()
        raise DataError(
            f"{source.shown(entry)} came with {size} bytes instead of {entry.size}",
            hint="the server may be changing it; run the same command again",
        )
    if source.location.protocol == "s3" and (told := _MD5.fullmatch(entry.mark)) and _md5(part) != told[1]:
        part.unlink()
        raise DataError(f"{source.shown(entry)} came damaged", hint="run the same command again")
    part.replace(target)


def _append_rest(source: Source, entry: Entry, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    if entry.size < 0 or have > entry.size:
        have = 0
    if have and have == entry.size:
        return
    with _stream(source.location, entry, have) as (remote, start), part.open("r+b" if start else "wb") as file:
        file.seek(start)
        shutil.copyfileobj(remote, file, _BLOCK)


@contextmanager
def _stream(location: Location, entry: Entry, start: int) -> Iterator[tuple[BinaryIO, int]]:
    """Open a remote file at a position, or at its beginning if the server sends whole files only."""
    filesystem: Any = location.filesystem()
    path = location.remote_path(entry)
    if location.protocol != "http":
        with filesystem.open(path, "rb", block_size=8 * _BLOCK) as file:
            file.seek(start)
            yield cast(BinaryIO, file), start
        return
    wanted = {"headers": {"Range": f"bytes={start}-"}} if start else {}
    with filesystem.open(path, "rb", block_size=0, size=None, **wanted) as file:
        yield cast(BinaryIO, file), start if file.r.status == 206 else 0


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _full(folder: Path, source: Source) -> EnvironmentFault:
    return EnvironmentFault(
        f"no space left in {folder} for a copy of {source.location.address} ({format_size(source.size)})",
        hint="free some, or set storage.cache to a folder on a larger disk",
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
