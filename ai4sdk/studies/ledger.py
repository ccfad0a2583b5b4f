"""The ledger of a study: what became of each point, one line an event, on the disk before it counts."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ai4sdk.errors import EnvironmentFault, UsageError
from ai4sdk.studies.layout import StudyPaths
from ai4sdk.studies.point import Objective, Point, PointState, Result

__all__ = ["Ledger", "LedgerReader"]


class LedgerReader:
    """Reads a ledger while it grows, and keeps the result of each point.

    Parameters
    ----------
    paths
        Files of the study.
    points
        The points known beforehand.
    """

    def __init__(self, paths: StudyPaths, points: tuple[Point, ...] = ()) -> None:
        self.paths = paths
        self.results: dict[int, Result] = {point.number: Result(point) for point in points}
        self.objective: Objective | None = None
        """What a study without an objective is judged by, once its first run has shown figures."""
        self._runs = paths.root.parent
        self._position = 0
        self._line = 0

    def read(self) -> dict[int, Result]:
        """Read what is new, and return number → result.

        Raises
        ------
        UsageError
            If the file is damaged. It is never written to then.
        """
        for event in self._events():
            self._take(event)
        return self.results

    def _events(self) -> Iterator[dict[str, Any]]:
        try:
            file = open(self.paths.ledger, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            return
        with file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # still being written, or cut short by a kill
                self._position += len(line)
                self._line += 1
                if not line.strip():
                    continue
                try:
                    event = json.loads(line)
                    event["event"]
                except (ValueError, KeyError, TypeError):
                    raise self._damaged("is no record") from None
                yield event

    def _damaged(self, what: str) -> UsageError:
        return UsageError(
            f"{self.paths.ledger}:{self._line} {what}: the ledger of this study is damaged; it is left as it is",
            hint="bring it back from a backup, or start a new study: points that succeeded are not run again",
        )

    def _take(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        try:
            if kind == "asked":
                point = Point(event["number"], event["params"], tuple(event["overrides"]), event["digest"])
                self.results.setdefault(point.number, Result(point))
            elif kind == "objective":
                self.objective = Objective(event["name"], event["direction"])
            elif kind in ("started", "reused", "ended", "report"):
                number = event["number"]
                self.results[number] = _after(self.results[number], event, self.paths.root, self._runs)
        except (KeyError, TypeError, ValueError):
            raise self._damaged("is no record of this study") from None


def _after(result: Result, event: Mapping[str, Any], study: Path, runs: Path) -> Result:
    """Return the result of a point after an event."""
    kind = event["event"]
    if kind == "started":
        return replace(
            result, state=PointState.RUNNING, run=study / event["run"], attempts=int(event["attempt"]), cause=None
        )
    if kind == "report":
        return replace(result, reports={**result.reports, int(event["step"]): float(event["value"])})
    numbers = event.get("values")
    values = tuple(map(float, numbers)) if numbers is not None else None
    if kind == "reused":
        run = runs / event["run"]
        return replace(result, state=PointState.SUCCEEDED, reused=True, run=run, values=values, cause=None)
    state, cause = PointState(event["state"]), event.get("cause")
    return replace(result, state=state, values=values, cause=cause, took=event.get("took"))


class Ledger:
    """Writes a ledger; only the engine of the study does.

    Parameters
    ----------
    paths
        Files of the study.

    Raises
    ------
    EnvironmentFault
        If it cannot be written.
    """

    def __init__(self, paths: StudyPaths) -> None:
        self._path = paths.ledger
        try:
            self._file = os.open(paths.ledger, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._drop_cut_line()
        except OSError as error:
            raise self._fault(error) from error

    def _drop_cut_line(self) -> None:
        """Take away the last line if a kill cut it short: it never counted."""
        size = os.fstat(self._file).st_size
        keep = size
        while keep and os.pread(self._file, 1, keep - 1) != b"\n":
            keep -= 1
        if keep < size:
            os.ftruncate(self._file, keep)

    def write(self, event: str, **details: Any) -> None:
        """Append an event, and return once it is on the disk, or at once after a start: nothing is decided by that.

        Raises
        ------
        EnvironmentFault
            If it cannot be written.
        """
        line = json.dumps({"time": round(time.time(), 3), "event": event, **details}, ensure_ascii=False) + "\n"
        try:
            written = os.write(self._file, line.encode())
            if written < len(line.encode()):
                raise OSError(28, "No space left on device")
            if event != "started":
                os.fsync(self._file)
        except OSError as error:
            raise self._fault(error) from error

    def _fault(self, error: OSError) -> EnvironmentFault:
        return EnvironmentFault(
            f"{self._path} cannot be written: {error.strerror or error}",
            hint="free space there, then `ai4sdk study resume`",
        )

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
