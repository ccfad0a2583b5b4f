"""How a run stands, honestly: what state.json says is believed only while somebody holds the run's lock."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from ai4sdk.runs.files import append_json_line, overwrite_json, read_json, write_json
from ai4sdk.runs.layout import RunPaths

__all__ = ["RunState", "State", "add_event", "hold_lock", "is_alive", "read_state", "write_last", "write_state"]


class State(StrEnum):
    """The states of a run."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self not in (State.QUEUED, State.RUNNING)


@dataclass(frozen=True)
class RunState:
    """What state.json holds.

    Parameters
    ----------
    state
        The state.
    cause
        One line on why a run failed, was interrupted or cancelled.
    exit_code
        Exit code the run ended with, of those in `ai4sdk.errors`.
    attempt
        1, and one more for each resume.
    created, started, ended
        Unix times in seconds; ``started`` is that of the latest attempt.
    task
        The task that runs or ran last.
    pid
        Process of the supervisor.
    scheduler
        Who keeps the run, if it is not kept by its lock: a cluster's queue, which `ai4sdk.backends.standing` asks.
    job
        Its number there.
    extra
        What else is known of how it ran, such as what the scheduler counted.
    """

    state: State
    cause: str | None = None
    exit_code: int | None = None
    attempt: int = 1
    created: float = 0.0
    started: float | None = None
    ended: float | None = None
    task: str | None = None
    pid: int | None = None
    scheduler: str | None = None
    job: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_state(paths: RunPaths) -> RunState:
    """Read how a run stands.

    A run that says it is queued or running while nobody holds its lock was killed: it is reported as interrupted. What
    a scheduler keeps is believed here, as a lock says nothing across machines.

    Raises
    ------
    OSError, ValueError
        If the folder holds no readable state.
    """
    alive = is_alive(paths)
    values = read_json(paths.state)
    known = {name: values[name] for name in RunState.__dataclass_fields__ if name in values}
    state = RunState(**{**known, "state": State(values["state"])})
    if not state.state.ended and not alive and state.scheduler is None:
        # Whoever ran it may have written its last word between the two looks.
        again = State(read_json(paths.state)["state"])
        if not again.ended:
            cause = "its process was killed or the machine went down"
            return replace(state, state=State.INTERRUPTED, cause=cause, exit_code=5)
        return read_state(paths)
    return state


def write_state(paths: RunPaths, state: RunState) -> None:
    """Replace state.json and record the change among the events.

    Only how a run ended is waited for until it is on the disk: after a power cut any other state means that the run was
    interrupted, the one before it, too.
    """
    write_json(paths.state, asdict(state), durable=state.state.ended)
    details = {"cause": state.cause} if state.cause else {}
    add_event(paths, str(state.state), attempt=state.attempt, **details)


def write_last(paths: RunPaths, state: RunState) -> None:
    """Write the final state, the one thing that must not be lost.

    On a full disk the old state is written over. Where that is not possible either it is tried again for a while.

    Raises
    ------
    OSError
        If it cannot be written, or the folder is gone.
    """
    for attempt in range(20):
        try:
            return write_state(paths, state)
        except OSError:
            if not paths.root.exists():
                raise
        try:
            return overwrite_json(paths.state, asdict(state))
        except OSError:
            if attempt == 19:
                raise
        time.sleep(0.5)


def add_event(paths: RunPaths, event: str, **details: Any) -> None:
    """Append to the run's events."""
    append_json_line(paths.events, {"time": time.time(), "event": event, **details})


def hold_lock(paths: RunPaths, *, patience: float = 0.0) -> int | None:
    """Take the run's lock.

    Parameters
    ----------
    paths
        Files of the run.
    patience
        Seconds to wait for it; who has written that a run has ended frees the lock a moment later.

    Returns
    -------
    int or None
        A descriptor that holds the lock as long as it, or a copy a child process got, is open. ``None`` if somebody
        else holds it.
    """
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            try:  # whoever only looks whether the run is alive shares the lock for a moment
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    return None
            time.sleep(0.001)


def is_alive(paths: RunPaths) -> bool:
    """Tell whether somebody executes the run."""
    try:
        descriptor = os.open(paths.lock, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def is_run(folder: Path) -> bool:
    """Tell whether a folder is a run directory."""
    return (folder / "plan.json").is_file() and (folder / "state.json").is_file()


def is_study(folder: Path) -> bool:
    """Tell whether a folder is a study directory."""
    return (folder / "study.json").is_file() and (folder / "state.json").is_file()
