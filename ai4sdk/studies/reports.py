"""Reports of running points and the answers to them: files of the run directory, for any backend."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ai4sdk.runs.files import append_json_line
from ai4sdk.runs.layout import RunPaths

__all__ = ["ReportTail", "answer"]


class ReportTail:
    """Reads the reports of a run as they come.

    Parameters
    ----------
    run
        Files of the run.
    """

    def __init__(self, run: RunPaths) -> None:
        self.run = run
        self._position = 0

    def read(self) -> Iterator[tuple[int, float]]:
        """Yield (step, value) of the reports that are new."""
        try:
            if self.run.reports.stat().st_size <= self._position:
                return
            file = open(self.run.reports, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            return
        with file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # still being written
                self._position += len(line)
                try:
                    record = json.loads(line)
                    report = int(record["step"]), float(record["value"])
                except (ValueError, KeyError, TypeError):
                    continue  # a line that a kill cut short; its step is reported again
                yield report


def answer(run: RunPaths, step: int, go_on: bool) -> None:
    """Tell a run that waits after a report whether to go on."""
    append_json_line(run.verdicts, {"step": step, "go_on": go_on})
