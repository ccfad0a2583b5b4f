"""How runs stand, wherever they run: by their folders and, where those cannot know, by asking who schedules them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

from ai4sdk.backends.base import QueuedBackend, Standing
from ai4sdk.backends.registry import get_backend
from ai4sdk.errors import Ai4Error
from ai4sdk.planning.plan import Plan
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, read_state

__all__ = ["Watch", "current_state", "current_states", "is_queued"]

_FIRST, _MOST = 1.0, 15.0
"""Seconds between two questions to a scheduler about one run: at first, and after a long while."""
_LOG = 2.0
"""Seconds between two times that a log is brought from where it is written."""


def current_state(run: RunPaths) -> Standing:
    """Return how a run stands.

    Raises
    ------
    OSError, ValueError
        If the folder holds no readable state.
    """
    return current_states([(run, read_state(run))])[0]


def current_states(runs: Sequence[tuple[RunPaths, RunState]]) -> list[Standing]:
    """Return how many runs stand, given what their folders say; a scheduler is asked once for all of them."""
    found = [Standing(state) for _, state in runs]
    kept: dict[str, list[int]] = {}
    for index, (_, state) in enumerate(runs):
        if state.scheduler is not None and not state.state.ended:
            kept.setdefault(state.scheduler, []).append(index)
    for scheduler, indices in kept.items():
        backend = cast(QueuedBackend, get_backend(scheduler))
        for index, standing in zip(indices, backend.stand([runs[index] for index in indices]), strict=True):
            found[index] = standing
    return found


def is_queued(plan: Plan) -> bool:
    """Tell whether a plan's backend hands runs to a scheduler, where they may wait for hours."""
    return hasattr(get_backend(plan.job["backend"]["kind"]), "stand")


class Watch:
    """Looks at one run again and again: at its folder each time, at its scheduler less and less often.

    Parameters
    ----------
    run
        The run.
    """

    def __init__(self, run: RunPaths) -> None:
        self._run = run
        self._pause = _FIRST
        self._next = 0.0
        self._last: tuple[RunState, Standing] | None = None
        self._next_log = 0.0

    def look(self) -> Standing:
        """Return how the run stands; raises as `current_state` does."""
        state = read_state(self._run)
        if state.scheduler is None or state.state.ended:
            return Standing(state)
        if self._last is not None and self._last[0] == state and time.monotonic() < self._next:
            return self._last[1]
        changed = self._last is None or self._last[0] != state
        self._pause = _FIRST if changed else min(1.5 * self._pause, _MOST)
        standing = current_states([(self._run, state)])[0]
        self._next = time.monotonic() + self._pause
        self._last = (state, standing)
        return standing

    def bring_log(self) -> str:
        """Bring what the run has printed into its log here, if it runs where that is not seen.

        Returns why that is not possible, or nothing.
        """
        state = read_state(self._run)
        if state.scheduler is None or state.state.ended or time.monotonic() < self._next_log:
            return ""
        bring = getattr(get_backend(state.scheduler), "bring_log", None)
        self._next_log = time.monotonic() + _LOG
        try:
            if bring is not None:
                bring(self._run, state)
        except Ai4Error as error:
            return error.message
        return ""
