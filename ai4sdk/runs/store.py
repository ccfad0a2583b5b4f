"""The runs folder: creating runs and finding them again."""

from __future__ import annotations

import os
import random
import re
import string
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai4sdk.errors import EnvironmentFault, NotFound
from ai4sdk.runs.files import read_json, read_json_lines, write_text
from ai4sdk.runs.layout import README, RunPaths
from ai4sdk.runs.state import RunState, State, hold_lock, is_run, is_study, read_state, write_state

__all__ = [
    "FoundRun",
    "create_run",
    "fill_run",
    "find_run",
    "find_study",
    "list_runs",
    "list_studies",
    "new_folder",
    "read_progress",
]


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
    folder = new_folder(runs, name)
    return RunPaths(folder), fill_run(folder, files)


def new_folder(runs: Path, name: str) -> Path:
    """Make a folder with an id of its own in the runs folder; raises `EnvironmentFault` if it cannot be made."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            suffix = "".join(random.SystemRandom().choices(string.ascii_lowercase + string.digits, k=4))
            folder = runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{suffix}"
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                continue
    except OSError as error:
        raise _unwritable(runs, error) from error


def fill_run(folder: Path, files: dict[str, str], readme: str = README) -> int:
    """Make a run directory of a folder, or a study's, its lock held and its state queued.

    Parameters
    ----------
    folder
        The folder, made if it is missing; one that a kill left half made is completed. Its name is the run's id.
    files
        File name → text to write into it (plan.json, config.yaml).
    readme
        What explains the folder; ``{id}`` stands for its name.

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
        write_text(paths.readme, readme.format(id=paths.id), durable=False)
        for file_name, text in files.items():
            write_text(folder / file_name, text, durable=file_name.endswith(".json"))
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
    return _list(runs, is_run)


def list_studies(runs: Path) -> list[FoundRun]:
    """Return the studies of a folder, oldest first; folders that hold no study are passed over."""
    return _list(runs, is_study)


def _list(runs: Path, wanted: Callable[[Path], bool]) -> list[FoundRun]:
    found = []
    try:
        folders = [entry for entry in runs.iterdir() if wanted(entry)]
    except OSError:
        return []
    for folder in folders:
        paths = RunPaths(folder.resolve())
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
        Its id, a unique prefix or the last four letters of it, the name of its job (the newest of that name), its
        folder, ``latest``, or ``STUDY/NUMBER`` for a point of a study.
    runs
        The runs folder.

    Raises
    ------
    NotFound
        If nothing fits, or several runs do.
    """
    study, slash, number = reference.rpartition("/")
    if slash and number.isdecimal() and not is_run(Path(reference)):
        return _find_point(find_study(study, runs).root, int(number))
    try:
        return _find(reference, runs, "run", list_runs, is_run)
    except NotFound as error:
        try:
            study_id = find_study(reference, runs).id
        except NotFound:
            raise error from None
        hint = f"ai4sdk study show {study_id}; its points are runs: {study_id}/0"
        raise NotFound(f"{reference} is a study, not a run", hint=hint) from error


def _find_point(study: Path, number: int) -> RunPaths:
    """Return the run of a point, wherever it ran."""
    folder = study / "points" / f"{number:05d}"
    if is_run(folder):
        return RunPaths(folder)
    for event in read_json_lines(study / "points.jsonl"):
        if event.get("event") == "reused" and event.get("number") == number and is_run(study.parent / event["run"]):
            return RunPaths((study.parent / event["run"]).resolve())
    raise NotFound(f"point {number} of {study.name} has not run", hint=f"ai4sdk study show {study.name}")


def find_study(reference: str, runs: Path) -> RunPaths:
    """Find a study as `find_run` finds a run; raises `NotFound` if none fits, or several do."""
    return _find(reference, runs, "study", list_studies, is_study)


def _find(
    reference: str,
    runs: Path,
    what: str,
    listed: Callable[[Path], list[FoundRun]],
    wanted: Callable[[Path], bool],
) -> RunPaths:
    folder = Path(reference)
    if wanted(folder):
        return RunPaths(folder.resolve())
    several = {"run": "runs", "study": "studies"}[what]
    ids = sorted(entry.name for entry in _folders(runs, wanted))
    if not ids:
        first = (
            "ai4sdk run config=quickstart"
            if what == "run"
            else "ai4sdk run -m config=quickstart optimizer.lr=1e-2,1e-3"
        )
        raise NotFound(f"there are no {several} in {runs}", hint=first)
    if reference in ids:
        return RunPaths((runs / reference).resolve())
    if reference == "latest" or any(name_of(one) == reference for one in ids):
        # Of all folders only those with a state that can be read are listed.
        for found in reversed(listed(runs)):
            if reference in ("latest", found.name):
                return found.paths
    fitting = [one for one in ids if reference and one.startswith(reference)]
    fitting = fitting or [one for one in ids if reference and one.endswith(f"-{reference}")]
    if len(fitting) == 1:
        return RunPaths((runs / fitting[0]).resolve())
    if fitting:
        raise NotFound(f"{len(fitting)} {several} begin with {reference!r}", hint=f"one of: {_some(fitting)}")
    command = "ai4sdk ps" if what == "run" else "ai4sdk study list"
    raise NotFound(
        f"there is no {what} {reference!r} in {runs}", hint=f"{command} lists them; the latest: {_some(ids[-3:])}"
    )


def _folders(runs: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    try:
        return sorted(entry for entry in runs.iterdir() if wanted(entry))
    except OSError:
        return []


def _some(ids: Iterable[str]) -> str:
    listed = list(ids)
    return ", ".join(listed[-5:]) + (", …" if len(listed) > 5 else "")


def read_progress(paths: RunPaths) -> dict[str, Any]:
    """Read where a run's training stands; empty before it has begun."""
    try:
        progress = read_json(paths.progress)
    except (OSError, ValueError):
        return {}
    return progress if isinstance(progress, dict) else {}
