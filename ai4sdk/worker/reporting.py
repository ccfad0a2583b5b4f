"""Telling a study how a training stands, and learning whether it is to go on.

Reports and verdicts are files of the run directory; see docs/design/0002-studies.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ai4sdk.runs.files import append_json_line, read_json, read_json_lines
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import is_alive
from ai4sdk.worker.signals import StopTraining

__all__ = ["Reporter"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1
_LOOK_AT_ENGINE = 0.5
"""Seconds between two looks at whether anybody is there to answer."""


class Reporter:
    """Reports a metric once an epoch, and waits for the verdict.

    Parameters
    ----------
    paths
        Files of the run, a point of a study.
    metric
        Name of the metric.
    clock
        Tells the time in seconds.
    """

    def __init__(self, paths: RunPaths, metric: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.metric = metric
        self._paths, self._clock = paths, clock
        self._study = RunPaths(paths.root.parent.parent)

    @classmethod
    def of(cls, paths: RunPaths) -> Reporter | None:
        """Return the reporter that a run needs, ``None`` if nobody wants to know."""
        try:
            metric = read_json(paths.membership).get("report")
        except (OSError, ValueError, AttributeError):
            return None
        return cls(paths, metric) if isinstance(metric, str) else None

    def report(self, step: int, value: float) -> None:
        """Report the metric after an epoch.

        Parameters
        ----------
        step
            Number of the epoch, counted from 0. What was decided for it before a kill is decided.
        value
            The metric.

        Raises
        ------
        StopTraining
            If the study gives this point up.
        """
        verdict = self._verdict(step)
        if verdict is None:
            append_json_line(self._paths.reports, {"step": step, "value": value})
            verdict = self._wait(step)
        if not verdict:
            raise StopTraining("pruned")

    def _verdict(self, step: int) -> bool | None:
        for record in read_json_lines(self._paths.verdicts):
            if record.get("step") == step:
                return bool(record.get("go_on"))
        return None

    def _wait(self, step: int) -> bool:
        pause, looked = _FIRST_PAUSE, self._clock()
        while (verdict := self._verdict(step)) is None:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            if self._clock() - looked > _LOOK_AT_ENGINE:
                if not is_alive(self._study):
                    return True
                looked = self._clock()
        return verdict
