"""Points of a study as Jobs, one each, so many at once as the study wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ai4sdk.backends.base import Standing, Submission
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState

if TYPE_CHECKING:
    from ai4sdk.backends.kubernetes.backend import KubernetesBackend

__all__ = ["SLOTS", "JobQueue"]

SLOTS = 4
"""Points at once if nobody says how many."""


class JobQueue:
    """Hands points over; `ai4sdk.backends.scheduled_pool.Queue` says what is promised.

    Parameters
    ----------
    backend
        Does so for single runs.
    """

    def __init__(self, backend: KubernetesBackend) -> None:
        self._backend = backend

    def put(self, run: RunPaths, submission: Submission, lock: int) -> None:
        """Create the Job of a run."""
        self._backend.submit(submission, run, lock)

    def flush(self) -> None:
        """Do nothing: all is submitted by now."""

    def stand(self, runs: Sequence[tuple[RunPaths, RunState]]) -> list[Standing]:
        """Ask Kubernetes, in two calls for all runs of a namespace."""
        return self._backend.stand(runs)

    def stop(self, runs: Mapping[RunPaths, bool]) -> None:
        """Delete the Jobs of runs."""
        for run, now in runs.items():
            self._backend.cancel(run, now=now)
