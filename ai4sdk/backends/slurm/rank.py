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
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ai4sdk.processes import die_with_parent, signal_leader
from ai4sdk.runs.files import read_json, write_json
from ai4sdk.runs.layout import RunPaths

__all__ = ["STOP_RANKS", "end_of_rank", "main", "task_end", "task_took", "variables", "without_tasks"]

STOP_RANKS = signal.SIGUSR1
"""Signal that srun passes on to all ranks; SIGTERM it takes as the word to kill them."""
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
    # What srun passes on may reach the whole process group; of the worker only SIGTERM is wanted.
    signal.signal(STOP_RANKS, signal.SIG_IGN)
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "ai4sdk.worker", str(run.root), task],
        env={**without_tasks(os.environ), **found},
        preexec_fn=die_with_parent(),
    )
    for number in (STOP_RANKS, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: signal_leader(worker.pid, signal.SIGTERM))
    status = worker.wait()
    took = resource.getrusage(resource.RUSAGE_CHILDREN)
    end: dict[str, Any] = {
        "rank": rank,
        "status": status,
        "time": time.time(),
        "max_rss": took.ru_maxrss * 1024,
        "cpu_time": took.ru_utime + took.ru_stime,
    }
    if status and status not in _STOPPED:
        with contextlib.suppress(OSError, ValueError, TypeError):
            end["failure"] = {**read_json(run.failure), "rank": rank}
    file = end_of_rank(run, task, rank, os.environ)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, end)
    if status in _STOPPED:
        return 0
    return status if status >= 0 else 128 - status


def end_of_rank(run: RunPaths, task: str, rank: int, slurm: Mapping[str, str]) -> Path:
    """Return the file that takes how a rank ended: one each, as machines that append to one file may lose lines.

    Nobody looks for it before it can be there, so that no cache of a shared folder says it is not.
    """
    start = f"{slurm['SLURM_JOB_ID']}-{slurm.get('SLURM_RESTART_COUNT', 0)}"
    return run.slurm / "ranks" / f"{start}-{task}" / f"{rank}.json"


def task_end(ends: Iterable[Path], status: int) -> tuple[int, dict[str, Any] | None]:
    """Say how a task of several ranks ended.

    Parameters
    ----------
    ends
        What its ranks wrote down, a file each; those that were killed with their node or by srun are missing.
    status
        That of srun.

    Returns
    -------
    status
        That of the first rank that failed; else of the lowest that stopped; else srun's.
    failure
        What that rank wrote of its failure.
    """
    found = _read(ends)
    failed = sorted((e for e in found if e["status"] and e["status"] not in _STOPPED), key=lambda end: end["time"])
    stopped = sorted((end for end in found if end["status"] in _STOPPED), key=lambda end: end["rank"])
    first = (failed or stopped or [{"status": status}])[0]
    return int(first["status"]), first.get("failure")


def task_took(ends: Iterable[Path]) -> dict[str, float]:
    """Return what a task of several ranks took: ``max_rss`` of the largest in bytes, ``cpu_time`` of all in seconds.

    Slurm itself counts it by the step of srun, and tells that to a database alone, which a cluster need not have.
    """
    found = _read(ends)
    if not found:
        return {}
    most = max(end["max_rss"] for end in found)
    return {"max_rss": most, "cpu_time": round(sum(end["cpu_time"] for end in found), 3)}


def _read(ends: Iterable[Path]) -> list[dict[str, Any]]:
    found = []
    for file in ends:
        with contextlib.suppress(OSError, ValueError):
            found.append(read_json(file))
    return found


if __name__ == "__main__":
    sys.exit(main(RunPaths(Path(sys.argv[1])), sys.argv[2]))
