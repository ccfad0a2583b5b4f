"""Writing files so that a kill at any moment leaves the old content or the new, never half of it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["append_json_line", "overwrite_json", "read_json", "read_json_lines", "sync", "write_json", "write_text"]


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace a file's content atomically.

    Parameters
    ----------
    path
        File to replace or create; its folder must exist.
    text
        The new content.
    durable
        Whether to wait until the content is on the disk; without it a power cut may bring the old content back.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(scratch, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace a JSON file atomically; see `write_text`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", durable=durable)


def overwrite_json(path: Path, value: Any) -> None:
    """Write a JSON file over in place, in the blocks it has: what can still be written to a full disk.

    The rest of the old content is filled with spaces, so that readers find either content whole.

    Raises
    ------
    OSError
        If it would need more room than it has.
    """
    data = json.dumps(value, ensure_ascii=False).encode()
    descriptor = os.open(path, os.O_WRONLY)
    try:
        found = os.fstat(descriptor)
        if len(data) > found.st_blocks * 512:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.pwrite(descriptor, data.ljust(found.st_size), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Wait until a file, or what a folder says of its names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any:
    """Read a JSON file; raises OSError or ValueError."""
    return json.loads(path.read_text(encoding="utf-8"))


def append_json_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON object as a line, in one write, so that lines of several processes do not mix.

    Raises
    ------
    OSError
        If it cannot be written whole; nothing of it is left behind then, as the next line would follow it.
    """
    line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        written = os.write(descriptor, line)
        if written < len(line):
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file; a last line cut short by a kill is left out.

    A missing file has no lines.
    """
    try:
        file = open(path, encoding="utf-8", errors="replace")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record
