"""The supervisor of a run inside a scheduler's job, on a machine that sees the run directory.

A backend makes its job start a process that calls `supervise_job`. Who may execute a run is decided by two things that
every shared folder keeps: the run's attempt, which a job is told, and the name of the job in state.json.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, replace

from ai4sdk.backends.local.supervisor import Replaced, Supervisor
from ai4sdk.runs.files import read_json, write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, hold_lock, is_run, read_state

__all__ = ["REFUSED", "JobSupervisor", "supervise_job"]

REFUSED = 9
"""Status of a job that is not the one that was meant; it touched nothing."""
_LOOK = 1.0
"""Seconds between two looks whether another job executes the run by now."""
_PREDECESSOR = 5.0
"""Longest time, in seconds, that a job on a lost machine needs to see that it was replaced."""


class JobSupervisor(Supervisor):
    """Executes a run inside a job.

    Parameters
    ----------
    run
        The run.
    scheduler
        Name of the backend that keeps it.
    job
        The job's name there; no other attempt of the run has it.
    """

    def __init__(self, run: RunPaths, *, scheduler: str, job: str) -> None:
        super().__init__(run, None)
        self.scheduler, self.job = scheduler, job
        self._looked = 0.0

    def begin(self) -> RunState:
        """Say that the run runs, here, and hold its lock."""
        state = replace(
            read_state(self.run),
            state=State.RUNNING,
            cause=None,
            exit_code=None,
            started=time.time(),
            ended=None,
            pid=os.getpid(),
            scheduler=self.scheduler,
            job=self.job,
        )
        write_json(self.run.state, asdict(state))
        with contextlib.suppress(OSError):  # not every shared folder knows locks
            self.lock = hold_lock(self.run, patience=_PREDECESSOR)
        return state

    def replaced(self) -> bool:
        """Tell whether another job executes the run by now; looked for once a second."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return False
        self._looked = now
        try:
            return bool(read_json(self.run.state)["job"] != self.job)
        except (OSError, ValueError, KeyError, TypeError):
            return False


def supervise_job(supervisor: JobSupervisor, attempt: int) -> int:
    """Execute a run as the job that this process is in, and return the status it should end with.

    Parameters
    ----------
    supervisor
        The run's supervisor.
    attempt
        That of the run when the job was submitted. Of another one, or of a run that has ended, nothing is touched.
    """
    run = supervisor.run
    if refusal := _refusal(run, attempt):
        return _say(refusal)
    try:
        state = supervisor.execute()
    except Replaced:
        return _say("another job executes the run by now")
    except FileNotFoundError:
        if run.root.exists():
            raise
        return _say("the run directory was deleted")
    return state.exit_code or 0


def _refusal(run: RunPaths, attempt: int) -> str | None:
    if not is_run(run.root):
        return f"there is no run in {run.root} on {os.uname().nodename}; the runs folder must be seen there, too"
    state = read_state(run)
    if state.attempt != attempt:
        return f"another job was submitted for the run: this one is attempt {attempt}, the run's is {state.attempt}"
    return f"the run has ended: it is {state.state}" if state.state.ended else None


def _say(text: str) -> int:
    os.write(2, f"ai4sdk: {text}\n".encode())
    return REFUSED
