"""What a server knows of the versions it has met, so that none is done again: a file of JSON lines."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ai4sdk.errors import DataError, EnvironmentFault, UsageError
from ai4sdk.runs.files import sync
from ai4sdk.serving.events.stores.base import Item

__all__ = ["FINAL", "Ledger", "State"]

State = Literal["claimed", "done", "dead", "left"]

FINAL = ("done", "dead")
"""States in which a version stays."""

_FORMAT = 1
_SLACK = 1000
"""Superseded lines a ledger may have, beside as many as it has versions, before it is written anew."""


class Ledger:
    """The ledger of one server for one input and output.

    A version is ``claimed``, then ``done``, ``dead``, or ``left``: those are forgotten, as they are listed again if
    they are there.

    Parameters
    ----------
    folder
        Where it is kept; made if it is not there.
    input, output
        Addresses that it is for.

    Raises
    ------
    UsageError
        If another process uses the folder, or it is for other addresses.
    DataError
        If it is damaged before its last line.
    EnvironmentFault
        If the folder cannot be written.
    """

    def __init__(self, folder: Path, input: str, output: str) -> None:
        self.folder, self.path = folder, folder / "ledger.jsonl"
        self._about = {"ledger": _FORMAT, "input": input, "output": output}
        self._states: dict[tuple[str, str], State] = {}
        self._lines = 0
        with self._written():
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UsageError(
                f"another process works with {folder}",
                hint="stop it, or give this one a folder of its own: serving.events.state=...",
            ) from None
        except OSError:
            pass  # a file system without locks
        try:
            whole = self._load()
            with self._written():
                if self._is_slack or not self._lines:
                    self._write_anew()
                elif whole < self.path.stat().st_size:
                    os.truncate(self.path, whole)
                self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Let others have the folder."""
        os.close(self._file)
        os.close(self._lock)

    def state(self, item: Item) -> State | None:
        """Return what is known of a version."""
        return self._states.get((item.key, item.version))

    def is_finished(self, item: Item) -> bool:
        """Tell whether a version is done or dead."""
        return self.state(item) in FINAL

    def finished(self) -> set[tuple[str, str]]:
        """Return key and version of those that are done or dead."""
        return {pair for pair, state in self._states.items() if state in FINAL}

    def forget(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Know nothing any more of versions that are finished, and give back the space of what is known no more.

        A kill may undo it.

        Raises
        ------
        EnvironmentFault
            If it cannot be written; then the file is what it was.
        """
        for pair in pairs:
            if self._states.get(pair) in FINAL:
                del self._states[pair]
        if self._is_slack:
            with self._written():
                self._write_anew()
                before, self._file = self._file, os.open(self.path, os.O_WRONLY | os.O_APPEND)
                os.close(before)

    def unfinished(self) -> list[Item]:
        """Return versions that were begun, in the order in which they were."""
        return [Item(*pair) for pair, state in self._states.items() if state == "claimed"]

    def counts(self) -> dict[str, int]:
        """Return how many versions are in which state."""
        return dict(Counter(self._states.values()))

    def record(self, item: Item, state: State, *, durable: bool = True, **facts: Any) -> None:
        """Note what became of a version.

        Parameters
        ----------
        item
            The version.
        state
            What it is now; a version that is finished stays so.
        durable
            Whether to wait until it is on the disk.
        facts
            What else readers of the file may want to know.

        Raises
        ------
        ValueError
            If the version was finished otherwise.
        EnvironmentFault
            If it cannot be written; then nothing is noted.
        """
        before = self.state(item)
        if before in FINAL:
            if before == state:
                return
            raise ValueError(f"{item.key} is {before} and cannot become {state}")
        line = _line({"key": item.key, "version": item.version, "state": state, "time": round(time.time(), 3), **facts})
        with self._written():
            written = os.write(self._file, line)
            if written < len(line):  # the disk is full; the next line must not follow half of one
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                raise OSError(28, os.strerror(28))
            if durable:
                os.fsync(self._file)
        self._lines += 1
        self._apply((item.key, item.version), state)

    @property
    def _is_slack(self) -> bool:
        return self._lines > 2 * len(self._states) + _SLACK

    def _apply(self, pair: tuple[str, str], state: State) -> None:
        if state == "left":
            self._states.pop(pair, None)
        else:
            self._states[pair] = state

    def _load(self) -> int:
        """Read the file; return how many bytes of it are whole."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise EnvironmentFault(
                f"cannot read {self.path}: {error.strerror}", hint="check its permissions"
            ) from error
        lines = data.split(b"\n")
        rest = lines.pop()  # empty, or what a kill left of a line
        whole = len(data) - len(rest)
        for number, line in enumerate(lines, 1):
            record = _record(line)
            if record is None or (number == 1 and "ledger" not in record):
                if number == len(lines) and not rest and number > 1:
                    return whole - len(line) - 1  # power was lost while it was written
                raise DataError(
                    f"{self.path} is damaged in line {number}",
                    hint="objects might be done again without it; restore it, or move it away: "
                    "what is claimed in the output stays done",
                )
            if number == 1:
                self._check(record)
            else:
                self._apply((record["key"], record["version"]), record["state"])
            self._lines += 1
        return whole

    def _check(self, about: Mapping[str, Any]) -> None:
        if about.get("ledger") != _FORMAT:
            raise DataError(f"{self.path} was written by another version of ai4sdk", hint="use that version")
        for key in ("input", "output"):
            if about.get(key) != self._about[key]:
                raise UsageError(
                    f"{self.folder} is for the {key} {about.get(key)}, not {self._about[key]}",
                    hint="give each pair of input and output a folder of its own: serving.events.state=...",
                )

    def _write_anew(self) -> None:
        scratch = self.path.with_suffix(".part")
        with open(scratch, "wb") as file:
            file.write(_line(self._about))
            for (key, version), state in self._states.items():
                file.write(_line({"key": key, "version": version, "state": state}))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self.path)
        sync(self.folder)
        self._lines = 1 + len(self._states)

    @contextlib.contextmanager
    def _written(self) -> Any:
        try:
            yield
        except OSError as error:
            raise EnvironmentFault(
                f"cannot write to {self.folder}: {error.strerror or error}",
                hint="free some space, check its permissions, or change serving.events.state",
            ) from error


def _line(record: Mapping[str, Any]) -> bytes:
    """Write a record with its checksum; characters beyond ASCII are escaped, as keys may be any bytes."""
    text = json.dumps(record, separators=(",", ":"))
    return f'{text[:-1]},"sum":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def _record(line: bytes) -> dict[str, Any] | None:
    """Return a line's record, or nothing if it is damaged."""
    text, mark, told = line.rpartition(b',"sum":"')
    if not mark or told != f'{zlib.crc32(text + b"}"):08x}"}}'.encode():
        return None
    try:
        record = json.loads(text + b"}")
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    if "ledger" in record:
        return record
    known = isinstance(record.get("key"), str) and isinstance(record.get("version"), str)
    return cast(dict[str, Any], record) if known and record.get("state") in get_args(State) else None
