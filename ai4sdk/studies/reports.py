"""Reports of running points and the answers to them: files of the run directory, for any backend."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ai4sdk.runs.files import append_json_line, read_json_lines
from ai4sdk.runs.layout import RunPaths

__all__ = ["ReportTail"]


class ReportTail:
    """Reads the reports of a run as they come, and answers them.

    Parameters
    ----------
    run
        Files of the run. What was answered in an earlier attempt stays answered.
    """

    def __init__(self, run: RunPaths) -> None:
        self._run = run
        self._position = 0
        self._answered = {
            int(record["step"]): bool(record["go_on"])
            for record in read_json_lines(run.verdicts)
            if "step" in record and "go_on" in record
        }

    @property
    def given_up(self) -> bool:
        """Whether the run was told not to go on."""
        return not all(self._answered.values())

    def read(self) -> Iterator[tuple[int, float]]:
        """Yield (step, value) of the reports that wait for an answer."""
        try:
            if self._run.reports.stat().st_size <= self._position:
                return
            file = open(self._run.reports, "rb")  # noqa: SIM115 - closed below
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
                if report[0] not in self._answered:
                    yield report

    def answer(self, step: int, go_on: bool) -> None:
        """Tell the run, which waits after a report, whether to go on."""
        append_json_line(self._run.verdicts, {"step": step, "go_on": go_on})
        self._answered[step] = go_on
