"""A folder on this machine, or mounted here."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ai4sdk.errors import DataError
from ai4sdk.runs.files import sync
from ai4sdk.serving.events.names import PRIVATE, may_lead_to_wanted, scratch_name
from ai4sdk.serving.events.stores.base import PAGE, Gone, Item, Refused

__all__ = ["LocalStore", "kind_of_mount"]

log = logging.getLogger(__name__)

_HERE = -100  # AT_FDCWD
_NO_REPLACE = 1  # RENAME_NOREPLACE, renameat2(2)
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_SURE = 60.0
"""Seconds by which the clock of a file server may be wrong. What changed later than that is watched by our own."""
_REFUSED = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EEXIST, errno.ELOOP)


class LocalStore:
    """Files below a folder; their version is the time of change, size and inode.

    On FUSE (sshfs, rclone) a file has another inode after each mount, or whenever it was forgotten; it is left out.

    Links are not followed: whoever may put one there could have files read that are not theirs.

    Parameters
    ----------
    folder
        Made when it is written to.
    owner
        Name of who writes, for files that are not whole yet.
    settle
        Seconds for which a file must not have changed.
    now, clock
        Time of day and a clock that only goes forward.
    """

    moves = True

    def __init__(
        self,
        folder: Path,
        owner: str = "one",
        settle: float = 0.0,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.address = folder, str(folder)
        self.atomic = True
        self._owner, self._settle = owner, settle
        self._now, self._clock = now, clock
        self._unsettled: dict[str, tuple[str, float]] = {}
        self._inodes_last = not kind_of_mount(folder).startswith("fuse")

    def prepare(self, *, writing: bool) -> None:
        """See that the folder is there or can be made, and whether renames can spare what is there."""
        if not writing:
            if not self.folder.is_dir():
                raise DataError(f"there is no folder {self.folder}", hint="create it, or change serving.events.input")
            return
        with self._trouble("write to"):
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._path(scratch_name(self._owner, "")), ignore_errors=True)
        probe = f"{PRIVATE}/probe.{self._owner}"
        self.put(probe, b"")
        self.create(probe, b"")
        self.remove(probe)

    def pages(self, prefixes: Sequence[str]) -> Iterator[list[Item]]:
        """Yield the files in the order of their names."""
        page: list[Item] = []
        before, self._unsettled = self._unsettled, {}
        with self._trouble("list"):
            for item in self._walk(self.folder, "", prefixes, before):
                page.append(item)
                if len(page) >= PAGE:
                    yield page
                    page = []
        if page:
            yield page

    def stat(self, key: str) -> Item | None:
        """Return the file that is there now."""
        with self._trouble("look at"):
            try:
                status = self._path(key).lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return self._item(key, status, self._unsettled) if stat.S_ISREG(status.st_mode) else None

    def read(self, item: Item, most: int) -> bytes:
        """Read a file that has not changed before or while it was read."""
        path = self._path(item.key)
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                if self._version(os.fstat(file.fileno())) != item.version:
                    raise Gone(item.key)
                data = file.read(most + 1)
                if self._version(os.fstat(file.fileno())) != item.version:
                    raise Gone(item.key)
                return data
        except (FileNotFoundError, NotADirectoryError):
            raise Gone(item.key) from None
        except OSError as error:
            raise self._said(error, f"read {path}") from error

    def create(self, name: str, data: bytes) -> bool:
        """Write a file elsewhere, and rename it if there is none."""
        with self._trouble("write to"):
            return self._rename(self._scratch(name, data), self._path(name))

    def put(self, name: str, data: bytes) -> None:
        """Write a file elsewhere, and rename it."""
        path = self._path(name)
        with self._trouble("write to"):
            self._scratch(name, data).replace(path)
            _sync(path.parent)

    def fetch(self, name: str) -> bytes | None:
        """Read a file."""
        with self._trouble("read"):
            try:
                return self._path(name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def exists(self, name: str) -> bool:
        """Look for a file."""
        with self._trouble("look at"):
            return self._path(name).exists()

    def move(self, source: str, target: str) -> bool:
        """Rename a file unless the target is there."""
        path, final = self._path(source), self._path(target)
        with self._trouble("write to"):
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                return self._rename(path, final)
            except FileNotFoundError:
                raise Gone(source) from None

    def names(self, folder: str) -> list[str]:
        """List a folder."""
        with self._trouble("list"):
            try:
                with os.scandir(self._path(folder)) as found:
                    return [entry.name for entry in found if entry.is_file(follow_symlinks=False)]
            except (FileNotFoundError, NotADirectoryError):
                return []

    def remove(self, name: str) -> None:
        """Delete a file."""
        with self._trouble("write to"):
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _scratch(self, name: str, data: bytes) -> Path:
        """Write a file that is not there for readers yet, and make the folder where it will be."""
        scratch = self._path(scratch_name(self._owner, name))
        for folder in (scratch.parent, self._path(name).parent):
            folder.mkdir(parents=True, exist_ok=True)
        with open(scratch, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return scratch

    def _rename(self, source: Path, target: Path) -> bool:
        """Rename unless the target is there; the source is gone in both cases."""
        done = _rename_sparing(source, target)
        if done is None:  # the file system has no such call
            self.atomic = False
            done = not target.exists()
            if done:
                source.rename(target)
        if done:
            _sync(target.parent)
            if source.parent != target.parent:
                _sync(source.parent)
        else:
            source.unlink()
        return done

    def _walk(
        self,
        folder: Path,
        prefix: str,
        prefixes: Sequence[str],
        before: dict[str, tuple[str, float]],
    ) -> Iterator[Item]:
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except PermissionError:
            if not prefix:
                raise
            log.warning("%s cannot be listed, and is left out", folder)
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            key = f"{prefix}{entry.name}"
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # gone meanwhile
                if entry.is_dir(follow_symlinks=False):
                    if may_lead_to_wanted(f"{key}/", prefixes):
                        yield from self._walk(Path(entry.path), f"{key}/", prefixes, before)
                elif entry.is_file(follow_symlinks=False):
                    yield self._item(key, entry.stat(follow_symlinks=False), before)

    def _item(self, key: str, status: os.stat_result, before: dict[str, tuple[str, float]]) -> Item:
        version = self._version(status)
        if not self._settle or self._now() - status.st_mtime >= self._settle + _SURE:
            return Item(key, version, status.st_size)
        seen, since = before.get(key, ("", 0.0))
        if seen == version and self._clock() - since >= self._settle:
            return Item(key, version, status.st_size)
        self._unsettled[key] = (version, since if seen == version else self._clock())
        return Item(key, version, status.st_size, settled=False)

    def _version(self, status: os.stat_result) -> str:
        inode = f"{status.st_ino:x}" if self._inodes_last else "0"
        return f"{status.st_mtime_ns:x}-{status.st_size:x}-{inode}"

    @contextlib.contextmanager
    def _trouble(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._said(error, f"{verb} {error.filename or self.folder}") from error

    def _said(self, error: OSError, doing: str) -> DataError:
        kind = Refused if error.errno in _REFUSED else DataError
        return kind(
            f"cannot {doing}: {error.strerror or error}", hint="check its permissions and the space on its disk"
        )


def _sync(folder: Path) -> None:
    """Wait until a folder's names are on the disk, where its file system can tell."""
    try:
        sync(folder)
    except OSError as error:
        if error.errno not in (*_CANNOT, errno.EBADF, errno.EACCES):
            raise


def kind_of_mount(folder: Path, table: str = "/proc/self/mountinfo") -> str:
    """Return the kind of file system that a folder lies on, such as ``fuse.sshfs``; nothing where it is not told."""
    try:
        lines = Path(table).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    place, found = f"{folder.resolve()}/", ("", "")
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) > 4 and right:
            mounted = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4]).rstrip("/")
            if place.startswith(f"{mounted}/") and len(mounted) >= len(found[0]):  # the last one covers those before
                found = (mounted, right.split(" ")[0])
    return found[1]


def _rename_sparing(source: Path, target: Path) -> bool | None:
    """Rename unless the target is there; tell whether it did, or nothing where that cannot be done in one step."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return None
    if call(_HERE, os.fsencode(source), _HERE, os.fsencode(target), _NO_REPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.EEXIST:
        return False
    if number in _CANNOT:
        return None
    raise OSError(number, os.strerror(number), str(source))
