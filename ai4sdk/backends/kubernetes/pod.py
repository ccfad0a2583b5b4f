"""What a pod executes: it makes the run directory if there is none, supervises the run, and leaves a last word."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ai4sdk.backends.agent import Ranks
from ai4sdk.backends.job import REFUSED, JobSupervisor, refuse
from ai4sdk.backends.kubernetes.commands import commands
from ai4sdk.backends.kubernetes.follower import Place, follow
from ai4sdk.backends.kubernetes.results import send
from ai4sdk.backends.launch import make_run
from ai4sdk.backends.local.supervisor import Replaced
from ai4sdk.errors import Ai4Error, UsageError
from ai4sdk.planning.code import CodeSnapshot, unpack
from ai4sdk.planning.plan import Plan, read_plan_file
from ai4sdk.runs.files import write_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import RunState, State, add_event, is_run, read_state

__all__ = ["execute"]

_MOST = 1500
"""Bytes of a cause; Kubernetes keeps 4096 bytes of a last word, in which some are written as two."""

_MOST_REASON = 300
"""Characters of why something could not be copied."""


def execute(plan_file: Path, run: RunPaths, submission: int, last_word: Path) -> int:
    """Execute a run as the pod that this process is in, and return the status it should end with.

    Of several pods the first does so, and the others follow it.

    Parameters
    ----------
    plan_file
        The plan.
    run
        Files of the run.
    submission
        Number of the submission: the attempt that the Job was made for.
    last_word
        File whose text Kubernetes keeps.
    """
    try:
        plan = read_plan_file(plan_file)
        if number := int(os.environ.get("JOB_COMPLETION_INDEX", 0)):
            return _say(last_word, _follow(plan, run, submission, number))
        lock = _prepared(plan, run)
        state = read_state(run) if lock is None else None
        refusal = _refusal(state, submission) if state else None
        if refusal is not None:
            return _say(last_word, _sent(plan, run, refusal) if refusal.exit_code != REFUSED else refusal)
        supervisor = _PodSupervisor(run, lock, plan, submission)
        try:
            over = supervisor.execute().state.ended
        finally:
            supervisor.echo()
        word = _sent(plan, run, supervisor.word) if over else supervisor.word
    except Replaced:
        return refuse("another pod executes the run by now")
    except Ai4Error as error:
        return _say(last_word, RunState(State.FAILED, str(error), error.exit_code))
    except OSError as error:
        cause = f"the run's folder {run.root} cannot be written in the pod: {error.strerror or error}"
        return _say(last_word, RunState(State.FAILED, cause, 7))
    return _say(last_word, word)


def _sent(plan: Plan, run: RunPaths, word: RunState) -> RunState:
    """Copy what a run left to where it can be had from; return its last word with where that is, or why it is not."""
    try:
        address = send(plan, run, Path.cwd())
        found = {"copied": address} if address else {}
    except (Ai4Error, OSError) as error:
        reason = error.message if isinstance(error, Ai4Error) else str(error)
        _tell(f"what the run left could not be copied: {reason}")
        found = {"not_copied": reason[:_MOST_REASON]}
    return replace(word, extra=found)


def _follow(plan: Plan, run: RunPaths, submission: int, number: int) -> RunState:
    """Work for pod 0, and return how the run ended."""
    (task,) = (task for task in plan.tasks if task.nodes > 1)
    (command,) = (command for command in commands(plan, run, Path.cwd()).tasks if command.name == task.name)
    os.environ.update(command.env)
    argv = [sys.executable, "-P", "-m", "ai4sdk.worker", str(run.root), task.name]
    ranks = Ranks(run, task.name, task.processes, argv)
    logs = [run.log(task.name, number * task.processes + local) for local in range(task.processes)]
    place = Place(number, task.nodes, os.environ["AI4SDK_LEADER"], os.environ["AI4SDK_JOB"])

    def ended() -> RunState | None:
        try:
            return _refusal(read_state(run), submission)
        except (OSError, ValueError, KeyError):  # it may not have been made yet
            return None

    state = follow(place, ranks, ended=ended, echo=_Echo(logs))
    return state or RunState(State.INTERRUPTED, f"pod {number} of {task.nodes} begins again with the others", 5)


class _Echo:
    """Prints what has been appended to logs since the last time.

    Parameters
    ----------
    logs
        The files; they need not be there yet.
    """

    def __init__(self, logs: list[Path]) -> None:
        self._seen = {log: log.stat().st_size if log.exists() else 0 for log in logs}

    def __call__(self) -> None:
        for log, position in self._seen.items():
            with contextlib.suppress(OSError), open(log, "rb") as file:
                file.seek(position)
                text = file.read()
                sys.stdout.buffer.write(text)
                sys.stdout.buffer.flush()
                self._seen[log] = position + len(text)


def _prepared(plan: Plan, run: RunPaths) -> int | None:
    """Make the run directory and return its lock, or look whether the one that is there is meant."""
    if not is_run(run.root):
        return make_run(plan, run.root)
    there = read_plan_file(run.root)
    if there.digest != plan.digest:
        raise UsageError(f"{run.root} on the claim is a run of another plan: {there.digest}")
    unpack(CodeSnapshot.from_json({key: value for key, value in plan.code.items() if key != "paths"}), run.code)
    return None


def _refusal(state: RunState, submission: int) -> RunState | None:
    """Return the state to tell instead of executing a run; ``None`` if it is to be executed."""
    before = state.extra.get("submission", 0)
    if before > submission:
        return replace(state, state=State.FAILED, cause="the run was submitted again after this job", exit_code=REFUSED)
    over = state.state in (State.FAILED, State.CANCELLED) and before == submission
    return state if state.state is State.SUCCEEDED or over else None


def _say(last_word: Path, state: RunState) -> int:
    """Leave a last word, and return the status to end with."""
    cause = state.cause
    if state.state is not State.SUCCEEDED:
        _tell(f"the run is {state.state}: {cause}")
    names = ("state", "cause", "exit_code", "attempt", "started", "ended")
    told = {name: state.extra[name] for name in ("copied", "not_copied") if name in state.extra}
    word = {name: getattr(state, name) for name in names} | {
        "cause": cause and cause.encode()[:_MOST].decode(errors="ignore"),
        "extra": told,
    }
    with contextlib.suppress(OSError):  # outside of a pod nobody reads it
        last_word.write_text(json.dumps(word, ensure_ascii=False), encoding="utf-8")
    return state.exit_code or 0


def _tell(text: str) -> None:
    os.write(2, f"ai4sdk: {text}\n".encode())


class _PodSupervisor(JobSupervisor):
    """Executes a run inside a pod; what its tasks print is the pod's log, too.

    Parameters
    ----------
    run
        The run.
    lock
        Descriptor that holds the run's lock, if this pod made the run.
    plan
        What runs.
    submission
        Number of the submission.
    """

    def __init__(self, run: RunPaths, lock: int | None, plan: Plan, submission: int) -> None:
        job = f"{os.environ.get('AI4SDK_NAMESPACE', '')}/{os.environ.get('AI4SDK_JOB', '')}"
        super().__init__(run, lock, scheduler="kubernetes", job=job)
        self.word = RunState(State.INTERRUPTED, "it left no word", 5)
        """How the run ends if no other pod goes on."""
        self._submission = submission
        self._pod = os.environ.get("AI4SDK_POD", str(os.getpid()))
        self._most = int(plan.job["backend"]["backoff_limit"])
        self._restarts = 0
        rendered = commands(plan, run, Path.cwd())
        if run.membership.exists():  # whoever keeps its study sends its records
            rendered = replace(rendered, sidecars=[])
        write_json(run.submission, rendered.to_json())
        self.echo = _Echo([run.log(task.name) for task in plan.tasks])

    def begin(self) -> RunState:
        before = read_state(self.run)
        again = before.extra.get("submission") == self._submission and "pod" in before.extra
        self._restarts = before.extra.get("restarts", 0) + 1 if again else 0
        attempt = before.attempt + (1 if again or before.state is not State.QUEUED else 0)
        own = {"submission": self._submission, "pod": self._pod, "restarts": self._restarts}
        return self.take_over(before, attempt=max(attempt, self._submission), extra={**before.extra, **own})

    def owns(self, state: Mapping[str, Any]) -> bool:
        return bool(state["extra"]["pod"] == self._pod)

    def replaced(self) -> bool:
        self.echo()
        return super().replaced()

    def conclude(self, state: RunState) -> RunState:
        self.word = state
        if state.state is not State.INTERRUPTED or self._restarts >= self._most:
            return state
        add_event(self.run, "left to another pod", why=state.cause, pod=self._pod)
        return replace(state, state=State.QUEUED, cause=None, exit_code=None, ended=None)
