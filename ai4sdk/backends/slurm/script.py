"""Plan → the script that sbatch takes. Pure: it can be read, kept, and compared with one that is right."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ai4sdk.planning.plan import Plan, TaskPlan
from ai4sdk.runs.layout import RunPaths

__all__ = ["STOP", "WARN", "array_script", "batch_script", "engine_script", "job_log"]

WARN = "USR1"
"""Signal that Slurm sends when a job's time ends soon, or when it is pre-empted."""
STOP = "USR2"
"""Signal that `ai4sdk cancel` sends."""

_EARLY = 60
"""Seconds that Slurm's warning may come early."""
_ENGINE_MEMORY = "2048M"
"""For a study's engine: without a word some clusters give a job all of a node. Gaussian processes need torch."""
_MOST_WARNING = 65535
"""What sbatch takes, in seconds."""


def batch_script(plan: Plan, run: RunPaths, project: Path) -> str:
    """Return the script of a run.

    Parameters
    ----------
    plan
        What runs.
    run
        Files of the run, in a folder that the nodes see, too.
    project
        Folder the job starts in.
    """
    about = [
        f"# {plan.name}, plan {plan.digest}",
        f"# One job for the run in {run.root}: it starts the tasks there, and writes down how they end.",
    ]
    directives = _directives(plan, run.id, job_log(run), project)
    return _script(plan, about, directives, [], f'backends.slurm {shlex.quote(str(run.root))} "$1"')


def array_script(
    plan: Plan,
    listing: Path,
    log: Path,
    project: Path,
    *,
    name: str,
    count: int,
    parallel: int | None = None,
    after: str | None = None,
) -> str:
    """Return the script of an array job: points of a study that need the same of a node, each an element of it.

    Parameters
    ----------
    plan
        Plan of one of them.
    listing
        File with a line an element: the number of its submission, and its run directory.
    log
        File that takes what Slurm says of the elements; what they print goes to their own.
    project
        Folder the job starts in.
    name
        Name of the job.
    count
        How many elements there are.
    parallel
        How many may run at once; without it as many as Slurm lets.
    after
        Number of a job that must be over before.
    """
    about = [
        f"# {plan.name}: {count} point{'s' if count > 1 else ''} of a study, each an element of this array.",
        "# Each works in a run directory of its own, as a job of its own would.",
    ]
    directives = {
        **_directives(plan, name, log, project),
        "array": f"0-{count - 1}" + (f"%{parallel}" if parallel else ""),
        **({"dependency": f"afterany:{after}"} if after else {}),
    }
    find = [
        "",
        f"elements={shlex.quote(str(listing))}",
        'read -r number run < <(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$elements")',
        f'exec >>"$run/{job_log(RunPaths(Path())).as_posix()}" 2>&1',
    ]
    return _script(plan, about, directives, find, 'backends.slurm "$run" "$number"')


def engine_script(plan: Plan, study: RunPaths, project: Path, options: Sequence[str] = ()) -> str:
    """Return the script of a small job that decides which point of a study comes next, and starts it as another job.

    Parameters
    ----------
    plan
        Plan of a point.
    study
        Files of the study.
    project
        Folder the job starts in.
    options
        Words for the engine.
    """
    about = [
        f"# {plan.name}: the engine of the study in {study.root}.",
        "# It starts the points as jobs of their own; when its time is over it goes on in the queue, and so do they.",
    ]
    own = {"nodes": 1, "ntasks-per-node": 1, "cpus-per-task": 1, "mem": _ENGINE_MEMORY}
    kept = ("job-name", "chdir", "output", "open-mode", "partition", "account", "qos", "constraint")
    directives = _directives(plan, study.id, study.log("engine"), project)
    directives = {
        **{name: directives[name] for name in kept if name in directives},
        **own,
        "signal": f"B:{WARN}@{_EARLY}",
        "requeue": True,
    }
    words = " ".join(["studies --job", shlex.quote(str(study.root)), '"$1"', *options])
    return _script(plan, about, directives, [], words)


def _script(plan: Plan, about: list[str], directives: dict[str, Any], find: list[str], work: str) -> str:
    options = plan.job["backend"]
    lines = [
        "#!/bin/bash",
        *about,
        *(_directive(name, value) for name, value in directives.items()),
        "",
        "# Until the work has begun there is nothing to save.",
        f"trap '' {WARN} {STOP}",
        "set -e",
        *find,
    ]
    if options["setup"]:
        lines += ["", "# backend.setup", *options["setup"]]
    python = options["python"] or shlex.quote(sys.executable)
    lines += ["", f"exec {python} -P -m ai4sdk.{work}"]
    return "\n".join(lines) + "\n"


def job_log(run: RunPaths) -> Path:
    """Return the file with what a job printed outside of its tasks."""
    return run.log("slurm")


def _directives(plan: Plan, name: str, log: Path, project: Path) -> dict[str, Any]:
    """Return the options of sbatch by their long names; those that are ``None`` or false are left out."""
    options = plan.job["backend"]
    directives = {
        "job-name": re.sub(r"[^\w.:/-]", "-", name),
        "chdir": str(project),
        "output": _pattern(log),
        "open-mode": "append",
        **{name: options[name] for name in ("partition", "account", "qos", "constraint")},
        **_resources(plan.tasks, options["gres"], plan.job["hardware"]["gpu_model"]),
        "signal": f"B:{WARN}@{warning}" if (warning := _warning(plan, options["warning"])) > 0 else None,
        "requeue" if options["requeues"] else "no-requeue": True,
        **options["directives"],
    }
    return {name: value for name, value in directives.items() if value is not None and value is not False}


def _resources(tasks: list[TaskPlan], gres: str, model: str | None) -> dict[str, Any]:
    """Return what the job asks for: enough for each of its tasks, which run one after the other."""
    gpus = max(task.gpus for task in tasks)
    return {
        "nodes": max(task.nodes for task in tasks),
        "ntasks-per-node": 1,
        "cpus-per-task": max(task.cpus for task in tasks),
        "gres": ":".join([gres, *([model.replace(" ", "_")] if model else []), str(gpus)]) if gpus else None,
        "mem": _mebibytes(max(task.memory or 0 for task in tasks)),
        "tmp": _mebibytes(max(task.disk or 0 for task in tasks)),
        "time": _clock(sum(task.wall_time for task in tasks if task.wall_time)),
    }


def _warning(plan: Plan, wanted: float) -> int:
    """Return how many seconds before its limit a job is warned; none is left of a limit of a few minutes.

    Slurm may be early, and a job that is warned as soon as it begins would never get anywhere. The worker looks at the
    clock, too.
    """
    limit = sum(task.wall_time for task in plan.tasks if task.wall_time)
    return int(min(wanted, limit / 2 - _EARLY if limit else wanted, _MOST_WARNING))


def _mebibytes(size: int) -> str | None:
    return f"{math.ceil(size / 2**20)}M" if size else None


def _clock(seconds: float) -> str | None:
    if not seconds:
        return None
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours // 24}-{hours % 24:02}:{minute:02}:{second:02}"


def _pattern(path: Path) -> str:
    """Return a path for an option that would fill in ``%j`` and the like."""
    return str(path).replace("%", "%%")


def _directive(name: str, value: str | int | bool) -> str:
    return f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={_quoted(str(value))}"


def _quoted(text: str) -> str:
    """Quote a value as sbatch reads its lines, if it must be; a shell would read more into it."""
    if re.fullmatch(r"[\w@%+=:,./&|*()\[\]!-]+", text):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
