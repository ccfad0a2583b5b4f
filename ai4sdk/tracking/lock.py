"""One process ships a run: the one that holds its log."""

from __future__ import annotations

import fcntl
import os

from ai4sdk.runs.layout import RunPaths

__all__ = ["open_log", "take"]


def open_log(paths: RunPaths) -> int:
    """Open logs/tracking.log to append to it, and return the descriptor; raises OSError."""
    paths.logs.mkdir(exist_ok=True)
    return os.open(paths.log("tracking"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def take(descriptor: int) -> bool:
    """Take the lock on a log, until it is closed; tell whether nobody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True
