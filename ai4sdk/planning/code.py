"""The snapshot of the user's code that goes into a plan, so that later edits change nothing in what runs.

A *unit* is what one top-level name imports from the user's folders: a package with all its files, or a single module.
The snapshot holds the units that the targets name, the units that these import, and so on. Everything else they import
is installed, and only its name is noted.

The archive is the files' contents one after another, in the order of the list, compressed with zlib and written as
base64. It has no names, links, owners or times of its own that could differ between machines or be abused.
"""

from __future__ import annotations

import ast
import base64
import binascii
import hashlib
import heapq
import logging
import os
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ai4sdk.errors import DataError, UsageError
from ai4sdk.planning.source.modules import Module, ModuleFinder
from ai4sdk.planning.source.names import dotted
from ai4sdk.planning.source.text import SourceError, parse

__all__ = ["CodeFile", "CodeSnapshot", "take_snapshot", "unpack"]

log = logging.getLogger(__name__)

LIMIT = 10_000_000
"""Bytes of code that a plan takes at most, unless told otherwise."""

_LARGEST = 2**30  # of an unpacked archive: a plan from elsewhere must not fill the memory
_MANY_FILES = 20_000  # to look at once the limit is passed; enough to name the largest

# The engine's own version is in the plan; its code is none of the user's, even beside a checkout of it.
_NEVER_A_UNIT = frozenset({"ai4sdk"})
_PRODUCED = frozenset({"runs", "mlruns"})


@dataclass(frozen=True)
class CodeFile:
    """One file of a snapshot.

    Parameters
    ----------
    path
        Path below the folder that imports start at, with ``/`` between parts.
    sha256
        SHA-256 of the content, as hexadecimal digits.
    size
        Bytes of the content.
    executable
        Whether the owner may execute it.
    """

    path: str
    sha256: str
    size: int
    executable: bool = False


@dataclass(frozen=True)
class CodeSnapshot:
    """The user's code at one moment.

    Parameters
    ----------
    files
        What it holds, sorted by path.
    archive
        The contents of the files, concatenated in that order, compressed with zlib, as base64.
    external
        Top-level names of the packages imported that are installed and no part of Python, sorted.
    """

    files: tuple[CodeFile, ...]
    archive: str
    external: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over the paths and hashes of the files, and nothing else."""
        lines = "".join(f"{file.path}\0{file.sha256}\n" for file in sorted(self.files, key=lambda file: file.path))
        return hashlib.sha256(lines.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the snapshot as JSON values."""
        files = [
            {"path": file.path, "sha256": file.sha256, "size": file.size}
            | ({"executable": True} if file.executable else {})
            for file in self.files
        ]
        return {"files": files, "external": list(self.external), "archive": self.archive}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CodeSnapshot:
        """Read what `to_json` wrote.

        Raises
        ------
        DataError
            If the value is no snapshot.
        """
        try:
            files = tuple(
                CodeFile(file["path"], file["sha256"], file["size"], file.get("executable", False))
                for file in value["files"]
            )
            snapshot = cls(files, value["archive"], tuple(value["external"]))
        except (AttributeError, KeyError, TypeError) as error:
            raise _damaged(f"its list of files cannot be read ({error})") from None
        texts = [snapshot.archive, *snapshot.external]
        texts += [text for file in files for text in (file.path, file.sha256)]
        if not all(isinstance(text, str) for text in texts):
            raise _damaged("its list of files cannot be read")
        if not all(type(file.size) is int and type(file.executable) is bool for file in files):
            raise _damaged("its list of files cannot be read")
        return snapshot


# ---------------------------------------------------------------------- taking


def take_snapshot(targets: Iterable[str], roots: Sequence[Path], *, limit: int = LIMIT) -> CodeSnapshot:
    """Read the code that targets need from the user's folders.

    Left out are hidden files, ``__pycache__`` and compiled Python, and folders of runs. Links are followed as long as
    they stay in their folder. Pipes, sockets and devices are passed over.

    Parameters
    ----------
    targets
        Dotted paths.
    roots
        Folders that the user's code is imported from. The first one that has a name wins, as on ``sys.path``.
    limit
        Most bytes the files may have together.

    Returns
    -------
    CodeSnapshot
        The same for the same files, wherever they lie.

    Raises
    ------
    UsageError
        If the files are larger than the limit, a link leaves its folder, or a file cannot be read.
    """
    finder = ModuleFinder(roots)
    pending = sorted({target.partition(".")[0] for target in targets}, reverse=True)
    seen: set[str] = set()
    external: set[str] = set()
    files: dict[str, _Found] = {}
    contents: dict[str, bytes] = {}
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        unit = list(_unit(finder, name))
        if not unit:
            external.add(name)
            continue
        for found in _gather(unit, files, limit):
            contents[found.path] = _read(found.file, limit)
            if found.path.endswith(".py"):
                pending += sorted(_imports(contents[found.path], found.file) - seen)
    paths = sorted(files)
    return CodeSnapshot(
        files=tuple(
            CodeFile(path, hashlib.sha256(contents[path]).hexdigest(), len(contents[path]), files[path].executable)
            for path in paths
        ),
        archive=base64.b64encode(zlib.compress(b"".join(contents[path] for path in paths))).decode(),
        external=tuple(sorted(external - sys.stdlib_module_names)),
    )


@dataclass(frozen=True)
class _Found:
    """A file of a unit: its path in the snapshot, where it lies, and what its inode says."""

    path: str
    file: Path
    size: int
    executable: bool


def _unit(finder: ModuleFinder, name: str) -> Iterator[Path]:
    """Yield the folders or the file that a top-level name imports from the user's folders."""
    if name in _NEVER_A_UNIT:
        return
    module = finder.find(name)
    for path in _places(module) if module and module.mine else ():
        if path.parent in finder.search:
            yield path


def _places(module: Module) -> tuple[Path, ...]:
    return module.folders or ((module.file,) if module.file else ())


def _gather(unit: Iterable[Path], files: dict[str, _Found], limit: int) -> list[_Found]:
    """Add a unit's files to those there are, and return the new ones."""
    new = []
    total = sum(found.size for found in files.values())
    for place in unit:
        for found in _walk(place):
            if found.path in files:  # one package over several folders: the first has it
                continue
            files[found.path] = found
            new.append(found)
            total += found.size
            if total > limit and len(files) > _MANY_FILES:
                raise _too_large(files.values(), total, limit)
    if total > limit:
        raise _too_large(files.values(), total, limit)
    return new


def _too_large(files: Iterable[_Found], total: int, limit: int) -> UsageError:
    largest = heapq.nlargest(5, files, key=lambda found: found.size)
    named = "".join(f"\n    {_megabytes(found.size):>10}  {found.path}" for found in largest)
    return UsageError(
        f"the code that this job imports has {_megabytes(total)}, and a plan takes {_megabytes(limit)}; "
        f"the largest files:{named}",
        hint="move data out of the package and name it in the dataset (dataset.uri), or as an argument of the target",
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def _walk(place: Path) -> Iterator[_Found]:
    """Yield the files below a package's folder, or a module's file, with paths that start at the folder around it."""
    root = place.parent
    real_root = os.path.realpath(root)
    pending: list[tuple[str, tuple[str, ...]]] = [(place.name, ())]
    while pending:
        path, above = pending.pop()
        file = root / path
        real = _resolved(file, real_root)
        try:
            status = os.stat(real)  # noqa: PTH116 - a string all along
            names = sorted(os.listdir(real)) if stat.S_ISDIR(status.st_mode) else []  # noqa: PTH208
        except OSError as error:
            raise _unreadable(file, error) from None
        if stat.S_ISDIR(status.st_mode):
            if real in above:
                raise UsageError(f"{file} links back to a folder that it lies in", hint=f"remove the link {file}")
            pending += [(f"{path}/{name}", (*above, real)) for name in names if not _left_out(real, name)]
        elif stat.S_ISREG(status.st_mode):
            yield _Found(_portable(path, file), file, status.st_size, bool(status.st_mode & stat.S_IXUSR))
        else:
            log.warning("%s is no regular file; the plan goes without it", file)


def _resolved(file: Path, real_root: str) -> str:
    real = os.path.realpath(file)
    if real != real_root and not real.startswith(real_root.rstrip("/") + "/"):
        raise UsageError(
            f"{file} is a link to {real}, outside of {real_root}; a plan holds only what lies in the project",
            hint="copy it there, or leave the link out of the package and name what it points to in the dataset",
        )
    return real


def _unreadable(file: Path, error: OSError) -> UsageError:
    if file.is_symlink() and isinstance(error, FileNotFoundError):
        return UsageError(f"{file} is a link to something that does not exist", hint=f"mend or remove {file}")
    return UsageError(
        f"{file} cannot be read: {error.strerror or error}",
        hint="make it readable, or move it out of the package",
    )


def _left_out(folder: str, name: str) -> bool:
    if name.startswith(".") or name == "__pycache__" or name.endswith((".pyc", ".pyo")):
        return True
    path = Path(folder, name)
    if name not in _PRODUCED or not path.is_dir():
        return False
    return not any(path.glob("*.py"))  # a package may well be called runs


def _portable(path: str, file: Path) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the name of {str(file)!r} is no valid UTF-8", hint="rename that file") from None
    return path


def _read(file: Path, limit: int) -> bytes:
    try:
        # Not to hang, should it have become a pipe since it was looked at.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            content = stream.read(limit + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError as error:
        raise _unreadable(file, error) from None
    if len(content) > limit:
        raise UsageError(f"{file} grows while it is read", hint="wait until it is written, and move it out of the code")
    return content


def _imports(source: bytes, file: Path) -> set[str]:
    """Return the top-level names that a module imports."""
    try:
        tree = parse(source, file)
    except SourceError as error:
        log.debug("imports of %s are not followed: %s", file, error)
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                names.update(alias.name for alias in node.names)
            case ast.ImportFrom(level=0, module=str(name)):
                names.add(name)
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
                if (dotted(function) or "").rpartition(".")[2] in ("import_module", "__import__"):
                    names.add(name)
    tops = {name.partition(".")[0] for name in names}
    return {top for top in tops if top.isidentifier()}


# ---------------------------------------------------------------------- unpacking


def unpack(snapshot: CodeSnapshot, folder: Path) -> None:
    """Write a snapshot's files into a folder.

    Every file is replaced in one step, and those that are right already are left alone. So a call that was killed is
    mended by the next one, and files that were edited since are put back. Nothing is written unless all of the snapshot
    is sound.

    Parameters
    ----------
    snapshot
        What to write.
    folder
        Where; made if need be. Other files in it are left alone.

    Raises
    ------
    DataError
        If a path would leave the folder, or the contents are not those that the list of files names.
    OSError
        If the folder cannot be written.
    """
    contents = _contents(snapshot)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in zip(snapshot.files, contents, strict=True):
        _write(folder, file, content)


def _contents(snapshot: CodeSnapshot) -> list[bytes]:
    _check_paths([file.path for file in snapshot.files])
    total = sum(file.size for file in snapshot.files)
    if total > _LARGEST or any(file.size < 0 for file in snapshot.files):
        raise _damaged("the sizes of its files cannot be")
    try:
        packed = base64.b64decode(snapshot.archive, validate=True)
        reader = zlib.decompressobj()
        data = reader.decompress(packed, total + 1)  # never more than was promised, whatever the archive holds
    except (binascii.Error, ValueError, zlib.error):
        raise _damaged("its archive cannot be read") from None
    if len(data) != total or not reader.eof or reader.unused_data:
        raise _damaged("its archive does not hold the files that it lists")
    contents, start = [], 0
    for file in snapshot.files:
        content = data[start : start + file.size]
        start += file.size
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise _damaged(f"the content of {file.path} is not the one recorded")
        contents.append(content)
    return contents


def _check_paths(paths: Sequence[str]) -> None:
    for path in paths:
        parts = path.split("/")
        legal = "\0" not in path and path.encode(errors="ignore").decode() == path
        if not legal or any(part in ("", ".", "..") for part in parts):
            raise _damaged(f"the path {path!r} does not stay in its folder")
    # Sorted by parts, a file is followed at once by what claims to lie below it.
    for one, other in pairwise(sorted(path.split("/") for path in paths)):
        if other[: len(one)] == one:
            raise _damaged(f"{'/'.join(one)!r} is there twice, or both a file and a folder")


def _damaged(reason: str) -> DataError:
    return DataError(f"the code of this plan is damaged: {reason}", hint="make the plan again")


def _write(folder: Path, file: CodeFile, content: bytes) -> None:
    *parents, name = file.path.split("/")
    place = folder
    for parent in parents:
        place = place / parent
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise DataError(f"{place} is in the way of the plan's code", hint=f"remove {place}")
        place.mkdir(exist_ok=True)
    destination = place / name
    if destination.is_dir() and not destination.is_symlink():
        raise DataError(f"{destination} is in the way of the plan's code", hint=f"remove {destination}")
    if _is_written(destination, file, content):
        return
    scratch = place / f".part-{os.getpid()}"
    mode = 0o777 if file.executable else 0o666  # less what the user's umask takes
    try:
        scratch.unlink(missing_ok=True)
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as stream:
            stream.write(content)
        scratch.replace(destination)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _is_written(destination: Path, file: CodeFile, content: bytes) -> bool:
    try:
        status = destination.lstat()
        same_kind = stat.S_ISREG(status.st_mode) and bool(status.st_mode & stat.S_IXUSR) == file.executable
        return same_kind and status.st_size == file.size and destination.read_bytes() == content
    except OSError:
        return False
