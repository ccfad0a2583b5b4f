"""Following files of JSON lines: every value once, in the order of the file, in bounded memory."""

from __future__ import annotations

import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ai4sdk.tracking.names import ValidNames

__all__ = ["Batch", "MetricsTail", "Point", "Tail", "milliseconds", "number_in"]

log = logging.getLogger(__name__)

_BLOCK = 1 << 20
_PAGE_BITS = 10
_LARGEST_STEP = 2**63 - 1
_LARGEST_TIME = 2**62


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one metric; ``time`` in milliseconds since 1970."""

    name: str
    value: float
    time: int
    step: int


@dataclass
class Batch:
    """Points that belong together, and the offset in bytes behind the last record they came from."""

    points: list[Point] = field(default_factory=list)
    records: int = 0
    end: int = 0


class _Seen:
    """A set of (name, step): one bit a step, in pages, so that a million steps take 300 kB and not 60 MB."""

    def __init__(self) -> None:
        self._pages: dict[str, dict[int, int]] = {}

    def add(self, name: str, step: int) -> bool:
        """Add a pair; tell whether it is new."""
        pages = self._pages.setdefault(name, {})
        page, bit = step >> _PAGE_BITS, 1 << (step & ((1 << _PAGE_BITS) - 1))
        bits = pages.get(page, 0)
        if bits & bit:
            return False
        pages[page] = bits | bit
        return True


class Tail(ABC):
    """Reads a file of JSON lines as it grows, and what values of metrics its records stand for.

    A line without an end is left for later. A line that was cut short by a kill, so that the next record follows in
    it, gives that next record. Lines that make no sense are left out.

    Parameters
    ----------
    path
        The file; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.last_step = 0
        self._complained = False

    def next_batch(self, limit: int = 1000) -> Batch | None:
        """Return the next points, and consider them taken.

        Parameters
        ----------
        limit
            Number of points after which no further record is added.

        Returns
        -------
        Batch or None
            ``None`` if the file has no further complete line. The points may be none, where all of them were seen.

        Raises
        ------
        OSError
            If the file exists and cannot be read.
        """
        batch = self._read(limit)
        if batch is not None:
            self.offset = batch.end
        return batch

    def _skip_to(self, offset: int) -> None:
        """Learn what the first bytes hold, and do not yield it."""
        while self.offset < offset and (batch := self._read(1 << 16, until=offset)):
            self.offset = batch.end

    def _read(self, limit: int, until: int | None = None) -> Batch | None:
        try:
            file = open(self.path, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            return None
        with file:
            if file.seek(0, 2) < self.offset:
                log.warning("%s became shorter; it is read again from its beginning", self.path.name)
                self.offset = 0
            file.seek(self.offset)
            batch = Batch(end=self.offset)
            for line in _lines(file):
                place = batch.end
                batch.end += len(line)
                batch.records += 1
                record = _record(line)
                if record is not None:
                    batch.points.extend(self._points(record, place))
                elif line.strip():
                    self._complain(place)
                if len(batch.points) >= limit or (until is not None and batch.end >= until):
                    break
        return batch if batch.records else None

    @abstractmethod
    def _points(self, record: Mapping[str, Any], place: int) -> Iterator[Point]:
        """Yield the values that a record adds; ``place`` is its first byte."""

    def _complain(self, place: int) -> None:
        if not self._complained:
            log.warning("%s, byte %d: no record that is known; such lines are left out", self.path.name, place)
        self._complained = True


class MetricsTail(Tail):
    """Reads metrics.jsonl as it grows.

    A resumed training may append steps again that were logged before it was killed: of a metric and a step the first
    value in the file counts, and is yielded once.

    Parameters
    ----------
    path
        The file; it may not exist yet.
    offset
        Bytes from the beginning that are known already: they are read to learn what they hold, and not yielded.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        super().__init__(path)
        self._names = ValidNames()
        self._seen = _Seen()
        self._skip_to(offset)

    def _points(self, record: Mapping[str, Any], place: int) -> Iterator[Point]:
        time, step = milliseconds(record.get("time")), record.get("step")
        metrics = record.get("metrics")
        whole = isinstance(step, int) and not isinstance(step, bool) and abs(step) <= _LARGEST_STEP
        if time is None or not whole or not isinstance(metrics, dict):
            self._complain(place)
            return
        assert isinstance(step, int)
        self.last_step = max(self.last_step, step)
        for name, value in metrics.items():
            number = number_in(value)
            if number is None:
                self._complain(place)
                continue
            valid = self._names(name)
            if self._seen.add(valid, step):
                yield Point(valid, number, time, step)


def _lines(file: Any) -> Iterator[bytes]:
    """Yield complete lines, with their ends."""
    rest = b""
    while block := file.read(_BLOCK):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line + b"\n"


def _record(line: bytes) -> dict[str, Any] | None:
    for start in (0, line.rfind(b'{"time"')):
        if start < 0:
            continue
        try:
            record = json.loads(line[start:])
        except ValueError:
            continue
        if isinstance(record, dict):
            return record
    return None


def milliseconds(time: Any) -> int | None:
    """Return a Unix time in seconds as milliseconds; ``None`` if it is none."""
    number = number_in(time)
    if number is None or not math.isfinite(number) or not 0 <= number * 1000 < _LARGEST_TIME:
        return None
    return round(number * 1000)


def number_in(value: Any) -> float | None:
    """Return a number of a JSON file; ``None`` if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
