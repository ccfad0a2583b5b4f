"""Which jobs a run was handed to Slurm as: a numbered file for each, made before the job is, by one process only.

Making a file that must not be there yet is the one thing that shared folders do atomically for all machines. So of two
that submit a run at once one is refused, and a job can tell whether it is the one that was meant.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from ai4sdk.runs.files import read_json, write_json
from ai4sdk.runs.layout import RunPaths

__all__ = ["Submission", "claim", "latest", "name_job", "script_of"]


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
    """

    number: int
    time: float
    job: str | None = None


def script_of(run: RunPaths) -> Path:
    """Return the file of the script that was submitted last."""
    return run.slurm / "job.sh"


def latest(run: RunPaths) -> Submission | None:
    """Return the submission that counts, ``None`` if there is none yet."""
    numbers = [int(path.stem) for path in run.slurm.glob("*.json") if path.stem.isdecimal()]
    if not numbers:
        return None
    file = _file(run, max(numbers))
    try:
        values = read_json(file)
        return Submission(max(numbers), float(values["time"]), values.get("job"))
    except (OSError, ValueError, KeyError, TypeError):
        return Submission(max(numbers), file.stat().st_mtime)  # whoever claimed it did not come to write into it


def claim(run: RunPaths, after: Submission | None) -> Submission:
    """Claim the right to submit a run once more.

    Raises
    ------
    FileExistsError
        If somebody else did.
    """
    run.slurm.mkdir(exist_ok=True)
    claimed = Submission(after.number + 1 if after else 1, time.time())
    with open(_file(run, claimed.number), "x", encoding="utf-8") as file:
        json.dump({"time": claimed.time}, file)
    return claimed


def name_job(run: RunPaths, submission: Submission, job: str) -> None:
    """Write down the number that Slurm gave."""
    write_json(_file(run, submission.number), {"time": submission.time, "job": job})


def _file(run: RunPaths, number: int) -> Path:
    return run.slurm / f"{number}.json"
