"""Workers that outlived whoever watched them, and do not listen."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from ai4sdk.processes import signal_group
from ai4sdk.runs.files import read_json_lines
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import read_state

__all__ = ["kill_orphan"]

_DYING = 0.2
"""Seconds after which a process that was killed has let go of its files."""


def kill_orphan(run: RunPaths) -> None:
    """Kill the workers of a run whose supervisor or pool is gone: nobody else reads a request to stop them.

    A process counts only while it holds the run's lock, as its number may have been given to somebody else.

    Raises
    ------
    OSError, ValueError
        If the run's folder holds no readable state.
    """
    supervisor = read_state(run).pid
    if _holds(supervisor, run.lock):
        time.sleep(_DYING)  # one that was killed a moment ago has its files a little longer
        if _holds(supervisor, run.lock):
            return
    started = [event["pid"] for event in read_json_lines(run.events) if event.get("event") == "task started"]
    leader = int(started[-1]) if started else 0
    if leader and any(_holds(member, run.lock) for member in _group(leader)):
        signal_group(leader, signal.SIGKILL)


def _group(leader: int) -> Iterator[int]:
    """Yield the processes of a group, whose leader may be gone: the agent of several ranks, say."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if os.getpgid(int(entry.name)) == leader:
                yield int(entry.name)


def _holds(pid: int | None, lock: Path) -> bool:
    with contextlib.suppress(OSError):  # no such process, or not ours
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if descriptor.samefile(lock):
                    return True
    return False
