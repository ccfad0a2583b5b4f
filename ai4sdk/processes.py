"""Processes that must not outlive those who watch them (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable

__all__ = ["die_with_parent", "signal_group", "signal_leader"]

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, prctl(2)


def die_with_parent(number: int = signal.SIGTERM) -> Callable[[], None]:
    """Return what a child calls to have the kernel end it when this process is killed.

    Call this in the parent, and what it returns in the child, before anything else is executed there. The kernel sends
    the signal once the parent's thread that made the child is gone.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def prepare() -> None:
        libc.prctl(_SET_DEATH_SIGNAL, number)
        if os.getppid() != parent:
            os._exit(128 + number)

    return prepare


def signal_leader(pid: int, number: int) -> None:
    """Send a signal to a process; nothing happens if it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def signal_group(pid: int, number: int) -> None:
    """Send a signal to the process group that a process leads; nothing happens if it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
