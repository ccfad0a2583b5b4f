"""What every way to execute a task on this machine shares: before it starts, what its end means, the last word."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass

from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import State, add_event

__all__ = ["Outcome", "forget_failure", "outcome", "stop_request", "task_ended"]


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


def forget_failure(run: RunPaths) -> None:
    """Remove what an earlier attempt wrote of its failure."""
    run.failure.unlink(missing_ok=True)


def stop_request(run: RunPaths) -> str:
    """Return what the user asked for: ``stop``, ``now``, or nothing."""
    try:
        return run.cancel_request.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def task_ended(run: RunPaths, task: str, code: int, *, stop: str | None) -> Outcome:
    """Record a task's end among the run's events, and say what it means; see `outcome` for the parameters."""
    ended = outcome(code, _failure(run), finished=_finished(run), stop=stop)
    add_event(run, "task ended", task=task, status=code)
    return ended


def _failure(run: RunPaths) -> dict[str, str] | None:
    try:
        failure = read_json(run.failure)
    except (OSError, ValueError):
        return None
    return failure if isinstance(failure, dict) else None


def _finished(run: RunPaths) -> bool:
    try:
        return bool(read_json(run.progress).get("phase") == "done")
    except (OSError, ValueError, AttributeError):
        return False
