"""Starting, resuming and stopping studies."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai4sdk.backends.base import Standing
from ai4sdk.backends.registry import get_backend
from ai4sdk.backends.standing import current_state
from ai4sdk.config.project import Project
from ai4sdk.errors import EnvironmentFault, UsageError
from ai4sdk.runs.files import read_json, write_text
from ai4sdk.runs.layout import RunPaths
from ai4sdk.runs.state import State, add_event, hold_lock, is_run, read_state, write_state
from ai4sdk.runs.store import fill_run, new_folder
from ai4sdk.studies.attendance import hosts, is_unattended
from ai4sdk.studies.layout import README, StudyPaths

if TYPE_CHECKING:
    from ai4sdk.planning.plan import Plan
    from ai4sdk.studies.plan import StudyPlan
    from ai4sdk.studies.ready import ReadyEngine

__all__ = ["Looks", "cancel_study", "resume_study", "start_study"]

_FIRST_LOOK, _LONGEST = 2.0, 15.0
"""Seconds between two looks at a study whose points a scheduler has: at first, and after a while."""
_FREE_LOCK = 5.0
"""Longest time, in seconds, from writing that a study has ended to freeing its lock."""


def start_study(study: StudyPlan, project: Path, engine: ReadyEngine | None = None) -> StudyPaths:
    """Make a study's folder and start its engine.

    Parameters
    ----------
    study
        What to run.
    project
        Folder that relative addresses of data and the runs folder start at.
    engine
        One that is ready, if there is one.

    Returns
    -------
    StudyPaths
        The study, queued or running by now.

    Raises
    ------
    EnvironmentFault
        If the folder cannot be written or the engine not started; nothing is left behind then.
    Ai4Error
        If the backend cannot run it.
    """
    runs = Path(project, study.job["runs"])
    check = getattr(get_backend(study.job["backend"]["kind"]), "check_study", None)
    if check is not None:
        check(study.first, runs)
    folder = new_folder(runs, study.name)
    paths = StudyPaths(folder)
    try:
        lock = fill_run(folder, {"study.json": study.to_json()}, README)
        _set_going(paths, _Facts.of(paths), lock, lambda: study.first, engine=engine)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return paths


def resume_study(paths: StudyPaths, *, failed_too: bool = False) -> None:
    """Go on with a study that was interrupted or cancelled, or failed in part.

    Parameters
    ----------
    paths
        Files of the study.
    failed_too
        Whether to try points again that failed by their own code.

    Raises
    ------
    UsageError
        If it still runs, or there is nothing left to run.
    EnvironmentFault
        If its engine cannot be started.
    """
    state = read_state(paths)
    if state.state is State.SUCCEEDED and state.cause is None:
        raise UsageError(f"{paths.id} has succeeded; there is nothing to resume", hint=f"ai4sdk study show {paths.id}")
    facts = _Facts.of(paths)
    standing = current_state(paths) if facts.hosted else Standing(state)  # the new engine sees to all points
    state = standing.state
    lock = hold_lock(paths, patience=_FREE_LOCK if state.state.ended else 0.0)
    if lock is not None and facts.hosted and not state.state.ended:
        os.close(lock)
        lock = None
    if lock is None:
        more = f" ({standing.note})" if standing.note else ""
        raise UsageError(f"{paths.id} is {state.state}{more}", hint=f"ai4sdk study show {paths.id}")
    try:
        paths.cancel_request.unlink(missing_ok=True)
        queued = replace(state, state=State.QUEUED, cause=None, exit_code=None, attempt=state.attempt + 1, ended=None)
        write_state(paths, replace(queued, scheduler=None, job=None))
    except OSError as error:
        os.close(lock)
        raise EnvironmentFault(f"{paths.id} cannot be resumed: {error.strerror or error}") from error
    _set_going(paths, facts, lock, lambda: _first_plan(paths, facts), *(["--failed"] if failed_too else []))


class Looks:
    """Keeps a study up to date that a scheduler has, or whose points it has: short looks, less and less often.

    Parameters
    ----------
    paths
        Files of the study.
    """

    def __init__(self, paths: StudyPaths) -> None:
        self._paths = paths
        self.note = ""
        """What the scheduler has to say of the study's engine."""
        self._process: subprocess.Popen[bytes] | None = None
        self._next, self._pause = 0.0, _FIRST_LOOK

    def look(self, *, wait: bool = False) -> None:
        """Start a look if it is time for one and somebody must; with ``wait`` return when it is done.

        Raises
        ------
        EnvironmentFault
            If no process can be started.
        """
        if self._process is not None and self._process.poll() is None:
            return
        state = read_state(self._paths)
        if state.scheduler is None or state.state.ended or time.monotonic() < self._next:
            return
        facts = _Facts.of(self._paths)
        if facts.hosted:
            self.note = _stand_of_engine(self._paths, facts).note
        elif (lock := hold_lock(self._paths)) is not None:  # else somebody else looks, or submits
            self._process = _start_engine(self._paths, facts.project, lock, "--look")
            if wait:
                self._process.wait()
        self._next, self._pause = time.monotonic() + self._pause, min(1.5 * self._pause, _LONGEST)


def cancel_study(paths: StudyPaths, *, now: bool = False) -> None:
    """Ask a study to stop: its running points write a checkpoint, or with ``now`` do not.

    Raises
    ------
    UsageError
        If it has ended already.
    """
    state = read_state(paths)
    if state.state.ended:
        raise UsageError(f"{paths.id} is not running: it is {state.state}", hint=f"ai4sdk study show {paths.id}")
    add_event(paths, "cancel requested", now=now)
    write_text(paths.cancel_request, "now" if now else "stop", durable=False)
    if state.scheduler is None or not (facts := _Facts.of(paths)).hosted:
        return
    get_backend(facts.backend).cancel(paths)  # of the queue; one that runs sees the request
    write_text(paths.cancel_request, "now" if now else "stop", durable=False)
    _stand_of_engine(paths, facts)


def _stand_of_engine(paths: StudyPaths, facts: _Facts) -> Standing:
    """Ask how the job of a study's engine stands; if it was cancelled in the queue, somebody must stop its points."""
    standing = current_state(paths)
    if standing.state.state is State.CANCELLED and _has_points_on_their_own(paths):
        lock = hold_lock(paths)
        if lock is not None:
            write_state(paths, replace(standing.state, state=State.QUEUED, scheduler=None, job=None, ended=None))
            _start_engine(paths, facts.project, lock)
    return standing


def _has_points_on_their_own(paths: StudyPaths) -> bool:
    """Tell whether an engine that is gone had handed points over that have not ended."""
    runs = [RunPaths(folder) for folder in paths.points.glob("*") if is_run(folder)]
    return any(not read_state(run).state.ended for run in runs)


@dataclass(frozen=True)
class _Facts:
    """What starting a study goes by.

    Parameters
    ----------
    project
        Folder that relative addresses start at.
    backend
        Name of its backend.
    unattended
        Whether no process of ours is needed while its points run.
    hosted
        Whether its engine is a job of the scheduler, too.
    """

    project: Path
    backend: str
    unattended: bool
    hosted: bool

    @classmethod
    def of(cls, paths: StudyPaths) -> _Facts:
        """Read them; raises `UsageError` if there is no such study, or its project is gone."""
        try:
            study = read_json(paths.study)
            project, backend = Path(study["created"]["project"]), str(study["job"]["backend"]["kind"])
            how = study["search"], study["sweep"]["pruner"], backend
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{paths.study} cannot be read as a study: {error}", hint="it is left as it is") from error
        if not project.is_dir():
            raise UsageError(
                f"{paths.id} belongs to the project {project}, which is gone", hint=f"bring back {project}"
            )
        return cls(project, backend, is_unattended(*how), hosts(*how))


def _set_going(
    paths: StudyPaths,
    facts: _Facts,
    lock: int,
    plan: Callable[[], Plan],
    *options: str,
    engine: ReadyEngine | None = None,
) -> None:
    """Start a study's engine; one that only hands its points over has done so then."""
    if facts.hosted:
        backend: Any = get_backend(facts.backend)
        backend.host(plan(), paths, facts.project, lock, options)
        return
    process = _start_engine(paths, facts.project, lock, *options, engine=engine)
    if facts.unattended:
        process.wait()


def _first_plan(paths: StudyPaths, facts: _Facts) -> Plan:
    from ai4sdk.studies.plan import read_study_file

    return read_study_file(paths.study, Project(facts.project)).first


def _start_engine(
    paths: StudyPaths, project: Path, lock: int, *options: str, engine: ReadyEngine | None = None
) -> subprocess.Popen[bytes]:
    """Start the engine in a session of its own, if none is ready, and hand it the study's lock."""
    try:
        with open(paths.log("engine"), "ab") as log:
            if engine is not None and engine.hand_over(paths, project, lock, log.fileno(), options):
                return engine.process
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "ai4sdk.studies", str(paths.root), str(lock), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=project,
                start_new_session=True,
                pass_fds=[lock],
            )
    except OSError as error:
        raise EnvironmentFault(f"the study cannot be started: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            os.close(lock)
