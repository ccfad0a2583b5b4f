"""The runs folder: creating runs and finding them again."""

from __future__ import annotations

import os
import random
import re
import string
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai4sdk.errors import EnvironmentFault, NotFound
from ai4sdk.runs.files import read_json, write_text
from ai4sdk.runs.layout import README, RunPaths
from ai4sdk.runs.state import RunState, State, hold_lock, is_run, read_state, write_state

__all__ = ["FoundRun", "create_run", "fill_run", "find_run", "list_runs", "read_progress"]


@dataclass(frozen=True)
class FoundRun:
    """A run in the runs folder and how it stands."""

    paths: RunPaths
    state: RunState

    @property
    def id(self) -> str:
        """The run's id."""
        return self.paths.id

    @property
    def name(self) -> str:
        """The name of its job."""
        return name_of(self.id)


def name_of(run_id: str) -> str:
    """Return the job's name inside a run id."""
    match = re.fullmatch(r"\d{8}-\d{6}-(.+)-[a-z0-9]{4}", run_id)
    return match[1] if match else run_id


def create_run(runs: Path, name: str, files: dict[str, str]) -> tuple[RunPaths, int]:
    """Make a run directory with an id of its own, its lock held.

    Parameters
    ----------
    runs
        The runs folder; made if it is missing.
    name
        Name of the job.
    files
        File name → text to write into it (plan.json, config.yaml).

    Returns
    -------
    paths
        The new run's files.
    lock
        Descriptor that holds the run's lock; hand it to whoever executes the run.

    Raises
    ------
    EnvironmentFault
        If the folder cannot be written.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            suffix = "".join(random.SystemRandom().choices(string.ascii_lowercase + string.digits, k=4))
            folder = runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{suffix}"
            try:
                folder.mkdir()
                break
            except FileExistsError:
                continue
    except OSError as error:
        raise _unwritable(runs, error) from error
    return RunPaths(folder), fill_run(folder, files)


def fill_run(folder: Path, files: dict[str, str]) -> int:
    """Make a run directory of a folder, its lock held and its state queued.

    Parameters
    ----------
    folder
        The folder, made if it is missing; one that a kill left half made is completed. Its name is the run's id.
    files
        File name → text to write into it (plan.json, config.yaml).

    Returns
    -------
    int
        Descriptor that holds the run's lock; hand it to whoever executes the run.

    Raises
    ------
    EnvironmentFault
        If the folder cannot be written, or is a run already; the lock is free then.
    """
    paths = RunPaths(folder)
    lock: int | None = None
    try:
        if is_run(folder):
            raise FileExistsError(f"{folder.name} is a run already")
        paths.logs.mkdir(parents=True, exist_ok=True)
        lock = hold_lock(paths)
        assert lock is not None, "a folder that is no run yet has no other user"
        write_text(paths.readme, README.format(id=paths.id), durable=False)
        for file_name, text in files.items():
            write_text(folder / file_name, text)
        write_state(paths, RunState(State.QUEUED, created=time.time()))
    except OSError as error:
        if lock is not None:
            os.close(lock)
        raise _unwritable(folder.parent, error) from error
    return lock


def _unwritable(runs: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"the run's folder cannot be written in {runs}: {error.strerror or error}",
        hint="free space there, or choose another: runs=FOLDER",
    )


def list_runs(runs: Path) -> list[FoundRun]:
    """Return the runs of a folder, oldest first; folders that hold no run are passed over."""
    found = []
    try:
        folders = [entry for entry in runs.iterdir() if is_run(entry)]
    except OSError:
        return []
    for folder in folders:
        paths = RunPaths(folder)
        try:
            found.append(FoundRun(paths, read_state(paths)))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # being deleted, or no run after all
    return sorted(found, key=lambda run: (run.state.created, run.id))


def find_run(reference: str, runs: Path) -> RunPaths:
    """Find a run.

    Parameters
    ----------
    reference
        ``latest``, an id, the unique beginning of one, the name of a job (its latest run), or a run's folder.
    runs
        The runs folder.

    Raises
    ------
    NotFound
        If nothing fits, or several runs do.
    """
    folder = Path(reference)
    if is_run(folder):
        return RunPaths(folder.resolve())
    ids = _ids(runs)
    if not ids:
        raise NotFound(f"there are no runs in {runs}", hint="ai4sdk run config=quickstart")
    if reference in ids:
        return RunPaths((runs / reference).resolve())
    if reference == "latest":
        return list_runs(runs)[-1].paths
    named = [run_id for run_id in ids if name_of(run_id) == reference]
    if named:
        return next(run.paths for run in reversed(list_runs(runs)) if run.name == reference)
    fitting = [run_id for run_id in ids if reference and run_id.startswith(reference)]
    fitting = fitting or [run_id for run_id in ids if reference and run_id.endswith(f"-{reference}")]
    if len(fitting) == 1:
        return RunPaths((runs / fitting[0]).resolve())
    if fitting:
        raise NotFound(f"{len(fitting)} runs begin with {reference!r}", hint=f"one of: {_some(fitting)}")
    raise NotFound(
        f"there is no run {reference!r} in {runs}", hint=f"ai4sdk ps lists them; the latest: {_some(ids[-3:])}"
    )


def _some(ids: Iterable[str]) -> str:
    listed = list(ids)
    return ", ".join(listed[-5:]) + (", …" if len(listed) > 5 else "")


def _ids(runs: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in runs.iterdir() if is_run(entry))
    except OSError:
        return []


def read_progress(paths: RunPaths) -> dict[str, Any]:
    """Read where a run's training stands; empty before it has begun."""
    try:
        progress = read_json(paths.progress)
    except (OSError, ValueError):
        return {}
    return progress if isinstance(progress, dict) else {}
