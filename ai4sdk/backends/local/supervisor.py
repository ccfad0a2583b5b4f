"""The supervisor of one run: starts its tasks, passes on requests to stop, writes down how it ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ai4sdk.backends.base import Command, Submission
from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, add_event, read_state, write_state

__all__ = ["outcome", "supervise"]

POLL = 0.1
"""Seconds between two looks at the task and at requests to stop."""
TRACKING_PATIENCE = 60.0
"""Longest time, in seconds, that records may still be sent after the tasks have ended."""


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    state: State
    exit_code: int
    cause: str | None = None


def outcome(code: int, failure: dict[str, str] | None, *, finished: bool, stop: str | None) -> Outcome:
    """Say what a task's end means.

    Parameters
    ----------
    code
        Exit status; negative if a signal ended it.
    failure
        What the worker wrote of its failure.
    finished
        Whether the worker said it came to its end.
    stop
        Why the task was told to stop: ``cancelled`` by the user, or ``terminated`` from outside; ``None`` if not.
    """
    cause = (failure or {}).get("cause")
    if code == 0 and finished:
        return Outcome(State.SUCCEEDED, 0)
    if stop == "cancelled":
        return Outcome(State.CANCELLED, 130, "stopped on request")
    if stop == "terminated":
        return Outcome(State.INTERRUPTED, 5, "its supervisor was told to stop (SIGTERM)")
    if code == 0:
        return Outcome(State.FAILED, 4, cause or "the process ended with status 0 before the work was done")
    if code in (3, 4, 7):
        return Outcome(State.FAILED, code, cause or f"the task ended with status {code}")
    if code == 5:
        return Outcome(State.INTERRUPTED, 5, cause or "the time allowed was over")
    if code in (130, 143, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP):
        return Outcome(State.INTERRUPTED, 5, "the task was told to stop from outside")
    if code == -signal.SIGKILL:
        return Outcome(State.INTERRUPTED, 5, "the task was killed (SIGKILL: kill -9, or out of memory)")
    if code < 0:
        with contextlib.suppress(ValueError):
            return Outcome(State.FAILED, 4, f"the task crashed with {signal.Signals(-code).name}")
        return Outcome(State.FAILED, 4, f"the task crashed with signal {-code}")
    return Outcome(State.FAILED, 4, cause or f"the task ended with status {code}")


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
        _Supervisor(run, lock).execute()
    except FileNotFoundError:
        if run.root.exists():
            raise
        # The run directory was deleted; the tasks are stopped, and there is nowhere left to say so.


class _Supervisor:
    def __init__(self, run: RunPaths, lock: int) -> None:
        self.run = run
        self.lock = lock
        self.terminated = False
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _terminate(self, *_: object) -> None:
        self.terminated = True

    def execute(self) -> None:
        submission = Submission.from_json(read_json(self.run.submission))
        state = replace(read_state(self.run), state=State.RUNNING, started=time.time(), pid=os.getpid(), ended=None)
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
        except OSError as error:
            _kill_all(sidecars)
            if not self.run.root.exists():
                raise FileNotFoundError(self.run.root) from error
            ended = Outcome(State.FAILED, 7, f"the run's folder cannot be written: {error.strerror or error}")
        state = replace(state, state=ended.state, cause=ended.cause, exit_code=ended.exit_code, ended=time.time())
        self._write_last(state)
        self._wait_for(sidecars)

    def _write_last(self, state: RunState) -> None:
        """Write the final state, waiting out a full disk for a while: the one thing that must not be lost."""
        for attempt in range(20):
            try:
                return write_state(self.run, state)
            except OSError:
                if attempt == 19 or not self.run.root.exists():
                    raise
                time.sleep(0.5)

    def _start(self, command: Command, project: str, *, sidecar: bool = False) -> subprocess.Popen[bytes]:
        with open(command.log, "ab") as log:
            return subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=project,
                env={**os.environ, **command.env},
                process_group=0,
                pass_fds=[] if sidecar else [self.lock],
                preexec_fn=_die_with_parent(os.getpid()),
            )

    def _execute_task(self, command: Command, submission: Submission) -> Outcome:
        with contextlib.suppress(FileNotFoundError):
            self.run.failure.unlink()
        if reason := self._stop_reason():
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
            if not self.run.root.exists():
                _signal_group(process, signal.SIGKILL)
                process.wait()
                raise FileNotFoundError(self.run.root)
            if stop is None and (stop := self._stop_reason()):
                add_event(self.run, "stopping", task=command.name, why=stop)
                _signal_group(process, signal.SIGTERM, leader_only=True)
                deadline = time.monotonic() + submission.grace
            if stop and (time.monotonic() > deadline or self._request() == "now"):
                _signal_group(process, signal.SIGKILL)
                deadline = float("inf")
        _signal_group(process, signal.SIGKILL)  # what the task left behind
        ended = outcome(process.returncode, self._failure(), finished=self._finished(command.name), stop=stop)
        add_event(self.run, "task ended", task=command.name, status=process.returncode)
        return ended

    def _stop_reason(self) -> str | None:
        if self._request():
            return "cancelled"
        return "terminated" if self.terminated else None

    def _request(self) -> str:
        try:
            return self.run.cancel_request.read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    def _failure(self) -> dict[str, str] | None:
        try:
            failure = read_json(self.run.failure)
        except (OSError, ValueError):
            return None
        return failure if isinstance(failure, dict) else None

    def _finished(self, task: str) -> bool:
        try:
            return bool(read_json(self.run.progress).get("phase") == "done")
        except (OSError, ValueError, AttributeError):
            return False

    def _wait_for(self, sidecars: list[subprocess.Popen[bytes]]) -> None:
        os.close(self.lock)  # the run has ended; who resumes it need not wait for its records
        deadline = time.monotonic() + TRACKING_PATIENCE
        for process in sidecars:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _kill_all([process])


def _die_with_parent(parent: int) -> Callable[[], None]:
    """Have the kernel end a child when its supervisor is killed, so that a run never goes on unwatched (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    set_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)

    def prepare() -> None:
        libc.prctl(set_death_signal, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(143)

    return prepare


def _signal_group(process: subprocess.Popen[bytes], number: int, *, leader_only: bool = False) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if leader_only:
            os.kill(process.pid, number)
        else:
            os.killpg(process.pid, number)


def _kill_all(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        _signal_group(process, signal.SIGKILL)
        process.wait()
