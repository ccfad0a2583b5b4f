"""``python -P -m ai4sdk.backends.slurm.rank RUN_DIR TASK``: what srun starts, once a rank; it starts the worker.

Slurm's numbers are given to the worker by torchrun's names. Rank 0 writes to the log of the task, the others to one of
their own. srun kills all ranks as soon as one ends with another status than 0: right for one that failed, as the others
would wait for it, and wrong for one that has stopped in good order while rank 0 writes the checkpoint. So how a rank
ended is written down, and srun hears of failures only. With a failure goes its reason: those who are killed because of
it would write over that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ai4sdk.processes import die_with_parent, signal_leader
from ai4sdk.runs.files import append_json_line, read_json, read_json_lines
from ai4sdk.runs.layout import RunPaths

__all__ = ["ends_file", "main", "task_end", "variables", "without_tasks"]

_STOPPED = (5, 130, 143, -signal.SIGTERM, -signal.SIGINT)
"""Statuses of a worker that has stopped in good order, or lost another one."""


def variables(slurm: Mapping[str, str]) -> dict[str, str]:
    """Return torchrun's variables for a process that srun started.

    Parameters
    ----------
    slurm
        Its environment.
    """
    tasks, nodes = int(slurm["SLURM_STEP_NUM_TASKS"]), int(slurm["SLURM_STEP_NUM_NODES"])
    return {
        "RANK": slurm["SLURM_PROCID"],
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": slurm["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(tasks // nodes),
        "GROUP_RANK": slurm["SLURM_NODEID"],
    }


def without_tasks(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what Slurm says of tasks: libraries that find it would launch and requeue, too."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("SLURM_NTASKS", "SLURM_TASKS", "SLURM_STEP_NUM", "SLURM_NPROCS"))
        and name not in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_GTIDS")
    }


def main(run: RunPaths, task: str) -> int:
    """Execute the worker of a rank, and return the status that srun should see."""
    found = variables(os.environ)
    rank = int(found["RANK"])
    if rank:
        log = os.open(run.logs / f"{task}.rank{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "ai4sdk.worker", str(run.root), task],
        env={**without_tasks(os.environ), **found},
        preexec_fn=die_with_parent(),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: signal_leader(worker.pid, signal.SIGTERM))
    status = worker.wait()
    end: dict[str, Any] = {"rank": rank, "status": status}
    if status in _STOPPED:
        append_json_line(ends_file(run, os.environ), end)
        return 0
    if status:
        with contextlib.suppress(OSError, ValueError, TypeError):
            end["failure"] = {**read_json(run.failure), "rank": rank}
    append_json_line(ends_file(run, os.environ), end)
    return status if status >= 0 else 128 - status


def ends_file(run: RunPaths, slurm: Mapping[str, str]) -> Path:
    """Return the file that takes how the ranks of one start of a job ended."""
    return run.slurm / f"ranks-{slurm['SLURM_JOB_ID']}-{slurm.get('SLURM_RESTART_COUNT', 0)}.jsonl"


def task_end(ends: Path, status: int) -> tuple[int, dict[str, Any] | None]:
    """Say how a task of several ranks ended.

    Parameters
    ----------
    ends
        What its ranks wrote down; those that were killed with their node or by srun are missing.
    status
        That of srun.

    Returns
    -------
    status
        That of the first rank that failed; else of the lowest that stopped; else srun's.
    failure
        What that rank wrote of its failure.
    """
    found = list(read_json_lines(ends))
    failed = [end for end in found if end["status"] and end["status"] not in _STOPPED]
    stopped = sorted((end for end in found if end["status"] in _STOPPED), key=lambda end: end["rank"])
    first = (failed or stopped or [{"status": status}])[0]
    return int(first["status"]), first.get("failure")


if __name__ == "__main__":
    sys.exit(main(RunPaths(Path(sys.argv[1])), sys.argv[2]))
