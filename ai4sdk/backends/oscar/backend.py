"""What `ai4sdk run` says to ``backend=oscar``: services do not end, so they are no runs."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from ai4sdk.backends.base import Submission
from ai4sdk.errors import UsageError
from ai4sdk.planning.plan import Plan
from ai4sdk.runs.layout import RunPaths

__all__ = ["OscarBackend"]


class OscarBackend:
    """Refuses runs, and says what to do with a trained model instead."""

    def render(self, plan: Plan, run: RunPaths, project: Path) -> Submission:
        """Refuse."""
        self._refuse()

    def submit(self, submission: Submission, run: RunPaths, lock: int) -> None:
        """Refuse."""
        self._refuse()

    def cancel(self, run: RunPaths, *, now: bool = False) -> None:
        """Refuse."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError(
            "OSCAR has services, which answer and do not end; a training is none",
            hint="train with another backend, then: ai4sdk oscar apply RUN config=NAME backend=oscar",
        )
