"""Runs that another run waits for, as Slurm's dependencies between jobs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ai4sdk.backends.slurm import submissions
from ai4sdk.errors import UsageError
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, read_state

__all__ = ["sbatch_options", "waits_for", "why_never"]


def waits_for(state: RunState) -> list[RunPaths]:
    """Return the runs that a run was told to wait for."""
    return [RunPaths(Path(folder)) for folder in state.extra.get("after", ())]


def sbatch_options(runs: Iterable[RunPaths]) -> list[str]:
    """Return what makes a job wait for runs until they have succeeded, and leave the queue if one does not.

    Raises
    ------
    UsageError
        If one has ended otherwise, or is no job of Slurm's.
    """
    jobs = []
    for run in runs:
        state = read_state(run)
        if state.state is State.SUCCEEDED:
            continue
        if state.state.ended:
            raise UsageError(
                f"{run.id}, which it is to wait for, is {state.state}", hint=f"ai4sdk resume {run.id}, then this again"
            )
        submission = submissions.latest(run)
        if submission is None or submission.job is None:
            raise UsageError(
                f"{run.id}, which it is to wait for, is no job of Slurm", hint=f"ai4sdk run … once {run.id} has ended"
            )
        jobs.append(f"{submission.job}_{submission.index}" if submission.array else submission.job)
    return [f"--dependency=afterok:{':'.join(jobs)}", "--kill-on-invalid-dep=yes"] if jobs else []


def why_never(state: RunState) -> str | None:
    """Say which run kept another from starting; nothing if none did."""
    for run in waits_for(state):
        try:
            found = read_state(run).state
        except (OSError, ValueError, KeyError):
            return f"it never ran: {run.id}, which it waited for, is gone"
        if found.ended and found is not State.SUCCEEDED:
            return f"it never ran: {run.id}, which it waited for, is {found}"
    return None
