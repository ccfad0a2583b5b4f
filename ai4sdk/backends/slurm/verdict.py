"""What the end of a job means that could not say so itself."""

from __future__ import annotations

from ai4sdk.backends.slurm.client import Job
from ai4sdk.runs.state import RunState, State

__all__ = ["verdict"]

_CAUSES = {
    "BOOT_FAIL": "its node did not boot",
    "DEADLINE": "its deadline was over",
    "NODE_FAIL": "its node was lost",
    "OUT_OF_MEMORY": "it took more memory than it had asked for; see hardware.memory",
    "PREEMPTED": "another job took its place",
    "REVOKED": "another cluster took it",
    "TIMEOUT": "its time limit was over before it had stopped; see hardware.wall_time and backend.warning",
}


def verdict(job: Job | None, *, requested: bool, never: str | None = None) -> RunState:
    """Return state, cause and exit code of a run whose job is gone without a last word.

    Parameters
    ----------
    job
        What Slurm knows of the job; ``None`` if it has forgotten it.
    requested
        Whether somebody asked the run to stop.
    never
        Why it never began, where a run that it waited for is known not to have succeeded.
    """
    if requested and (job is None or job.state == "CANCELLED"):
        return RunState(State.CANCELLED, "stopped on request", 130)
    if never is not None and (job is None or job.state == "CANCELLED"):
        return RunState(State.INTERRUPTED, never, 5)
    if job is None:
        return RunState(State.INTERRUPTED, "Slurm knows nothing of its job any more, which left no last word", 5)
    if job.state == "CANCELLED":
        return RunState(State.CANCELLED, f"job {job.id} was cancelled at Slurm", 130)
    if job.state in _CAUSES:
        return RunState(State.INTERRUPTED, f"job {job.id}: {_CAUSES[job.state]}", 5)
    if job.state == "FAILED":
        return RunState(State.FAILED, f"job {job.id} failed before or beside the work; see its log: --task slurm", 7)
    return RunState(State.INTERRUPTED, f"job {job.id} ended as {job.state} without a last word", 5)
