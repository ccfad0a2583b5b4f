"""``python -P -m ai4sdk.backends.slurm.rank RUN_DIR TASK``: what srun starts, once a rank; it becomes the worker.

Slurm's numbers are given to it by torchrun's names. Rank 0 writes to the log of the task, the others to one each.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from ai4sdk.runs.layout import RunPaths

__all__ = ["main", "variables", "without_tasks"]


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


def main(run: RunPaths, task: str) -> None:
    """Become the worker of a rank."""
    found = variables(os.environ)
    if found["RANK"] != "0":
        log = os.open(run.logs / f"{task}.rank{found['RANK']}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
    argv = [sys.executable, "-P", "-m", "ai4sdk.worker", str(run.root), task]
    os.execve(argv[0], argv, {**without_tasks(os.environ), **found})


if __name__ == "__main__":
    main(RunPaths(Path(sys.argv[1])), sys.argv[2])
