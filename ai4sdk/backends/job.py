"""The supervisor of a run inside a scheduler's job, on a machine that sees the run directory.

Who may execute a run is decided by what every shared folder keeps: what its state says of the job that took it over.
Not all of them know locks.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from ai4sdk.backends.local.supervisor import Replaced, Supervisor
from ai4sdk.runs.files import read_json, write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, hold_lock, is_run, read_state

__all__ = ["REFUSED", "JobSupervisor", "refuse", "supervise_job"]

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
    lock
        Descriptor that holds the run's lock, if the job made the run.
    scheduler
        Name of the backend that keeps it.
    job
        The job's name there.
    """

    rivals = "another job"
    """Who else may execute the run, as it is told."""

    def __init__(self, run: RunPaths, lock: int | None = None, *, scheduler: str, job: str) -> None:
        super().__init__(run, lock)
        self.scheduler, self.job = scheduler, job
        self._looked = 0.0

    def begin(self) -> RunState:
        """Say that the run runs, here, and hold its lock."""
        return self.take_over(read_state(self.run))

    def take_over(self, before: RunState, **changes: Any) -> RunState:
        """Do so, with what else changes of its state."""
        state = replace(
            before,
            state=State.RUNNING,
            cause=None,
            exit_code=None,
            ended=None,
            pid=os.getpid(),
            scheduler=self.scheduler,
            job=self.job,
            **{"started": time.time(), **changes},
        )
        write_json(self.run.state, asdict(state))
        if self.lock is None:
            with contextlib.suppress(OSError):  # not every shared folder knows locks
                self.lock = hold_lock(self.run, patience=_PREDECESSOR)
        return state

    def owns(self, state: Mapping[str, Any]) -> bool:
        """Tell whether a state, as its file has it, is of a run that this job took over last."""
        return bool(state["job"] == self.job)

    def replaced(self) -> bool:
        """Tell whether another job executes the run by now; looked for once a second."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return False
        self._looked = now
        try:
            return not self.owns(read_json(self.run.state))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def work(self) -> RunState | None:
        """Execute the run, and return the state that was left; ``None`` if it is nobody's to touch any more."""
        try:
            return self.execute()
        except Replaced:
            refuse(f"{self.rivals} executes the run by now")
        except FileNotFoundError:
            if self.run.root.exists():
                raise
            refuse("the run directory was deleted")
        return None


def supervise_job(supervisor: JobSupervisor, attempt: int) -> int:
    """Execute a run as the job that this process is in, and return the status it should end with.

    Parameters
    ----------
    supervisor
        The run's supervisor.
    attempt
        That of the run when the job was submitted. Of another one, or of a run that has ended, nothing is touched.
    """
    if refusal := _refusal(supervisor.run, attempt):
        return refuse(refusal)
    state = supervisor.work()
    return REFUSED if state is None else state.exit_code or 0


def refuse(why: str) -> int:
    """Say why a job touches nothing, and return the status that it ends with."""
    os.write(2, f"ai4sdk: {why}\n".encode())
    return REFUSED


def _refusal(run: RunPaths, attempt: int) -> str | None:
    if not is_run(run.root):
        return f"there is no run in {run.root} on {os.uname().nodename}; the runs folder must be seen there, too"
    state = read_state(run)
    if state.attempt != attempt:
        return f"another job was submitted for the run: this one is attempt {attempt}, the run's is {state.attempt}"
    return f"the run has ended: it is {state.state}" if state.state.ended else None
