"""Which jobs a run was handed to Slurm as: a numbered file for each, made before the job is, by one process only.

Making a file that must not be there yet is the one thing that shared folders do atomically for all machines. So of two
that submit a run at once one is refused, and a job can tell whether it is the one that was meant.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ai4sdk.backends.scheduled import AlreadySubmitted
from ai4sdk.runs.files import read_json, write_json
from ai4sdk.runs.layout import RunPaths

__all__ = ["Submission", "array_job", "claim", "claim_or_refuse", "latest", "name_array_job", "name_job", "script_of"]


@dataclass(frozen=True)
class Submission:
    """A run that was handed to Slurm.

    Parameters
    ----------
    number
        1 for the first time, and one more for each resume.
    time
        Unix time in seconds.
    job
        Slurm's number of it; ``None`` if whoever submitted it has not heard of it yet, or never will.
    array
        File of the array job that it is an element of, if it is one.
    index
        Which element.
    """

    number: int
    time: float
    job: str | None = None
    array: Path | None = None
    index: int = 0


def script_of(run: RunPaths) -> Path:
    """Return the file of the script that was submitted last."""
    return run.slurm / "job.sh"


def latest(run: RunPaths) -> Submission | None:
    """Return the submission that counts, ``None`` if there is none yet."""
    try:
        with os.scandir(run.slurm) as entries:  # a glob takes twice as long, and there may be a thousand runs
            names = [entry.name.partition(".") for entry in entries]
    except FileNotFoundError:
        return None
    numbers = [int(stem) for stem, _, kind in names if kind == "json" and stem.isdecimal()]
    if not numbers:
        return None
    file = _file(run, max(numbers))
    try:
        values = read_json(file)
        submission = Submission(max(numbers), float(values["time"]), values.get("job"))
        if "array" not in values:
            return submission
        array, index = run.slurm / values["array"], int(values["index"])
        job = array_job(array)
        return replace(submission, job=job and f"{job}_{index}", array=array, index=index)
    except (OSError, ValueError, KeyError, TypeError):
        return Submission(max(numbers), file.stat().st_mtime)  # whoever claimed it did not come to write into it


def claim(run: RunPaths, after: Submission | None, element: tuple[Path, int] | None = None) -> Submission:
    """Claim the right to submit a run once more.

    Parameters
    ----------
    run
        The run.
    after
        Its last submission.
    element
        File of the array job that will have it, and which element it is; the array's number is that of them all.

    Raises
    ------
    FileExistsError
        If somebody else did.
    """
    run.slurm.mkdir(exist_ok=True)
    claimed = Submission(after.number + 1 if after else 1, time.time())
    values: dict[str, Any] = {"time": claimed.time}
    if element is not None:
        values |= {"array": os.path.relpath(element[0], run.slurm), "index": element[1]}
    with open(_file(run, claimed.number), "x", encoding="utf-8") as file:
        json.dump(values, file)
    return claimed


def claim_or_refuse(run: RunPaths, after: Submission | None, element: tuple[Path, int] | None = None) -> Submission:
    """Do what `claim` does; raises AlreadySubmitted if somebody else was faster."""
    try:
        return claim(run, after, element)
    except FileExistsError:
        raise AlreadySubmitted(f"{run.id} is being submitted already", hint=f"ai4sdk status {run.id}") from None


def name_job(run: RunPaths, submission: Submission, job: str) -> None:
    """Write down the number that Slurm gave."""
    write_json(_file(run, submission.number), {"time": submission.time, "job": job})


def array_job(file: Path) -> str | None:
    """Return the number of an array job, ``None`` if it was not written down."""
    try:
        job = read_json(file)["job"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(job)


def name_array_job(file: Path, job: str) -> None:
    """Write down the number that Slurm gave to an array job."""
    write_json(file, {"job": job})


def _file(run: RunPaths, number: int) -> Path:
    return run.slurm / f"{number}.json"
