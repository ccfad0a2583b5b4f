"""Being asked to stop: by a signal, or because the time is up.

Nothing heavy is imported here, so that the worker can listen before its long imports begin.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

__all__ = ["Reason", "StopRequest", "StopTraining"]

Reason = Literal["stopped on request", "wall time reached", "pruned"]

_AGAIN = 0.5
"""Seconds after which a second signal counts as impatience; a process group may get one signal twice."""


class StopTraining(BaseException):
    """Unwinds a task that was asked to stop; no ``except Exception`` of the user's code holds it up.

    Parameters
    ----------
    reason
        Why it stops.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class StopRequest:
    """Whether the task was asked to stop.

    Until `orderly` is called a signal ends the process at once with exit code 130: there is nothing to lose yet.
    After it, a first signal is only remembered, and a second ends the process. Inside `interrupting` a first signal
    raises `StopTraining` wherever the code is.

    Parameters
    ----------
    wall_time
        Seconds after which the task must have ended; ``None`` for no limit.
    margin
        Seconds before that at which it is asked to stop.
    clock
        Tells the time in seconds.
    """

    def __init__(
        self,
        wall_time: float | None = None,
        *,
        margin: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._started = clock()
        self._pid = os.getpid()
        self._orderly = False
        self._interrupting = False
        self._asked: float | None = None
        self._deadline: float | None = None
        self.limit(wall_time, margin)

    def limit(self, wall_time: float | None, margin: float = 30.0) -> None:
        """Set the longest time the task may take, counted from when this object was made.

        The margin is at most a tenth of it.
        """
        if wall_time is not None:
            self._deadline = self._started + wall_time - min(margin, wall_time / 10)

    def listen(self) -> None:
        """Take SIGTERM and SIGINT."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def orderly(self) -> None:
        """From now on there is something to save before stopping."""
        self._orderly = True

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Raise `StopTraining` out of code that does not ask, on a signal or at the end of the wall time.

        What it opened is closed on the way. Code that swallows even that is stopped when it returns. In the main thread
        only.
        """
        self.check()
        self.orderly()
        self._interrupting = True
        before = signal.signal(signal.SIGALRM, lambda number, frame: self._interrupt())
        if self._deadline is not None:
            signal.setitimer(signal.ITIMER_REAL, max(self._deadline - self._clock(), 1e-3), _AGAIN)
        try:
            yield
            self.check()
        finally:
            self._interrupting = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)

    def _interrupt(self) -> None:
        if self._interrupting and self.reason is not None:
            self._interrupting = False  # once: what closes files on the way out must not be interrupted again
            self.check()

    def ask(self) -> None:
        """Ask the task to stop."""
        if self._asked is None:
            self._asked = self._clock()

    @property
    def reason(self) -> Reason | None:
        """Why the task should stop, ``None`` if it should go on."""
        if self._asked is not None:
            return "stopped on request"
        if self._deadline is not None and self._clock() >= self._deadline:
            return "wall time reached"
        return None

    def check(self) -> None:
        """Raise `StopTraining` if the task was asked to stop."""
        if (reason := self.reason) is not None:
            raise StopTraining(reason)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a child that was forked: it dies as if nobody listened
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        impatient = self._asked is not None and self._clock() - self._asked > _AGAIN
        if not self._orderly or impatient:
            os._exit(130)
        self.ask()
        self._interrupt()
