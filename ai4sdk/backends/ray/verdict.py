"""What the end of a Ray job means that could not say so itself."""

from __future__ import annotations

import signal

from ai4sdk.backends.ray.client import Job
from ai4sdk.runs.state import RunState, State

__all__ = ["NO_PROGRAM", "verdict"]

NO_PROGRAM = (126, 127)
"""Statuses of a shell that could not start what it was to execute."""

_CAUSES = {
    "JOB_SUPERVISOR_ACTOR_DIED": "its node was lost, or had no memory left",
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT": "it waited for resources longer than the cluster allows "
    "(RAY_JOB_START_TIMEOUT_SECONDS of its head node); `ray status` lists what there is",
}
_NEVER_BEGAN = {
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE": "Ray cannot place it",
    "JOB_SUPERVISOR_ACTOR_START_FAILURE": "Ray could not start it",
    "RUNTIME_ENV_SETUP_FAILURE": "its environment could not be set up",
}
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)


def verdict(job: Job | None, *, requested: bool) -> RunState:
    """Return state, cause and exit code of a run whose job is over without a last word.

    Parameters
    ----------
    job
        What Ray knows of the job; ``None`` if it has forgotten it.
    requested
        Whether somebody asked the run to stop.
    """
    if requested and (job is None or job.status == "STOPPED" or job.exit_code in _KILLED):
        return RunState(State.CANCELLED, "stopped on request", 130)
    if job is None:
        return RunState(State.INTERRUPTED, "Ray knows nothing of its job; the cluster may have been started anew", 5)
    if job.status == "STOPPED":
        return RunState(State.CANCELLED, f"job {job.id} was stopped at Ray", 130)
    if job.error in _CAUSES:
        return RunState(State.INTERRUPTED, f"job {job.id}: {_CAUSES[job.error]}", 5)
    said = _last_line(job.message)
    if job.error in _NEVER_BEGAN:
        return RunState(State.FAILED, f"job {job.id}: {_NEVER_BEGAN[job.error]}: {said}", 7)
    if job.exit_code in _KILLED:
        return RunState(State.INTERRUPTED, f"job {job.id} was killed", 5)
    if job.exit_code:
        return RunState(State.FAILED, f"job {job.id} failed before or beside the work: {said}; --task ray has more", 7)
    return RunState(State.INTERRUPTED, f"job {job.id} ended as {job.status} without a last word: {said}", 5)


def _last_line(text: str) -> str:
    """Return the last line that was printed; what Ray itself says of the entrypoint may come after it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    printed = [line for line in lines if not line.startswith("Running entrypoint for job ")]
    return (printed or lines or [""])[-1].removeprefix("ai4sdk: ")
