"""The supervisor of a run inside its batch job: as on any machine, and on good terms with Slurm."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ai4sdk.backends.base import Command
from ai4sdk.backends.job import REFUSED, JobSupervisor, refuse
from ai4sdk.backends.local.task import stop_request
from ai4sdk.backends.slurm import client, submissions
from ai4sdk.backends.slurm.rank import STOP_RANKS, end_of_rank, task_end, task_took, without_tasks
from ai4sdk.backends.slurm.script import STOP, WARN
from ai4sdk.errors import Ai4Error
from ai4sdk.planning.plan import read_plan_file
from ai4sdk.runs.files import write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, add_event, read_state, write_last

__all__ = ["own_job", "supervise_job", "wait_for_the_end"]

WALL_TIME = "wall time reached"
"""What a worker gives as the cause when it stops because of ``hardware.wall_time``."""
_PUT_BACK = 60.0
"""Longest time, in seconds, from asking Slurm to queue a job again to the end of its processes."""


def supervise_job(run: RunPaths, number: int) -> int:
    """Execute a run as the job that this process is in, and return the status it should end with.

    Parameters
    ----------
    run
        The run.
    number
        Of the submission.
    """
    job, restart = own_job(), int(os.environ.get("SLURM_RESTART_COUNT", 0))
    if refusal := _refusal(run, number, restart):
        return refuse(refusal)
    supervisor = _JobSupervisor(run, job=job, restart=restart)
    if restart > supervisor.most:
        return supervisor.give_up()
    state = supervisor.work()
    if state is None:
        return REFUSED
    if not state.state.ended:
        return _put_back(supervisor, state)
    return state.exit_code or 0


def own_job() -> str:
    """Return the number of the job that this process is in, of an element of an array as ``JOB_INDEX``."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def _refusal(run: RunPaths, number: int, restart: int) -> str | None:
    newest = submissions.latest(run)
    if newest is None or newest.number != number:
        return "another job was submitted for the run after this one"
    state = read_state(run)
    if state.state.ended and not (restart and state.state is State.INTERRUPTED):
        return f"the run has ended: it is {state.state}"
    return None


def _put_back(supervisor: _JobSupervisor, state: RunState) -> int:
    """Have Slurm queue the job again, unless it does so by itself, and wait for it to end this process."""
    if not supervisor.put_back:
        try:
            client.requeue(supervisor.job)
        except Ai4Error as error:
            cause = f"it stopped with a checkpoint, but could not be queued again: {error.message}"
            last = replace(state, state=State.INTERRUPTED, cause=cause, exit_code=5, ended=time.time())
            write_last(supervisor.run, last)
            return 5
    return wait_for_the_end(lambda: supervisor.terminated)


def wait_for_the_end(terminated: Callable[[], bool]) -> int:
    """Wait for Slurm to end this process, whose job it queues again: an end of one's own could be that of the job.

    Parameters
    ----------
    terminated
        Tells whether this process was told to end.

    Returns
    -------
    int
        The status to end with.
    """
    deadline = time.monotonic() + _PUT_BACK
    while not terminated() and time.monotonic() < deadline:
        time.sleep(0.05)
    return 0


class _JobSupervisor(JobSupervisor):
    """Executes a run inside a job.

    Parameters
    ----------
    job
        Number of the job.
    restart
        How often Slurm has put it back into the queue.
    """

    rivals = "another job, or another start of this one,"

    def __init__(self, run: RunPaths, *, job: str, restart: int) -> None:
        super().__init__(run, scheduler="slurm", job=job)
        self.put_back = False
        """Whether Slurm queues the job again by itself."""
        self._restart = restart
        plan = read_plan_file(run.root)
        self._tasks = plan.tasks
        self.most: int = plan.job["backend"]["requeues"]
        """How often it may be put back."""
        self._began = time.time()
        self._warned = self._stopped = False
        signal.signal(signal.Signals[f"SIG{WARN}"], self._warn)
        signal.signal(signal.Signals[f"SIG{STOP}"], self._stop)

    def _warn(self, *_: object) -> None:
        self._warned = True

    def _stop(self, *_: object) -> None:
        self._stopped = True

    @property
    def _too_often(self) -> str:
        return f"job {self.job} was put back into the queue more often than backend.requeues={self.most} allows"

    @property
    def _mark(self) -> list[Any]:
        """What tells this start of the job from all others."""
        return [self.job, self._restart]

    def begin(self) -> RunState:
        before = read_state(self.run)
        attempt = before.attempt + (1 if self._restart else 0)
        own = {"start": self._mark, "nodes": os.environ.get("SLURM_JOB_NODELIST", "")}
        return self.take_over(before, attempt=attempt, started=self._began, extra={**before.extra, **own})

    def give_up(self) -> int:
        """Leave a run that Slurm put back once too often, and return the status to end with."""
        last = replace(
            read_state(self.run),
            state=State.INTERRUPTED,
            cause=self._too_often,
            exit_code=5,
            ended=time.time(),
            job=self.job,
        )
        write_last(self.run, last)
        return 5

    def environment(self, command: Command) -> dict[str, str]:
        if command.argv[0] != "srun":
            return without_tasks({**os.environ, **command.env})
        # This is the first node, where rank 0 will be.
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        try:
            address = client.address_of_first(os.environ["SLURM_JOB_NODELIST"])
        except Ai4Error:
            address = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        return {**os.environ, **command.env, "MASTER_ADDR": address, "MASTER_PORT": str(port)}

    def stop_signal(self, command: Command) -> signal.Signals:
        return STOP_RANKS if command.argv[0] == "srun" else signal.SIGTERM

    def status(self, command: Command, code: int) -> int:
        if command.argv[0] != "srun":
            return code
        status, failure = task_end(self._ends(command.name), code)
        if failure is not None:
            write_json(self.run.failure, failure)
        elif status > 128 and self.stop_reason():  # it was told before the ranks could listen
            return 130
        return status

    def _ends(self, name: str) -> list[Path]:
        """Return the files in which the ranks of a task say how they ended."""
        ranks = next(task.processes * task.nodes for task in self._tasks if task.name == name)
        return [end_of_rank(self.run, name, rank, os.environ) for rank in range(ranks)]

    def stop_reason(self) -> str | None:
        if self._stopped or stop_request(self.run):
            return "cancelled"
        if self.terminated:
            return "terminated"
        return "its time is almost over" if self._warned else None

    def owns(self, state: Mapping[str, Any]) -> bool:
        return bool(state["extra"]["start"] == self._mark)

    def conclude(self, state: RunState) -> RunState:
        state = replace(state, extra={**state.extra, **self._counted()})
        if state.state is not State.INTERRUPTED:
            return state
        if self.terminated:
            return self._ended_by_slurm(state)
        if not self._warned and state.cause != WALL_TIME:
            return state
        if self._restart >= self.most:
            cause = f"its time was over, and backend.requeues={self.most} lets it go on no more often"
            return replace(state, cause=cause)
        return self._waiting(state, "its time was over")

    def _ended_by_slurm(self, state: RunState) -> RunState:
        """Find out whether Slurm ends the job for good, or puts it back."""
        try:
            self.put_back = client.restarts(self.job) > self._restart
        except Ai4Error:
            self.put_back = False
        if self.put_back and self._restart < self.most:
            return self._waiting(state, "Slurm put it back into the queue")
        if self.put_back:
            self.put_back = False
            with contextlib.suppress(Ai4Error):  # else it begins once more, and gives up
                client.cancel(self.job)
            return replace(state, cause=self._too_often)
        return replace(state, cause=f"Slurm ended job {self.job}: its time was over, or it was cancelled or pre-empted")

    def _waiting(self, state: RunState, why: str) -> RunState:
        add_event(self.run, "requeued", why=why, job=self.job)
        return replace(state, state=State.QUEUED, cause=None, exit_code=None, ended=None)

    def _counted(self) -> dict[str, Any]:
        """Return what the job took, so far as Slurm tells."""
        elapsed = time.time() - self._began
        found: dict[str, Any] = {"elapsed": round(elapsed, 3)}
        nodes = max(task.nodes for task in self._tasks)
        if nodes > 1:
            found |= task_took(file for task in self._tasks for file in self._ends(task.name))
        elif not self.terminated:  # else every second counts until Slurm's SIGKILL
            found |= client.counted(os.environ["SLURM_JOB_ID"])  # sstat knows elements of arrays by no other name
        submission = submissions.latest(self.run)
        if submission is not None and not self._restart:
            found["waited"] = round(max(0.0, self._began - submission.time), 3)
        cpus = int(os.environ.get("SLURM_CPUS_PER_TASK", 0)) * nodes
        if cpus and "cpu_time" in found:
            found["cpu_efficiency"] = round(found["cpu_time"] / elapsed / cpus, 4)
        return {"accounting": found}
