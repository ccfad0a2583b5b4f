"""The pool of any scheduler: the points of a study as runs that wait in its queue and go on without this process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ai4sdk.backends.base import Ended, Standing, Submission
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, read_state

__all__ = ["Queue", "ScheduledPool"]

_LOOK = 0.5
"""Seconds between two looks at the folders of runs."""
_REST = 20
"""Times as long as a look took, which at thousands of runs is long, is waited until the next one."""
_FIRST, _MOST = 1.0, 15.0
"""Seconds between two questions to the scheduler: after something has changed, and after a long while."""


class Queue(Protocol):
    """What differs between schedulers."""

    def put(self, run: RunPaths, submission: Submission, lock: int) -> None:
        """Hand over a run, and free its lock; `flush` may be what really submits it.

        Raises
        ------
        Ai4Error
            If the scheduler refuses it, or cannot be asked.
        """
        ...

    def flush(self) -> None:
        """Submit what was put; raises as `put` does, and then leaves what was not submitted interrupted."""
        ...

    def stand(self, runs: Sequence[tuple[RunPaths, RunState]]) -> list[Standing]:
        """Say how runs stand that have not ended by their folders, in one question, and write down how they ended."""
        ...

    def stop(self, runs: Mapping[RunPaths, bool]) -> None:
        """Ask runs to stop, with a checkpoint or, where the value is true, without one."""
        ...


class ScheduledPool:
    """Runs plans by way of a scheduler; `ai4sdk.backends.base.Pool` says what is promised.

    Records are sent nowhere: a submission's sidecars are for runs on their own.

    Parameters
    ----------
    queue
        The way to the scheduler.
    slots
        How many runs to start, if what comes next depends on them.
    """

    def __init__(self, queue: Queue, slots: int) -> None:
        self._queue, self._slots = queue, slots
        self._runs: dict[Path, RunPaths] = {}
        self._told: dict[Path, bool] = {}
        self._to_tell: dict[RunPaths, bool] = {}
        self._states: dict[Path, RunState] = {}
        self._next_look = self._next_question = 0.0
        self._pause = _FIRST

    @property
    def slots(self) -> int:
        """How many runs are started at once."""
        return self._slots

    def start(self, run: RunPaths, submission: Submission, lock: int) -> None:
        """Start a run, or go on with it; it is in the queue when `wait` was called."""
        self._queue.put(run, replace(submission, sidecars=[]), lock)
        self._add(run)

    def adopt(self, run: RunPaths) -> bool:
        """Go on with a run that an earlier pool handed over and nobody has seen the end of."""
        try:
            handed_over = read_state(run).scheduler is not None
        except (OSError, ValueError, KeyError):
            return False
        if handed_over:
            self._add(run)
        return handed_over

    def _add(self, run: RunPaths) -> None:
        self._runs[run.root] = run
        self._told.pop(run.root, None)
        self._next_look, self._pause = 0.0, _FIRST

    def wait(self, timeout: float) -> list[Ended]:
        """Submit what was started, wait until runs end, at most ``timeout`` seconds, and return those that did."""
        deadline = time.monotonic() + timeout
        self._queue.flush()
        if self._to_tell:
            telling, self._to_tell = self._to_tell, {}
            self._queue.stop(telling)
            self._next_question, self._pause = 0.0, _FIRST
        while True:
            ended = self._look()
            left = deadline - time.monotonic()
            if ended or left <= 0:
                return ended
            time.sleep(min(left, 0.05))

    def _look(self) -> list[Ended]:
        began = time.monotonic()
        if began < self._next_look or not self._runs:
            return []
        states = {root: _state_of(run) for root, run in self._runs.items()}
        alive = [(self._runs[root], state) for root, state in states.items() if not state.state.ended]
        if self._states != states:
            self._states, self._pause = states, _FIRST
        if alive and began >= self._next_question:
            for (run, _), standing in zip(alive, self._queue.stand(alive), strict=True):
                states[run.root] = standing.state
            self._next_question = time.monotonic() + self._pause
            self._pause = min(1.5 * self._pause, _MOST)
        ended = [Ended(self._runs[root], state) for root, state in states.items() if state.state.ended]
        for one in ended:
            del self._runs[one.run.root]
        self._next_look = time.monotonic() + max(_LOOK, _REST * (time.monotonic() - began) if not ended else 0.0)
        return ended

    def stop(self, run: RunPaths, *, now: bool = False) -> None:
        """Ask a run to stop with a checkpoint, or with ``now`` without one; the scheduler hears of it in `wait`."""
        if run.root in self._runs and self._told.get(run.root) not in (now, True):
            self._told[run.root] = now
            self._to_tell[self._runs[run.root]] = now

    def close(self) -> None:
        """Let go of everything: what the scheduler has goes on."""
        self._runs.clear()


def _state_of(run: RunPaths) -> RunState:
    try:
        return read_state(run)
    except (OSError, ValueError, KeyError) as error:
        return RunState(State.FAILED, f"its run directory was deleted or damaged: {error}", 4, ended=time.time())
