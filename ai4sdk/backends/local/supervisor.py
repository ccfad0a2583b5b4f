"""The supervisor of one run: starts its tasks, passes on requests to stop, writes down how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import replace

from ai4sdk.backends.base import Command, Submission
from ai4sdk.backends.local.task import (
    Outcome,
    forget_failure,
    outcome,
    stop_request,
    task_ended,
)
from ai4sdk.processes import die_with_parent, signal_group, signal_leader
from ai4sdk.runs.digests import link_success
from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, add_event, read_state, write_last, write_state

__all__ = ["Replaced", "Supervisor", "supervise"]

_STOPPED = (130, 143, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL)
"""Statuses of a task that was stopped from outside."""
POLL = 0.1
"""Seconds between two looks at the task and at requests to stop."""
TRACKING_PATIENCE = 60.0
"""Longest time, in seconds, that records may still be sent after the tasks have ended."""


def supervise(run: RunPaths, lock: int) -> None:
    """Execute a run's submission to its end.

    Parameters
    ----------
    run
        The run.
    lock
        Descriptor that holds the run's lock. Tasks inherit it, so that a run counts as alive while any of them lives.
    """
    try:
        Supervisor(run, lock).execute()
    except FileNotFoundError:
        if run.root.exists():
            raise
        # The run directory was deleted; the tasks are stopped, and there is nowhere left to say so.


class Replaced(Exception):
    """Somebody else executes the run by now: nothing of it may be touched any more."""


class Supervisor:
    """Executes a run's tasks one after the other.

    Parameters
    ----------
    run
        The run.
    lock
        Descriptor that holds the run's lock, if anything does.
    """

    def __init__(self, run: RunPaths, lock: int | None) -> None:
        self.run = run
        self.lock = lock
        self.terminated = False
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _terminate(self, *_: object) -> None:
        self.terminated = True

    def begin(self) -> RunState:
        """Return the state that a run has from now on."""
        return replace(read_state(self.run), state=State.RUNNING, started=time.time(), pid=os.getpid(), ended=None)

    def stop_reason(self) -> str | None:
        """Return why the task should stop, ``None`` if it should go on; `outcome` knows what the words mean."""
        if stop_request(self.run):
            return "cancelled"
        return "terminated" if self.terminated else None

    def environment(self, command: Command) -> dict[str, str]:
        """Return the variables that a command starts with."""
        return {**os.environ, **command.env}

    def stop_signal(self, command: Command) -> signal.Signals:
        """Return the signal that has a command stop in good order."""
        return signal.SIGTERM

    def status(self, command: Command, code: int) -> int:
        """Return the status that a task ended with, given that of its process."""
        return code

    def replaced(self) -> bool:
        """Tell whether somebody else executes the run by now."""
        return False

    def conclude(self, state: RunState) -> RunState:
        """Return the state to leave behind, given how the tasks ended."""
        return state

    def execute(self) -> RunState:
        """Execute them, and return the state that was left behind.

        Raises
        ------
        FileNotFoundError
            If the run directory was deleted.
        Replaced
            If somebody else executes the run by now.
        """
        submission = Submission.from_json(read_json(self.run.submission))
        state = self.begin()
        sidecars: list[subprocess.Popen[bytes]] = []
        try:
            sidecars = [self._start(command, submission.project, sidecar=True) for command in submission.sidecars]
            ended = Outcome(State.SUCCEEDED, 0)
            for command in submission.tasks:
                state = replace(state, task=command.name)
                write_state(self.run, state)
                ended = self._execute_task(command, submission)
                if ended.state is not State.SUCCEEDED:
                    break
        except Replaced:
            _kill_all(sidecars)
            raise
        except OSError as error:
            _kill_all(sidecars)
            if not self.run.root.exists():
                raise FileNotFoundError(self.run.root) from error
            ended = Outcome(State.FAILED, 7, f"the run's folder cannot be written: {error.strerror or error}")
        state = replace(state, state=ended.state, cause=ended.cause, exit_code=ended.exit_code, ended=time.time())
        state = self.conclude(state)
        if state.state is State.SUCCEEDED:
            with contextlib.suppress(OSError):  # without the link a study runs it again, no more
                link_success(read_json(self.run.plan)["digest"], self.run)
        write_last(self.run, state)
        for process in sidecars if not state.state.ended else []:
            signal_leader(process.pid, signal.SIGTERM)  # they wait for an end that does not come here
        self._wait_for(sidecars)
        return state

    def _start(self, command: Command, project: str, *, sidecar: bool = False) -> subprocess.Popen[bytes]:
        with open(command.log, "ab") as log:
            return subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=project,
                env=self.environment(command),
                process_group=0,
                pass_fds=[] if sidecar or self.lock is None else [self.lock],
                preexec_fn=die_with_parent(),
            )

    def _execute_task(self, command: Command, submission: Submission) -> Outcome:
        forget_failure(self.run)
        if reason := self.stop_reason():
            return outcome(130, None, finished=False, stop=reason)
        process = self._start(command, submission.project)
        add_event(self.run, "task started", task=command.name, pid=process.pid)
        stop: str | None = None
        deadline = float("inf")
        while True:
            try:
                process.wait(POLL)
                break
            except subprocess.TimeoutExpired:
                pass
            if (deleted := not self.run.root.exists()) or self.replaced():
                signal_group(process.pid, signal.SIGKILL)
                process.wait()
                raise FileNotFoundError(self.run.root) if deleted else Replaced
            if stop is None and (stop := self.stop_reason()):
                add_event(self.run, "stopping", task=command.name, why=stop)
                signal_leader(process.pid, self.stop_signal(command))
                deadline = time.monotonic() + submission.grace
            if stop and (time.monotonic() > deadline or stop_request(self.run) == "now"):
                signal_group(process.pid, signal.SIGKILL)
                deadline = float("inf")
        signal_group(process.pid, signal.SIGKILL)  # what the task left behind
        status = self.status(command, process.returncode)
        if stop is None and status in _STOPPED and stop_request(self.run):
            stop = "cancelled"  # a scheduler was told, too, and was faster
        return task_ended(self.run, command.name, status, stop=stop)

    def _wait_for(self, sidecars: list[subprocess.Popen[bytes]]) -> None:
        if self.lock is not None:
            os.close(self.lock)  # the run has ended; who resumes it need not wait for its records
        deadline = time.monotonic() + TRACKING_PATIENCE
        for process in sidecars:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _kill_all([process])


def _kill_all(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        signal_group(process.pid, signal.SIGKILL)
        process.wait()
