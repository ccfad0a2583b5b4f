"""Load of the machine, under the names by which MLflow's page knows system metrics."""

from __future__ import annotations

import time
from collections import deque

from ai4sdk.tracking.tail import Point

__all__ = ["MachineLoad"]

KEPT = 1000
"""Samples kept while they cannot be sent; older ones are dropped."""


class MachineLoad:
    """Samples CPU and memory of the machine now and then.

    Parameters
    ----------
    started
        Unix time in seconds that steps are counted from: a sample's step is its second.
    every
        Seconds between two samples.
    """

    def __init__(self, started: float, every: float = 10.0) -> None:
        self._started = started
        self._every = every
        self._last = 0.0
        self._samples: deque[list[Point]] = deque(maxlen=KEPT)

    def sample(self) -> None:
        """Take a sample if it is time to."""
        import psutil

        if time.monotonic() - self._last < self._every and self._last:
            return
        first, self._last = not self._last, time.monotonic()
        cpu = psutil.cpu_percent(interval=None)
        if first:
            return  # there is no span yet that the load could be a mean of
        memory = psutil.virtual_memory()
        figures = {
            "system/cpu_utilization_percentage": cpu,
            "system/system_memory_usage_megabytes": round(memory.used / 1e6, 1),
            "system/system_memory_usage_percentage": round(memory.used / memory.total * 100, 1),
        }
        now = time.time()
        step = max(0, int(now - self._started))
        self._samples.append([Point(name, float(value), int(now * 1000), step) for name, value in figures.items()])

    def waiting(self) -> list[Point]:
        """Return the samples that were not confirmed yet."""
        return [point for sample in self._samples for point in sample]

    def confirm(self, count: int) -> None:
        """Drop the oldest points that were waiting, as many as were sent."""
        while self._samples and count > 0:
            count -= len(self._samples.popleft())
