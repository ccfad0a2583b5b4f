"""What a running task tells the world: metrics, progress, events. Cheap enough for every step."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from ai4sdk.runs.files import read_json, write_text
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import add_event

__all__ = ["Progress", "Records"]

log = logging.getLogger(__name__)

_PAUSE = 0.25
"""Seconds between two replacements of progress.json."""

_RATE_SPAN = 5.0
"""Seconds that the rate is averaged over."""


class Progress:
    """progress.json: where the task stands, replaced at most four times a second.

    Parameters
    ----------
    paths
        Files of the run.
    clock
        Tells the time in seconds.
    writes
        Whether anything is written; of several processes only rank 0 does.
    """

    def __init__(self, paths: RunPaths, *, clock: Callable[[], float] = time.monotonic, writes: bool = True) -> None:
        self._path, self._clock, self._writes = paths.progress, clock, writes
        self._next = 0.0
        self._marks: list[tuple[float, int]] = []
        self._values: dict[str, Any] = {"phase": None, "finished": self._read_finished(), "started": time.time()}

    def _read_finished(self) -> list[str]:
        try:
            finished = read_json(self._path).get("finished", [])
        except (OSError, ValueError, AttributeError):
            return []
        return [phase for phase in finished if isinstance(phase, str)]

    @property
    def finished(self) -> list[str]:
        """Phases that are finished, in this attempt or an earlier one."""
        return list(self._values["finished"])

    def enter(self, phase: str) -> None:
        """Begin a phase; a power cut may forget that it has begun."""
        self._marks.clear()
        self._write({"phase": phase, "rate": None}, needed=True)

    def finish(self, phase: str) -> None:
        """End a phase: a resumed run will skip it."""
        self._write({"finished": [*self.finished, phase]}, needed=True, durable=True)

    @property
    def due(self) -> bool:
        """Whether enough time has passed to write again."""
        return self._writes and self._clock() >= self._next

    def update(self, *, step: int | None = None, **values: Any) -> None:
        """Write where the phase stands; call it when `due`.

        Parameters
        ----------
        step
            Optimizer steps so far; the rate (steps per second) is found from it.
        values
            ``epoch``, ``epochs``, ``batch``, ``batches``, ``metrics``, …
        """
        if step is not None:
            values |= {"step": step, "rate": self._rate(step)}
        self._write(values, needed=False)

    def forget(self, name: str) -> None:
        """Leave a value out from the next time on."""
        self._values.pop(name, None)

    def _rate(self, step: int) -> float | None:
        now = self._clock()
        self._marks.append((now, step))
        while len(self._marks) > 2 and now - self._marks[1][0] > _RATE_SPAN:
            del self._marks[0]
        (since, first), passed = self._marks[0], now - self._marks[0][0]
        return round((step - first) / (now - since), 3) if passed > 0 else None

    def _write(self, values: Mapping[str, Any], *, needed: bool, durable: bool = False) -> None:
        self._values |= {**values, "updated": time.time()}
        self._next = self._clock() + _PAUSE
        if not self._writes:
            return
        try:
            write_text(self._path, json.dumps(self._values) + "\n", durable=durable)
        except OSError as error:
            if needed:
                raise
            log.warning("%s could not be written: %s", self._path, error)


class Records:
    """The records of a task.

    Parameters
    ----------
    paths
        Files of the run.
    writes
        Whether anything is written; of several processes only rank 0 does. The log has the events of all.
    """

    def __init__(self, paths: RunPaths, *, writes: bool = True) -> None:
        self.paths = paths
        self.progress = Progress(paths, writes=writes)
        self._file: int | None = None
        if writes:
            self._file = os.open(paths.metrics, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._end_cut_line(self._file)

    @staticmethod
    def _end_cut_line(file: int) -> None:
        """Close a line that a kill or a full disk cut short, so that the next one does not run into it."""
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")

    def metrics(self, values: Mapping[str, float], *, step: int, epoch: int) -> None:
        """Append the metrics of a step; one write, nothing to wait for."""
        if self._file is None:
            return
        record = {"time": time.time(), "step": step, "epoch": epoch, "metrics": values}
        os.write(self._file, (json.dumps(record) + "\n").encode())

    def event(self, name: str, **details: Any) -> None:
        """Append to the run's events, and say so in the log."""
        if self._file is not None:
            add_event(self.paths, name, **details)
        log.info("%s%s", name, "".join(f" {key}={value}" for key, value in details.items()))

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            os.close(self._file)
