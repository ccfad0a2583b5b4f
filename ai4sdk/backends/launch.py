"""Starting, resuming and stopping runs, whatever the backend."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ai4sdk.backends.base import Submission
from ai4sdk.backends.registry import get_backend
from ai4sdk.backends.standing import Watch, current_state
from ai4sdk.config.yaml_files import dump_yaml
from ai4sdk.errors import EnvironmentFault, UsageError
from ai4sdk.planning.code import CodeSnapshot, unpack
from ai4sdk.planning.plan import Plan, read_plan_file
from ai4sdk.runs.files import read_json
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import State, add_event, hold_lock, read_state, write_state
from ai4sdk.runs.store import create_run, fill_run

__all__ = ["cancel_run", "fetch_results", "make_run", "requeue_run", "resume_run", "start_run"]

_dumped: dict[tuple[str, str], str] = {}
_MOST_DUMPED = 1000

_FREE_LOCK = 5.0
"""Longest time, in seconds, from writing that a run has ended to freeing its lock."""


def start_run(plan: Plan, project: Path, after: Sequence[RunPaths] = ()) -> RunPaths:
    """Make a run of a plan and start it.

    Parameters
    ----------
    plan
        What to run.
    project
        Folder that relative addresses of data and the runs folder start at.
    after
        Runs that must have succeeded before it begins.

    Returns
    -------
    RunPaths
        The run, queued or running by now.

    Raises
    ------
    UsageError
        If it is to wait for runs, and its backend cannot see to that, or one of them has ended otherwise.
    EnvironmentFault
        If the run's folder cannot be written or its processes not started; nothing is left behind then.
    """
    backend = get_backend(plan.job["backend"]["kind"])
    if after and not getattr(backend, "follows", False):
        kind = plan.job["backend"]["kind"]
        raise UsageError(f"backend {kind} cannot have a run wait for others", hint="ai4sdk run … && ai4sdk run …")
    run, lock = create_run(Path(project, plan.job["runs"]), plan.name, _files(plan))
    with _removed_if_this_fails(run, lock):
        if after:
            waits = [str(other.root.resolve()) for other in after]
            write_state(run, replace(read_state(run), extra={"after": waits}))
        unpack(_snapshot(plan), run.code)
        backend.submit(backend.render(plan, run, project), run, lock)
    return run


def make_run(plan: Plan, folder: Path) -> int:
    """Make a run of a plan in a folder, queued and ready to be started: its code is unpacked.

    Parameters
    ----------
    plan
        What to run.
    folder
        The run directory to make; one that a kill left half made is completed.

    Returns
    -------
    int
        Descriptor that holds the run's lock; hand it to whoever executes the run.

    Raises
    ------
    EnvironmentFault
        If the folder cannot be written, or is a run already.
    """
    run = RunPaths(folder)
    lock = fill_run(folder, _files(plan))
    with _removed_if_this_fails(run, lock):
        unpack(_snapshot(plan), run.code)
    return lock


def requeue_run(run: RunPaths, plan: Plan) -> int:
    """Queue a run again that was interrupted, cancelled or failed.

    Parameters
    ----------
    run
        The run.
    plan
        Its plan; code that was edited in the run directory is put back.

    Returns
    -------
    int
        Descriptor that holds the run's lock; hand it to whoever executes the run.

    Raises
    ------
    UsageError
        If it is still running.
    EnvironmentFault
        If its folder cannot be written.
    """
    standing = current_state(run)
    state = standing.state
    lock = hold_lock(run, patience=_FREE_LOCK if state.state.ended else 0.0)
    if lock is not None and state.scheduler and not state.state.ended:
        os.close(lock)
        lock = None
    if lock is None:
        more = f" ({standing.note})" if standing.note else ""
        raise UsageError(f"{run.id} is {state.state}{more}", hint=f"ai4sdk logs -f {run.id}")
    try:
        run.cancel_request.unlink(missing_ok=True)
        unpack(_snapshot(plan), run.code)
        queued = replace(
            state,
            state=State.QUEUED,
            cause=None,
            exit_code=None,
            attempt=state.attempt + 1,
            started=None,
            ended=None,
            scheduler=None,  # until it is handed over the lock keeps it
            job=None,
        )
        write_state(run, queued)
    except BaseException as error:
        os.close(lock)
        if isinstance(error, OSError):
            raise _not_resumed(run, error) from error
        raise
    return lock


def resume_run(run: RunPaths, project: Path) -> None:
    """Go on with a run that was interrupted, cancelled or failed.

    Raises
    ------
    UsageError
        If it is still running or has succeeded.
    """
    if read_state(run).state is State.SUCCEEDED:
        raise UsageError(f"{run.id} has succeeded; there is nothing to resume", hint=f"ai4sdk rerun {run.id}")
    plan = read_plan_file(run.root)
    lock = requeue_run(run, plan)
    try:
        backend = get_backend(plan.job["backend"]["kind"])
        backend.submit(backend.render(plan, run, _project_of(run, project)), run, lock)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.close(lock)
        if isinstance(error, OSError):
            raise _not_resumed(run, error) from error
        raise


def cancel_run(run: RunPaths, *, now: bool = False, wait: float = 0.0) -> State:
    """Ask a run to stop.

    Parameters
    ----------
    run
        The run.
    now
        Whether to stop without a checkpoint.
    wait
        Seconds to wait for it to end.

    Returns
    -------
    State
        How it stands then.

    Raises
    ------
    UsageError
        If it has ended already.
    """
    watch = Watch(run)
    state = watch.look().state
    if state.state.ended:
        raise UsageError(f"{run.id} is not running: it {_has(state.state)}", hint=f"ai4sdk status {run.id}")
    plan = read_plan_file(run.root)
    add_event(run, "cancel requested", now=now)
    get_backend(plan.job["backend"]["kind"]).cancel(run, now=now)
    deadline = time.monotonic() + wait
    while not (state := watch.look().state).state.ended and time.monotonic() < deadline:
        time.sleep(0.05)
    return state.state


def fetch_results(run: RunPaths) -> int:
    """Bring what a run left elsewhere to its folder here, and return how many files were not here yet.

    Parameters
    ----------
    run
        The run.

    Raises
    ------
    UsageError
        If it has not ended, or what it left cannot be reached from here.
    Ai4Error
        If it cannot be had.
    """
    state = current_state(run).state
    if not state.state.ended:
        raise UsageError(f"{run.id} is {state.state}", hint=f"ai4sdk logs -f {run.id}")
    bring = getattr(get_backend(read_plan_file(run.root).job["backend"]["kind"]), "bring_results", None)
    return 0 if bring is None else int(bring(run, state))


def _has(state: State) -> str:
    return {State.SUCCEEDED: "has succeeded", State.FAILED: "has failed"}.get(state, f"was {state}")


@contextlib.contextmanager
def _removed_if_this_fails(run: RunPaths, lock: int) -> Iterator[None]:
    """Leave nothing behind of a run that could not be made."""
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.close(lock)
        shutil.rmtree(run.root, ignore_errors=True)
        if isinstance(error, OSError):
            raise EnvironmentFault(
                f"the run's folder cannot be written in {run.root.parent}: {error.strerror or error}",
                hint="free space there, or choose another: runs=FOLDER",
            ) from error
        raise


def _not_resumed(run: RunPaths, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(f"{run.id} cannot be resumed: {error.strerror or error}")


def _files(plan: Plan) -> dict[str, str]:
    """Return the texts a run directory begins with."""
    config = "".join(_dump_section(name, section) for name, section in plan.job.items())
    return {"plan.json": plan.to_json(), "config.yaml": config}


def _dump_section(name: str, section: Any) -> str:
    """Return a section as YAML; the points of a study share most of theirs, and writing YAML is slow."""
    key = name, repr(section)
    if key not in _dumped:
        if len(_dumped) >= _MOST_DUMPED:
            _dumped.clear()
        _dumped[key] = dump_yaml({name: section})
    return _dumped[key]


def _snapshot(plan: Plan) -> CodeSnapshot:
    return CodeSnapshot.from_json({key: value for key, value in plan.code.items() if key != "paths"})


def _project_of(run: RunPaths, fallback: Path) -> Path:
    """Return the folder the run was started in, which its relative addresses start at."""
    try:
        return Path(Submission.from_json(read_json(run.submission)).project)
    except (OSError, ValueError, KeyError, TypeError):
        return fallback
