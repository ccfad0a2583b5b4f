"""Whether the run that is being shipped goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import State, is_alive

__all__ = ["Life"]

_LOOK = 0.2
GRACE = 3.0
"""Seconds that a run has to say how it ended, once this process was told to stop."""
LAST_WORDS = 90.0
"""Seconds that a task may go on logging, to its last checkpoint, once its supervisor is gone."""


class Life:
    """Watches a run from beside it.

    A run goes on until state.json says otherwise, until this process is told to stop (SIGTERM), or until the process
    that started this one is gone and the tasks that it left have ended.

    Parameters
    ----------
    paths
        The run.
    once
        Consider the run to be at its end: ship what there is.
    """

    def __init__(self, paths: RunPaths, *, once: bool = False) -> None:
        self._paths = paths
        self._once = once
        self._parent = os.getppid()
        self._told = threading.Event()
        self._told_at = 0.0
        self._orphan_at: float | None = None
        self._looked_at: tuple[int, int] | None = None
        self._ended = False

    def listen(self) -> None:
        """Take SIGTERM and SIGINT as the word to stop; in the main thread only."""
        signal.signal(signal.SIGTERM, self._tell)
        # Ctrl-C reaches the whole process group; what becomes of the run is for its supervisor to say.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _tell(self, number: int, frame: FrameType | None) -> None:
        if not self._told.is_set():
            self._told_at = time.monotonic()
            self._told.set()

    @property
    def goes_on(self) -> bool:
        """Whether there is more to come."""
        if self._once or not self._paths.root.is_dir() or self._says_ended():
            return False
        if os.getppid() != self._parent:
            return self._orphan_goes_on()
        return not (self._told.is_set() and time.monotonic() - self._told_at >= GRACE)

    def _orphan_goes_on(self) -> bool:
        now = time.monotonic()
        self._orphan_at = self._orphan_at or now
        return now - self._orphan_at < LAST_WORDS and is_alive(self._paths)

    def _says_ended(self) -> bool:
        try:
            found = self._paths.state.stat()
            if self._looked_at != (found.st_mtime_ns, found.st_ino):
                self._ended = State(read_json(self._paths.state)["state"]).ended
                self._looked_at = (found.st_mtime_ns, found.st_ino)
        except (OSError, ValueError, KeyError, TypeError):
            return False  # not written yet, or by a version that knows other states: the parent's end is seen anyway
        return self._ended

    def wait(self, seconds: float) -> bool:
        """Wait, but not beyond the end of the run; tell whether it goes on."""
        until = time.monotonic() + seconds
        while self.goes_on:
            left = until - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(left, _LOOK))
        return False
